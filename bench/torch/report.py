"""From runs to ratios, and from ratios to a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from demo.worker import Run

# First call on a fresh machine with a warm remote cache, over torch's own on a machine that has it on disk.
BUDGET = 1.10


@dataclass
class Result:
    """One model."""

    cold: Run
    redis_warm: list[Run] = field(default_factory=list)
    pilotlight_warm: list[Run] = field(default_factory=list)
    local_warm: list[Run] = field(default_factory=list)

    def ratio(self, figure: Callable[[Run], float]) -> float:
        """Median over rounds of Pilotlight / local within a round."""
        return median(figure(a) / figure(b) for a, b in zip(self.pilotlight_warm, self.local_warm, strict=True))

    def summary(self) -> dict[str, float]:
        ours = self.pilotlight_warm
        return {
            "cold_s": self.cold.first_call_s,
            "redis_warm_s": _median(self.redis_warm, lambda run: run.first_call_s),
            "pilotlight_warm_s": _median(ours, lambda run: run.first_call_s),
            "local_warm_s": _median(self.local_warm, lambda run: run.first_call_s),
            "cold_cpu_s": self.cold.first_call_cpu_s,
            "redis_warm_cpu_s": _median(self.redis_warm, lambda run: run.first_call_cpu_s),
            "pilotlight_warm_cpu_s": _median(ours, lambda run: run.first_call_cpu_s),
            "local_warm_cpu_s": _median(self.local_warm, lambda run: run.first_call_cpu_s),
            "ratio_wall": self.ratio(lambda run: run.first_call_s),
            "ratio_cpu": self.ratio(lambda run: run.first_call_cpu_s),
            "over_redis_wall": _median(self.redis_warm, lambda run: run.first_call_s)
            / _median(ours, lambda run: run.first_call_s),
            "compilers_cold": self.cold.compilers,
            "compilers_redis_warm": _median(self.redis_warm, lambda run: run.compilers),
            "compilers_pilotlight_warm": max(run.compilers for run in ours),
            "compilers_local_warm": _median(self.local_warm, lambda run: run.compilers),
            "round_trips": _median(ours, lambda run: run.plugin.get("round_trips", 0)),
            "bytes_read": _median(ours, lambda run: run.plugin.get("bytes_read", 0)),
            "kernels": _median(ours, lambda run: run.kernels_fetched),
        }

    def faults(self) -> list[str]:
        name = self.cold.model
        runs = [self.cold, *self.redis_warm, *self.pilotlight_warm, *self.local_warm]
        checks = {
            f"{name}: outputs differ from the uncompiled model's": all(run.equals_eager for run in runs),
            f"{name}: outputs differ between caches": len({run.digest for run in runs}) == 1,
            f"{name}: Pilotlight's warm process started a compiler": all(run.compilers == 0 for run in self.pilotlight_warm),
        }
        return [fault for fault, holds in checks.items() if not holds]


def table(results: Sequence[Result]) -> str:
    """Seconds as wall / CPU."""
    rows = [
        ["model", "cold s", "Redis warm s", "Pilotlight s", "local s", "ratio", "Redis/ours", "compilers", "trips", "KiB"],
        ["", *["wall / CPU"] * 4, "wall / CPU", "wall", "c/R/P/l", "", ""],
    ]
    for result in results:
        it = result.summary()
        rows.append(
            [
                result.cold.model,
                *(f"{it[f'{name}_s']:.2f} / {it[f'{name}_cpu_s']:.2f}" for name in ("cold", "redis_warm", "pilotlight_warm")),
                f"{it['local_warm_s']:.2f} / {it['local_warm_cpu_s']:.2f}",
                f"{it['ratio_wall']:.2f} / {it['ratio_cpu']:.2f}",
                f"{it['over_redis_wall']:.1f}",
                "/".join(f"{it[f'compilers_{name}']:.0f}" for name in ("cold", "redis_warm", "pilotlight_warm", "local_warm")),
                f"{it['round_trips']:.0f}",
                f"{it['bytes_read'] / 1024:.0f}",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*lines[:2], "-" * len(lines[0]), *lines[2:]])


def _median(runs: Sequence[Run], figure: Callable[[Run], float]) -> float:
    return median(map(figure, runs))
