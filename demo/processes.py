"""Run the worker as a fresh machine would: a new process with new, empty cache and temporary directories."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from demo.tree import STARTED_VARIABLE, write_site
from demo.worker import Run
from devtools import paths

# Everything that could reach a worker from the shell that started it and change what it measures.
_FOREIGN = ("TORCH", "TRITON", "PYTORCH", "PILOTLIGHT", "PYTHON", "ATEN")


class WorkerFailed(RuntimeError):
    """A worker ended with an error; the message holds the end of what it wrote."""


class Machine:
    """The directories in which PyTorch keeps what it compiled. Temporary ones too: its 158 MB header lies there."""

    def __init__(self, home: Path) -> None:
        self._home = home
        for name in ("inductor", "triton", "tmp"):
            (home / name).mkdir(parents=True)
        write_site(home / "site")

    def compile(self, model: str, cache: Mapping[str, str], timeout_s: float = 600.0) -> Run:
        """Compile one model in a process that knows the cache in `cache` and nothing else."""
        with self.compiling(model, cache) as process:
            return process.result(timeout_s)

    @contextlib.contextmanager
    def compiling(self, model: str, cache: Mapping[str, str]) -> Iterator[Process]:
        """As `compile`, without waiting; ended with the block, at the latest."""
        with self._running(["demo.worker", model], cache) as process:
            yield process

    def run(self, module: Sequence[str], cache: Mapping[str, str], timeout_s: float = 600.0) -> str:
        """What a Python module of ours prints in such a process, given its name and arguments."""
        with self._running(module, cache) as process:
            return process.output(timeout_s)

    @contextlib.contextmanager
    def _running(self, module: Sequence[str], cache: Mapping[str, str]) -> Iterator[Process]:
        started = self._home / "started"
        started.write_text("")
        env = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        env |= {
            "PYTHONPATH": str(self._home / "site"),
            "TORCHINDUCTOR_CACHE_DIR": str(self._home / "inductor"),
            "TRITON_CACHE_DIR": str(self._home / "triton"),
            "TMPDIR": str(self._home / "tmp"),
            STARTED_VARIABLE: str(started),
            # Compare like with like: a GPU in this machine would make the first model's start-up pay for it.
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
            **cache,
        }
        command = [sys.executable, "-m", *module]
        # A session of its own, so that the worker's compilers can be ended with it.
        worker = subprocess.Popen(
            command, cwd=paths.ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            yield Process(" ".join(module), worker)
        finally:
            _end_session(worker)


class Process:
    """A worker that runs."""

    def __init__(self, name: str, worker: subprocess.Popen[str]) -> None:
        self._name = name
        self._worker = worker

    def result(self, timeout_s: float = 600.0) -> Run:
        """What `demo.worker` measured."""
        return Run(**json.loads(self.output(timeout_s).splitlines()[-1]))

    def output(self, timeout_s: float) -> str:
        output, errors = self._worker.communicate(timeout=timeout_s)
        if self._worker.returncode != 0:
            raise WorkerFailed(f"{self._name}: ended with status {self._worker.returncode}:\n{errors[-4000:]}")
        return output


def stock(redis_url: str) -> dict[str, str]:
    """Stock PyTorch with a remote cache that speaks Redis' protocol."""
    return {
        "TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE": "1",
        "TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE": "1",
        "TORCHINDUCTOR_REDIS_URL": redis_url,
    }


def plugin(url: str) -> dict[str, str]:
    """The plug-in, which needs one variable."""
    return {"PILOTLIGHT_URL": url}


LOCAL_ONLY: dict[str, str] = {}


@contextlib.contextmanager
def fresh_machine() -> Iterator[Machine]:
    """A machine with empty caches, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="pilotlight-machine-") as home:
        yield Machine(Path(home) / "machine")


def compile_in_fresh_process(model: str, redis_url: str, timeout_s: float = 600.0) -> Run:
    """Compile one model with stock PyTorch on a fresh machine."""
    with fresh_machine() as machine:
        return machine.compile(model, stock(redis_url), timeout_s)


def _end_session(worker: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    for pipe in (worker.stdout, worker.stderr):
        if pipe is not None:
            pipe.close()
