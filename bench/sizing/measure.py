"""What a server's CPU pays for what is simulated: `make bench-sizing ARGS=--measure`.

CPU is what the kernel charged the server, over many of one operation; each waits for its reply, as jobs do. So the figures are
for a server that is not busy, and rather high: one that is busy answers several requests for one wake-up.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from devtools.resp import Connection
from devtools.servers import Pilotlight

ENTRY_LEN = 17 << 10
"""What a real entry has on the wire: 382,860 bytes in 22 entries (resnet18)."""
GETS = 40_000
PUTS = 5_000
CONNECTIONS = 2_000
FOLLOWERS = 200
QUESTIONS = 10
QUESTION_MS = 500


def cost_us(server: Pilotlight, operations: int, work: Callable[[], None]) -> float:
    """What `work`, so many operations, takes of the server's CPU, each."""
    begin = server.cpu_s()
    work()
    return (server.cpu_s() - begin) / operations * 1e6


def measure() -> dict[str, float]:
    """Microseconds of server CPU, by operation."""
    with tempfile.TemporaryDirectory(prefix="pl-") as base, Pilotlight(Path(base) / "data") as server, ExitStack() as stack:
        connection = stack.enter_context(server.connect())
        connection.command("SET", "entry", os.urandom(ENTRY_LEN))

        def gets() -> None:
            for _ in range(GETS):
                connection.command("GET", "entry")

        def puts() -> None:
            for number in range(PUTS):
                connection.command("SET", f"put-{number}", os.urandom(ENTRY_LEN))

        def connections() -> None:
            for _ in range(CONNECTIONS):
                with server.connect() as one:
                    one.command("PING")

        followers = [stack.enter_context(server.connect()) for _ in range(FOLLOWERS)]
        key = "pt2:fx-graph-v1::fsizing:c1"
        leader = stack.enter_context(server.connect())

        def ask(follower: Connection) -> None:
            for turn in range(QUESTIONS):
                follower.command("PILOTLIGHT.LEASE", key, "60000", str(QUESTION_MS), *(["AGAIN"] if turn else []))

        def questions() -> None:
            leader.command("PILOTLIGHT.LEASE", key, "60000", "0")
            threads = [threading.Thread(target=ask, args=(follower,)) for follower in followers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        gets()  # So that the memory tier has it.
        return {
            "lookup": cost_us(server, GETS, gets),
            "put": cost_us(server, PUTS, puts),
            "connection": cost_us(server, CONNECTIONS, connections),
            "question": cost_us(server, FOLLOWERS * QUESTIONS, questions),
        }
