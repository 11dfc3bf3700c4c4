"""From herds to ratios, and from ratios to a table and to what was promised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from demo.worker import Run

COMPILERS_MAX = 1.15
"""Compiler CPU of a herd with the plug-in, over that of one process."""
LOOKUPS_MAX = 1.05
"""An ordinary lookup where leases are given, over one where they are not."""
PLUGIN, PLUGIN_ALONE = "plug-in", "plug-in, no leases"
STOCK, STOCK_REDIS = "stock, leases", "stock, Redis"
SIDES = (PLUGIN, PLUGIN_ALONE, STOCK, STOCK_REDIS)


@dataclass(frozen=True)
class Herd:
    """Processes that started together, and what the server counted."""

    runs: list[Run]
    graph_puts: int
    """Puts of FX graphs; where the server is a Redis, as PyTorch counted them."""
    followed: int
    waited_s: float
    timed_out: int

    @property
    def cpu_s(self) -> float:
        return sum(run.first_call_cpu_s for run in self.runs)

    @property
    def compilers_cpu_s(self) -> float:
        return sum(run.compilers_cpu_s for run in self.runs)

    @property
    def compiles(self) -> int:
        return sum(run.compiles for run in self.runs)

    @property
    def slowest_s(self) -> float:
        return max(run.first_call_s for run in self.runs)


@dataclass
class Result:
    """One model, and one side's herds of one size, each with the lone process of its round."""

    model: str
    size: int
    side: str
    pairs: list[tuple[Herd, Herd]] = field(default_factory=list)

    def ratio(self, figure: Callable[[Herd], float]) -> float:
        """Median over rounds of herd / lone process."""
        return median(figure(herd) / figure(alone) for herd, alone in self.pairs)

    def middle(self, figure: Callable[[Herd], float]) -> float:
        return median(figure(herd) for herd, _ in self.pairs)

    def summary(self) -> dict[str, float]:
        return {
            "compiles": self.middle(lambda herd: herd.compiles),
            "compilers_cpu_s": self.middle(lambda herd: herd.compilers_cpu_s),
            "ratio_compiles": self.ratio(lambda herd: herd.compiles),
            "ratio_compilers_cpu": self.ratio(lambda herd: herd.compilers_cpu_s),
            "ratio_cpu": self.ratio(lambda herd: herd.cpu_s),
            "ratio_slowest": self.ratio(lambda herd: herd.slowest_s),
            "puts_per_graph": self.ratio(lambda herd: herd.graph_puts),
            "followed": self.middle(lambda herd: herd.followed),
            "waited_s": self.middle(lambda herd: herd.waited_s),
            "timed_out": sum(herd.timed_out for herd, _ in self.pairs),
        }

    def faults(self) -> list[str]:
        runs = [run for pair in self.pairs for herd in pair for run in herd.runs]
        checks = {
            "outputs differ from the uncompiled model's": all(run.equals_eager for run in runs),
            "outputs differ between processes": len({run.digest for run in runs}) == 1,
            "PyTorch counted exceptions": not any(run.exceptions for run in runs),
        }
        return [f"{self.model} x {self.size}, {self.side}: {fault}" for fault, holds in checks.items() if not holds]


def promises(results: Sequence[Result]) -> Iterator[str]:
    """What docs/leases.md promises, and whether it held."""
    for result in results:
        it, name = result.summary(), f"{result.model} x {result.size}, {result.side}"
        if result.side == PLUGIN:
            ratio = it["ratio_compilers_cpu"]
            yield promise(ratio <= COMPILERS_MAX, f"{name}: compiler CPU {ratio:.2f} of one process, at most {COMPILERS_MAX}")
        if result.side in (PLUGIN, STOCK):
            puts = it["puts_per_graph"]
            yield promise(puts == 1, f"{name}: {puts:.2f} puts a graph, one")
            errors = sum(run.exceptions for herd, _ in result.pairs for run in herd.runs)
            yield promise(errors == 0, f"{name}: {errors} errors, none")


def promise(holds: bool, text: str) -> str:
    return f"{'met' if holds else 'NOT met'}: {text}"


def table(results: Sequence[Result]) -> str:
    """In Markdown. All but the waits are over one process that is alone."""
    rows = [
        "| model | processes | | compiler runs | compiler CPU | all CPU | last done | puts a graph | waits | waited |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        it = result.summary()
        ratios = [it["ratio_compiles"], it["ratio_compilers_cpu"], it["ratio_cpu"], it["ratio_slowest"], it["puts_per_graph"]]
        cells = [result.model, str(result.size), result.side, *(f"{ratio:.2f}" for ratio in ratios)]
        rows.append(f"| {' | '.join(cells)} | {it['followed']:.0f} | {it['waited_s']:.1f} s |")
    return "\n".join(rows)
