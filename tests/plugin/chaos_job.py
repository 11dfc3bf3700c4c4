"""A program that trains: one step of a new model for each line it reads, and then a line about how that went.

A line in: `{"url": ..., "width": ...}`; another URL is another remote cache, whose client has a budget and notices of its own.
Graphs are not kept between steps, so that the remote cache is asked for them. Kernels are, on the disk, and they are the same
for every width, so that a compiler runs for the first step alone. The process ends when there are no more lines.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from typing import Any

import pilotlight.torch
import torch
from pilotlight import _client, _summary

LOCAL_GRAPHS = ("aotautograd", "fxgraph")


def main() -> None:
    pilotlight.torch._autoload()
    for line in sys.stdin:
        asked = json.loads(line)
        os.environ["PILOTLIGHT_URL"] = asked["url"]
        print(json.dumps(step(asked["width"])), flush=True)


def step(width: int) -> dict[str, Any]:
    forget()
    torch.manual_seed(width)
    model = torch.nn.Sequential(torch.nn.Linear(width, 32), torch.nn.GELU(), torch.nn.Linear(32, 1))
    batch = torch.randn(8, width)
    expected = train(model, model, batch)
    before = totals()
    begin = time.monotonic()
    found = train(torch.compile(model), model, batch)
    wall_s = time.monotonic() - begin
    client = _client.client()
    return {
        "equal": all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(found, expected, strict=True)),
        "wall_s": wall_s,
        "stats": client.stats() if client is not None else {},
        "counts": {name: count - before.get(name, 0) for name, count in totals().items() if count != before.get(name, 0)},
    }


def train(run: Any, model: Any, batch: Any) -> list[Any]:
    model.zero_grad()
    loss = run(batch).square().mean()
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


def totals() -> dict[str, int]:
    """`outcome/kind/reason` -> count, as the report at exit has it, kernels included."""
    flat: dict[str, int] = {}
    for outcome, kinds in _summary.report.as_dict().items():
        if isinstance(kinds, dict):
            flat |= {
                f"{outcome}/{kind}/{reason}": count for kind, reasons in kinds.items() for reason, count in reasons.items()
            }
    kernels = sys.modules.get("pilotlight.torch.cpp_stats")
    return flat | ({f"kernels/{name}": count for name, count in kernels.stats().items()} if kernels else {})


def forget() -> None:
    """As on a machine that has the kernels but has never seen the model."""
    from torch._dynamo import pgo
    from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache
    from torch._inductor.utils import clear_caches

    torch._dynamo.reset()
    clear_caches()
    pgo.reset_code_state()
    AOTAutogradCache.get_remote_cache.cache_clear()
    for name in LOCAL_GRAPHS:
        shutil.rmtree(os.path.join(os.environ["TORCHINDUCTOR_CACHE_DIR"], name), ignore_errors=True)


if __name__ == "__main__":
    main()
