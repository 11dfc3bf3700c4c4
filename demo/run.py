"""Compile real models cold, then warm with stock torch.compile and Redis, then warm with Pilotlight's plug-in.

    python -m demo.run [--json] [--models NAME,...]

Every process is fresh, and so is its machine: empty caches, empty temporary directory. Progress goes to stderr; the table, or
the JSON, to stdout.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from demo.models import MODELS
from demo.processes import WorkerFailed, fresh_machine, plugin, stock
from demo.worker import Run
from devtools import paths
from devtools.servers import Pilotlight, Redis, disk_bytes

DEFAULT_MODELS = "resnet18,gpt2,bert-training"
HONEST = (
    "On a CPU, a hit in stock PyTorch's remote cache still runs g++ for every kernel, so the warm start gains little. The\n"
    "plug-in keeps the compiled kernels too. On GPUs the kernels are in the stock entry, and the difference is smaller."
)


@dataclass(frozen=True)
class Kept:
    """What the server keeps for one model."""

    put_bytes: int
    """What clients put, as they put it: graphs as PyTorch's JSON, kernels as they are."""
    stored_bytes: int
    """How much more disk the data directory takes since."""


@dataclass(frozen=True)
class Result:
    """One model."""

    cold: Run
    redis_warm: Run
    pilotlight_warm: Run
    kept: Kept

    def faults(self) -> list[str]:
        name, runs = self.cold.model, (self.cold, self.redis_warm, self.pilotlight_warm)
        checks = {
            f"{name}: outputs differ from the uncompiled model's": all(run.equals_eager for run in runs),
            f"{name}: outputs differ, cold and warm": len({run.digest for run in runs}) == 1,
            f"{name}: stock PyTorch missed in Redis": self.redis_warm.hits == self.redis_warm.lookups > 0,
            f"{name}: the plug-in missed": self.pilotlight_warm.hits == self.pilotlight_warm.lookups > 0,
            f"{name}: the plug-in's warm process started a compiler": self.pilotlight_warm.compilers == 0,
            f"{name}: PyTorch counted exceptions": not any(run.exceptions for run in runs),
        }
        return [fault for fault, holds in checks.items() if not holds]


class Progress:
    """One line per step, with the seconds since the start."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._begin:5.0f} s] {text}", file=sys.stderr, flush=True)


def run(models: Sequence[str], progress: Progress) -> list[Result]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pilotlight-demo-")))
        server: Pilotlight = stack.enter_context(Pilotlight(home / "data"))
        progress.say(f"Pilotlight serves {server.redis_url} and {server.http_url}")
        redis_url = _redis_url(stack, home, server, progress)
        in_redis = stock(redis_url)
        cold: dict[str, Run] = {}
        kept: dict[str, Kept] = {}
        for model in models:
            progress.say(f"{model}: compiling cold with stock PyTorch, which fills Redis")
            cold[model] = _compile(model, in_redis)
            progress.say(
                f"{model}: first call took {cold[model].first_call_s:.1f} s; compiling with the plug-in, which fills Pilotlight"
            )
            before = _kept(server)
            _compile(model, plugin(_url(server)))
            after = _kept(server)
            kept[model] = Kept(after.put_bytes - before.put_bytes, after.stored_bytes - before.stored_bytes)
        server.stop()
        progress.say(f"Pilotlight restarted in {server.start():.2f} s: what was put is on disk")
        results = []
        for model in models:
            progress.say(f"{model}: compiling warm")
            theirs, ours = _compile(model, in_redis), _compile(model, plugin(_url(server)))
            progress.say(
                f"{model}: first call took {theirs.first_call_s:.1f} s with Redis, {ours.first_call_s:.1f} s with Pilotlight"
            )
            results.append(Result(cold[model], theirs, ours, kept[model]))
    return results


def _redis_url(stack: ExitStack, home: Path, server: Pilotlight, progress: Progress) -> str:
    """A Redis for stock PyTorch; without one, a database of Pilotlight's that the plug-in does not look into."""
    if paths.tool("redis-server") is None:
        progress.say("there is no redis-server here: stock PyTorch uses Pilotlight in its place")
        return f"{server.redis_url}/1"
    redis: Redis = stack.enter_context(Redis(home / "redis", append_only=False))
    progress.say(f"redis-server serves redis://{redis.host}:{redis.port}")
    return f"redis://{redis.host}:{redis.port}"


def _compile(model: str, cache: dict[str, str]) -> Run:
    with fresh_machine() as machine:
        return machine.compile(model, cache)


def _url(server: Pilotlight) -> str:
    return f"pilotlight://{server.host}:{server.port}"


def _kept(server: Pilotlight) -> Kept:
    with server.connect() as connection:
        put_bytes, cursor = 0, b"0"
        while True:
            cursor, keys = connection.command("SCAN", cursor, "COUNT", "1000")
            put_bytes += sum(connection.command("STRLEN", key) for key in keys)
            if cursor == b"0":
                return Kept(put_bytes, disk_bytes(server.data_dir))


def table(results: Sequence[Result]) -> str:
    rows = [["model", "cold s", "Redis warm s", "Pilotlight warm s", "faster", "compiler runs", "as put", "on disk", "ratio"]]
    for result in results:
        rows.append(_row(result.cold.model, [result]))
    rows.append(_row("all", results))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(_aligned(cell, width, column) for column, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _row(name: str, results: Sequence[Result]) -> list[str]:
    as_put = sum(result.kept.put_bytes for result in results)
    on_disk = sum(result.kept.stored_bytes for result in results)
    columns = [[result.cold, result.redis_warm, result.pilotlight_warm] for result in results]
    cold, theirs, ours = (sum(runs[column].first_call_s for runs in columns) for column in range(3))
    return [
        name,
        f"{cold:.1f}",
        f"{theirs:.1f}",
        f"{ours:.1f}",
        f"{theirs / ours:.1f}x",
        "/".join(str(sum(runs[column].compilers for runs in columns)) for column in range(3)),
        f"{as_put / 1024:,.0f} KiB",
        f"{on_disk / 1024:,.0f} KiB",
        f"{as_put / on_disk:.1f}" if on_disk > 0 else "-",
    ]


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)


def _end_as_ctrl_c_does(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--models", default=DEFAULT_MODELS, help=f"of {', '.join(MODELS)} (default: {DEFAULT_MODELS})")
    arguments = parser.parse_args()
    models = arguments.models.split(",")
    if unknown := [name for name in models if name not in MODELS]:
        parser.error(f"no model called {', '.join(unknown)}; there are {', '.join(MODELS)}")

    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, _end_as_ctrl_c_does)
    try:
        results = run(models, Progress())
    except KeyboardInterrupt:
        print("interrupted; servers stopped and temporary files removed", file=sys.stderr)
        return 130
    except WorkerFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    faults = [fault for result in results for fault in result.faults()]
    if arguments.json:
        print(json.dumps({"models": [asdict(result) for result in results], "faults": faults}, indent=2))
    else:
        print(table(results), "", "All outputs are equal, cold and warm." if not faults else "", HONEST, sep="\n")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
