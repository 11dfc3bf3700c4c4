"""What a server is asked for, by the second."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.sizing.facts import (
    CARD_BACKLOG_MAX_S,
    CARDS_GBIT,
    CONNECTION_US,
    CORE_BACKLOG_MAX_S,
    LOOKUP_US,
    PUT_US,
    QUESTION_US,
    QUESTIONS_PER_S,
    RENEWED_EVERY_S,
    UTILISED_MAX,
    Program,
)
from bench.sizing.fleet import Start


@dataclass
class Load:
    """What a server is asked for, by the second."""

    seconds: int
    requests: list[float] = field(init=False)
    sent: list[float] = field(init=False)
    cpu_us: list[float] = field(init=False)
    waiting: list[float] = field(init=False)
    starts: int = 0
    compiled: int = 0
    saved_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("requests", "sent", "cpu_us", "waiting"):
            setattr(self, name, [0.0] * (self.seconds + 1))

    def add(self, at_s: float, requests: float, sent: float, cpu_us: float) -> None:
        second = min(int(at_s), self.seconds)
        self.requests[second] += requests
        self.sent[second] += sent
        self.cpu_us[second] += cpu_us

    def wait(self, from_s: float, to_s: float) -> None:
        """A follower more, from then to then. `finish` adds these up."""
        self.waiting[min(int(from_s), self.seconds)] += 1
        self.waiting[min(int(to_s), self.seconds)] -= 1

    def finish(self) -> None:
        now = 0.0
        for second, change in enumerate(self.waiting):
            now += change
            self.waiting[second] = now
            self.requests[second] += now * QUESTIONS_PER_S
            self.cpu_us[second] += now * QUESTIONS_PER_S * QUESTION_US

    def fetch(self, at_s: float, program: Program, over_s: int) -> None:
        """The round trips of a warm process, evenly over the seconds of its first call."""
        share = 1 / over_s
        cpu_us = program.lookups * LOOKUP_US * share
        for second in range(over_s):
            self.add(at_s + second, program.round_trips * share, program.read_bytes * share, cpu_us)


def run(starts: Sequence[Start], program_of: Callable[[int], Program], seconds: int, seen: set[int]) -> Load:
    """Counts what `starts`, in order of time, ask for; `seen` are the versions that are there already."""
    load = Load(seconds)
    done_at: dict[int, float] = dict.fromkeys(seen, -math.inf)
    for start in starts:
        program = program_of(start.version)
        load.starts += 1
        load.add(start.at_s, 0, 0, CONNECTION_US)
        done = done_at.get(start.version)
        if done is None:
            done_at[start.version] = start.at_s + program.cold_s
            load.compiled += 1
            renewals = program.cold_s / RENEWED_EVERY_S
            load.add(start.at_s, program.round_trips + renewals, 0, program.lookups * LOOKUP_US)
            load.add(start.at_s + program.cold_s, program.lookups, 0, program.lookups * PUT_US)
        elif start.at_s < done:
            # It asks and is told to wait; then all that waited fetch within a second.
            load.wait(start.at_s, done)
            load.fetch(done, program, 1)
        else:
            load.fetch(start.at_s, program, max(1, round(program.warm_s)))
            load.saved_s += program.cold_s - program.warm_s
    load.finish()
    return load


def backlog(asked: Sequence[float], each_second: float) -> float:
    """How much of what is asked for by the second waits at most, where so much of it is done in each."""
    now = most = 0.0
    for more in asked:
        now = max(0.0, now + more - each_second)
        most = max(most, now)
    return most


def card_carries(gbit: int) -> float:
    """Bytes a second."""
    return gbit * 1e9 / 8 * UTILISED_MAX


def card_for(sent: Sequence[float]) -> int:
    """The smallest card, in Gbit/s, that nothing waits too long for; the largest if there is none."""
    for gbit in CARDS_GBIT:
        if backlog(sent, card_carries(gbit)) <= CARD_BACKLOG_MAX_S * card_carries(gbit):
            return gbit
    return CARDS_GBIT[-1]


def cores_for(cpu_us: Sequence[float]) -> int:
    """The fewest cores that nothing waits too long for."""
    cores = 1
    while backlog(cpu_us, cores * UTILISED_MAX * 1e6) > CORE_BACKLOG_MAX_S * cores * UTILISED_MAX * 1e6:
        cores += 1
    return cores
