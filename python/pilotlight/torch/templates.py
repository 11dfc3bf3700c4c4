"""`PersistentCache` in `torch._inductor.codecache`: measured times of GEMM and other templates. Read against 2.6 to 2.15.

torch keeps them in one local JSON file and asks its caller to measure what is not there. The asking is where the remote
comes in: known times are given instead of measured ones, measured ones are put.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from pilotlight import _summary
from pilotlight.torch import remote, replacing

if TYPE_CHECKING:
    from pilotlight._native import Client

_KIND = "autotune"


def shared(original: replacing.Function) -> replacing.Function:
    """Wraps `PersistentCache.lookup`."""

    def lookup(self: Any, choices: Any, op: str, inputs: str, benchmark: Any, *more: Any, **named: Any) -> Any:
        client = _client_if_on() if benchmark is not None else None
        if client is None:
            return original(self, choices, op, inputs, benchmark, *more, **named)

        def known_or_measured(asked: Any) -> Any:
            hint = more[0] if more else named.get("hint_override")
            key = None
            with remote.guarded("looking up template times"):
                key = _key(self.system["hash"], op, f"{inputs}_{hint}")
                known = _known(client, key, asked)
                if known is not None:
                    return known
            begin = time.monotonic()
            timings = benchmark(asked)
            with remote.guarded("putting template times"):
                if key is not None:
                    _put(client, key, timings, int((time.monotonic() - begin) * 1000))
            return timings

        return original(self, choices, op, inputs, known_or_measured, *more, **named)

    return lookup


def _client_if_on() -> Client | None:
    config = sys.modules.get("torch._inductor.config")
    if config is None or not config.autotune_remote_cache or config.force_disable_caches:
        return None
    return remote.connect()


def _key(system: str, op: str, inputs: str) -> bytes:
    """In the shape of torch's own autotune keys. `system` names the GPU; of the CPU only the fingerprint knows."""
    from torch._inductor import codecache

    precision = getattr(codecache, "fp32_matmul_precision_key", None)
    where = hashlib.sha256(b"\0".join((system.encode(), codecache.torch_key(), remote.fingerprint() or b"", b"templates-v1")))
    what = hashlib.sha256(f"{op}\0{inputs}\0{precision() if precision else ''}".encode())
    return f"pt2:{where.hexdigest()}::{what.hexdigest()}:c1".encode()


def _known(client: Client, key: bytes, choices: Any) -> dict[Any, float] | None:
    observed = remote.Observed(client)
    value = client.get_raw(key)
    times: Any = None
    if value is not None:
        with remote.guarded("reading template times"):
            times = json.loads(value)["times"]
    if not isinstance(times, dict):
        if value is not None:
            _summary.record("refused", _KIND, "wrong type")
            client.quarantine(key)
        _summary.record("miss", _KIND, observed.reason("absent"))
        return None
    timings = {choice: times.get(choice.hash_key()) for choice in choices}
    if not all(isinstance(measured, float) for measured in timings.values()):
        _summary.record("miss", _KIND, "other choices")
        return None
    _summary.record("hit", _KIND, saved_ms=int(json.loads(value or b"{}").get("time_taken_ms", 0)))
    return timings  # type: ignore[return-value]


def _put(client: Client, key: bytes, timings: dict[Any, float], taken_ms: int) -> None:
    if not timings:
        return
    observed = remote.Observed(client)
    value = {"times": {choice.hash_key(): float(measured) for choice, measured in timings.items()}, "time_taken_ms": taken_ms}
    if client.put_raw(key, json.dumps(value).encode(), compile_ms=taken_ms):
        _summary.record("put", _KIND)
    else:
        _summary.record("drop", _KIND, observed.reason("refused"))
