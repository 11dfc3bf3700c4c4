"""Fleets, and when their processes start: drawn from a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.sizing.facts import MODELS_PER_ROOT_OF_GPUS, NEW_VERSIONS_A_DAY, POPULARITY, PROGRAMS, STARTS_A_DAY, Program

DAY_S = 86_400


@dataclass(frozen=True)
class Start:
    """A process that compiles or fetches `version` of a model."""

    at_s: float
    version: int


class Fleet:
    """So many GPUs, one process each, and the models that they run."""

    def __init__(self, gpus: int, seed: int) -> None:
        self.gpus = gpus
        self.rng = random.Random(f"{seed}:{gpus}")
        self.models = max(1, round(MODELS_PER_ROOT_OF_GPUS * math.sqrt(gpus)))
        self.programs = [self.rng.choice(PROGRAMS) for _ in range(self.models)]
        self.weights = [1 / (rank + 1) ** POPULARITY for rank in range(self.models)]

    def program_of(self, version: int) -> Program:
        """A version is a model and a count: `model + count * models`."""
        return self.programs[version % self.models]

    def models_of(self, processes: int) -> list[int]:
        return self.rng.choices(range(self.models), self.weights, k=processes)

    def day(self) -> tuple[list[Start], set[int]]:
        """Jobs of all sizes through a day, twice as many at noon as at midnight; each model gets new code now and then."""
        changes = sorted(
            (self.rng.uniform(0, DAY_S), model) for model in range(self.models) if self.rng.random() < NEW_VERSIONS_A_DAY
        )
        starts: list[Start] = []
        version_of = list(range(self.models))
        jobs: list[tuple[float, int, int]] = []
        size_max = max(1, min(1024, self.gpus // 4))
        wanted = self.gpus * STARTS_A_DAY
        while wanted > 0:
            at_s = self.rng.uniform(0, DAY_S)
            if self.rng.random() > 0.75 - 0.25 * math.cos(2 * math.pi * at_s / DAY_S):
                continue
            size = min(wanted, size_max, 2 ** int(self.rng.expovariate(0.4)))
            jobs.append((at_s, self.models_of(1)[0], size))
            wanted -= size
        pending = iter(changes)
        change = next(pending, None)
        for at_s, model, size in sorted(jobs):
            while change is not None and change[0] <= at_s:
                version_of[change[1]] += self.models
                change = next(pending, None)
            # The ranks of a job come up within half a minute of each other.
            starts += (Start(at_s + self.rng.uniform(0, 30), version_of[model]) for _ in range(size))
        return sorted(starts, key=lambda start: start.at_s), set(range(self.models))

    def burst(self, processes: int, within_s: float, begin_s: float = 0.0) -> Iterator[Start]:
        for model in self.models_of(processes):
            yield Start(begin_s + self.rng.uniform(0, within_s), model)

    def redeploy(self) -> tuple[list[Start], set[int]]:
        """New code everywhere, a tenth of the fleet each minute. Nothing of it is there yet."""
        wave = math.ceil(self.gpus / 10)
        starts = [start for number in range(10) for start in self.burst(wave, 60, number * 60)]
        return sorted(starts[: self.gpus], key=lambda start: start.at_s), set()

    def scale(self) -> tuple[list[Start], set[int]]:
        """From half of the fleet to all of it within a minute; all is there."""
        starts = self.burst(math.ceil(self.gpus / 2), 60)
        return sorted(starts, key=lambda start: start.at_s), set(range(self.models))

    def cold_start(self) -> tuple[list[Start], set[int]]:
        """All within a minute after an outage, with a new torch: nothing is there. The worst of them."""
        return sorted(self.burst(self.gpus, 60), key=lambda start: start.at_s), set()


SCENARIOS: dict[str, tuple[Callable[[Fleet], tuple[list[Start], set[int]]], int]] = {
    "day": (Fleet.day, DAY_S),
    "redeploy": (Fleet.redeploy, 900),
    "scale": (Fleet.scale, 120),
    "cold start": (Fleet.cold_start, 180),
}
