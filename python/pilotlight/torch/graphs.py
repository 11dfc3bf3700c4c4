"""`torch._inductor.codecache`: how both guarded caches find entries, and how graphs are kept. Read against 2.6 to 2.15.

Several variants per key instead of one; no base64 and JSON in Python; a remote hit is written through to the local cache,
a local hit fills an empty remote; an entry that cannot be used is refused, and the compile goes on.
"""

from __future__ import annotations

import base64
import contextlib
import pickle
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pilotlight import _summary
from pilotlight.torch import backfill, coherence, leases, lookups, marks, puts, remote, replacing, templates
from pilotlight.torch.lookups import Lookup, state

if TYPE_CHECKING:
    from pilotlight._native import Entry

# Cache class -> (kind, name of its remote cache in torch's counters).
CACHES = {
    "FxGraphCache": ("fx-graph", "RemoteFxGraphCache"),
    "AOTAutogradCache": ("aot-autograd", "RemoteAOTAutogradCache"),
}

# What loading an entry's code raises if the code is wrong, wherever it is loaded.
_BAD_CODE = (SyntaxError, NameError, AttributeError, TypeError, LookupError, ValueError, AssertionError)


def patch(module: ModuleType) -> None:
    """Called when torch has executed the module."""
    guarded = getattr(module, "GuardedCache", None)
    if guarded is not None:  # torch 2.7 and later
        _patch_lookups(guarded, module)
    fx = module.FxGraphCache
    replacing.replace(
        fx,
        "_lookup_graph",
        "key example_inputs local remote_cache constants evaluate_guards",
        lambda original: _lookup_one_by_one(original, module) if guarded is None else _lookup(original, fx),
        "key example_inputs local remote_cache constants",
    )
    replacing.replace_if_there(fx, "_write_to_local_cache", "key content", puts.noticing_content)
    replacing.replace(
        fx, "_save_graph", "key compiled_graph example_inputs local remote_cache", lambda original: _save(original, module)
    )
    replacing.replace(module, "log_cache_bypass", "args kwargs", recorded_bypass("fx-graph"))
    replacing.replace(
        module.PersistentCache,
        "lookup",
        "self choices op inputs benchmark hint_override",
        templates.shared,
        "self choices op inputs benchmark",
    )


def _patch_lookups(guarded: Any, module: ModuleType) -> None:
    replacing.replace(
        guarded, "iterate_over_candidates", "cls local remote_cache key", lambda original: _candidates(original, module)
    )
    replacing.replace(
        guarded,
        "find_guarded_entry",
        "cls key local remote_cache evaluate_guards hints",
        lambda original: _find(original, module),
    )


def _candidates(original: replacing.Function, module: ModuleType) -> replacing.Function:
    # torch 2.12 and later hand out (candidate, content, whether it is local), earlier ones (candidate, content).
    with_origin = "bool" in str(original.__annotations__.get("return", ""))

    def iterate_over_candidates(cls: Any, local: bool, remote_cache: Any, key: str) -> Iterator[tuple[Any, ...]]:
        lookup = lookups.current(key)
        if lookup is None and remote_cache is not None:  # not ours, as tests have it
            yield from original(cls, local, remote_cache, key)
            return
        # Also where no remote is asked, as after an entry of its that does not load.
        for step in original(cls, local, None, key):
            if _may_be_used(lookup, *step[:2]) and _has_graphs(cls, lookup, step[0], module):
                yield step
        if lookup is None:
            return
        found = lookup.candidates(_usable_by(cls, module))
        # Step by step: an error of ours must not reach torch, one that torch throws into the generator is its own.
        while (step := _next(found)) is not None:
            candidate, entry = step
            if not _has_graphs(cls, lookup, candidate, module):
                continue
            yield (candidate, entry.artifact, False) if with_origin else (candidate, entry.artifact)

    return iterate_over_candidates


def _may_be_used(lookup: Lookup | None, candidate: Any, content: bytes) -> bool:
    with remote.guarded("looking for whom a local entry was made"):
        if not marks.may_be_used(candidate, content):
            if lookup is not None:
                lookup.local_misfits += 1
            return False
    return True


def _has_graphs(cls: Any, lookup: Lookup | None, entry: Any, module: ModuleType) -> bool:
    """Whether an AOTAutograd entry's graphs are at hand: fetches them, since they are what torch asks for next.

    Without them torch compiles all of it again, and then has two entries of one key, which `standalone_compile` cannot save.
    """
    if lookup is not None and cls.__name__ == "AOTAutogradCache":
        with remote.guarded("getting an entry's graphs"):
            if not backfill.fetch_graphs_of(lookup.client, entry, module):
                lookup.graphless += 1
                return False
    return True


def _next(found: Iterator[tuple[Any, Any]]) -> tuple[Any, Any] | None:
    with remote.guarded("looking up an entry"):
        return next(found, None)
    return None


