"""What became of the kernels of this process."""

from __future__ import annotations

from collections import Counter

from pilotlight._forks import Lock

NAMES = ("local", "hits", "misses", "puts", "back_filled", "dropped", "refused", "prefetched", "bound")

_counts: Counter[tuple[str, str]] = Counter()
_lock = Lock()


def count(name: str, by: int = 1, reason: str = "") -> None:
    with _lock:
        _counts[name, reason] += by


def reasons(name: str) -> dict[str, int]:
    """What `stats` has under `name`, by why it came about."""
    with _lock:
        return {reason: count for (counted, reason), count in _counts.items() if counted == name and count}


def stats() -> dict[str, int]:
    """Kernels by what became of them.

    They were on this disk (`local`), fetched (`hits`), compiled although a cache was asked (`misses`), stored after that
    (`puts`) or because the remote cache lacked them (`back_filled`), meant for it and not kept by it (`dropped`), set aside
    as unusable (`refused`), fetched before they were asked for (`prefetched`, most of which are `hits` later), or bound to
    files of this machine and so not looked up (`bound`)."""
    return {name: sum(reasons(name).values()) for name in NAMES}
