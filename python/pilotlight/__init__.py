"""Pilotlight, a remote compile cache for torch.compile and the compilers around it.

Importing this costs next to nothing and never imports torch; what is needed is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilotlight._client import client as client
    from pilotlight._native import Client as Client
    from pilotlight._native import Entry as Entry
    from pilotlight._native import __version__ as __version__

_HOMES = {
    "Client": "pilotlight._native",
    "Entry": "pilotlight._native",
    "__version__": "pilotlight._native",
    "client": "pilotlight._client",
}

__all__ = ["Client", "Entry", "__version__", "client"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
