"""How often a test that kills at random does so, and with which seed."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

SEED_VARIABLE = "PILOTLIGHT_TEST_SEED"
KILLS_VARIABLE = "PILOTLIGHT_TEST_KILLS"
# Set by `make soak`: kill for so long instead of so often.
SECONDS_VARIABLE = "PILOTLIGHT_SOAK_SECONDS"
TELL_EVERY_S = 10.0


def set_seed() -> str:
    """The seed of this run. Workers inherit the environment, so that all of them use the one that the header shows."""
    return os.environ.setdefault(SEED_VARIABLE, str(random.SystemRandom().randrange(10**9)))


def seeded(test: str) -> random.Random:
    """Randomness of this test, the same for the same seed whatever else runs."""
    seed = f"{set_seed()}:{test}"
    print(f"seed {seed}")
    return random.Random(seed)


def rounds(kills: int) -> Iterator[int]:
    """1, 2, 3 ... as often as was asked, or for as long; `kills` times unless told."""
    kills = int(os.environ.get(KILLS_VARIABLE, kills))
    seconds = float(os.environ.get(SECONDS_VARIABLE, "0"))
    begin = told = time.monotonic()
    number = 0
    while number < kills if seconds == 0 else time.monotonic() - begin < seconds:
        number += 1
        yield number
        if seconds and time.monotonic() - told >= TELL_EVERY_S:
            told = time.monotonic()
            print(f"{told - begin:4.0f} s: {number} kills", flush=True)
