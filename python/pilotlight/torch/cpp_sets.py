"""Which kernels a graph uses, kept beside the graph, so that a hit fetches all of them in one round trip.

`begin` is called when PyTorch looks a graph up, and notes the kernels that are needed until the graph is saved, or loaded, in
the same thread; then `end` puts their keys under the graph's. `prefetch` is for an AOTAutograd hit, which knows several graphs.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pilotlight.torch import cpp_key
from pilotlight.torch.cpp_remote import Remote
from pilotlight.torch.cpp_stats import count
from pilotlight.torch.once import guarded
from pilotlight.torch.toolchain import Toolchain, toolchain

if TYPE_CHECKING:
    from pilotlight._native import Entry

_KEY_BYTES = len(cpp_key.PREFIX) + 64
_KERNELS_MAX = 4096
_LISTS_MAX = 256


class _Graph(threading.local):
    """The graph that this thread compiles or loads."""

    fx_key: str | None = None
    kernels: list[bytes]
    waited_s = 0.0
    # The graph that was completed last.
    ended_key: str | None = None


_graph = _Graph()
_asked: set[bytes] = set()
"""Lists that this process has looked for; a graph without kernels has none."""
_lists: dict[bytes, list[bytes]] = {}
"""What stands in those that it found or made of late."""


def begin(fx_key: str) -> None:
    """From here on, kernels of this thread belong to this graph."""
    _graph.fx_key, _graph.kernels = fx_key, []
    _graph.waited_s, _graph.ended_key = 0.0, None


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Notes how long this thread's graph waits for a kernel."""
    begin = time.monotonic()
    try:
        yield
    finally:
        _graph.waited_s += time.monotonic() - begin


def waited_ms(fx_key: str) -> int:
    """How much of what this graph took went by with waiting for its kernels; 0 if another was completed since."""
    return int(_graph.waited_s * 1000) if _graph.ended_key == fx_key else 0


def used(key: bytes) -> None:
    """A kernel was needed."""
    if _graph.fx_key is not None:
        _graph.kernels.append(key)


@guarded(otherwise=None)
def fetch_current() -> None:
    """The graph was found, and its kernels are needed next."""
    if _graph.fx_key is not None:
        prefetch([_graph.fx_key])


@guarded(otherwise=None)
def end(fx_key: str) -> None:
    """The graph is complete: put its list, unless the remote cache has it."""
    if _graph.fx_key != fx_key:
        return
    kernels = list(dict.fromkeys(_graph.kernels))
    _graph.fx_key, _graph.kernels = None, []
    _graph.ended_key = fx_key
    if not 0 < len(kernels) <= _KERNELS_MAX or (known := _toolchain()) is None or (remote := known.remote()) is None:
        return
    key = cpp_key.listing(known.base, fx_key)
    _note(key, kernels)
    if remote.lacks(key):
        remote.put(key, b"".join(kernels))


@guarded(otherwise=())
def set_keys(fx_keys: Iterable[str]) -> Sequence[bytes]:
    """The keys of the graphs' lists, for a caller who fetches them together with other entries. Raises nothing."""
    known = _toolchain()
    return () if known is None else [cpp_key.listing(known.base, fx_key) for fx_key in fx_keys]


@guarded(otherwise=())
def keys_of(fx_key: str) -> Sequence[bytes]:
    """The keys of the graph's list and its kernels, if it has any that this process knows of. Raises nothing."""
    # Whoever has no kernels need not look for a compiler.
    if not _lists or (known := _toolchain()) is None:
        return ()
    key = cpp_key.listing(known.base, fx_key)
    kernels = _lists.get(key)
    return () if kernels is None else [key, *kernels]


def _note(key: bytes, kernels: list[bytes]) -> None:
    _lists[key] = kernels
    while len(_lists) > _LISTS_MAX:
        _lists.pop(next(iter(_lists)), None)


@guarded(otherwise=0)
def prefetch(fx_keys: Iterable[str]) -> int:
    """Fetch the kernels of these graphs in two round trips: the lists, then what they list.

    Returns how many came. Raises nothing.
    """
    known = _toolchain()
    if known is None or (remote := known.remote()) is None:
        return 0
    wanted = [key for key in set_keys(fx_keys) if key not in _asked and remote.lacks(key)]
    return _prefetch_listed(remote, wanted, remote.get_many(wanted)) if wanted else 0


@guarded(otherwise=0)
def prefetch_listed(keys: Sequence[bytes], entries: Sequence[Entry | None]) -> int:
    """As `prefetch`, in one round trip, for a caller who has got the entries under `set_keys`."""
    known = _toolchain()
    if known is None or (remote := known.remote()) is None:
        return 0
    return _prefetch_listed(remote, keys, [remote.checked(key, entry) for key, entry in zip(keys, entries, strict=True)])


def _prefetch_listed(remote: Remote, keys: Sequence[bytes], lists: Sequence[bytes | None]) -> int:
    _asked.update(keys)
    kernels: list[bytes] = []
    for key, listed in zip(keys, lists, strict=True):
        if listed is not None and len(listed) % _KEY_BYTES == 0:
            remote.note(key)
            named = (listed[at : at + _KEY_BYTES] for at in range(0, len(listed), _KEY_BYTES))
            its_own = [kernel for kernel in named if kernel.startswith(cpp_key.PREFIX)]
            _note(key, its_own)
            kernels += its_own
    fetched = remote.prefetch(kernels[:_KERNELS_MAX])
    count("prefetched", fetched)
    return fetched


def _toolchain() -> Toolchain | None:
    from torch._inductor.cpp_builder import get_cpp_compiler

    return toolchain(get_cpp_compiler())
