"""One measurement: the load generator against one server, and what the server used meanwhile."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from devtools import paths
from devtools.servers import Server, disk_bytes

KIB = 1 << 10
MIB = 1 << 20


@dataclass(frozen=True)
class Load:
    """What is put and got: random bytes of one size, or real entries."""

    label: str
    size: int
    """Bytes of an artifact; of entries, the mean."""
    keys: int
    corpus: Path | None = None

    @staticmethod
    def random(size: int, keyspace_bytes: int) -> Load:
        label = f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"
        return Load(label, size, keys=min(max(keyspace_bytes // size, 32), 16384))

    @staticmethod
    def entries(directory: Path, keyspace_bytes: int) -> Load:
        sizes = [file.stat().st_size for file in directory.iterdir()]
        size = sum(sizes) // len(sizes)
        return Load("entries", size, keys=max(keyspace_bytes // size, len(sizes)), corpus=directory)


@dataclass(frozen=True)
class Cell:
    """One line of the result: an operation under one load by so many clients."""

    operation: str
    load: Load
    clients: int
    pipeline: int = 1

    def __str__(self) -> str:
        pipelined = f", pipelined by {self.pipeline}" if self.pipeline > 1 else ""
        return f"{self.operation.upper()} {self.load.label}, {self.clients} client{'s' if self.clients > 1 else ''}{pipelined}"


@dataclass(frozen=True)
class Sample:
    """What the load generator printed."""

    ops_per_s: float
    mb_per_s: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    cpu_us_per_op: float
    operations: int
    misses: int
    refused: int


@dataclass(frozen=True)
class Effort:
    """How long each window is, how many there are, and how much a writing one may move."""

    rounds: int
    warmup_ms: int
    duration_ms: int
    set_bytes_max: int


def fill(server: Server, load: Load) -> None:
    """Put every key once."""
    _loadgen(server, load, "--op", "fill", "--clients", "4")


def sample(server: Server, cell: Cell, effort: Effort, seed: int) -> Sample:
    words = ["--op", cell.operation, "--clients", str(cell.clients), "--pipeline", str(cell.pipeline), "--seed", str(seed)]
    words += ["--warmup-ms", str(effort.warmup_ms), "--duration-ms", str(effort.duration_ms)]
    words += ["--server-pid", str(server.pid)]
    if cell.operation == "set":
        # Two puts of each client at least, or the first ones' start is most of what is measured.
        words += ["--bytes-max", str(max(effort.set_bytes_max, 2 * cell.clients * cell.load.size))]
    result = _loadgen(server, cell.load, *words)
    if cell.operation == "set":
        # Write back now, or the next server's window pays for this one's pages.
        os.sync()
    return Sample(
        ops_per_s=result["ops_per_s"],
        mb_per_s=result["mb_per_s"],
        p50_us=result["p50_us"],
        p90_us=result["p90_us"],
        p99_us=result["p99_us"],
        p999_us=result["p999_us"],
        cpu_us_per_op=result["server_cpu_us_per_op"],
        operations=round(result["operations"]),
        misses=round(result["misses"]),
        refused=round(result["refused"]),
    )


def redis_benchmark(server: Server, load: Load, clients: int) -> dict[str, float] | None:
    """Operations per second as redis-benchmark sees them, by command; its one thread is often what it measures."""
    binary = paths.tool("redis-benchmark")
    if binary is None:
        return None
    count = min(max(64 * MIB // load.size, 64), 50_000)
    command = [binary, "-h", server.host, "-p", str(server.port), "-t", "set,get", "--csv"]
    command += ["-d", str(load.size), "-c", str(clients), "-n", str(count), "-r", str(min(load.keys, 1000))]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {row["test"].lower(): float(row["rps"]) for row in csv.DictReader(text.splitlines())}


@dataclass(frozen=True)
class Footprint:
    """What a server takes after it was filled with `payload_bytes` of artifacts."""

    payload_bytes: int
    memory_bytes: int
    disk_bytes: int


def footprint(server: Server, load: Load) -> Footprint:
    return Footprint(load.keys * load.size, server.memory_bytes(), disk_bytes(server.data_dir))


def _loadgen(server: Server, load: Load, *words: str) -> dict[str, float]:
    command = [str(paths.loadgen()), "--addr", f"{server.host}:{server.port}", "--keys", str(load.keys), *words]
    command += ["--corpus", str(load.corpus)] if load.corpus else ["--size", str(load.size)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{server.name}: the load generator failed: {done.stderr.strip()}\nserver's log:\n{server.log()}")
    result: dict[str, float] = json.loads(done.stdout)
    return result
