"""From samples to ratios, and from ratios to tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from statistics import median
from typing import Any

from bench.measure import KIB, Cell, Footprint, Sample

OURS = "pilotlight"
Samples = Mapping[str, Sequence[Sample]]


@dataclass(frozen=True)
class Comparison:
    """Pilotlight over one redis-server in one cell: medians over rounds of the ratio within a round.

    The two were measured next to each other in each round, so what else the machine did hits both.
    """

    cell: Cell
    against: str
    theirs_ops_per_s: float
    ours_ops_per_s: float
    ours_mb_per_s: float
    throughput: float
    p50: float
    p99: float
    cpu: float

    @staticmethod
    def of(cell: Cell, against: str, samples: Samples) -> Comparison:
        ours, theirs = samples[OURS], samples[against]

        def ratio(figure: Callable[[Sample], float]) -> float:
            pairs = [(figure(a), figure(b)) for a, b in zip(ours, theirs, strict=True)]
            # Too little CPU time to be counted in one of the kernel's hundredths of a second is no ratio.
            return median([a / b for a, b in pairs if b > 0] or [nan])

        return Comparison(
            cell=cell,
            against=against,
            theirs_ops_per_s=median(s.ops_per_s for s in theirs),
            ours_ops_per_s=median(s.ops_per_s for s in ours),
            ours_mb_per_s=median(s.mb_per_s for s in ours),
            throughput=ratio(lambda s: s.ops_per_s),
            p50=ratio(lambda s: s.p50_us),
            p99=ratio(lambda s: s.p99_us),
            cpu=ratio(lambda s: s.cpu_us_per_op),
        )

    def missed_budgets(self) -> list[str] | None:
        """Which budgets this cell does not meet; None where none is set."""
        load = self.cell.load
        size = load.size
        if self.against == "redis" and size <= KIB:
            return _missed({f"throughput below {1.0}": self.throughput >= 1.0})
        if self.against == "redis" and self.cell.operation == "get" and self.cell.clients == 8 and load.corpus is None:
            return _missed({"throughput below 1.5": self.throughput >= 1.5, "CPU": not self.cpu > 1.0, "p99": self.p99 <= 1.0})
        if self.against == "redis-aof" and self.cell.operation == "set":
            wanted = 1.0 if size < 256 * KIB else 1.5
            return _missed({f"throughput below {wanted}": self.throughput >= wanted})
        return None


def _missed(checks: Mapping[str, bool]) -> list[str]:
    return [name for name, holds in checks.items() if not holds]


def comparisons(results: Mapping[Cell, Samples]) -> list[Comparison]:
    return [
        Comparison.of(cell, against, samples) for cell, samples in results.items() for against in samples if against != OURS
    ]


def markdown(
    machine: str,
    effort: str,
    compared: Sequence[Comparison],
    footprints: Mapping[str, Mapping[str, Footprint]],
    benchmarks: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> str:
    parts = ["# Pilotlight beside redis-server", "", machine, "", effort, ""]
    parts += [
        "Throughput: higher is better for Pilotlight. p50, p99 and server CPU per operation: lower is better.",
        "All are ratios, Pilotlight over redis-server, measured next to each other.",
        "",
    ]
    titles = {
        ("get", "redis"): "GET / redis-server without persistence",
        ("set", "redis"): "SET, Pilotlight persisting / redis-server without persistence",
        ("set", "redis-aof"): "SET / redis-server with appendonly everysec",
    }
    for (operation, against), title in titles.items():
        rows = [_row(c) for c in compared if c.cell.operation == operation and c.against == against]
        header = ["load", "clients", "redis ops/s", "ours ops/s", "ours MB/s", "throughput", "p50", "p99", "CPU/op", "budget"]
        parts += [f"## {title}", "", *_table(header, rows), ""]
    parts += ["## Memory and disk after one put of every key", "", *_footprint_table(footprints), ""]
    if benchmarks:
        parts += ["## redis-benchmark, 8 clients, operations/s", ""]
        parts += ["Its one thread, not the server, is the limit at most sizes; shown for those who know it.", ""]
        parts += [*_benchmark_table(benchmarks), ""]
    return "\n".join(parts)


def _row(c: Comparison) -> list[str]:
    missed = c.missed_budgets()
    budget = "" if missed is None else ("met" if not missed else "NOT met: " + ", ".join(missed))
    pipelined = f" P={c.cell.pipeline}" if c.cell.pipeline > 1 else ""
    ratios = ["-" if isnan(value) else f"{value:.2f}" for value in (c.throughput, c.p50, c.p99, c.cpu)]
    rates = [f"{c.theirs_ops_per_s:,.0f}", f"{c.ours_ops_per_s:,.0f}", f"{c.ours_mb_per_s:,.0f}"]
    return [c.cell.load.label + pipelined, str(c.cell.clients), *rates, *ratios, budget]


def _footprint_table(footprints: Mapping[str, Mapping[str, Footprint]]) -> list[str]:
    rows = []
    for label, by_server in footprints.items():
        for name, taken in by_server.items():
            figures = (taken.payload_bytes, taken.memory_bytes, taken.disk_bytes)
            rows.append([label, name, *(f"{value / 2**20:,.1f}" for value in figures)])
    return _table(["load", "server", "artifacts MiB", "resident memory MiB", "disk MiB"], rows)


def _benchmark_table(benchmarks: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    rows = []
    for label, by_server in benchmarks.items():
        for name, rates in by_server.items():
            rows.append([label, name, *(f"{rates.get(command, 0):,.0f}" for command in ("get", "set"))])
    return _table(["load", "server", "GET", "SET"], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(header), line(["-" * width for width in widths]), *map(line, rows)]


def as_json(results: Mapping[Cell, Samples], compared: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Every sample and every ratio, a line per cell."""
    lines = []
    for cell, samples in results.items():
        ratios = {
            c.against: {
                "throughput": c.throughput,
                "p50": c.p50,
                "p99": c.p99,
                "cpu_per_op": c.cpu,
                "missed": c.missed_budgets(),
            }
            for c in compared
            if c.cell == cell
        }
        lines.append(
            {
                "operation": cell.operation,
                "load": cell.load.label,
                "size_bytes": cell.load.size,
                "keys": cell.load.keys,
                "clients": cell.clients,
                "pipeline": cell.pipeline,
                "samples": {name: [vars(s) for s in taken] for name, taken in samples.items()},
                "ratios": ratios,
            }
        )
    return lines
