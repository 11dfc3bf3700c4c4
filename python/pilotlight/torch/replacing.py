"""Replaces torch's functions, but only those that look as they did when this was written."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger("pilotlight")

Function = Callable[..., Any]

_warned = False


def replace(owner: Any, name: str, parameters: str, make: Callable[[Function], Function], *earlier: str) -> bool:
    """Puts `make(original)` in the place of `owner.name`; a static or class method stays one. Whether ours is there now.

    `parameters` are the names that the original takes, separated by blanks, with `...` at the end if more may follow;
    `earlier` those in earlier versions. Where they differ, this torch is one that we do not know: the function stays, with
    one warning for all of them.
    """
    found = vars(owner).get(name)
    wrapper = type(found) if isinstance(found, (staticmethod, classmethod)) else None
    original = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
    # Several of us may replace a function, each once.
    mark = f"{make.__module__}.{make.__qualname__}"
    marks: frozenset[str] = getattr(original, "_pilotlight", frozenset())
    if mark in marks:
        return True
    if original is None or not any(_fits(_parameters(original), expected) for expected in (parameters, *earlier)):
        _warn(f"{getattr(owner, '__name__', owner)}.{name}")
        return False
    replacement = make(original)
    functools.update_wrapper(replacement, original)
    # What functools.cache offers, torch's own code may call.
    for attribute in ("cache_clear", "cache_info", "cache_parameters"):
        if hasattr(original, attribute):
            setattr(replacement, attribute, getattr(original, attribute))
    replacement._pilotlight = marks | {mark}  # type: ignore[attr-defined]
    setattr(owner, name, replacement if wrapper is None else wrapper(replacement))
    return True


def replace_if_there(owner: Any, name: str, parameters: str, make: Callable[[Function], Function], *earlier: str) -> bool:
    """As `replace`, for what some of the versions we know do not have: that is nothing to warn of."""
    return name in vars(owner) and replace(owner, name, parameters, make, *earlier)


def _fits(names: list[str], expected: str) -> bool:
    if expected == "..." or expected.endswith(" ..."):
        needed = expected.split()[:-1]
        return names[: len(needed)] == needed
    return names == expected.split()


def _parameters(function: Function) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _warn(what: str) -> None:
    global _warned
    if _warned:
        log.info("pilotlight: %s is not as expected, it stays as it is", what)
        return
    _warned = True
    import torch

    log.warning(
        "pilotlight: torch %s is not a version known here: %s (and perhaps more) stays as it is", torch.__version__, what
    )
