"""What the patches share: the client, the fingerprint, one get's or put's bookkeeping."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pilotlight import _client, _summary
from pilotlight.torch import fingerprint as fingerprints
from pilotlight.torch import switches

if TYPE_CHECKING:
    from pilotlight._native import Client

log = logging.getLogger("pilotlight")

# Client.thread_stats() names -> the reason that the summary gives, the first that grew during an operation.
_TROUBLE = {
    "timeout": "timeout",
    "unavailable": "unavailable",
    "denied": "denied",
    "full": "full",
    "too_large": "too large",
    "corrupt": "corrupt",
    **{name.replace("-", "_"): name for name in _summary.SIGNATURE_REASONS},
    "misfit": "fingerprint",
}


def connect() -> Client | None:
    """The process's client, and the start line at the first use."""
    client = _client.client()
    if client is not None:
        _summary.announce(client, *switches.parts())
    return client


def pass_notices() -> None:
    """What the client has to say to the user, said after each operation."""
    _client.pass_notices()


def client_of(cache: Any) -> Client | None:
    """The client behind one of torch's cache objects; `None` if another backend stands there, as tests have it."""
    return getattr(getattr(cache, "backend", None), "pilotlight_client", None)


def cache_stats() -> Any:
    """torch's counters of remote caches. Their own module has them in every version, others only in torch 2.15."""
    from torch._inductor import remote_cache

    return remote_cache.cache_stats


def fingerprint() -> bytes | None:
    """What CPU code made in this process asks of a host."""
    return fingerprints.fingerprint(("cpu",))


def variant(guards: str | None, host: bytes | None) -> int:
    """64 bits that tell one guard variant of one kind of host from the others."""
    return hash_64((guards or "").encode() + b"\0" + (host or b""))


def hash_64(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


@functools.lru_cache(maxsize=4096)
def _name_hash(name: str) -> int:
    return hash_64(name.encode())


def components(debug_lines: Sequence[str] | None) -> list[tuple[int, int]]:
    """torch's `[hash] name[sub]: text` lines as (hash of the name, hash of the value); the text may hold addresses."""
    found = []
    for line in debug_lines or ():
        value, closed, rest = line.partition("] ")
        name, colon, _ = rest.partition(": ")
        if closed and colon:
            found.append((_name_hash(name), hash_64(value[1:].encode())))
    return found


class Observed:
    """Tells from the client's own counters why an operation of this thread went without result."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._before = client.thread_stats()

    def reason(self, otherwise: str) -> str:
        """The first trouble that was counted since."""
        now = self._client.thread_stats()
        for counter, reason in _TROUBLE.items():
            if now.get(counter, 0) > self._before.get(counter, 0):
                return reason
        return otherwise


@contextlib.contextmanager
def guarded(doing: str) -> Iterator[None]:
    """For what is good to have but must not fail the compile."""
    try:
        yield
    except Exception:
        log.warning("pilotlight: error while %s; the compile goes on without it", doing, exc_info=True)
