"""Triton's remote cache on Pilotlight.

    TRITON_CACHE_MANAGER=triton.runtime.cache:RemoteCacheManager
    TRITON_REMOTE_CACHE_BACKEND=pilotlight.triton:RemoteCacheBackend
    PILOTLIGHT_URL=pilotlight://cache.example

Triton keeps the files of a compiled kernel one by one, then a group file that lists them. Keys are those of Triton's own
Redis backend, so both find each other's files. What differs: nothing raises and nothing hangs; a group one of whose files
was not kept is not put either, as it would only be found to be useless; all of a group comes with its digests checked.

Read against `triton/runtime/cache.py` of Triton 3.2 to 3.9.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from pilotlight import _client, _stock, _summary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pilotlight._native import Client

_GROUP = "__grp__"
_KIND = "triton"


class RemoteCacheBackend:
    """The files of one compiled kernel. Triton finds the class by this name, and demands that it is called so."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._format = os.environ.get("TRITON_REDIS_KEY_FORMAT", "triton:{key}:{filename}")
        self._client = _connect()
        self._began = time.monotonic()
        self._lost: set[str] = set()

    def get(self, filenames: Iterable[str]) -> dict[str, bytes]:
        """Those of the files that are there, in one round trip."""
        names = list(filenames)
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
        compile_ms = int((time.monotonic() - self._began) * 1000)
        stored = self._client.put(self._remote_key(filename), data, compile_ms=compile_ms, producer="triton")
        _client.pass_notices()
        if not stored:
            self._lost.add(filename)
        if filename.startswith(_GROUP):
            _summary.record("put" if stored else "drop", _KIND)

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
    if os.environ.get("PILOTLIGHT_URL"):
        return _client.client()
    host = os.environ.get("TRITON_REDIS_HOST")
    return None if not host else _stock.named(_stock.redis_url(host, int(os.environ.get("TRITON_REDIS_PORT", "6379"))))
