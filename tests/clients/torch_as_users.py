"""One process of stock torch that compiles a model as one user of a cache after the other, each as on a fresh machine.

    python -m tests.clients.torch_as_users URL ...

Prints a line of JSON for each URL: what its remote caches counted, and whether the outputs were right. The model is one matrix
product, forward and backward, which the library computes: nothing waits for g++.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def compile_as(url: str) -> dict[str, Any]:
    import torch
    from torch._inductor.remote_cache import _CacheStat, cache_stats
    from torch._inductor.utils import fresh_cache

    os.environ["TORCHINDUCTOR_REDIS_URL"] = url
    torch.compiler.reset()
    cache_stats._stats.clear()
    torch.manual_seed(0)
    model = torch.nn.Linear(16, 32, bias=False)
    batch = torch.randn(8, 16)
    model(batch).sum().backward()
    assert model.weight.grad is not None
    expected = model.weight.grad.clone()
    model.zero_grad()
    with fresh_cache():
        torch.compile(model)(batch).sum().backward()
    graphs = cache_stats._stats.get("RemoteFxGraphCache", _CacheStat())
    return {
        "hits": graphs.hit,
        "misses": graphs.miss,
        "exceptions": sum(stat.exception for stat in cache_stats._stats.values()),
        "is_right": torch.allclose(model.weight.grad, expected, rtol=1e-3, atol=1e-4),
    }


if __name__ == "__main__":
    for url in sys.argv[1:]:
        print(json.dumps(compile_as(url)))