def _find(original: replacing.Function, module: ModuleType) -> replacing.Function:
    def find_guarded_entry(
        cls: Any, key: str, local: bool, remote_cache: Any, evaluate_guards: Any, hints: Any
    ) -> tuple[Any, ...]:
        lookup = _open_lookup(cls, key, remote_cache)
        if lookup is None:
            return original(cls, key, local, remote_cache, evaluate_guards, hints)  # type: ignore[no-any-return]
        with lookups.inside(lookup):
            found: tuple[Any, ...] = original(cls, key, local, remote_cache, evaluate_guards, hints)
        if found[0] is None and lookup.kind == "fx-graph" and leases.graph_came(lookup.client, lookup.remote_key):
            lookup = _open_lookup(cls, key, remote_cache) or lookup
            with lookups.inside(lookup):
                found = original(cls, key, local, remote_cache, evaluate_guards, hints)
        if not coherence.agreed(found[0] is not None) and found[0] is not None:
            lookup.is_lone = True
            found = (None, None, {"cache_status_detailed": "full_miss"})
        with remote.guarded("counting a lookup"):
            remote.pass_notices()
            _settle(cls, lookup, remote_cache, found)
        return found

    return find_guarded_entry


def _open_lookup(cls: Any, key: str, remote_cache: Any) -> Lookup | None:
    with remote.guarded("opening a lookup"):
        client = remote.client_of(remote_cache)
        if client is not None and cls.__name__ in CACHES:
            return Lookup(client, remote_cache, key, CACHES[cls.__name__][0], touches_cpu=_may_touch_cpu(cls))
    return None


def _may_touch_cpu(cls: Any) -> bool:
    """Finding the CPU's fingerprint may run a compiler once; a program that only uses a GPU need not pay for it."""
    if cls.__name__ == "FxGraphCache":
        return state.touches_cpu
    import torch._functorch.config as config

    # Entries of the AOTAutograd cache hold no compiled code but in this mode.
    return bool(getattr(config, "bundled_autograd_cache", False))


def _settle(cls: Any, lookup: Lookup, cache: Any, found: tuple[Any, ...]) -> None:
    """Counts the outcome, and does what follows from a hit."""
    entry, content = found[:2]
    name = CACHES[cls.__name__][1]
    cache_stats = remote.cache_stats()
    if lookup.kind == "aot-autograd":
        _autograd().looked_up(lookup.key, missed=entry is None)
    if entry is None:
        cache_stats.miss(name)
        cache_stats.miss("backend:RedisRemoteCacheBackend")
        _summary.record("miss", lookup.kind, lookup.miss_reason())
        return
    if lookup.entry is None:
        if content is not None:
            backfill.on_local_hit(lookup, cache, entry, content)
    else:
        lookup.hit_remotely = True
        cache_stats.hit(name)
        cache_stats.hit("backend:RedisRemoteCacheBackend")
        if lookup.kind == "aot-autograd":
            _summary.record("hit", lookup.kind)
            puts.write_through(cls, lookup.key, content, lookup.made_for)
    if lookup.kind != "aot-autograd":
        state.found = lookup


class _OneByOne:
    """In the place of the remote cache in torch 2.6, which asks it once per lookup: hands out one entry after the other."""

    def __init__(self, lookup: Lookup, is_usable: Callable[[Any], bool]) -> None:
        self._candidates = lookup.candidates(is_usable)
        self.entry: Entry | None = None

    def get(self, key: str) -> dict[str, Any] | None:
        self.entry = next((entry for _, entry in self._candidates), None)
        return None if self.entry is None else {"data": base64.b64encode(self.entry.artifact).decode("ascii")}


def _lookup_one_by_one(original: replacing.Function, module: ModuleType) -> replacing.Function:
    """For torch 2.6: asks again while there are entries, since the first may have been made under other guards."""

    def _lookup_graph(key: str, example_inputs: Any, local: bool, remote_cache: Any, *more: Any, **named: Any) -> Any:
        client = remote.client_of(remote_cache)
        if client is None:
            return original(key, example_inputs, local, remote_cache, *more, **named)
        begin = time.monotonic()
        lookup = Lookup(client, remote_cache, key, "fx-graph")
        one = _OneByOne(lookup, _usable_by(module.FxGraphCache, module))
        try:
            graph, info = original(key, example_inputs, local, one, *more, **named)
            while graph is None and one.entry is not None:
                graph, info = original(key, example_inputs, False, one, *more, **named)
        except Exception as error:
            if one.entry is None:
                raise
            lookup.refuse(f"not usable: {type(error).__name__}", one.entry)
            _summary.record("miss", "fx-graph", lookup.miss_reason())
            return original(key, example_inputs, local, None, *more, **named)
        if one.entry is not None:
            remote.cache_stats().hit("RemoteFxGraphCache")
            _summary.record("hit", "fx-graph", saved_ms=_saved_ms(graph, begin))
        elif graph is None:
            remote.cache_stats().miss("RemoteFxGraphCache")
            _summary.record("miss", "fx-graph", lookup.miss_reason())
        return graph, info

    return _lookup_graph


