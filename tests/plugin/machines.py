"""Fresh machines for the tests of C++ kernels: processes with directories of their own, whose compiler runs are noted.

A run is noted by an audit hook in every Python process of the machine, compile workers included, so nothing on PATH or in the
environment changes that could be part of a key.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devtools import paths

TIMEOUT_S = 240.0
# The least that has several kernels, a forward and a backward.
PROGRAM = """
import json, os, signal, sys
if os.environ.get("PILOTLIGHT_URL"):
    import pilotlight.torch
import torch

def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.LayerNorm(32), torch.nn.Linear(32, 1))

def step(run, model, batch):
    model.zero_grad()
    out = run(batch)
    if "train" not in sys.argv:
        return [out.detach()]
    loss = out.square().mean()
    loss.backward()
    return [loss.detach()] + [p.grad for p in model.parameters()]

task = model()
batch = torch.randn(8, 16)
with torch.set_grad_enabled("train" in sys.argv):
    expected = [t.clone() for t in step(task, task, batch)]
    found = step(torch.compile(task), task, batch)
equal = all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(found, expected))
for argument in sys.argv:
    if argument.startswith("kill="):
        os.kill(int(argument[5:]), signal.SIGKILL)
        equal = equal and torch.allclose(torch.compile(lambda x: (x.sin() + 1).softmax(0))(batch), (batch.sin() + 1).softmax(0))
kernels = sys.modules.get("pilotlight.torch.cpp_stats")
print(json.dumps({
    "equal": equal,
    "bytes": [t.contiguous().numpy().tobytes().hex() for t in found],
    "torch": os.path.dirname(torch.__file__),
    "kernels": kernels.stats() if kernels else {},
}))
"""
_AUDIT = """
import os, sys

def _note(event, arguments):
    if event == "subprocess.Popen" and (path := os.environ.get("TEST_STARTED")):
        words = arguments[1]
        words = [words] if isinstance(words, (str, bytes)) else list(words)
        with open(path, "a") as file:
            file.write(" ".join(os.fsdecode(word).replace("\\n", " ") for word in words) + "\\n")

sys.addaudithook(_note)
"""


@dataclass(frozen=True)
class Ran:
    """What one process on a machine did."""

    equal: bool
    """Whether the compiled model's numbers are the uncompiled one's."""
    bytes: list[str]
    """Of the outputs, to compare runs exactly."""
    torch: str
    kernels: dict[str, int]
    started: list[str]
    """Command lines of compilers, and of Python started to try what they made."""
    err: str


class Machine:
    """Cache and temporary directories of its own, and nothing in them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.cache = home / "cache"
        self._runs = 0
        (home / "tmp").mkdir(parents=True)
        (home / "site").mkdir()
        (home / "site" / "sitecustomize.py").write_text(_AUDIT)
        (home / "program.py").write_text(PROGRAM)

    def start(
        self,
        *arguments: str,
        url: str,
        env: Mapping[str, str] | None = None,
        path: tuple[Path, ...] = (),
        under: tuple[str, ...] = (),
    ) -> Any:
        """Start the program, `under` a command that runs it; `finish` waits for it."""
        self._runs += 1
        dropped = ("PILOTLIGHT_", "TORCH", "PYTHON", "ATEN_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        started = self.home / f"started-{self._runs}"
        started.touch()
        settings = {
            "PYTHONPATH": os.pathsep.join(map(str, (*path, paths.ROOT / "python", self.home / "site"))),
            "TORCHINDUCTOR_CACHE_DIR": str(self.cache),
            "TRITON_CACHE_DIR": str(self.home / "triton"),
            "TMPDIR": str(self.home / "tmp"),
            "TEST_STARTED": str(started),
            "PILOTLIGHT_URL": url,
            "CUDA_VISIBLE_DEVICES": "",
            # One worker is enough for three kernels, and starts faster than many.
            "TORCHINDUCTOR_COMPILE_THREADS": "2",
        }
        process = subprocess.Popen(
            [*under, sys.executable, str(self.home / "program.py"), *arguments],
            env={**inherited, **settings, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.home,
        )
        return process, started

    def finish(self, running: Any) -> Ran:
        process, started = running
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
        assert process.returncode == 0, err[-6000:]
        lines = started.read_text().splitlines()
        compilers = [line for line in lines if "g++" in line.split()[0] or "LoadLibrary" in line]
        return Ran(**json.loads(out.splitlines()[-1]), started=compilers, err=err)

    def run(
        self,
        *arguments: str,
        url: str,
        env: Mapping[str, str] | None = None,
        path: tuple[Path, ...] = (),
        under: tuple[str, ...] = (),
    ) -> Ran:
        return self.finish(self.start(*arguments, url=url, env=env, path=path, under=under))
