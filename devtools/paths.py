"""Where things are in a checkout, and which of the tools we test with can be found."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
TOOLS = ROOT / "target" / "tools"
REDIS_PY = ROOT / "target" / "redis-py"
NODE_PREFIX = ROOT / "target" / "node"


def tool(name: str) -> str | None:
    """Path of an outside program: the system's, else the one that `devtools.install` unpacked; None when there is none."""
    unpacked = TOOLS / "bin" / name
    return shutil.which(name) or (str(unpacked) if unpacked.exists() else None)


def pilotlight() -> Path:
    """The server under test: `PILOTLIGHT_BIN`, else this checkout's release build."""
    chosen = os.environ.get("PILOTLIGHT_BIN")
    path = Path(chosen) if chosen else TARGET / "release" / "pilotlight"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no server there\nhint: cargo build --release -p pilotlight")
    return path


def loadgen() -> Path:
    """The load generator: `LOADGEN_BIN`, else this checkout's release build."""
    chosen = os.environ.get("LOADGEN_BIN")
    path = Path(chosen) if chosen else TARGET / "release" / "loadgen"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no load generator there\nhint: cargo build --release -p loadgen")
    return path


def corpus() -> Path | None:
    """Real torch.compile entries: `PILOTLIGHT_CORPUS`, else `../shared/corpus`; most machines have none."""
    chosen = os.environ.get("PILOTLIGHT_CORPUS")
    path = Path(chosen) if chosen else ROOT.parent / "shared" / "corpus"
    return path if (path / "manifest.jsonl").exists() else None
