"""Try the plug-in and the server with each torch that we claim to work with: `make matrix`.

    make matrix [VERSIONS=2.6,2.15] [KEEP=1] [ARGS='--json --write']

For each torch it makes a virtual environment in target/matrix, runs the scenario of `features.py` with it, and removes the
environment: each takes up to 8 GiB, of which most are CUDA libraries that the builds for CUDA do not start without. Where
pip is set up to find CPU builds, those are taken. KEEP=1 keeps the environments for the next run.
`--write` puts the table into docs/compatibility.md: what was not run now is there as it was seen last.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from devtools import paths
from devtools.install import say
from devtools.matrix.features import Cell, judge, table, watch

VERSIONS = ("2.6", "2.8", "2.10", "2.12", "2.15")
ENVIRONMENTS = paths.ROOT / "target" / "matrix"
DOCUMENT = paths.ROOT / "docs" / "compatibility.md"
BEGIN, END = "<!-- begin: make matrix -->", "<!-- end: make matrix -->"


def environment(version: str) -> Path:
    """Python with the newest patch release of this torch, what Inductor needs for C++, and redis-py for the stock client."""
    home = ENVIRONMENTS / version
    python = home / "bin" / "python"
    if _release(python).startswith(f"{version}."):
        return python
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir"]
    subprocess.run([*install, f"torch=={version}.*", "numpy", "setuptools", "redis"], check=True)
    return python


def _release(python: Path) -> str:
    if not python.exists():
        return ""
    asked = [str(python), "-c", "from importlib.metadata import version; print(version('torch'))"]
    done = subprocess.run(asked, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def column(version: str, keep: bool) -> tuple[str, dict[str, Cell]]:
    """One torch: its release, and what every feature does with it."""
    begin = time.monotonic()

    def progress(text: str) -> None:
        say(f"torch {version}: {text} ({time.monotonic() - begin:.0f} s)")

    progress("making its environment")
    python = environment(version)
    try:
        with tempfile.TemporaryDirectory(prefix="pilotlight-matrix-") as home:
            seen = watch(python, Path(home), progress)
        release = _release(python)
    finally:
        if not keep:
            progress("removing its environment")
            shutil.rmtree(ENVIRONMENTS / version, ignore_errors=True)
    progress("done")
    return release, judge(seen)


def save(version: str, release: str, cells: dict[str, Cell]) -> None:
    """Keeps a column, so that the document can have all of them though they were made one by one."""
    kept = {"release": release, "cells": {name: asdict(cell) for name, cell in cells.items()}}
    (ENVIRONMENTS / f"{version}.json").write_text(json.dumps(kept, indent=2))


def saved() -> dict[str, dict[str, Cell]]:
    """The columns of this run and of earlier ones, oldest torch first."""
    found = {}
    for version in VERSIONS:
        file = ENVIRONMENTS / f"{version}.json"
        if file.exists():
            kept = json.loads(file.read_text())
            found[kept["release"]] = {name: Cell(**cell) for name, cell in kept["cells"].items()}
    return found


def write(text: str) -> None:
    """Puts the table between the marks in the document."""
    document = DOCUMENT.read_text()
    before, _, rest = document.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{DOCUMENT.name} has no marks for the table\nhint: {BEGIN} and {END}, each on a line of its own")
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    say(f"wrote {DOCUMENT.relative_to(paths.ROOT)}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--versions", default="", help=f"of {', '.join(VERSIONS)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--write", action="store_true", help=f"write the table to {DOCUMENT.relative_to(paths.ROOT)}")
    arguments = parser.parse_args()
    versions = arguments.versions.replace(",", " ").split() or list(VERSIONS)
    if unknown := [version for version in versions if version not in VERSIONS]:
        parser.error(f"no torch {', '.join(unknown)} here; there are {', '.join(VERSIONS)}")
    keep = os.environ.get("KEEP", "") not in ("", "0")
    columns: dict[str, dict[str, Cell]] = {}
    for version in versions:
        release, cells = column(version, keep)
        columns[release] = cells
        save(version, release, cells)
    if arguments.write:
        write(table(saved()))
    told = {release: {name: asdict(cell) for name, cell in cells.items()} for release, cells in columns.items()}
    print(json.dumps(told, indent=2) if arguments.json else table(columns))
    return 1 if any(cell.answer == "no" for cells in columns.values() for cell in cells.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
