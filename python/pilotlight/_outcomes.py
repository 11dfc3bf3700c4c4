"""The counters of `pilotlight.remote_cache`: torch's own, and what torch does not tell apart, puts that were dropped."""

from __future__ import annotations

import collections
import dataclasses
import threading


class _Drops(threading.local):
    """How many puts this thread's backends have dropped. It only grows: controllers compare before and after."""

    count = 0


drops = _Drops()


@dataclasses.dataclass
class _CacheStat:
    """The outcomes of one cache or backend."""

    miss: int = 0
    hit: int = 0
    put: int = 0
    exception: int = 0
    drop: int = 0

    def __str__(self) -> str:
        dropped = f", drop: {self.drop}" if self.drop else ""
        return f"{{hit: {self.hit}, miss: {self.miss}, put: {self.put}, exception: {self.exception}{dropped}}}"


class _CacheStats:
    """The outcomes of all of them, by name."""

    _stats: dict[str, _CacheStat]

    def __init__(self) -> None:
        self._stats = collections.defaultdict(_CacheStat)

    def miss(self, name: str, count: int = 1) -> None:
        self._stats[name].miss += count

    def hit(self, name: str, count: int = 1) -> None:
        self._stats[name].hit += count

    def get(self, name: str, value: object | None) -> None:
        if value is None:
            self.miss(name)
        else:
            self.hit(name)

    def put(self, name: str, count: int = 1) -> None:
        self._stats[name].put += count

    def exception(self, name: str, count: int = 1) -> None:
        self._stats[name].exception += count

    def drop(self, name: str, count: int = 1) -> None:
        self._stats[name].drop += count

    def _put_or_drop(self, name: str, dropped_before: int) -> None:
        if drops.count == dropped_before:
            self.put(name)
        else:
            self.drop(name)
