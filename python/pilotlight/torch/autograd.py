"""`torch._functorch._aot_autograd.autograd_cache`: how AOTAutograd entries are kept. Read against torch 2.6 to 2.15."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from pilotlight.torch import graphs, puts, remote, replacing

_MODULE = "torch._functorch._aot_autograd.autograd_cache"

# What an entry is called, newest torch first.
_ENTRIES = ("GenericAOTAutogradResult", "GenericAOTAutogradCacheEntry", "AOTAutogradCacheEntry")


def patch(module: ModuleType) -> None:
    """Called when torch has executed the module."""
    cache = module.AOTAutogradCache
    replacing.replace(cache, "_write_to_local_cache", "key content", puts.noticing_content)
    replacing.replace(cache, "save", "key entry remote", lambda original: _save(original, module))
    replacing.replace(module, "log_cache_bypass", "args kwargs", graphs.recorded_bypass("aot-autograd"))


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
        with puts.content_noticed(write=True) as noticed:
            original(key, entry, False)
        with remote.guarded("putting an AOTAutograd entry"):
            if noticed:
                puts.put_autograd(client, cache, key, entry, noticed[0], module.cache_stats)

    # torch's callers name the argument.
    def save_by_name(key: str, entry: Any, remote: bool) -> None:
        save(key, entry, remote)

    return save_by_name
