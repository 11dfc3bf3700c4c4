"""What signatures cost a get and a put of 1 MiB: the plug-in's client with them beside itself without.

`python -m bench.signing`; `make bench-signing` builds what it needs. Both sides take turns within a round.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.client import (
    ARTIFACT_LEN,
    OPERATIONS,
    artifacts_of,
    corpus_bytes,
    measure,
    ours,
    random_artifacts,
    summary,
    synthetic_bytes,
)
from devtools import paths
from devtools.servers import Pilotlight

BUDGET = 1.10
"""A verified hit to an unverified one."""


def keys(directory: Path) -> dict[str, str]:
    """A key, and a trust file with it in."""

    def command(*arguments: str) -> str:
        done = subprocess.run([str(paths.pilotlight()), "keys", *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    trust = directory / "trusted.toml"
    public = command("new", "--name", "bench", "--dir", str(directory))
    command("trust", public, "--name", "bench", "--file", str(trust))
    return {"signing_key": str(directory / "bench.key"), "trust": str(trust), "verify": "require"}


def run(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """By bytes and operation, of the side with signatures."""
    directory = paths.corpus()
    source, label = (synthetic_bytes(), "synthetic") if directory is None else (corpus_bytes(directory), "corpus")
    sorts: list[tuple[str, Iterator[bytes]]] = [(label, artifacts_of(source)), ("random", random_artifacts())]
    results: dict[str, Any] = {}
    for name, artifacts in sorts:
        with tempfile.TemporaryDirectory(prefix="pl-") as base, Pilotlight(Path(base) / "data") as server:
            url = f"pilotlight://127.0.0.1:{server.port}"
            plain, signed = ours("plain", url), ours("signed", url, **keys(Path(base)))
            timings = measure(plain, [signed], artifacts, rounds)
        results[name] = summary(timings["plain"], timings["signed"])
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=300, help="rounds for each sort of bytes (default: 300)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    results = run(arguments.rounds)
    if arguments.json:
        print(json.dumps({"artifact_bytes": ARTIFACT_LEN, "budget": BUDGET, "results": results}, indent=2))
    else:
        print(f"1 MiB signed and verified: median ms, and the ratio to the same without (budget of a get: {BUDGET})")
        print(f"{'':10}" + "".join(f"{operation:>20}" for operation in OPERATIONS))
        for name, cells in results.items():
            shown = (f"{cells[operation]['median_ms']:.2f} ({cells[operation]['ratio']:.3f})" for operation in OPERATIONS)
            print(f"{name:10}" + "".join(f"{text:>20}" for text in shown))
    is_within = all(cells[get]["ratio"] <= BUDGET for cells in results.values() for get in ("get, not hot", "get, hot"))
    print("within the budget" if is_within else "OVER THE BUDGET", file=sys.stderr)
    return 0 if is_within else 1


if __name__ == "__main__":
    raise SystemExit(main())
