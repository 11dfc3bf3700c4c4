"""Put and get one artifact of 1 MiB: the plug-in's client beside what stock PyTorch does.

`python -m bench.client`; `make bench-client` builds what it needs. Stock is what `RemoteFxGraphCache` does: base64 in JSON
(`_save_graph` in torch/_inductor/codecache.py, torch 2.15) over redis-py to a redis-server, by TCP, its default. All sides
take turns within a round, with bytes that were never put before, under keys that come round again.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devtools import paths
from devtools.servers import Pilotlight, Redis

sys.path.insert(0, str(paths.ROOT / "python"))

BUDGET = 1 / 5
ARTIFACT_LEN = 1 << 20
KEYS = 24
"""Keys that come round again: after so many puts, each overwrites one."""
COMPILE_MS = 1234
OPERATIONS = ("put + get", "put", "get, not hot", "get, hot")


@dataclass(frozen=True)
class Timing:
    """Seconds of one round on one side."""

    put: float
    first_get: float
    hot_get: float

    def of(self, operation: str) -> float:
        return {
            "put + get": self.put + self.first_get,
            "put": self.put,
            "get, not hot": self.first_get,
            "get, hot": self.hot_get,
        }[operation]


Put = Callable[[bytes, bytes], bool]
Get = Callable[[bytes], bytes | None]


@dataclass(frozen=True)
class Side:
    """One way to reach a server."""

    name: str
    put: Put
    get: Get

    def round(self, key: bytes, artifact: bytes) -> Timing:
        begin = time.perf_counter()
        is_put = self.put(key, artifact)
        put_done = time.perf_counter()
        first = self.get(key)
        first_done = time.perf_counter()
        self.get(key)  # what was asked for twice is hot
        hot_begin = time.perf_counter()
        hot = self.get(key)
        hot_done = time.perf_counter()
        if not is_put or first != artifact or hot != artifact:
            raise RuntimeError(f"{self.name}: what was got is not what was put")
        return Timing(put_done - begin, first_done - put_done, hot_done - hot_begin)


def stock(port: int) -> Side:
    """redis-py, as `RedisRemoteCacheBackend` and `RemoteCacheJsonSerde` use it."""
    import redis

    connection = redis.Redis(port=port)

    def put(key: bytes, artifact: bytes) -> bool:
        value = {"data": base64.b64encode(artifact).decode("ascii"), "time_taken_ms": COMPILE_MS}
        return bool(connection.set(key, json.dumps(value).encode("ascii")))

    def get(key: bytes) -> bytes | None:
        value: Any = connection.get(key)
        return None if value is None else base64.b64decode(json.loads(value)["data"])

    return Side("stock", put, get)


def ours(name: str, url: str, **settings: str) -> Side:
    """The plug-in's client, as `pilotlight.torch` uses it."""
    from pilotlight import Client

    client = Client(url, **settings)  # type: ignore[arg-type]

    def put(key: bytes, artifact: bytes) -> bool:
        return client.put(key, artifact, torch_json=True, compile_ms=COMPILE_MS)

    def get(key: bytes) -> bytes | None:
        entry = client.get_many([key])[0]
        return None if entry is None else entry.artifact

    return Side(name, put, get)


def corpus_bytes(directory: Path) -> bytes:
    """What torch put, out of its JSON. Pickles are inside, which nothing here opens."""
    import zstandard

    artifacts = []
    for line in map(json.loads, (directory / "manifest.jsonl").read_text().splitlines()):
        packed = (directory / line["file"]).read_bytes()
        entry = json.loads(zstandard.ZstdDecompressor().decompressobj().decompress(packed))
        artifacts.append(base64.b64decode(entry["data"]))
    return b"".join(artifacts)


def synthetic_bytes() -> bytes:
    """Code-like text that shrinks about as real entries do, to a tenth."""
    chance = random.Random(7)
    lines = []
    for number in range(40_000):
        line = f"    tmp{number % 97} = tl.load(in_ptr{number % 7} + ({chance.randrange(1 << 16)} + x0), xmask)"
        lines += [line, f"    # Topologically Sorted Source Nodes: [mul_{number % 31}, add_{number % 13}]"] * 2
    return "\n".join(lines).encode()


