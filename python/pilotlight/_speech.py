"""What the user reads on stderr, and which process of a job says it."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final

QUIET_VARIABLE: Final = "PILOTLIGHT_QUIET"
# What launchers such as torchrun set, and what to call it.
_RANKS: Final = {"RANK": "rank", "LOCAL_RANK": "local_rank"}


def is_quiet() -> bool:
    """Whether the user wants to read nothing."""
    return os.environ.get(QUIET_VARIABLE, "") not in ("", "0")


def ranks() -> dict[str, int]:
    """`rank` and `local_rank`, as far as a launcher told this process; nothing outside of distributed jobs."""
    told = {name: os.environ.get(variable, "") for variable, name in _RANKS.items()}
    return {name: int(number) for name, number in told.items() if number.isdecimal()}


def say(message: str) -> None:
    """Writes a line, with the rank that says it."""
    who = next((f"{name.replace('_', ' ')} {number}: " for name, number in ranks().items()), "")
    # Closed, or never there: nobody is there to be told.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"pilotlight: {who}{message}\n")
        sys.stderr.flush()
