"""`torch._inductor.remote_cache`: the Redis backend's place is taken by our client. Read against torch 2.6 to 2.15.

The classes above it stay torch's own, so that names, keys, counters and `backend_override_cls` are what tests expect.
"""

from __future__ import annotations

import base64
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pilotlight import _summary
from pilotlight.torch import remote, replacing
from pilotlight.torch.lookups import Lookup

if TYPE_CHECKING:
    from pilotlight._native import Client

# Cache class -> kind.
KINDS = {
    "RemoteFxGraphCache": "fx-graph",
    "RemoteAOTAutogradCache": "aot-autograd",
    "RemoteAutotuneCache": "autotune",
    "RemoteBundledAutotuneCache": "bundled-autotune",
    "RemoteDynamoPGOCache": "pgo",
}


# Those whose entries depend on guards and hosts.
_GUARDED = ("fx-graph", "aot-autograd")


def patch(module: ModuleType) -> None:
    """Called when torch has executed the module."""
    module.RedisRemoteCacheBackend = _backend_class(module)  # type: ignore[attr-defined]
    replacing.replace(module.RedisRemoteCache, "_get", "self key sample", _recorded_get)
    replacing.replace(
        module.RedisRemoteCache, "_put", "self key value sample", lambda original: _recorded_put(original, module)
    )


def _backend_class(module: ModuleType) -> type:
    class RedisRemoteCacheBackend(module.RemoteCacheBackend):  # type: ignore[misc, name-defined]
        """Named as the one it stands for: counters go by the name."""

        def __init__(self, cache_id: str) -> None:
            super().__init__()
            self.pilotlight_client = remote.connect()
            self.dropped = 0

        def _get(self, key: str) -> bytes | None:
            client = self.pilotlight_client
            value = None if client is None else client.get_raw(key.encode())
            # Before torch unpickles it, see `Lookup`.
            remote.pass_notices()
            return value

        def _put(self, key: str, data: bytes) -> None:
            client = self.pilotlight_client
            if client is None or not client.put_raw(key.encode(), data):
                # Whoever called counts a put next; what did not happen is taken off again.
                self.dropped += 1
                module.cache_stats.put(self._name, -1)

    RedisRemoteCacheBackend.__qualname__ = "RedisRemoteCacheBackend"
    RedisRemoteCacheBackend.__module__ = module.__name__
    return RedisRemoteCacheBackend


def _recorded_get(original: replacing.Function) -> replacing.Function:
    def _get(self: Any, key: str, sample: Any) -> Any:
        client = remote.client_of(self)
        if client is None:
            return original(self, key, sample)
        kind = KINDS.get(type(self).__name__, "other")
        if kind in _GUARDED:
            with remote.guarded("looking up an entry"):
                return _first_that_fits(self, key, kind, client)
            return None
        observed = remote.Observed(client)
        try:
            value = original(self, key, sample)
            # Every cache but a test's own keeps dictionaries here, and its callers take them apart.
            is_whole = value is None or isinstance(value, dict)
        except (ValueError, RecursionError):  # neither JSON nor UTF-8
            is_whole = False
        if not is_whole:
            # It would be so for the next reader too.
            client.quarantine(self._get_key(key).encode())
            _summary.record("refused", kind, "not JSON")
            value = None
        remote.pass_notices()
        if value is None:
            _summary.record("miss", kind, observed.reason("absent"))
        else:
            _summary.record("hit", kind)
        return value

    return _get


def _first_that_fits(cache: Any, key: str, kind: str, client: Client) -> dict[str, Any] | None:
    """For a torch whose lookups are not patched: one entry, as stock torch has it, but none for another CPU."""
    lookup = Lookup(client, cache, key, kind)
    for _, entry in lookup.candidates(lambda candidate: True):
        _summary.record("hit", kind, saved_ms=entry.compile_ms if kind == "fx-graph" else 0)
        return {"data": base64.b64encode(entry.artifact).decode("ascii"), "time_taken_ms": entry.compile_ms}
    _summary.record("miss", kind, lookup.miss_reason())
    return None


def _recorded_put(original: replacing.Function, module: ModuleType) -> replacing.Function:
    def _put(self: Any, key: str, value: Any, sample: Any) -> None:
        client = remote.client_of(self)
        if client is None:
            original(self, key, value, sample)
            return
        kind = KINDS.get(type(self).__name__, "other")
        observed, dropped_before = remote.Observed(client), self.backend.dropped
        original(self, key, value, sample)
        remote.pass_notices()
        if self.backend.dropped == dropped_before:
            _summary.record("put", kind)
        else:
            module.cache_stats.put(type(self).__name__, -1)
            _summary.record("drop", kind, observed.reason("refused"))

    return _put
