"""What a process and everything it started cost: CPU seconds, and compilers among what it started.

Linux only. Compilers are noted by an audit hook in every Python process below, compile workers included, because anything
put before g++ on PATH would be part of what is measured, and could be part of a cache's key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

STARTED_VARIABLE = "DEMO_STARTED"
SITE = """
import os, sys

def _words(command):
    words = command.split() if isinstance(command, (str, bytes)) else list(command)
    return [os.fsdecode(word) for word in words]

def _write(*fields):
    if path := os.environ.get("DEMO_STARTED"):
        with open(path, "a") as file:
            file.write(" ".join(map(str, fields)) + "\\n")

def _note(event, arguments):
    if event == "subprocess.Popen":
        _write(os.path.basename(_words(arguments[1])[0]))
        sys.modules["subprocess"].Popen._try_wait = _try_wait

def _try_wait(self, flags):
    try:
        pid, status, usage = os.wait4(self.pid, flags)
    except ChildProcessError:
        return self.pid, 0
    if pid:
        words = _words(self.args)
        _write("ended", os.path.basename(words[0]), usage.ru_utime + usage.ru_stime, int("-o" in words))
    return pid, status

sys.addaudithook(_note)
"""
_COMPILERS = ("g++", "gcc", "clang++", "c++")


def write_site(directory: Path) -> None:
    """Make `directory`, on PYTHONPATH, note what is started and what it took."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sitecustomize.py").write_text(SITE)


def compilers_started() -> int:
    """Compilers that this process and those below have started so far."""
    return sum(line.startswith(_COMPILERS) for line in _noted())


@dataclass(frozen=True)
class Compilers:
    """What the compilers cost that this process and those below have started, and that have ended."""

    compiles: int
    """Those that made something, unlike `g++ --version`."""
    cpu_s: float
    """Of all of them and what they started."""


def compilers_ended() -> Compilers:
    ended = [line.split() for line in _noted() if line.startswith("ended ")]
    ours = [fields for fields in ended if fields[1].startswith(_COMPILERS)]
    return Compilers(sum(fields[3] == "1" for fields in ours), sum(float(fields[2]) for fields in ours))


def _noted() -> list[str]:
    path = os.environ.get(STARTED_VARIABLE, "")
    return Path(path).read_text().splitlines() if os.path.exists(path) else []


def tree_cpu_s() -> float:
    """CPU seconds of this process, of what it started and still runs, and of what these have waited for."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        parents[int(entry)] = int(fields[1])
        ticks[int(entry)] = sum(int(field) for field in fields[11:15])
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(ticks.get(pid, 0) for pid in below) / os.sysconf("SC_CLK_TCK")
