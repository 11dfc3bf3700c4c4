"""Measure Pilotlight and redis-server side by side.

    python -m bench.run [--quick] [--sizes 1024,32768,...] [--memory SIZE]

Both run on this machine at the same time and are measured in turns, one short window after the other; the results are ratios.
Redis runs without persistence and, for writes, also with an append-only file. Progress goes to stderr, the tables to stdout,
everything to bench/results/latest.json and latest.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

from bench import report
from bench.measure import KIB, MIB, Cell, Effort, Footprint, Load, Sample, fill, footprint, redis_benchmark, sample
from devtools import paths
from devtools.servers import Pilotlight, Redis, Server

SIZES = (KIB, 32 * KIB, 256 * KIB, MIB, 4 * MIB)
CLIENTS = (1, 8, 32)
KEYSPACE_BYTES = 128 * MIB
FULL = Effort(rounds=3, warmup_ms=200, duration_ms=1000, set_bytes_max=192 * MIB)
QUICK = Effort(rounds=3, warmup_ms=50, duration_ms=250, set_bytes_max=64 * MIB)


@dataclass
class Results:
    """What has been measured so far."""

    cells: dict[Cell, dict[str, list[Sample]]] = field(default_factory=dict)
    footprints: dict[str, dict[str, Footprint]] = field(default_factory=dict)
    benchmarks: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)


class Progress:
    """One line per step, with the seconds since the start and how far it is."""

    def __init__(self, steps: int) -> None:
        self._begin = time.monotonic()
        self._steps = steps
        self._done = 0

    def step(self, text: str) -> None:
        self._done += 1
        print(f"[{time.monotonic() - self._begin:5.0f} s, {self._done}/{self._steps}] {text}", file=sys.stderr, flush=True)


def cells_of(load: Load, pipelined_size: int = KIB) -> Iterator[Cell]:
    """All reads come before the writes: a read expects what the filling put."""
    for operation in ("get", "set"):
        for clients in CLIENTS:
            yield Cell(operation, load, clients)
        if load.size <= pipelined_size:
            yield Cell(operation, load, clients=8, pipeline=16)


def measure_load(load: Load, effort: Effort, memory: str, results: Results, progress: Progress) -> None:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pilotlight-bench-")))
        redis: Server = stack.enter_context(Redis(home / "redis", append_only=False))
        redis_aof: Server = stack.enter_context(Redis(home / "redis-aof", append_only=True))
        ours: Server = stack.enter_context(Pilotlight(home / "pilotlight", max_size="4GiB", memory=memory))
        servers = [redis, redis_aof, ours]
        progress.step(f"{load.label}: filling {load.keys} keys")
        for server in servers:
            fill(server, load)
        results.footprints[load.label] = {server.name: footprint(server, load) for server in servers}
        for cell in cells_of(load):
            progress.step(str(cell))
            # A read does not touch the append-only file: one redis is enough.
            measured = servers if cell.operation == "set" else [redis, ours]
            samples: dict[str, list[Sample]] = {server.name: [] for server in measured}
            for round_number in range(effort.rounds):
                # Turn the order round, so that nobody always comes after somebody.
                order = measured if round_number % 2 == 0 else measured[::-1]
                # A seed never used before: no put may be of bytes that the server has seen.
                seed = len(results.cells) * effort.rounds + round_number + 1
                for server in order:
                    samples[server.name].append(sample(server, cell, effort, seed))
            results.cells[cell] = samples
        progress.step(f"{load.label}: redis-benchmark")
        by_server = {server.name: redis_benchmark(server, load, clients=8) for server in servers}
        results.benchmarks[load.label] = {name: rates for name, rates in by_server.items() if rates is not None}


def unpack_corpus(corpus: Path, into: Path) -> None:
    """Decompress the real entries, as files the load generator can read. They hold pickles, which nothing here opens."""
    import zstandard

    for line in (corpus / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        data = zstandard.ZstdDecompressor().decompressobj().decompress((corpus / entry["file"]).read_bytes())
        (into / Path(entry["file"]).stem).write_bytes(data)


def machine() -> str:
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores of {cpu}, Linux {platform.release()}; load average {os.getloadavg()[0]:.1f} at the start"


def run(sizes: Sequence[int], effort: Effort, memory: str) -> int:
    where = machine()
    with tempfile.TemporaryDirectory(prefix="pilotlight-corpus-") as unpacked:
        loads = [Load.random(size, KEYSPACE_BYTES) for size in sizes]
        corpus = paths.corpus()
        if corpus is None:
            print("warning: no corpus of real entries (PILOTLIGHT_CORPUS); measuring random bytes only", file=sys.stderr)
        else:
            unpack_corpus(corpus, Path(unpacked))
            loads.append(Load.entries(Path(unpacked), KEYSPACE_BYTES))
        results = Results()
        progress = Progress(sum(2 + len(list(cells_of(load))) for load in loads))
        for load in loads:
            measure_load(load, effort, memory, results, progress)

    compared = report.comparisons(results.cells)
    described = (
        f"{effort.rounds} rounds of {effort.duration_ms} ms windows, about {effort.set_bytes_max // MIB} MiB written in each; "
        f"Pilotlight with --memory {memory} --durability relaxed"
    )
    text = report.markdown(where, described, compared, results.footprints, results.benchmarks)
    out = paths.ROOT / "bench" / "results"
    out.mkdir(exist_ok=True)
    (out / "latest.md").write_text(text)
    (out / "latest.json").write_text(
        json.dumps(
            {
                "machine": where,
                "effort": asdict(effort),
                "cells": report.as_json(results.cells, compared),
                "footprints": {
                    label: {name: asdict(f) for name, f in by_name.items()} for label, by_name in results.footprints.items()
                },
                "redis_benchmark": results.benchmarks,
            },
            indent=1,
        )
    )
    print(text)
    unfair = [cell for cell, samples in results.cells.items() if any(s.misses or s.refused for s in samples[report.OURS])]
    for cell in unfair:
        print(f"warning: {cell}: misses or refused puts, so this is not a fair line", file=sys.stderr)
    return 0


def _end_as_ctrl_c_does(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter windows: two minutes in all, noisier")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="bytes, separated by commas (default: %(default)s)")
    parser.add_argument("--memory", default="512MiB", help="Pilotlight's memory tier (default: %(default)s)")
    arguments = parser.parse_args()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, _end_as_ctrl_c_does)
    try:
        sizes = [int(size) for size in arguments.sizes.split(",") if size]
        return run(sizes, QUICK if arguments.quick else FULL, arguments.memory)
    except KeyboardInterrupt:
        print("interrupted; servers stopped and temporary files removed", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