def _lookup(original: replacing.Function, fx: Any) -> replacing.Function:
    def _lookup_graph(key: str, example_inputs: Any, local: bool, remote_cache: Any, *more: Any, **named: Any) -> Any:
        if remote.client_of(remote_cache) is None:
            return original(key, example_inputs, local, remote_cache, *more, **named)
        begin, state.found = time.monotonic(), None
        with _cpu_known(example_inputs):
            try:
                graph, info = original(key, example_inputs, local, remote_cache, *more, **named)
            except Exception as error:
                lookup = state.found
                if lookup is None or not lookup.hit_remotely:
                    raise
                if isinstance(error, _BAD_CODE) or type(error) is RuntimeError:
                    # It unpickled, but its code does not load.
                    lookup.refuse(f"not usable: {type(error).__name__}", lookup.entry)
                    reason = lookup.miss_reason()
                else:
                    # No compiler, no memory: trouble of this host's says nothing about the entry, which others use.
                    reason = f"not loaded: {type(error).__name__}"
                _summary.record("miss", "fx-graph", reason)
                return original(key, example_inputs, local, None, *more, **named)
        with remote.guarded("keeping a graph locally"):
            lookup = state.found
            if lookup is not None and lookup.hit_remotely and lookup.entry is not None:
                _settle_graph(fx, lookup, lookup.entry, graph, local=local, saved_ms=_saved_ms(graph, begin))
        return graph, info

    return _lookup_graph


def _saved_ms(graph: Any, begin: float) -> int:
    """What torch took to compile a graph, C++ kernels included, less what finding and loading it took since `begin`.

    Kernels that were not to be had are compiled while it loads: then that is most of it.
    """
    took_ms = (getattr(graph, "_time_taken_ns", None) or 0) // 1_000_000
    return max(0, took_ms - int((time.monotonic() - begin) * 1000))


def _settle_graph(fx: Any, lookup: Lookup, entry: Entry, graph: Any, *, local: bool, saved_ms: int) -> None:
    """After torch has done with an entry what follows on a hit: it may still turn it down, for a GPU library's version."""
    if graph is None:
        _summary.record("miss", "fx-graph", "turned down")
        return
    _summary.record("hit", "fx-graph", saved_ms=saved_ms)
    if local:
        puts.write_through(fx, lookup.key, entry.artifact, lookup.made_for)


@contextlib.contextmanager
def _cpu_known(example_inputs: Any) -> Iterator[None]:
    import torch

    devices = {value.device.type for value in example_inputs or () if isinstance(value, torch.Tensor)}
    before, state.touches_cpu = state.touches_cpu, not devices or "cpu" in devices
    try:
        yield
    finally:
        state.touches_cpu = before


def _save(original: replacing.Function, module: ModuleType) -> replacing.Function:
    def _save_graph(key: str, compiled_graph: Any, example_inputs: Any, local: bool, remote_cache: Any) -> None:
        client = remote.client_of(remote_cache)
        if client is None:
            original(key, compiled_graph, example_inputs, local, remote_cache)
            return
        if hasattr(module.FxGraphCache, "_write_to_local_cache"):
            with puts.content_noticed(write=local, host=puts.host_of(compiled_graph)) as noticed:
                # With `local`, so that the content passes `_write_to_local_cache`, where it is noticed.
                original(key, compiled_graph, example_inputs, True, None)
            # torch 2.15 counts it; before, local caches were not counted.
            if not local and noticed and hasattr(module, "cache_stats"):
                module.cache_stats.put("LocalFxGraphCache", -1)
        else:  # torch 2.6
            catching = puts.Catching()
            original(key, compiled_graph, example_inputs, local, catching)
            noticed = catching.contents
        with remote.guarded("putting a graph"):
            stored = False
            if noticed:
                if not hasattr(module.FxGraphCache, "_write_to_local_cache"):
                    # torch 2.6 writes the guards to a copy, which is what it pickles.
                    compiled_graph = pickle.loads(noticed[0])
                stored = puts.put_graph(client, remote_cache, key, compiled_graph, noticed[0])
            leases.graph_put(remote_cache._get_key(key).encode(), stored=stored)

    return _save_graph


def _usable_by(cls: Any, module: ModuleType) -> Any:
    if cls.__name__ == "FxGraphCache":
        from torch._inductor.output_code import CompiledFxGraph

        return lambda candidate: (
            isinstance(candidate, CompiledFxGraph)
            and isinstance(getattr(candidate, "guards_expr", ""), (str, type(None)))
            and isinstance(getattr(candidate, "source_code", None), str)
            and "device_types" in vars(candidate)
        )
    return _autograd().is_usable


def _autograd() -> ModuleType:
    """It is there when torch's own is, and imports this module."""
    from pilotlight.torch import autograd

    return autograd


def recorded_bypass(kind: str) -> Any:
    """Wraps `log_cache_bypass`, which torch calls with the reason whenever it leaves the cache out."""

    def make(original: replacing.Function) -> replacing.Function:
        def log_cache_bypass(*args: Any, **kwargs: Any) -> Any:
            lines = str(args[1]).splitlines() if len(args) > 1 else []
            _summary.record("bypass", kind, lines[0][:80] if lines else "")
            return original(*args, **kwargs)

        return log_cache_bypass

    return make
