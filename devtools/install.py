"""Fetch what the tests, the demo and the benchmark need, into `.venv*` and `target/`; never needs root.

    python3 -m devtools.install tools                     redis-server, redis-cli, redis-benchmark, ccache
    python3 -m devtools.install venv DIR REQUIREMENTS...  a virtual environment with pinned packages
    python3 -m devtools.install redis-py                  one redis-py per major version
    python3 -m devtools.install ioredis                   the Node client
    python3 -m devtools.install cargo-deny                the dependency checker
    python3 -m devtools.install s3s-fs                    an S3 server over a directory

Each does nothing when its work is done already. What cannot be had is named on stderr, and the tests that need it say so.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from devtools import paths

# Debian's and Ubuntu's packages; redis-server is a link to a program that redis-tools holds.
PACKAGE_OF_TOOL = {
    "redis-cli": ["redis-tools"],
    "redis-benchmark": ["redis-tools"],
    "redis-server": ["redis-server", "redis-tools"],
    "ccache": ["ccache"],
}
IOREDIS = "ioredis@6.0.0"
CARGO_DENY = "cargo-deny"
CARGO_DENY_VERSION = "0.20.2"
S3S_FS = "s3s-fs"
# 0.17 needs a newer Rust than ours.
S3S_FS_VERSION = "0.14.1"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def install_tools() -> None:
    """Unpack Debian packages of the missing tools into `target/tools`, with the libraries they miss."""
    missing = [name for name in PACKAGE_OF_TOOL if paths.tool(name) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        _say_skipped(missing, "this is not a Debian or Ubuntu system")
        return
    root = paths.TOOLS / "root"
    packages = {package for name in missing for package in PACKAGE_OF_TOOL[name]}
    say(f"unpacking {', '.join(sorted(packages))} into {root.relative_to(paths.ROOT)}")
    try:
        _unpack(packages, root)
        # Twice, because a library can need another one.
        for _ in range(2):
            lacking = _missing_libraries([_binary(root, name) for name in missing], root)
            if not lacking:
                break
            _unpack(_library_packages(packages, lacking), root)
    except subprocess.CalledProcessError as error:
        _say_skipped(missing, f"{' '.join(error.cmd[:2])} failed: {_last_line(error)}")
        return
    for name in missing:
        _write_wrapper(name, root)


def install_venv(directory: Path, requirements: Sequence[Path]) -> None:
    """Make a virtual environment that has these requirements, or bring one up to date."""
    python = directory / "bin" / "python"
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in requirements)).hexdigest()
    stamp = directory / f".{'-'.join(file.parent.name + '-' + file.stem for file in requirements)}.stamp"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    say(f"installing {', '.join(str(file) for file in requirements)} into {directory}")
    lists = [word for file in requirements for word in ("-r", str(file))]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *lists], check=True)
    stamp.write_text(wanted)


def install_redis_py() -> None:
    """Each major version of redis-py in a directory of its own, to be put on the path by the tests."""
    for requirements in sorted((paths.ROOT / "tests" / "clients").glob("requirements-redis-*.txt")):
        target = paths.REDIS_PY / requirements.stem.rpartition("-")[2]
        _pip_target(requirements, target)


def install_ioredis() -> None:
    """ioredis from npm."""
    if (paths.NODE_PREFIX / "node_modules" / "ioredis").exists():
        return
    npm = shutil.which("npm")
    if npm is None:
        _say_skipped(["ioredis"], "there is no npm")
        return
    say(f"installing {IOREDIS}")
    paths.NODE_PREFIX.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run([*command, "--prefix", str(paths.NODE_PREFIX), IOREDIS], check=True, stdout=sys.stderr)


def install_cargo_deny() -> None:
    """cargo-deny, built from source unless there is one."""
    if shutil.which(CARGO_DENY) or (paths.TOOLS / "bin" / CARGO_DENY).exists():
        return
    say(f"building {CARGO_DENY} {CARGO_DENY_VERSION} (once; takes minutes)")
    command = ["cargo", "install", "--quiet", "--locked", f"{CARGO_DENY}@{CARGO_DENY_VERSION}"]
    subprocess.run([*command, "--root", str(paths.TOOLS)], check=True)


def install_s3s_fs() -> None:
    """s3s-fs, built from source unless there is one."""
    if paths.tool(S3S_FS) is not None:
        return
    say(f"building {S3S_FS} {S3S_FS_VERSION} (once; takes minutes)")
    command = ["cargo", "install", "--quiet", "--locked", "--features", "binary", f"{S3S_FS}@{S3S_FS_VERSION}"]
    subprocess.run([*command, "--root", str(paths.TOOLS)], check=True)


def _pip_target(requirements: Path, target: Path) -> None:
    wanted = requirements.read_text()
    stamp = target / ".stamp"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(target, ignore_errors=True)
    say(f"installing {requirements.name} into {target.relative_to(paths.ROOT)}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), "-r", str(requirements)]
    subprocess.run(command, check=True)
    stamp.write_text(wanted)


def _unpack(packages: set[str], root: Path) -> None:
    archives = paths.TOOLS / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    download = ["apt-get", "download", *sorted(packages)]
    # apt drops to another user for downloads and then cannot write into our directory; as a plain user it does not try.
    unsandboxed = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    if subprocess.run([*download, *unsandboxed], cwd=archives, capture_output=True).returncode != 0 and os.geteuid() == 0:
        subprocess.run(["apt-get", "update"], check=True, capture_output=True)
    subprocess.run([*download, *unsandboxed], cwd=archives, check=True, capture_output=True)
    for archive in archives.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(archive), str(root)], check=True, capture_output=True)


def _binary(root: Path, name: str) -> Path:
    return root / "usr" / "bin" / name


def _library_path(root: Path) -> str:
    return ":".join(str(d) for d in sorted({so.parent for so in root.glob("**/*.so*")}))


def _missing_libraries(binaries: Sequence[Path], root: Path) -> set[str]:
    env = {**os.environ, "LD_LIBRARY_PATH": _library_path(root)}
    missing: set[str] = set()
    for binary in binaries:
        text = subprocess.run(["ldd", str(binary)], env=env, capture_output=True, text=True).stdout
        missing.update(re.findall(r"^\s*(\S+) => not found", text, re.MULTILINE))
    return missing


def _library_packages(packages: set[str], lacking: set[str]) -> set[str]:
    """Which packages to unpack for these libraries: dependencies whose name starts as the library's does."""
    command = ["apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", *sorted(packages)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    candidates = set(re.findall(r"^(lib\S+)$", text, re.MULTILINE))
    stems = {library.split(".so")[0].lower().rstrip("0123456789.-") for library in lacking}
    # What follows the stem is a version, and in newer releases a mark for 64-bit time; this leaves out -dev and -common.
    return {name for name in candidates if any(re.fullmatch(re.escape(stem) + r"[-\d.]*(t64)?", name) for stem in stems)}


def _write_wrapper(name: str, root: Path) -> None:
    wrapper = paths.TOOLS / "bin" / name
    wrapper.parent.mkdir(parents=True, exist_ok=True)
    libraries = _library_path(root)
    prefix = f'LD_LIBRARY_PATH="{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}" ' if libraries else ""
    wrapper.write_text(f'#!/bin/sh\n{prefix}exec "{_binary(root, name)}" "$@"\n')
    wrapper.chmod(0o755)
    version = subprocess.run([str(wrapper), "--version"], capture_output=True, text=True)
    if version.returncode != 0:
        wrapper.unlink()
        _say_skipped([name], f"it does not start: {version.stderr.strip()}")


def _last_line(error: subprocess.CalledProcessError) -> str:
    text = error.stderr.decode(errors="replace") if isinstance(error.stderr, bytes) else str(error.stderr or "")
    return re.sub(r"https?://\S+", "(address)", (text.strip().splitlines() or ["no message"])[-1])


def _say_skipped(names: Sequence[str], reason: str) -> None:
    say(f"warning: no {', '.join(names)}: {reason}; tests that need {'it' if len(names) == 1 else 'them'} will be SKIPPED")


COMMANDS: dict[str, Callable[[], None]] = {
    "tools": install_tools,
    "redis-py": install_redis_py,
    "ioredis": install_ioredis,
    "cargo-deny": install_cargo_deny,
    "s3s-fs": install_s3s_fs,
}


def main(arguments: Sequence[str]) -> int:
    try:
        return run(arguments)
    except subprocess.CalledProcessError as error:
        say(f"error: {' '.join(map(str, error.cmd))} ended with status {error.returncode}\nhint: its own message is above")
        return 1


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says."""
    os.environ.setdefault("PIP_ROOT_USER_ACTION", "ignore")  # everything goes into directories of our own
    if len(arguments) >= 3 and arguments[0] == "venv":
        install_venv(Path(arguments[1]), [Path(name) for name in arguments[2:]])
        return 0
    if not arguments or any(name not in COMMANDS for name in arguments):
        say(__doc__ or "")
        return 2
    for name in arguments:
        COMMANDS[name]()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
