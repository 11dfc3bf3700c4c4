"""Measure the first call of compiled models: cold, stock Redis warm, Pilotlight warm, and warm from the local disk.

    python -m bench.torch.run [--quick] [--models NAME,...] [--rounds N] [--json]

Every figure comes from a process of its own. Pilotlight's machine is fresh each time: empty caches, empty temporary directory.
The local one keeps its directories and knows no remote cache. The two are run in turns, and the ratio is within a round, so
that whatever else the machine does hits both. Redis is a real redis-server, used by stock PyTorch. Progress goes to stderr, the
table to stdout, everything to bench/results/torch.json. Fails if a warm process of Pilotlight's starts a compiler, or computes
other numbers.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from bench.torch.report import BUDGET, Result, table
from demo.models import MODELS
from demo.processes import LOCAL_ONLY, Machine, WorkerFailed, fresh_machine, plugin, stock
from demo.run import Progress
from demo.worker import Run
from devtools import paths
from devtools.servers import Pilotlight, Redis, Server

FULL_MODELS = "resnet18,gpt2,bert,bert-training,resnet18-training"
QUICK_MODELS = "mlp-training"
RESULTS = paths.ROOT / "bench" / "results" / "torch.json"


def measure(model: str, rounds: int, redis: Redis, pilotlight: Pilotlight, progress: Progress) -> Result:
    with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as home:
        kept = Machine(Path(home) / "local")
        progress.say(f"{model}: filling the local disk")
        cold = kept.compile(model, LOCAL_ONLY)
        progress.say(f"{model}: cold {cold.first_call_s:.1f} s; filling Redis and Pilotlight")
        _fresh(model, stock(_redis_url(redis)))
        _fresh(model, plugin(_pilotlight_url(pilotlight)))
        result = Result(cold, [_fresh(model, stock(_redis_url(redis)))])
        progress.say(f"{model}: stock Redis warm {result.redis_warm[0].first_call_s:.1f} s")
        for number in range(rounds):
            # Who goes first changes, as the second finds the processor warmer.
            for side in ("pilotlight", "local") if number % 2 == 0 else ("local", "pilotlight"):
                if side == "local":
                    result.local_warm.append(kept.compile(model, LOCAL_ONLY))
                else:
                    result.pilotlight_warm.append(_fresh(model, plugin(_pilotlight_url(pilotlight))))
            ours, local = result.pilotlight_warm[-1], result.local_warm[-1]
            progress.say(f"{model}: Pilotlight warm {ours.first_call_s:.2f} s, local {local.first_call_s:.2f} s")
    return result


def _fresh(model: str, cache: dict[str, str]) -> Run:
    with fresh_machine() as machine:
        return machine.compile(model, cache)


def _redis_url(server: Server) -> str:
    return f"redis://{server.host}:{server.port}"


def _pilotlight_url(server: Server) -> str:
    return f"pilotlight://{server.host}:{server.port}"


def run(models: Sequence[str], rounds: int, progress: Progress) -> Iterator[Result]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pilotlight-bench-")))
        redis = stack.enter_context(Redis(home / "redis", append_only=False))
        pilotlight = stack.enter_context(Pilotlight(home / "pilotlight"))
        for model in models:
            yield measure(model, rounds, redis, pilotlight, progress)


def save(results: Sequence[Result]) -> str:
    faults = [fault for result in results for fault in result.faults()]
    document = {"models": [asdict(result) | {"summary": result.summary()} for result in results], "faults": faults}
    text = json.dumps(document, indent=2)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(text)
    return text


def _end_as_ctrl_c_does(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make bench-torch", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"one small model ({QUICK_MODELS}), a few minutes")
    parser.add_argument("--models", help=f"of {', '.join(MODELS)} (default: {FULL_MODELS})")
    parser.add_argument("--rounds", type=int, default=3, help="turns per model (default: 3)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args()
    models = (arguments.models or (QUICK_MODELS if arguments.quick else FULL_MODELS)).split(",")
    if unknown := [name for name in models if name not in MODELS]:
        parser.error(f"no model called {', '.join(unknown)}; there are {', '.join(MODELS)}")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")

    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, _end_as_ctrl_c_does)
    results: list[Result] = []
    text = ""
    try:
        for result in run(models, arguments.rounds, Progress()):
            results.append(result)
            text = save(results)
    except KeyboardInterrupt:
        print(f"{table(results)}\ninterrupted; servers stopped and temporary files removed", file=sys.stderr)
        return 130
    except WorkerFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    faults = [fault for result in results for fault in result.faults()]
    print(text if arguments.json else f"{table(results)}\n\nratio: Pilotlight warm / local warm, budget {BUDGET:.2f}")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
