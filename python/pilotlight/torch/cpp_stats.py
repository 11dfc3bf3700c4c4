"""What became of the kernels of this process."""

from __future__ import annotations

import threading
from collections import Counter

NAMES = ("local", "hits", "misses", "puts", "back_filled", "refused", "prefetched", "bound")

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def count(name: str, by: int = 1) -> None:
    with _lock:
        _counts[name] += by


def stats() -> dict[str, int]:
    """Kernels by what became of them.

    They were on this disk (`local`), fetched (`hits`), compiled although a cache was asked (`misses`), stored after that
    (`puts`) or because the remote cache lacked them (`back_filled`), set aside as unusable (`refused`), fetched before they
    were asked for (`prefetched`, most of which are `hits` later), or bound to files of this machine and so not looked up
    (`bound`)."""
    with _lock:
        return {name: _counts[name] for name in NAMES}