def artifacts_of(source: bytes) -> Iterator[bytes]:
    """Pieces of `source` of 1 MiB, from another place each time, and never the same twice."""
    ring = source * (ARTIFACT_LEN // len(source) + 2)
    for number in range(1 << 62):
        start = number * 65_537 % len(source)
        yield number.to_bytes(8, "little") + os.urandom(8) + ring[start : start + ARTIFACT_LEN - 16]


def random_artifacts() -> Iterator[bytes]:
    while True:
        yield os.urandom(ARTIFACT_LEN)


def measure(reference: Side, sides: Sequence[Side], artifacts: Iterator[bytes], rounds: int) -> dict[str, list[Timing]]:
    """The timings by side, after a turn of all keys that does not count."""
    everyone = [reference, *sides]
    timings: dict[str, list[Timing]] = {side.name: [] for side in everyone}
    for number in range(-KEYS, rounds):
        # No side always runs behind the same other.
        shift = number % len(everyone)
        for side in everyone[shift:] + everyone[:shift]:
            key = f"pt2:fx-graph-v1::bench{number % KEYS}-{side.name.replace(' ', '-')}:c1".encode()
            timing = side.round(key, next(artifacts))
            if number >= 0:
                timings[side.name].append(timing)
    return timings


def summary(reference: Sequence[Timing], timings: Sequence[Timing]) -> dict[str, dict[str, float]]:
    """By operation the median in milliseconds, and the median of the ratios within a round."""
    result = {}
    for operation in OPERATIONS:
        seconds = [timing.of(operation) for timing in timings]
        ratios = [own / other.of(operation) for own, other in zip(seconds, reference, strict=True)]
        result[operation] = {"median_ms": statistics.median(seconds) * 1e3, "ratio": statistics.median(ratios)}
    return result


def run(rounds: int) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """By bytes, side and operation."""
    directory = paths.corpus()
    if directory is None:
        print("NO CORPUS of real entries (set PILOTLIGHT_CORPUS): synthetic bytes take its place", file=sys.stderr)
    source, label = (synthetic_bytes(), "synthetic") if directory is None else (corpus_bytes(directory), "corpus")
    packed_len = len(zlib.compress(source, 1))
    print(f"{label} bytes shrink {len(source) / packed_len:.1f} times under zlib -1", file=sys.stderr)
    results = {}
    for name, artifacts in ((label, artifacts_of(source)), ("random", random_artifacts())):
        with tempfile.TemporaryDirectory(prefix="pl-") as base:
            socket = Path(base) / "socket"
            listen = ("127.0.0.1:0", f"unix:{socket}")
            with (
                Redis(Path(base) / "redis", append_only=False) as redis,
                Pilotlight(Path(base) / "data", listen=listen) as server,
            ):
                sides = [
                    ours("Pilotlight, TCP", f"pilotlight://127.0.0.1:{server.port}"),
                    ours("Pilotlight, Unix", f"unix://{socket}"),
                    ours("Redis, TCP", f"redis://127.0.0.1:{redis.port}"),
                ]
                timings = measure(stock(redis.port), sides, artifacts, rounds)
        results[name] = {side: summary(timings["stock"], own) for side, own in timings.items()}
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=150, help="rounds for each sort of bytes (default: 150)")
    parser.add_argument("--quick", action="store_true", help="40 rounds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    results = run(40 if arguments.quick else arguments.rounds)
    if arguments.json:
        print(json.dumps({"artifact_bytes": ARTIFACT_LEN, "budget": BUDGET, "results": results}, indent=2))
        return 0
    for name, sides in results.items():
        print(f"\n1 MiB of {name} bytes: median ms, and the ratio to stock (budget of put + get: {BUDGET})")
        print(f"{'':18}" + "".join(f"{operation:>20}" for operation in OPERATIONS))
        for side, cells in sides.items():
            shown = (f"{cell['median_ms']:.2f} ({cell['ratio']:.3f})" for cell in cells.values())
            print(f"{side:18}" + "".join(f"{text:>20}" for text in shown))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
