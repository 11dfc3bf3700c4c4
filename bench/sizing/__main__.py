"""Print what fleets ask for: `make bench-sizing`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from bench.sizing import DOCUMENT, GPUS, SEED
from bench.sizing.demand import simulate
from bench.sizing.report import table, written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--gpus", type=int, action="append", help="of a fleet; can be given several times (default: the document's)"
    )
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the draws (default: {SEED}, the document's)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/sizing.md")
    parser.add_argument("--measure", action="store_true", help="measure instead what a server's CPU pays for each operation")
    arguments = parser.parse_args()
    if arguments.measure:
        from bench.sizing.measure import measure  # needs a server, which nothing else here does

        print(json.dumps(measure(), indent=2))
        return 0
    demands, servers = simulate(arguments.gpus or GPUS, arguments.seed)
    if arguments.json:
        answer = {"seed": arguments.seed, "demands": list(map(asdict, demands)), "servers": list(map(asdict, servers))}
        print(json.dumps(answer, indent=2))
        return 0
    text = table(demands, servers)
    print(f"seed {arguments.seed}", file=sys.stderr)
    print(text)
    if arguments.write:
        DOCUMENT.write_text(written(DOCUMENT.read_text(), text))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
