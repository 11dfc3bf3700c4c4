"""One process that compiles one model and says, as JSON on its last line, what that cost and what the caches did.

    python -m demo.worker MODEL

It is anybody's job: which caches it asks, and where, is in the environment. The plug-in, being installed, is active when
`PILOTLIGHT_URL` is set.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from demo.models import MODELS, SEED
from demo.tree import compilers_ended, compilers_started, tree_cpu_s


@dataclass(frozen=True)
class Run:
    """What one process measured. The times are of the first call, which compiles."""

    model: str
    first_call_s: float
    first_call_cpu_s: float
    """Of this process and all that it started."""
    compilers: int
    """How often a compiler was started, be it only to ask its version."""
    compiles: int
    """How often one made something."""
    compilers_cpu_s: float
    equals_eager: bool
    """Whether the compiled outputs are close to those of the uncompiled model."""
    digest: str
    """Of the compiled outputs' bytes."""
    fx_hits: int
    fx_lookups: int
    fx_puts: int
    aot_hits: int
    aot_lookups: int
    exceptions: int
    kernels_fetched: int
    kernels_local: int
    plugin: dict[str, int]
    """The plug-in's own counters: `pilotlight.Client.stats`. Empty without it."""

    @property
    def hits(self) -> int:
        return self.fx_hits + self.aot_hits

    @property
    def lookups(self) -> int:
        return self.fx_lookups + self.aot_lookups


def measure(name: str) -> Run:
    import torch

    torch.manual_seed(SEED)
    task = MODELS[name]()
    expected = [tensor.clone() for tensor in task.run(task.model)]
    compiled = torch.compile(task.model)
    begin, begin_cpu = time.perf_counter(), tree_cpu_s()
    outputs = task.run(compiled)
    seconds, cpu = time.perf_counter() - begin, tree_cpu_s() - begin_cpu
    fx = _remote_cache("RemoteFxGraphCache")
    aot = _remote_cache("RemoteAOTAutogradCache")
    kernels = _kernels()
    ended = compilers_ended()
    return Run(
        model=name,
        first_call_s=seconds,
        first_call_cpu_s=cpu,
        compilers=compilers_started(),
        compiles=ended.compiles,
        compilers_cpu_s=ended.cpu_s,
        equals_eager=all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(outputs, expected, strict=True)),
        digest=_digest(outputs),
        fx_hits=fx.hit,
        fx_lookups=fx.hit + fx.miss,
        fx_puts=fx.put,
        aot_hits=aot.hit,
        aot_lookups=aot.hit + aot.miss,
        exceptions=fx.exception + aot.exception,
        kernels_fetched=kernels.get("hits", 0),
        kernels_local=kernels.get("local", 0),
        plugin=_plugin(),
    )


def _remote_cache(name: str) -> Any:
    """PyTorch's own count of what a remote cache answered."""
    from torch._inductor.remote_cache import _CacheStat, cache_stats

    return cache_stats._stats.get(name, _CacheStat())


def _kernels() -> dict[str, int]:
    """What became of C++ kernels, where the plug-in is active."""
    counted = sys.modules.get("pilotlight.torch.cpp_stats")
    return dict(counted.stats()) if counted is not None else {}


def _plugin() -> dict[str, int]:
    if not os.environ.get("PILOTLIGHT_URL"):
        return {}
    from pilotlight import client

    found = client()
    return dict(found.stats()) if found is not None else {}


def _digest(tensors: Sequence[Any]) -> str:
    hasher = hashlib.sha256()
    for tensor in tensors:
        hasher.update(tensor.detach().contiguous().numpy().tobytes())
    return hasher.hexdigest()


if __name__ == "__main__":
    print(json.dumps(asdict(measure(sys.argv[1]))))
