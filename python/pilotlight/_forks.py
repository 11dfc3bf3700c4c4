"""Locks that a forked child finds open."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref


class Lock:
    """A re-entrant lock for threads of one process.

    A fork copies a lock as it is: held by a thread that the child does not have, it would stay held there for ever. So the
    child's are new ones. A `with` that a fork happens in ends well on both sides.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _all.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_exception: object) -> None:
        # In the child of a fork in the middle it is another lock, which nobody holds.
        with contextlib.suppress(RuntimeError):
            self._lock.release()

    def renew(self) -> None:
        self._lock = threading.RLock()


_all: weakref.WeakSet[Lock] = weakref.WeakSet()


def _in_child() -> None:
    for lock in _all:
        lock.renew()


os.register_at_fork(after_in_child=_in_child)
