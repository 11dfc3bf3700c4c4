"""What a process and everything it started cost: CPU seconds, and compilers among what it started.

Linux only. Compilers are noted by an audit hook in every Python process below, compile workers included, because anything
put before g++ on PATH would be part of what is measured, and could be part of a cache's key.
"""

from __future__ import annotations

import os
from pathlib import Path

STARTED_VARIABLE = "DEMO_STARTED"
SITE = """
import os, sys

def _note(event, arguments):
    if event == "subprocess.Popen" and (path := os.environ.get("DEMO_STARTED")):
        words = arguments[1]
        first = words if isinstance(words, (str, bytes)) else words[0]
        with open(path, "a") as file:
            file.write(os.path.basename(os.fsdecode(first).split()[0]) + "\\n")

sys.addaudithook(_note)
"""
_COMPILERS = ("g++", "gcc", "clang++", "c++")


def write_site(directory: Path) -> None:
    """Make `directory`, on PYTHONPATH, note what is started."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sitecustomize.py").write_text(SITE)


def compilers_started() -> int:
    """Compilers that this process and those below have started so far."""
    path = os.environ.get(STARTED_VARIABLE, "")
    if not os.path.exists(path):
        return 0
    return sum(line.startswith(_COMPILERS) for line in Path(path).read_text().splitlines())


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
