"""The remote cache as C++ kernels see it: entries that are checked to be what was asked for, and a note of what it already has.

The note is a file in PyTorch's cache directory, one per remote cache, so that kernels found on this disk are put into an empty
remote cache (back-filled) without asking it for each of them. A remote cache says by its epoch, an entry of random bytes,
whether it still is the one that the note is about: one that was emptied has no epoch, gets a new one, and the old note is void.
Nor is it believed once a graph of this disk was found to have gone: its kernels leave with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pilotlight import _summary
from pilotlight._forks import Lock
from pilotlight.torch.cpp_key import PREFIX
from pilotlight.torch.cpp_stats import count
from pilotlight.torch.once import warn_once
from pilotlight.torch.remote import Observed, connect, pass_notices

if TYPE_CHECKING:
    from pilotlight._native import Client, Entry

EPOCH_KEY = PREFIX + b"epoch"
_EPOCH_BYTES = 16
# Marks the component that holds the key an entry was made for: "cpp" and a version, as a number.
KEY_COMPONENT = int.from_bytes(b"cpp-key1", "big")
_NOTE_BYTES_MAX = 8 << 20
# Of kernels that were fetched before anybody asked for them: a graph that torch turns down leaves its own behind.
_FETCHED_BYTES_MAX = 128 << 20


class Remote:
    """One remote cache, for one host."""

    def __init__(self, client: Client, host: bytes, cache_dir: str) -> None:
        self.client = client
        self._host = host
        self._directory = os.path.join(cache_dir, "pilotlight")
        self._lock = Lock()
        self._asked = False
        self._epoch: bytes | None = None
        self._note: str | None = None
        self._noted: set[bytes] = set()
        self._fetched: dict[bytes, bytes] = {}

    def observed(self) -> Observed:
        """To ask later why something went without result."""
        return Observed(self.client)

    def get(self, key: bytes) -> bytes | None:
        """What `put` was given, from what was prefetched or in one round trip."""
        with self._lock:
            artifact = self._fetched.pop(key, None)
        return artifact if artifact is not None else self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """One round trip. An entry that is not this host's and this key's is a miss, and counted."""
        first = not self._asked
        wanted = [*keys, EPOCH_KEY] if first else list(keys)
        observed = self.observed()
        entries = self.client.get_many(wanted)
        # Before a kernel is loaded, see `Lookup`.
        pass_notices()
        if first:
            epoch = entries.pop()
            # One that did not come is not one that is not there: it must not be replaced. One that nobody trusted signed is as
            # good as none.
            replaceable = ("absent", "corrupt", *_summary.SIGNATURE_REASONS)
            self._asked = epoch is not None or observed.reason("absent") in replaceable
            if epoch is not None and len(epoch.artifact) == _EPOCH_BYTES:
                self._enter(epoch.artifact)
        return [self.checked(key, entry) for key, entry in zip(keys, entries, strict=True)]

    def checked(self, key: bytes, entry: Entry | None) -> bytes | None:
        """The artifact, if the entry says that it was made for this key on a host like this."""
        if entry is None:
            return None
        if entry.fingerprint != self._host or (KEY_COMPONENT, _short(key)) not in entry.components:
            warn_once("an entry is not what its key says, or was made on another kind of machine; it is not used")
            count("refused")
            self.client.quarantine(key)
            return None
        return entry.artifact

    def prefetch(self, keys: Sequence[bytes]) -> int:
        """Fetch what `get` will be asked for, in one round trip. Returns how many came."""
        with self._lock:
            wanted = [key for key in dict.fromkeys(keys) if key not in self._fetched and key not in self._noted]
        if not wanted:
            return 0
        found = {key: it for key, it in zip(wanted, self.get_many(wanted), strict=True) if it is not None}
        with self._lock:
            self._fetched.update(found)
            size = sum(map(len, self._fetched.values()))
            while size > _FETCHED_BYTES_MAX:
                size -= len(self._fetched.pop(next(iter(self._fetched))))
        return len(found)

    def put(self, key: bytes, artifact: bytes, compile_ms: int = 0) -> bool:
        """Store and note it."""
        if not self._has_epoch():
            return False
        stored = self.client.put(
            key,
            artifact,
            compile_ms=compile_ms,
            producer="pilotlight-cpp",
            fingerprint=self._host,
            components=[(KEY_COMPONENT, _short(key))],
        )
        if stored:
            self.note(key)
        return stored

    def lacks(self, key: bytes) -> bool:
        """Whether an artifact found on this disk should be put. Costs one round trip per process, and none per key."""
        return self._has_epoch() and key not in self._noted

    def is_missing(self, key: bytes) -> bool:
        """As `lacks`, but asks the remote cache too: another process of this disk may have got it from there, or put it since.

        To put it again would take away what it is known to have cost.
        """
        if not self.lacks(key):
            return False
        if self.client.has([key]) == [True]:
            self.note(key)
            return False
        return True

    def note(self, key: bytes) -> None:
        """Note that the remote cache has `key`, and this disk too."""
        with self._lock:
            if self._note is None or key in self._noted:
                return
            self._noted.add(key)
        with contextlib.suppress(OSError), open(self._note, "ab", buffering=0) as file:
            file.write(key + b"\n")

    def forget(self) -> None:
        """Believe the note no longer."""
        with self._lock:
            self._noted.clear()

    def refuse(self, key: bytes) -> None:
        """An artifact turned out unusable although it was whole."""
        self.client.quarantine(key)

    def _has_epoch(self) -> bool:
        if not self._asked:
            self.get_many([])
        with self._lock:
            if self._epoch is not None:
                return True
        if not self._asked:
            return False
        epoch = secrets.token_bytes(_EPOCH_BYTES)
        if not self.client.put(EPOCH_KEY, epoch, producer="pilotlight-cpp"):
            return False
        # Another process may have put one at the same time: the later one stands, and counts for both.
        stands = self.client.get_many([EPOCH_KEY])[0]
        self._enter(epoch if stands is None or len(stands.artifact) != _EPOCH_BYTES else stands.artifact)
        return True

    def _enter(self, epoch: bytes) -> None:
        """Read the note that is about this epoch."""
        name = hashlib.sha256(self.client.url.encode() + b"\0" + epoch).hexdigest()[:32]
        note = os.path.join(self._directory, f"known-{name}")
        keys: set[bytes] = set()
        with contextlib.suppress(OSError):
            os.makedirs(self._directory, exist_ok=True)
            if self.client.url not in _doubted:
                with open(note, "rb") as file:
                    keys.update(file.read(_NOTE_BYTES_MAX).split(b"\n")[:-1])
        with self._lock:
            self._epoch, self._note = epoch, note
            self._noted |= keys


_remotes: dict[tuple[int, bytes, str], Remote] = {}
_remotes_lock = Lock()
_doubted: set[str] = set()
"""The remote caches that the notes are no longer believed of, by URL."""


def remote(host: bytes, cache_dir: str) -> Remote | None:
    """The remote cache of this process, or `None` if it has none."""
    client = connect()
    if client is None:
        return None
    key = (id(client), host, cache_dir)
    with _remotes_lock:
        if key not in _remotes:
            _remotes[key] = Remote(client, host, cache_dir)
        return _remotes[key]


def doubt(client: Client) -> None:
    """A graph that this disk has is gone from the remote cache: its kernels, which are noted, may have gone with it."""
    with _remotes_lock:
        known = [] if client.url in _doubted else [it for (of, *_), it in _remotes.items() if of == id(client)]
        _doubted.add(client.url)
    for remote in known:
        remote.forget()


def _short(key: bytes) -> int:
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big")
