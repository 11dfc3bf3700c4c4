"""Run the worker as a fresh machine would: a new process with new, empty cache and temporary directories."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile

from demo.worker import Run
from devtools import paths

# Everything that could reach a worker from the shell that started it and change what it measures.
_FOREIGN = ("TORCH", "TRITON", "PYTORCH", "PILOTLIGHT")


class WorkerFailed(RuntimeError):
    """A worker ended with an error; the message holds the end of what it wrote."""


def compile_in_fresh_process(model: str, redis_url: str, timeout_s: float = 600.0) -> Run:
    """Compile one model in a process that knows the cache server and nothing else."""
    with tempfile.TemporaryDirectory(prefix="pilotlight-machine-") as machine:
        directories = {name: os.path.join(machine, name) for name in ("inductor", "triton", "tmp")}
        for directory in directories.values():
            os.mkdir(directory)
        env = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        env |= {
            "TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE": "1",
            "TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE": "1",
            "TORCHINDUCTOR_REDIS_URL": redis_url,
            "TORCHINDUCTOR_CACHE_DIR": directories["inductor"],
            "TRITON_CACHE_DIR": directories["triton"],
            "TMPDIR": directories["tmp"],
            # Compare like with like: a GPU in this machine would make the first model's start-up pay for it.
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", "demo.worker", model]
        # A session of its own, so that the worker's compilers can be ended with it.
        worker = subprocess.Popen(
            command, cwd=paths.ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            output, errors = worker.communicate(timeout=timeout_s)
        finally:
            _end_session(worker)
        if worker.returncode != 0:
            raise WorkerFailed(f"{model}: the worker ended with status {worker.returncode}:\n{errors[-4000:]}")
        return Run(**json.loads(output.splitlines()[-1]))


def _end_session(worker: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
