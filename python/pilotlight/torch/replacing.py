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
    """Puts `make(original)` in the place of `owner.name`; a static or class method stays one. Whether it did.

    `parameters` are the names that the original takes, separated by blanks, `earlier` those in earlier versions. Where they
    differ, this torch is one that we do not know: the function stays, with one warning for all of them.
    """
    found = vars(owner).get(name)
    wrapper = type(found) if isinstance(found, (staticmethod, classmethod)) else None
    original = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
    if getattr(original, "_pilotlight", False):
        return True
    if original is None or " ".join(_parameters(original)) not in (parameters, *earlier):
        _warn(f"{getattr(owner, '__name__', owner)}.{name}")
        return False
    replacement = make(original)
    functools.update_wrapper(replacement, original)
    replacement._pilotlight = True  # type: ignore[attr-defined]
    setattr(owner, name, replacement if wrapper is None else wrapper(replacement))
    return True


def replace_if_there(owner: Any, name: str, parameters: str, make: Callable[[Function], Function]) -> bool:
    """As `replace`, for what some of the versions we know do not have: that is nothing to warn of."""
    return name in vars(owner) and replace(owner, name, parameters, make)


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
