"""The tables, and where they stand in the document."""

from __future__ import annotations

from collections.abc import Sequence

from bench.sizing.demand import Demand, Server


def shown(value: float) -> str:
    """Counts of things as they are; of the rest two digits: more would say that the assumptions are better than they are."""
    if isinstance(value, int) or value == 0:
        return f"{value:,.0f}"
    rounded = float(f"{value:.1e}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 else f"{rounded:#.2g}"


def row(*cells: float | str) -> str:
    return "| " + " | ".join(cell if isinstance(cell, str) else shown(cell) for cell in cells) + " |"


def table(demands: Sequence[Demand], servers: Sequence[Server]) -> str:
    """Both tables, as they stand in the document."""
    lines = [
        "| GPUs | | starts | compiled | requests | mean /s | peak /s | GB sent | peak Gbit/s | waiting | CPU s at peak |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for each in demands:
        counted = (each.starts, each.compiled, float(each.requests), each.mean_per_s, each.peak_per_s)
        moved = (each.gigabytes, each.peak_gbit, float(each.waiting), each.peak_cpu_s)
        lines.append(row(each.gpus, each.scenario, *counted, *moved))
    lines += [
        "",
        "| GPUs | models | entries | disk GiB | connections | in flight GiB | memory GiB | cores | card Gbit/s | servers "
        "| $/month | saved $/month |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in servers:
        kept = (one.models, float(one.entries), one.disk_gib)
        size = (one.connections, one.in_flight_gib, one.memory_gib, one.cores, one.card_gbit, one.servers)
        lines.append(row(one.gpus, *kept, *size, one.usd_month, one.saved_usd_month))
    return "\n".join(lines)


BEGIN, END = "<!-- `make bench-sizing ARGS=--write` writes from here; a test compares. -->", "<!-- to here. -->"


def written(document: str, text: str) -> str:
    """The document with these tables between its marks."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
