"""Compile real models with stock torch.compile twice, on a machine that is fresh each time, with one Pilotlight server.

    python -m demo.run [--json] [--models NAME,...]

Progress goes to stderr; the table, or the JSON, to stdout.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from demo.models import MODELS
from demo.processes import WorkerFailed, compile_in_fresh_process
from demo.worker import Run
from devtools.servers import Pilotlight, disk_bytes

DEFAULT_MODELS = "resnet18,gpt2,bert-training"
HONEST = (
    "On a CPU, a hit in stock PyTorch's remote cache still runs g++ again for every kernel, so the warm start gains little;\n"
    "on GPUs the kernels are in the entry, and for CPUs Pilotlight's plug-in for PyTorch, which is to come, keeps the binaries."
)


@dataclass(frozen=True)
class Kept:
    """What the server keeps for one model."""

    json_bytes: int
    """What clients put, as they put it."""
    stored_bytes: int
    """How much more disk the data directory takes since."""


@dataclass(frozen=True)
class Result:
    """One model, cold and warm."""

    cold: Run
    warm: Run
    kept: Kept

    def faults(self) -> list[str]:
        name = self.cold.model
        checks = {
            f"{name}: cold outputs differ from the uncompiled model's": self.cold.equals_eager,
            f"{name}: warm outputs differ from the uncompiled model's": self.warm.equals_eager,
            f"{name}: cold and warm outputs are not equal": self.cold.digest == self.warm.digest,
            f"{name}: the warm process missed": self.warm.hits == self.warm.lookups > 0,
            f"{name}: PyTorch counted exceptions": self.cold.exceptions + self.warm.exceptions == 0,
        }
        return [fault for fault, holds in checks.items() if not holds]


class Progress:
    """One line per step, with the seconds since the start."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._begin:5.0f} s] {text}", file=sys.stderr, flush=True)


def run(models: Sequence[str], progress: Progress) -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="pilotlight-demo-") as home, Pilotlight(Path(home) / "data") as server:
        progress.say(f"server on {server.redis_url}, {server.http_url}")
        cold: dict[str, Run] = {}
        kept: dict[str, Kept] = {}
        for model in models:
            before = _kept(server)
            progress.say(f"{model}: compiling cold, in a fresh process with empty caches")
            cold[model] = compile_in_fresh_process(model, server.redis_url)
            after = _kept(server)
            kept[model] = Kept(after.json_bytes - before.json_bytes, after.stored_bytes - before.stored_bytes)
            progress.say(f"{model}: first call took {cold[model].first_call_s:.1f} s")
        server.stop()
        progress.say(f"server restarted in {server.start():.2f} s: what was put is on disk")
        results = []
        for model in models:
            progress.say(f"{model}: compiling warm, in another fresh process with empty caches")
            warm = compile_in_fresh_process(model, server.redis_url)
            progress.say(f"{model}: first call took {warm.first_call_s:.1f} s, {warm.hits} of {warm.lookups} lookups hit")
            results.append(Result(cold[model], warm, kept[model]))
    return results


def _kept(server: Pilotlight) -> Kept:
    with server.connect() as connection:
        json_bytes, cursor = 0, b"0"
        while True:
            cursor, keys = connection.command("SCAN", cursor, "COUNT", "1000")
            json_bytes += sum(connection.command("STRLEN", key) for key in keys)
            if cursor == b"0":
                return Kept(json_bytes, disk_bytes(server.data_dir))


def table(results: Sequence[Result]) -> str:
    rows = [["model", "cold s", "warm s", "hits/lookups", "as JSON", "on disk", "ratio"]]
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
    as_json = sum(result.kept.json_bytes for result in results)
    on_disk = sum(result.kept.stored_bytes for result in results)
    return [
        name,
        f"{sum(result.cold.first_call_s for result in results):.1f}",
        f"{sum(result.warm.first_call_s for result in results):.1f}",
        f"{sum(result.warm.hits for result in results)}/{sum(result.warm.lookups for result in results)}",
        f"{as_json / 1024:,.0f} KiB",
        f"{on_disk / 1024:,.0f} KiB",
        f"{as_json / on_disk:.1f}" if on_disk > 0 else "-",
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
        print("interrupted; server stopped and temporary files removed", file=sys.stderr)
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
