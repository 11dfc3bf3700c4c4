"""Measure processes that compile the same model at the same time, each on a fresh machine, with and without leases.

    python -m bench.herd.run [--quick] [--models NAME,...] [--sizes N,...] [--rounds N] [--json]

Four sides take turns, each with an empty server: the plug-in, the plug-in without leases, stock PyTorch that a Pilotlight makes
wait for up to two minutes, stock PyTorch with a redis-server. Figures are ratios to a process that is alone, of the same round:
with the plug-in for the plug-in's, with Redis for stock's. Before that, what a lookup costs more where leases are given.
Progress goes to stderr, the table to stdout, everything to bench/results/herd.json.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from bench.herd import lookups
from bench.herd.report import (
    LOOKUPS_MAX,
    PLUGIN,
    PLUGIN_ALONE,
    SIDES,
    STOCK_REDIS,
    Herd,
    Result,
    promise,
    promises,
    table,
)
from demo.models import MODELS
from demo.processes import WorkerFailed, fresh_machine, plugin, stock
from demo.run import Progress
from devtools import paths
from devtools.servers import Pilotlight, Redis, Server

FULL_MODELS, QUICK_MODELS = "gpt2,bert", "gpt2"
FULL_SIZES, QUICK_SIZES = "2,4,8", "2"
LEASE_WAIT_S = 120
LOOKUP_ROUNDS = 20
RUN_TIMEOUT_S = 1800.0
RESULTS = paths.ROOT / "bench" / "results" / "herd.json"


def herd(side: str, model: str, size: int) -> Herd:
    """So many processes at once, and a server that knows nothing."""
    with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as home, ExitStack() as stack:
        if side == STOCK_REDIS:
            server: Server = stack.enter_context(Redis(Path(home) / "redis", append_only=False))
        else:
            # A follower of stock's waits as long as its leader compiles, which here is what it would compile itself.
            wait = {"PILOTLIGHT_LEASE_WAIT": f"{LEASE_WAIT_S}s"}
            server = stack.enter_context(Pilotlight(Path(home) / "pilotlight", env=wait))
        machines = [stack.enter_context(fresh_machine()) for _ in range(size)]
        processes = [stack.enter_context(machine.compiling(model, _cache(side, server))) for machine in machines]
        runs = [process.result(RUN_TIMEOUT_S) for process in processes]
        if not isinstance(server, Pilotlight):
            return Herd(runs, sum(run.fx_puts for run in runs), followed=0, waited_s=0.0, timed_out=0)
        stats = server.stats()
        leases = stats["leases"]
        return Herd(runs, stats["kinds"]["fx-graph"]["puts"], leases["followed"], leases["waited_seconds"], leases["timed_out"])


def _cache(side: str, server: Server) -> dict[str, str]:
    address = f"{server.host}:{server.port}"
    if side in (PLUGIN, PLUGIN_ALONE):
        return plugin(f"pilotlight://{address}") | ({"PILOTLIGHT_LEASES": "0"} if side == PLUGIN_ALONE else {})
    # redis-py 8 waits 5 s for an answer unless told.
    return stock(f"redis://{address}?socket_timeout={LEASE_WAIT_S + 30}")


def measure(model: str, sizes: Sequence[int], rounds: int, progress: Progress) -> list[Result]:
    results = {(size, side): Result(model, size, side) for size in sizes for side in SIDES}
    for number in range(rounds):
        lone = {side: herd(side, model, 1) for side in (PLUGIN, STOCK_REDIS)}
        for side, it in lone.items():
            progress.say(f"{model}: alone, {side}: {it.slowest_s:.1f} s, compilers {it.compilers_cpu_s:.1f} s of CPU")
        for size in sizes:
            # Who goes first changes.
            for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                together = herd(side, model, size)
                alone = lone[PLUGIN if side in (PLUGIN, PLUGIN_ALONE) else STOCK_REDIS]
                results[size, side].pairs.append((together, alone))
                progress.say(
                    f"{model} x {size}, {side}: {together.slowest_s:.1f} s, compilers {together.compilers_cpu_s:.1f} s of CPU, "
                    f"{together.graph_puts} puts"
                )
    return list(results.values())


def save(looked: lookups.Lookups, results: Sequence[Result]) -> str:
    herds = [asdict(result) | {"summary": result.summary()} for result in results]
    text = json.dumps({"lookups": asdict(looked), "herds": herds}, indent=2)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(text)
    return text


def run(models: Sequence[str], sizes: Sequence[int], rounds: int, *, as_json: bool) -> int:
    progress = Progress()
    looked = lookups.measure(LOOKUP_ROUNDS)
    kept = [
        promise(
            ratio <= LOOKUPS_MAX, f"a {name} where leases are given takes {ratio:.3f} of one where not, at most {LOOKUPS_MAX}"
        )
        for name, ratio in (("hit", looked.hit), ("miss", looked.miss))
    ]
    for line in kept:
        progress.say(line)
    results: list[Result] = []
    text = ""
    for model in models:
        results += measure(model, sizes, rounds, progress)
        text = save(looked, results)
    kept += promises(results)
    print(text if as_json else "\n".join([table(results), "", *kept]))
    faults = [fault for result in results for fault in result.faults()]
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults or any(line.startswith("NOT") for line in kept) else 0


def _end_as_ctrl_c_does(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-herd", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SIZES} processes of {QUICK_MODELS}, some minutes")
    parser.add_argument("--models", help=f"of {', '.join(MODELS)} (default: {FULL_MODELS})")
    parser.add_argument("--sizes", help=f"how many processes at once (default: {FULL_SIZES})")
    parser.add_argument("--rounds", type=int, default=1, help="turns per model (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args()
    models = (arguments.models or (QUICK_MODELS if arguments.quick else FULL_MODELS)).split(",")
    if unknown := [name for name in models if name not in MODELS]:
        parser.error(f"no model called {', '.join(unknown)}; there are {', '.join(MODELS)}")
    try:
        sizes = [int(size) for size in (arguments.sizes or (QUICK_SIZES if arguments.quick else FULL_SIZES)).split(",")]
    except ValueError:
        parser.error(f"--sizes is {arguments.sizes!r}, expected numbers separated by commas")
    if arguments.rounds < 1 or min(sizes) < 1:
        parser.error("--rounds and --sizes must be at least 1")

    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, _end_as_ctrl_c_does)
    try:
        return run(models, sizes, arguments.rounds, as_json=arguments.json)
    except KeyboardInterrupt:
        print("interrupted; servers stopped and temporary files removed", file=sys.stderr)
        return 130
    except WorkerFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
