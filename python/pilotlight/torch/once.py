"""Warnings that are given once, and the wall between our errors and the user's compile."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from pilotlight._forks import Lock

log = logging.getLogger("pilotlight")

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D")

_given: set[str] = set()
_lock = Lock()


def warn_once(text: str) -> None:
    """Log a warning, unless this process has given it before."""
    with _lock:
        if text in _given:
            return
        _given.add(text)
    log.warning("pilotlight: %s", text)


def guarded(otherwise: D) -> Callable[[Callable[P, R]], Callable[P, R | D]]:
    """For functions that a compile calls: an error of ours is logged once, and the answer is `otherwise`."""

    def guard(function: Callable[P, R]) -> Callable[P, R | D]:
        @functools.wraps(function)
        def guarded_function(*args: P.args, **kwargs: P.kwargs) -> R | D:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                log.debug("pilotlight: error in %s", function.__qualname__, exc_info=True)
                warn_once(f"{function.__qualname__} failed, the compile goes on without it: {type(error).__name__}: {error}")
                return otherwise

        return guarded_function

    return guard
