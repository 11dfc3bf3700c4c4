"""Processes that have real torch loaded already: each is forked when it is wanted, and compiles on a fresh machine.

    python -m tests.plugin.crew

A line on stdin is a task and starts a process, whose number is answered; what the process did goes into the task's file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from devtools import paths


@dataclass(frozen=True)
class Task:
    number: int
    """Of the function: another one, another graph and another kernel."""
    home: str
    """A directory of its own: all that its machine has."""

    @property
    def report(self) -> Path:
        return Path(self.home) / "report.json"


class Crew:
    """From outside."""

    def __init__(self, url: str, home: Path) -> None:
        settings = {
            "PYTHONPATH": f"{paths.ROOT}{os.pathsep}{paths.ROOT / 'python'}",
            "PILOTLIGHT_URL": url,
            "PILOTLIGHT_QUIET": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            # It takes longer to build than all that is compiled here, and leaders are to be killed at that.
            "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.plugin.crew"],
            env={**os.environ, **settings},
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def start(self, task: Task) -> int:
        """Its process, which is its group's first as well."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asdict(task)), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def crew(url: str, home: Path) -> Iterator[Crew]:
    running = Crew(url, home)
    try:
        yield running
    finally:
        running.stop()


def main() -> None:
    import pilotlight.torch  # noqa: F401
    import torch

    torch.set_num_threads(1)
    # Or what was another number in the last task becomes a variable, and one graph does for all numbers.
    torch._dynamo.config.automatic_dynamic_shapes = False
    # What a first compile loads, all of them have from here on.
    with tempfile.TemporaryDirectory(prefix="crew-") as home:
        _work(torch, Task(-1, home))
    print("ready", flush=True)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            os.setsid()
            _work(torch, Task(**json.loads(line)))
            os._exit(0)
        print(process, flush=True)
        # Who has ended meanwhile is no zombie.
        while _reaped():
            pass


def _reaped() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _work(torch: Any, task: Task) -> None:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{task.home}/cache"
    os.environ["TMPDIR"] = task.home

    def function(x: Any) -> Any:
        return (x * (task.number + 0.5)).sin().softmax(0) + x.cumsum(0)

    torch.manual_seed(0)
    batch = torch.randn(8, 16)
    report: dict[str, Any]
    try:
        equal = torch.allclose(torch.compile(function)(batch), function(batch), rtol=1e-4, atol=1e-5)
        from pilotlight import _summary

        report = {"equal": equal, "counts": _summary.report.as_dict()}
    except Exception as error:
        report = {"equal": False, "error": repr(error)}
    partial = task.report.with_suffix(".partial")
    partial.write_text(json.dumps(report, default=str))
    partial.rename(task.report)


if __name__ == "__main__":
    main()
