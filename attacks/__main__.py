"""Run the attacks, each against a server of its own.

python -m attacks [NAME ...]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from attacks.all import ATTACKS
from attacks.arena import Breach, arena


def main() -> int:
    parser = argparse.ArgumentParser(prog="attacks", description="Attack a server of ours; each attack must fail.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ATTACKS)} (default: all)")
    names = parser.parse_args().names or list(ATTACKS)
    if unknown := set(names) - ATTACKS.keys():
        parser.error(f"no attack is called {', '.join(sorted(unknown))}")
    breaches = 0
    for name in names:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="pilotlight-attack-") as home, arena(Path(home)) as attacked:
            try:
                ATTACKS[name](attacked)
                outcome = "failed, as it must"
            except Breach as breach:
                breaches += 1
                outcome = f"SUCCEEDED: it does not hold that {breach}"
        print(f"{name:12} {outcome} ({time.monotonic() - begin:.1f} s)", flush=True)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
