"""Which C++ compiler this is, wherever it is installed, without starting it where that can be known otherwise."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass

from pilotlight.torch.fingerprint import digest_of

# A GCC driver says in its own file which build it is; it finds the rest of its build (cc1plus, specs) by paths fixed in it.
# A clang driver is a front for a shared library, and a script or ccache is a front for anything: those are asked.
_GCC_DRIVER_MARKS = (b"gcc version %s", b"COLLECT_GCC_OPTIONS")
_DRIVER_BYTES_MAX = 16 << 20
_QUERY_TIMEOUT_S = 30.0
# They tell where a compiler lies, not which it is.
_PATH_LINES = ("COLLECT_GCC=", "COLLECT_LTO_WRAPPER=", "InstalledDir:")
# Headers, libraries and programs that are not on the command line, and so not in PyTorch's key.
_VARIABLES = (
    *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX"),
    *("LD_RUN_PATH", "CCC_OVERRIDE_OPTIONS", "CLANG_CONFIG_FILE_SYSTEM_DIR", "CLANG_CONFIG_FILE_USER_DIR"),
)
_VARIABLE_PREFIXES = ("NIX_CFLAGS", "NIX_LDFLAGS", "NIX_CC", "NIX_HARDENING", "NIX_ENFORCE")


@dataclass(frozen=True)
class Compiler:
    """A compiler's identity."""

    command: str
    """As PyTorch names it."""
    digest: bytes
    """32 bytes: equal for the same build of the same compiler."""
    read: bool
    """Whether its own file told, so that it need not be started to say its version."""


def identify(command: str) -> Compiler | None:
    """The compiler behind `command`; `None` if it cannot be found or does not say what it is."""
    path = _resolved(command, os.environ.get("PATH"))
    if path is None:
        return _asked(command)
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return _read(command, path, stat.st_mtime_ns, stat.st_size) or _asked(command)


def environment() -> tuple[str, ...]:
    """The variables that change what a compiler makes of one command line."""
    return tuple(
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if value and (name in _VARIABLES or name.startswith(_VARIABLE_PREFIXES))
    )


@functools.lru_cache(8)
def _resolved(command: str, _search_path: str | None) -> str | None:
    """The file behind a command of one word. Looked for once: PyTorch asks dozens of times per graph."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    found = shutil.which(words[0]) if len(words) == 1 else None
    return os.path.realpath(found) if found else None


@functools.lru_cache(8)
def _read(command: str, path: str, _mtime_ns: int, size: int) -> Compiler | None:
    """From the driver's file: a megabyte, a millisecond."""
    if size > _DRIVER_BYTES_MAX:
        return None
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return None
    if not data.startswith(b"\x7fELF") or not all(mark in data for mark in _GCC_DRIVER_MARKS):
        return None
    return Compiler(command, digest_of("driver 1", data), read=True)


@functools.lru_cache(8)
def _asked(command: str) -> Compiler | None:
    """From `-v`, once per process: what a front for another compiler stands for may change while its own file does not."""
    try:
        done = subprocess.run(
            [*shlex.split(command), "-v"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
            timeout=_QUERY_TIMEOUT_S,
            check=False,
        )
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None
    lines = [line for line in done.stdout.decode(errors="replace").splitlines() if not line.startswith(_PATH_LINES)]
    if done.returncode != 0 or not any(" version " in line for line in lines):
        return None
    return Compiler(command, digest_of("asked 1", *lines), read=False)
