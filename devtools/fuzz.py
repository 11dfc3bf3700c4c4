"""Run the fuzz targets, each for so long, with what earlier runs kept as a beginning.

    python -m devtools.fuzz [--seconds 60] [--targets resp_decoder,envelope] [--keep]

The targets are cargo-fuzz's; `cargo +nightly fuzz run TARGET` in `fuzz/` works as well, with address sanitizer. Here a stable
compiler is enough: coverage comes from LLVM's pass, and what a sanitizer would find takes `unsafe`, which is denied.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from devtools import paths

FUZZ = paths.ROOT / "fuzz"
COVERAGE = (
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
)
INPUT_MAX = 65536
HANG_S = 25
RESIDENT_MAX_MB = 2048
# Where a sync costs nothing: a store that is opened syncs.
MEMORY = Path("/dev/shm")


def main() -> int:
    options = arguments()
    targets = options.targets.split(",") if options.targets else names()
    if unknown := set(targets) - set(names()):
        sys.exit(f"error: no fuzz target {', '.join(sorted(unknown))}\nhint: there are {', '.join(names())}")
    built = build()
    failed = [target for target in targets if not run(built / target, options.seconds, keep=options.keep)]
    if failed:
        print(f"error: {', '.join(failed)} failed")
        print("hint: the input is in fuzz/artifacts/TARGET; give it to the target as its argument")
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the fuzz targets.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--targets", default="", help="names with commas between (default: all)")
    parser.add_argument("--keep", action="store_true", help="keep inputs that reach something new in fuzz/corpus, minimised")
    return parser.parse_args()


def names() -> list[str]:
    return sorted(path.stem for path in (FUZZ / "fuzz_targets").glob("*.rs"))


def host() -> str:
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"^host: (.+)$", version, re.MULTILINE)
    assert found is not None
    return found[1]


def build() -> Path:
    """Where the targets are. The target is named so that build scripts are not instrumented."""
    target_dir = Path(os.environ.get("CARGO_TARGET_DIR", paths.ROOT / "target")) / "fuzz"
    env = {**os.environ, "RUSTFLAGS": " ".join(("--cfg fuzzing", *COVERAGE)), "CARGO_TARGET_DIR": str(target_dir)}
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--target", host()]
    subprocess.run(command, cwd=FUZZ, env=env, check=True)
    return target_dir / host() / "release"


def run(target: Path, seconds: int, *, keep: bool) -> bool:
    """Whether it found nothing."""
    corpus, artifacts = FUZZ / "corpus" / target.name, FUZZ / "artifacts" / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    artifacts.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pilotlight-fuzz-", dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        found = Path(scratch) / "found"
        found.mkdir()
        command = [
            *(str(target), str(found), str(corpus)),
            *(f"-max_total_time={seconds}", f"-timeout={HANG_S}", f"-rss_limit_mb={RESIDENT_MAX_MB}", f"-max_len={INPUT_MAX}"),
            *(f"-artifact_prefix={artifacts}/", "-print_final_stats=1"),
        ]
        # What targets make in temporary directories goes with them.
        ended = subprocess.run(command, env={**os.environ, "TMPDIR": scratch}, stderr=subprocess.PIPE, text=True, check=False)
        print(f"{target.name}: {summary(ended.stderr)}", flush=True)
        if ended.returncode != 0:
            print(ended.stderr[-6000:])
            return False
        if keep:
            merge(target, found, corpus)
    return True


def summary(said: str) -> str:
    figures = dict(re.findall(r"stat::(\w+):\s+(\d+)", said))
    coverage = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", said)
    edges, _, kept = coverage[-1] if coverage else ("?", "?", "?")
    runs, rss = figures.get("number_of_executed_units", "?"), figures.get("peak_rss_mb", "?")
    return f"{runs} inputs, {edges} edges, {kept} kept, {rss} MiB at most"


def merge(target: Path, found: Path, corpus: Path) -> None:
    """The least set of inputs that reaches what all of them reach."""
    merged = found.parent / "merged"
    merged.mkdir()
    command = [str(target), "-merge=1", str(merged), str(corpus), str(found), f"-max_len={INPUT_MAX}"]
    subprocess.run(command, stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(found.parent)}, check=True)
    shutil.rmtree(corpus)
    shutil.copytree(merged, corpus)


if __name__ == "__main__":
    sys.exit(main())
