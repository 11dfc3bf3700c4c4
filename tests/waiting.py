"""Waits for what another process does. It tells nobody when it is through: all that can be done is to ask again."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 120.0


def wait_until(holds: Callable[[], bool], *, every_s: float = 0.02, trouble: Callable[[], str] = str) -> None:
    """Asks until `holds` says yes; two minutes of no are a failure, told with what `trouble` says."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s in vain: {trouble()}"
        time.sleep(every_s)
