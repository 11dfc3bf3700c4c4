"""`torch._functorch._aot_autograd.autograd_cache`: how AOTAutograd entries are kept. Read against torch 2.6 to 2.15."""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import Any

from pilotlight.torch import graphs, puts, remote, replacing, switches

_MODULE = "torch._functorch._aot_autograd.autograd_cache"

# What an entry is called, newest torch first.
_ENTRIES = ("GenericAOTAutogradResult", "GenericAOTAutogradCacheEntry", "AOTAutogradCacheEntry")


def patch(module: ModuleType) -> None:
    """Called when torch has executed the module."""
    cache = module.AOTAutogradCache
    replacing.replace_if_there(module, "should_use_remote_autograd_cache", "", _unless_graphs_are_refused)
    replacing.replace_if_there(cache, "get_remote_cache", "", _anew_for_tests)
    # torch 2.6 writes in `save` itself; its entries are put as stock torch puts them.
    if replacing.replace_if_there(cache, "_write_to_local_cache", "key content", puts.noticing_content):
        replacing.replace(cache, "save", "key entry remote", lambda original: _save(original, module))
    replacing.replace(module, "log_cache_bypass", "args kwargs", graphs.recorded_bypass("aot-autograd"))
    # Of torch 2.12 and later; earlier ones explain every key.
    replacing.replace_if_there(module, "_get_debug_lines_for_cache_key", "pickler details key", _noting_details)


def _unless_graphs_are_refused(original: replacing.Function) -> replacing.Function:
    """Entries are of use only with their graphs: see `switches`, which switches those on for whoever wants these."""

    def should_use_remote_autograd_cache() -> bool:
        return bool(original()) and (_is_overridden() or not switches.graphs_are_refused())

    return should_use_remote_autograd_cache


def _anew_for_tests(original: replacing.Function) -> replacing.Function:
    """torch keeps the first remote cache it makes, which stock torch makes when somebody has switched it on: by then a test has
    put its own backend in place. We switch it on before."""

    def get_remote_cache() -> Any:
        make = getattr(original, "__wrapped__", original)
        return make() if _is_overridden() else original()

    return get_remote_cache


def _is_overridden() -> bool:
    caches = sys.modules.get("torch._inductor.remote_cache")
    return caches is not None and caches.RemoteAOTAutogradCache.backend_override_cls is not None


class _Asked(threading.local):
    """What the key that this thread asked for last was made of."""

    details: tuple[str, Any, Any] | None = None


_asked = _Asked()

# The lines that explain keys that were missed. Not by thread: what is put after a backward is put by autograd's.
_lines: dict[str, list[str]] = {}

# Keys whose entry never comes stay here: of a forward without its backward, for one.
_LINES_MAX = 256


def _noting_details(original: replacing.Function) -> replacing.Function:
    """torch explains an AOTAutograd key only when its logger is at DEBUG, as it takes a while; a miss takes much longer."""

    def _get_debug_lines_for_cache_key(pickler: Any, details: Any, key: str) -> list[str]:
        _asked.details = (key, pickler, details)
        lines: list[str] = original(pickler, details, key)
        return lines

    return _get_debug_lines_for_cache_key


def looked_up(key: str, *, missed: bool) -> None:
    """Tells what a key is made of while that is still known."""
    asked, _asked.details = _asked.details, None
    if not missed or asked is None or asked[0] != key:
        return
    _, pickler, details = asked
    # The graph as it was when its key was made: without names that differ between equal graphs.
    with sys.modules[_MODULE].sanitize_gm_for_cache(details.gm):
        _lines[key] = pickler.debug_lines(details)
    while len(_lines) > _LINES_MAX:
        _lines.pop(next(iter(_lines)), None)


def is_usable(candidate: Any) -> bool:
    """Whether an unpickled object is an entry of this torch's."""
    module = sys.modules[_MODULE]
    classes = tuple(found for name in _ENTRIES if isinstance(found := getattr(module, name, None), type))
    needed = {"compiled_fw", "compiled_bw", "guards_expr", "runtime_metadata"}
    return isinstance(candidate, classes) and needed <= vars(candidate).keys()


def _save(original: replacing.Function, module: ModuleType) -> replacing.Function:
    def save(key: str, entry: Any, remote_enabled: bool) -> None:
        cache = module.AOTAutogradCache.get_remote_cache() if remote_enabled else None
        client = remote.client_of(cache)
        if client is None:
            original(key, entry, remote_enabled)
            return
        with puts.content_noticed(write=True, host=puts.host_of(entry)) as noticed:
            original(key, entry, False)
        with remote.guarded("putting an AOTAutograd entry"):
            if noticed:
                lines = _lines.pop(key, None)
                puts.put_autograd(client, cache, key, entry, noticed[0], lines)

    # torch's callers name the argument.
    def save_by_name(key: str, entry: Any, remote: bool) -> None:
        save(key, entry, remote)

    return save_by_name
