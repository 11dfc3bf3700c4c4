"""Fresh machines under some torch: processes with directories of their own, whose compiler runs are noted.

A run is noted by an audit hook in every Python process of the machine, compile workers included, so that nothing on PATH or
in the environment changes that could be part of a key.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devtools import paths

TIMEOUT_S = 600.0
_PROGRAM = Path(__file__).with_name("program.py")
_AUDIT = """
import os, sys

def _note(event, arguments):
    if event == "subprocess.Popen" and (path := os.environ.get("MATRIX_STARTED")):
        words = arguments[1]
        words = [words] if isinstance(words, (str, bytes)) else list(words)
        with open(path, "a") as file:
            file.write(" ".join(os.fsdecode(word).replace("\\n", " ") for word in words) + "\\n")

sys.addaudithook(_note)
"""


@dataclass
class Section:
    """One part of the program: whether the numbers were right, and what was counted meanwhile."""

    equal: bool
    counts: dict[str, int]

    def count(self, name: str) -> int:
        return self.counts.get(name, 0)


@dataclass
class Ran:
    """What one process did. One that failed has no sections, and its last words are the failure."""

    failure: str = ""
    sections: dict[str, Section] = field(default_factory=dict)
    capability: str = ""
    active: bool = False
    heard: list[str] = field(default_factory=list)
    compilers: list[str] = field(default_factory=list)
    """Command lines of compilers, and of Python started to try what they made."""

    @property
    def equal(self) -> bool:
        return bool(self.sections) and all(section.equal for section in self.sections.values())

    def count(self, name: str, *sections: str) -> int:
        """A counter over these sections, or all of them."""
        return sum(part.count(name) for key, part in self.sections.items() if not sections or key in sections)


class Machines:
    """Makes machines that have one Python, and so one torch, in common."""

    def __init__(self, python: Path, home: Path) -> None:
        self._python = python
        self._home = home
        self._made = 0
        site = home / "site"
        metadata = site / "pilotlight-0.0.dist-info"
        metadata.mkdir(parents=True)
        # What an installed distribution adds to the path: the entry point that torch looks for.
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pilotlight\nVersion: 0.0\n")
        (metadata / "entry_points.txt").write_text("[torch.backends]\npilotlight = pilotlight.torch:_autoload\n")
        (home / "audit").mkdir()
        (home / "audit" / "sitecustomize.py").write_text(_AUDIT)

    def run(self, *sections: str, env: Mapping[str, str], plugin: bool = True) -> Ran:
        """Runs the program's sections on a machine that has nothing yet."""
        self._made += 1
        machine = self._home / f"machine-{self._made}"
        (machine / "tmp").mkdir(parents=True)
        # In the same place each time: torch 2.6 knows the code in a profile by its path.
        script = shutil.copy(_PROGRAM, self._home / "program.py")
        started = machine / "started"
        started.touch()
        try:
            done = subprocess.run(
                [str(self._python), str(script), *sections],
                env=self._environment(machine, started, plugin) | dict(env),
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                cwd=machine,
            )
        except subprocess.TimeoutExpired:
            return Ran(failure=f"did not end within {TIMEOUT_S:.0f} s")
        lines = started.read_text().splitlines()
        # The caches are of no use to the next machine, and take space.
        shutil.rmtree(machine)
        if done.returncode != 0:
            # torch says more after the error.
            errors = re.findall(r"^[\w.]+(?:Error|Exception)\b.*", done.stderr, re.MULTILINE)
            return Ran(failure=errors[-1][:200] if errors else f"status {done.returncode}")
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return Ran(
            sections={name: Section(**section) for name, section in told["sections"].items()},
            capability=told["capability"],
            active=told["active"],
            heard=told["heard"],
            compilers=[line for line in lines if _is_compiler(line)],
        )

    def _environment(self, machine: Path, started: Path, plugin: bool) -> dict[str, str]:
        dropped = ("PILOTLIGHT_", "TORCH", "PYTHON", "ATEN_", "OMP_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        ours = [str(paths.ROOT / "python"), str(self._home / "site")] if plugin else []
        return inherited | {
            "PYTHONPATH": os.pathsep.join([*ours, str(self._home / "audit")]),
            "TORCHINDUCTOR_CACHE_DIR": str(machine / "cache"),
            "TRITON_CACHE_DIR": str(machine / "triton"),
            "TMPDIR": str(machine / "tmp"),
            "MATRIX_STARTED": str(started),
            "PILOTLIGHT_QUIET": "1",
            "CUDA_VISIBLE_DEVICES": "",
            # A handful of kernels is compiled sooner than a compile worker has started.
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }


def _is_compiler(line: str) -> bool:
    """A compiler, or Python started to try what it made."""
    words = line.split()
    return bool(words) and ("g++" in words[0] or "clang" in words[0] or "LoadLibrary" in line)
