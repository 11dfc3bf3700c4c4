"""What a server that gives leases to stock clients takes longer for an ordinary lookup than one that does not.

Two servers on this machine, in turns, one short window after the other. One connection asks and waits for its answer before it
asks again, as PyTorch's client does. No other looks for the same graphs, so nobody waits for anybody's compile.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median

from devtools.resp import Connection
from devtools.servers import Pilotlight

WINDOW_LOOKUPS = 2_000
ARTIFACT = bytes(range(256)) * 128
"""32 KiB, as a small graph takes."""


@dataclass(frozen=True)
class Lookups:
    """Medians over rounds of the ratio within a round, leases over none."""

    hit: float
    miss: float


def measure(rounds: int) -> Lookups:
    with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as home, ExitStack() as stack:
        connections = []
        for lease_wait in ("3s", "off"):
            server = Pilotlight(Path(home) / lease_wait, env={"PILOTLIGHT_LEASE_WAIT": lease_wait})
            connections.append(stack.enter_context(stack.enter_context(server).connect()))
            connections[-1].command("SET", _key(0), ARTIFACT)
        numbers = count(1)
        hits = list(_ratios(connections, rounds, lambda: _key(0)))
        misses = list(_ratios(connections, rounds, lambda: _key(next(numbers))))
        return Lookups(median(hits), median(misses))


def _ratios(connections: list[Connection], rounds: int, key: Callable[[], bytes]) -> Iterator[float]:
    for number in range(1 + rounds):
        # Who goes first changes, as the second finds the processor warmer.
        order = connections if number % 2 == 0 else connections[::-1]
        took = {id(connection): _window_s(connection, key) for connection in order}
        leases, none = (took[id(connection)] for connection in connections)
        if number > 0:
            yield leases / none


def _window_s(connection: Connection, key: Callable[[], bytes]) -> float:
    """The median lookup: others use this machine too."""
    took = []
    for _ in range(WINDOW_LOOKUPS):
        asked = key()
        begin = time.perf_counter()
        connection.command("GET", asked)
        took.append(time.perf_counter() - begin)
    return median(took)


def _key(number: int) -> bytes:
    return b"pt2:fx-graph-v1::f%051d:c1" % number
