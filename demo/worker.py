"""One process that compiles one model and says, as JSON on its last line, how long that took and what the caches did.

    python -m demo.worker MODEL

It uses PyTorch as it comes: which caches it asks, and where, is in the environment, as in anybody's job.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from demo.models import MODELS, SEED


@dataclass(frozen=True)
class Run:
    """What one process measured."""

    model: str
    first_call_s: float
    equals_eager: bool
    """Whether the compiled outputs are close to those of the uncompiled model."""
    digest: str
    """Of the compiled outputs' bytes."""
    fx_hits: int
    fx_lookups: int
    aot_hits: int
    aot_lookups: int
    exceptions: int

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
    expected = task.run(task.model)
    compiled = torch.compile(task.model)
    begin = time.perf_counter()
    outputs = task.run(compiled)
    seconds = time.perf_counter() - begin
    fx = _remote_cache("RemoteFxGraphCache")
    aot = _remote_cache("RemoteAOTAutogradCache")
    return Run(
        model=name,
        first_call_s=seconds,
        equals_eager=all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(outputs, expected, strict=True)),
        digest=_digest(outputs),
        fx_hits=fx.hit,
        fx_lookups=fx.hit + fx.miss,
        aot_hits=aot.hit,
        aot_lookups=aot.hit + aot.miss,
        exceptions=fx.exception + aot.exception,
    )


def _remote_cache(name: str) -> Any:
    """PyTorch's own count of what a remote cache answered."""
    from torch._inductor.remote_cache import _CacheStat, cache_stats

    return cache_stats._stats.get(name, _CacheStat())


def _digest(tensors: Sequence[Any]) -> str:
    hasher = hashlib.sha256()
    for tensor in tensors:
        hasher.update(tensor.detach().contiguous().numpy().tobytes())
    return hasher.hexdigest()


if __name__ == "__main__":
    print(json.dumps(asdict(measure(sys.argv[1]))))
