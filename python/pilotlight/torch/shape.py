"""Patching functions of PyTorch only where they are what was read."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from pilotlight.torch.once import warn_once

_MARK = "_pilotlight_patched"


def patch(owner: Any, name: str, parameters: Sequence[str], wrap: Callable[[Any], Any]) -> bool:
    """Replace `owner.name` by `wrap(owner.name)` if its first parameters have these names. Returns whether it did.

    A name that is not there belongs to another version of torch and is passed over in silence. One with other parameters
    means that what it does may have changed too: it is left alone, with a warning.
    """
    found = inspect.getattr_static(owner, name, None)
    function = found.__func__ if isinstance(found, classmethod | staticmethod) else found
    if function is None or hasattr(function, _MARK):
        return False
    try:
        actual = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        actual = []
    if actual[: len(parameters)] != list(parameters):
        where = getattr(owner, "__name__", str(owner))
        warn_once(f"{where}.{name} of this torch takes ({', '.join(actual)}); it is left as it is, and its cache is not used")
        return False
    wrapper = functools.wraps(function)(wrap(function))
    # What functools.cache offers, PyTorch's own code may call.
    for attribute in ("cache_clear", "cache_info", "cache_parameters"):
        if hasattr(function, attribute):
            setattr(wrapper, attribute, getattr(function, attribute))
    setattr(wrapper, _MARK, True)
    setattr(owner, name, type(found)(wrapper) if isinstance(found, classmethod | staticmethod) else wrapper)
    return True
