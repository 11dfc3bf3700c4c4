"""Triton's remote cache on Pilotlight.

    TRITON_CACHE_MANAGER=triton.runtime.cache:RemoteCacheManager
    TRITON_REMOTE_CACHE_BACKEND=pilotlight.triton:RemoteCacheBackend
    PILOTLIGHT_URL=pilotlight://cache.example

Triton keeps the files of a compiled kernel one by one, then a group file that lists them. Its remote cache manager asks the
backend alone, though it keeps all that passes through it in Triton's local cache. This backend looks there first: a kernel on
this disk needs no network, and is put where the remote cache lacks it.

On a Pilotlight, keys and values are those of Triton's own Redis backend, so both find each other's files. On a plain Redis ours
stand under `pilotlight:1:` and those keys, as whole envelopes, which stock Triton could not read.

What else differs: nothing raises and nothing hangs; a group one of whose files was not kept is not put either, as it would
only be found to be useless; all of a group comes with its digests checked.

Read against `triton/runtime/cache.py` of Triton 3.2 to 3.9.
"""

from __future__ import annotations

import functools
import json
import os
import time
from typing import TYPE_CHECKING, Any

from pilotlight import _client, _stock, _summary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pilotlight._native import Client

_GROUP = "__grp__"
_KIND = "triton"
# Looking whether the remote cache has what is on this disk may cost a process this much in all.
_ASKING_BUDGET_S = 0.5

_asked_s = 0.0


class RemoteCacheBackend:
    """The files of one compiled kernel. Triton finds the class by this name, and demands that it is called so."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._format = os.environ.get("TRITON_REDIS_KEY_FORMAT", "triton:{key}:{filename}")
        self._client = _connect()
        self._began = time.monotonic()
        self._lost: set[str] = set()
        # The group file that was found on this disk, until its members are asked for.
        self._group: str | None = None

    def get(self, filenames: Iterable[str]) -> dict[str, bytes]:
        """Those of the files that are there: from this disk if it has all of them, else in one round trip."""
        names = list(filenames)
        group, self._group = self._group, None
        local = self._local(names)
        if local is not None:
            if group is not None:
                self._fill(group, local)
            elif names[0].startswith(_GROUP):
                self._group = names[0]
            return local
        if self._client is None or not names:
            return {}
        entries = self._client.get_many([self._remote_key(name) for name in names])
        _client.pass_notices()
        found = {name: entry.artifact for name, entry in zip(names, entries, strict=True) if entry is not None}
        for name in names:
            if name not in found:
                # What Triton does next is to compile.
                self._began = time.monotonic()
            if name.startswith(_GROUP):
                self._count(entries[names.index(name)] is not None, sum(entry.compile_ms for entry in entries if entry))
        return found

    def put(self, filename: str, data: bytes) -> None:
        """Keeps a file; a group only if all of its files were kept."""
        if self._client is None:
            return
        if filename.startswith(_GROUP) and not self._lost.isdisjoint(_members(data)):
            _summary.record("drop", _KIND, "incomplete")
            return
        stored = self._store(filename, data, int((time.monotonic() - self._began) * 1000))
        if filename.startswith(_GROUP):
            _summary.record("put" if stored else "drop", _KIND)

    def _store(self, filename: str, data: bytes, compile_ms: int) -> bool:
        if self._client is None:
            return False
        stored = self._client.put(self._remote_key(filename), data, compile_ms=compile_ms, producer="triton")
        _client.pass_notices()
        if not stored:
            self._lost.add(filename)
        return stored

    def _local(self, names: list[str]) -> dict[str, bytes] | None:
        """The files in Triton's own cache; `None` unless all are there, as a group must not be mixed from two compiles."""
        from triton.runtime.cache import FileCacheManager

        found: dict[str, bytes] = {}
        try:
            files: Any = FileCacheManager(self._key)
            for name in names:
                if (path := files.get_file(name)) is None:
                    return None
                with open(path, "rb") as file:
                    found[name] = file.read()
        except (OSError, RuntimeError):
            return None
        return found or None

    def _fill(self, group: str, members: dict[str, bytes]) -> None:
        """Puts a group from this disk, unless the remote cache has it."""
        global _asked_s
        if self._client is None or _asked_s > _ASKING_BUDGET_S:
            return
        begin = time.monotonic()
        missing = self._client.has([self._remote_key(group)]) == [False]
        _asked_s += time.monotonic() - begin
        # As Triton's remote manager writes it: its local one would name the files of this disk.
        files = members | {group: json.dumps({"child_paths": sorted(members)}).encode()}
        if missing and all(self._store(name, data, 0) for name, data in files.items()):
            _summary.record("backfill", _KIND)

    def _remote_key(self, filename: str) -> bytes:
        return self._format.format(key=self._key, filename=filename).encode()

    @staticmethod
    def _count(hit: bool, saved_ms: int) -> None:
        if hit:
            _summary.record("hit", _KIND, saved_ms=saved_ms)
        else:
            _summary.record("miss", _KIND, "absent")


def _members(group: bytes) -> Iterable[str]:
    try:
        return set(json.loads(group)["child_paths"])
    except (ValueError, KeyError, TypeError):
        return set()


def _connect() -> Client | None:
    _summary.start()
    client = _named()
    if client is not None:
        _summary.announce(client, ["Triton's kernels"])
    return client


def _named() -> Client | None:
    """What `PILOTLIGHT_URL` names, or else stock Triton's own variables; what is wrong with them is said once."""
    if os.environ.get("PILOTLIGHT_URL"):
        return _client.client()
    host = os.environ.get("TRITON_REDIS_HOST")
    if not host:
        _tell(
            "PILOTLIGHT_URL is not set: Triton's kernels are kept on this disk only\nhint: name a cache, or unset "
            "TRITON_CACHE_MANAGER and TRITON_REMOTE_CACHE_BACKEND"
        )
        return None
    try:
        return _stock.named(_stock.redis_url(host, int(os.environ.get("TRITON_REDIS_PORT", "6379"))))
    except ValueError as error:
        _tell(f"TRITON_REDIS_HOST and TRITON_REDIS_PORT: {error}")
        return None


@functools.cache
def _tell(message: str) -> None:
    if _summary.may_speak():
        _client.tell(message)
