"""For which hosts the graphs in torch's local cache were made.

torch's local cache says nothing of it (torch 2.15), and a home directory or a volume may be shared by hosts of several kinds:
then one kind's code gives wrong numbers on another. So a file beside it, named by the content's hash, holds the fingerprints
that the content was made for. Graphs without such a file were there before us, or were put by a process without us.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Any

from pilotlight.torch import fingerprint, hosts, remote

_FINGERPRINT_LEN = 32
# Kinds of hosts that share one directory and make the very same code.
_HOSTS_MAX = 64


def mark(content: bytes, host: bytes | None) -> bool:
    """Notes that `content` was made for `host`; `None` is for any, and needs no note. Whether that is so now.

    To be called before the content can be found: without a mark it may be used by anybody."""
    if host is None or not fingerprint.cpu_is_known():
        # A fingerprint that stands for this process only would be nobody's in the next.
        return True
    try:
        path = _path(content)
        if host in _read(path):
            return True
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "ab", buffering=0) as file:
            return file.write(host) == len(host)
    except OSError:
        return False


def is_ours(content: bytes) -> bool:
    """Whether it is known to have been made for hosts like this one."""
    host = remote.fingerprint()
    return host is not None and host in _read(_path(content))


def may_be_used(candidate: Any, content: bytes) -> bool:
    """Whether a local entry may be used on this host: not if it was made for others, or has no mark and plainly looks so."""
    if not hosts.touches_cpu(candidate):
        return True
    made_for = _read(_path(content))
    return remote.fingerprint() in made_for if made_for else not hosts.plainly_misfits(candidate)


def any_may_be_used(directory: str) -> bool:
    """Whether torch's local cache has an entry in `directory` that was not made for other hosts only. Unpickles none."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if name.startswith("."):
                continue  # still being written
            with open(os.path.join(directory, name), "rb") as file:
                made_for = _read(_path(file.read()))
            if not made_for or remote.fingerprint() in made_for:
                return True
    return False


def _path(content: bytes) -> str:
    from torch._inductor.runtime.runtime_utils import cache_dir  # 2.6 has it there

    return os.path.join(cache_dir(), "pilotlight", "made-for", hashlib.sha256(content).hexdigest()[:40])


def _read(path: str) -> frozenset[bytes]:
    try:
        with open(path, "rb") as file:
            data = file.read(_HOSTS_MAX * _FINGERPRINT_LEN)
    except OSError:
        return frozenset()
    whole = len(data) - len(data) % _FINGERPRINT_LEN
    return frozenset(data[at : at + _FINGERPRINT_LEN] for at in range(0, whole, _FINGERPRINT_LEN))
