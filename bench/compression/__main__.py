"""How small entries become: a corpus of real ones, and ten recompiles of one model, made with the torch that is installed.

`python -m bench.compression`; `make bench-compression` builds what it needs. Recompiles take about ten minutes the first time;
they are kept in bench/results/recompiles, and made anew when that is removed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.compression.recompile import EDITS
from demo.processes import fresh_machine, stock
from devtools import paths
from devtools.servers import Redis

RECOMPILES = paths.ROOT / "bench" / "results" / "recompiles"


def main() -> int:
    dirs = []
    corpus = paths.corpus()
    if corpus is None:
        print("no corpus of real entries (set PILOTLIGHT_CORPUS to a directory with a manifest.jsonl)", file=sys.stderr)
    else:
        dirs.append(corpus)
    if not (RECOMPILES / "manifest.jsonl").exists():
        make_recompiles(RECOMPILES)
    binary = paths.TARGET / "release" / "compression"
    return subprocess.run([binary, *dirs, RECOMPILES], check=False).returncode


def make_recompiles(into: Path) -> None:
    """Compiles the model after each edit on a machine of its own, and keeps what stock PyTorch put into Redis."""
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, Redis(Path(home), append_only=False) as redis:
        for number in range(EDITS):
            print(f"recompile {number + 1} of {EDITS}", file=sys.stderr)
            with fresh_machine() as machine:
                machine.run(["bench.compression.recompile", str(number)], stock(f"redis://{redis.host}:{redis.port}"))
        lines = []
        with redis.connect() as connection:
            for number, key in enumerate(sorted(connection.command("KEYS", "pt2:*"))):
                value = connection.command("GET", key)
                (into / f"{number}.json").write_bytes(value)
                lines.append(json.dumps({"key": key.decode(), "file": f"{number}.json"}))
        (into / "manifest.jsonl").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
