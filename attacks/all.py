"""The attacks, by name."""

from __future__ import annotations

from collections.abc import Callable

from attacks import brute_force, desync, exhaust, oversize, poison, replay, traverse
from attacks.arena import Arena

ATTACKS: dict[str, Callable[[Arena], None]] = {
    "poison": poison.run,
    "replay": replay.run,
    "oversize": oversize.run,
    "desync": desync.run,
    "traverse": traverse.run,
    "brute-force": brute_force.run,
    "exhaust": exhaust.run,
}
