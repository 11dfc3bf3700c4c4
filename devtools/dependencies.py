"""Check the Rust dependencies with cargo-deny: licences, sources, duplicates, and known vulnerabilities.

The list of vulnerabilities lives in a git repository, not in a package registry. Where it cannot be reached the other checks
still count, and this says that the one was left out.
"""

from __future__ import annotations

import subprocess
import sys

from devtools import paths


def main() -> int:
    deny = paths.tool("cargo-deny")
    if deny is None:
        print("error: no cargo-deny\nhint: python3 -m devtools.install cargo-deny", file=sys.stderr)
        return 1
    command = [deny, "--log-level", "warn"]
    if subprocess.run([*command, "check", "bans", "licenses", "sources"], cwd=paths.ROOT).returncode != 0:
        return 1
    if subprocess.run([deny, "--log-level", "off", "fetch", "db"], cwd=paths.ROOT, capture_output=True).returncode != 0:
        print("warning: the advisory database cannot be reached; known vulnerabilities were NOT checked", file=sys.stderr)
        return 0
    return subprocess.run([*command, "check", "advisories"], cwd=paths.ROOT).returncode


if __name__ == "__main__":
    raise SystemExit(main())
