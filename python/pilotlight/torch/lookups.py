"""One lookup in a guarded cache of torch's, and the remote entries it goes through.

torch's `GuardedCache` asks a generator for candidates and takes the first whose guards hold. It does not say which one it
took. The generator and its caller here share a `Lookup`: the last candidate handed out is the one taken.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pilotlight import _summary
from pilotlight.torch import hosts, remote

if TYPE_CHECKING:
    from pilotlight._native import Client, Entry

# Entries that came along with another one's answer, until somebody asks for them.
_PREFETCHED_MAX = 64


class Lookup:
    """What is known while one key is looked up."""

    def __init__(self, client: Client, cache: Any, key: str, kind: str, *, touches_cpu: bool = True) -> None:
        self.client = client
        self.key = key
        self.remote_key: bytes = cache._get_key(key).encode()
        self.kind = kind
        self._touches_cpu = touches_cpu
        # The entry handed out last; None while candidates are local.
        self.entry: Entry | None = None
        self.handed_out = 0
        self.refused = 0
        self.misfits = 0
        # AOTAutograd entries whose graphs are not to be had for this host.
        self.graphless = 0
        # It hit, and another rank's did not.
        self.is_lone = False
        # Of torch's local cache.
        self.local_misfits = 0
        # For which hosts the entry handed out last was made; any if `None`.
        self.made_for: bytes | None = None
        self.hit_remotely = False
        self._observed = remote.Observed(client)

    @functools.cached_property
    def fingerprint(self) -> bytes | None:
        """Found out only when the remote is asked."""
        return remote.fingerprint() if self._touches_cpu else None

    def candidates(self, is_usable: Callable[[Any], bool]) -> Iterator[tuple[Any, Entry]]:
        """What stands under the key remotely and was made for hosts like this one, unpickled, newest first."""
        seen = set()
        prefetched = _prefetched.pop(self.remote_key, None)
        if prefetched is not None and prefetched.fingerprint in (None, self.fingerprint):
            seen.add(prefetched.variant)
            yield from self._opened(prefetched, is_usable)
        for entry in self.client.candidates(self.remote_key, self.fingerprint):
            if entry.variant is None or entry.variant not in seen:
                yield from self._opened(entry, is_usable)
        if not self._touches_cpu and self._observed.reason("") == "fingerprint":
            # No input of the graph lies on the CPU, and yet there are variants for CPUs: some of its code runs there. The
            # client counts a second lookup, since it does one.
            self._touches_cpu = True
            del self.fingerprint
            for entry in self.client.candidates(self.remote_key, self.fingerprint):
                if entry.fingerprint is not None:
                    yield from self._opened(entry, is_usable)

    def _opened(self, entry: Entry, is_usable: Callable[[Any], bool]) -> Iterator[tuple[Any, Entry]]:
        # That nobody trusted signed it is said before it can run code, or there may be nobody to say it.
        remote.pass_notices()
        try:
            candidate = pickle.loads(entry.artifact)
            usable = is_usable(candidate)
        except (Exception, SystemExit) as error:
            self.refuse(f"not loadable: {type(error).__name__}", entry)
            return
        if not usable:
            self.refuse("wrong type", entry)
        elif entry.fingerprint is None and not hosts.fits_unmarked(candidate):
            # Put by a stock client: for which CPU, only its code can tell.
            self.misfits += 1
        else:
            self.entry = entry
            self.made_for = entry.fingerprint
            if entry.fingerprint is None and hosts.touches_cpu(candidate):
                # Put by a stock client, and it fits here: that is all that is known of it.
                self.made_for = remote.fingerprint()
            self.handed_out += 1
            yield candidate, entry

    def refuse(self, why: str, entry: Entry | None) -> None:
        """An entry could not be used although its digest was right: nobody shall get it again."""
        self.refused += 1
        _summary.record("refused", self.kind, why)
        if entry is not None:
            self.client.quarantine_variant(self.remote_key, entry)

    def miss_reason(self) -> str:
        """The most telling of what happened."""
        if self.is_lone:
            return "ranks"
        if self.refused:
            return "refused"
        if self.misfits:
            return "fingerprint"
        if self.graphless:
            return "graphs"
        remotely = self._observed.reason("guards" if self.handed_out else "absent")
        return "fingerprint" if remotely == "absent" and self.local_misfits else remotely


class _State(threading.local):
    """The lookup that this thread is in. They nest: compiling a graph may compile another."""

    def __init__(self) -> None:
        self.lookups: list[Lookup] = []
        self.touches_cpu = True
        # The last lookup of a graph that found one.
        self.found: Lookup | None = None


state = _State()


@contextlib.contextmanager
def inside(lookup: Lookup) -> Iterator[Lookup]:
    """Makes it the current one."""
    state.lookups.append(lookup)
    try:
        yield lookup
    finally:
        state.lookups.pop()


def current(key: str) -> Lookup | None:
    """The lookup that the running generator belongs to."""
    lookup = state.lookups[-1] if state.lookups else None
    return lookup if lookup is not None and lookup.key == key else None


_prefetched: dict[bytes, Entry] = {}


def expect(entries: dict[bytes, Entry | None]) -> None:
    """Keeps entries that were fetched together for the lookups that follow."""
    _prefetched.update({key: entry for key, entry in entries.items() if entry is not None})
    while len(_prefetched) > _PREFETCHED_MAX:
        _prefetched.pop(next(iter(_prefetched)), None)
