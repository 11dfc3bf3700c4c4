"""What each torch compiles in the matrix: `program.py SECTION...`, one line of JSON at the end.

Runs under torch 2.6 to 2.15 with nothing of this repository's but, where it is active, the plug-in. Each section says
whether its numbers are those of uncompiled torch, and what the plug-in and torch itself counted meanwhile.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any


class Heard(logging.Handler):
    """What the plug-in logs: which patches it left out, and errors of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        lines = record.getMessage().splitlines()
        if record.exc_info and record.exc_info[1] is not None:
            lines.append(f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}")
        self.lines.append(" ".join(lines))


# Before torch, at whose end the plug-in comes in.
heard = Heard()
logging.getLogger("pilotlight").addHandler(heard)
logging.getLogger("pilotlight").setLevel(logging.INFO)

import torch  # noqa: E402


def model() -> Any:
    """The least that has several kernels, a forward and a backward."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.LayerNorm(32), torch.nn.Linear(32, 1))


def near(found: list[Any], expected: list[Any]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(found, expected, strict=True))


def inference() -> bool:
    task, batch = model(), torch.randn(8, 16)
    with torch.no_grad():
        return near([torch.compile(task)(batch)], [task(batch)])


def training() -> bool:
    def step(run: Any) -> list[Any]:
        task.zero_grad()
        loss = run(batch).square().mean()
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in task.parameters())]

    task, batch = model(), torch.randn(8, 16)
    expected = step(task)
    return near(step(torch.compile(task)), expected)


def guards() -> bool:
    """One graph, two sizes that ask for other guards, in turn: the second entry must not push out the first."""

    def pool(x: Any) -> Any:
        return torch.nn.functional.adaptive_avg_pool2d(x, 2)

    equal = True
    # What was seen of earlier sizes would make for other graphs.
    with torch._dynamo.config.patch(automatic_dynamic_shapes=False):
        for size in (64, 96, 64, 96):
            torch._dynamo.reset()
            x = torch.arange(float(size * size)).reshape(1, 1, size, size)
            equal = near([torch.compile(pool, dynamic=True)(x)], [pool(x)]) and equal
    return equal


def vectors() -> bool:
    """A row of 67 is tiled for the vector width: code for 16 lanes leaves out half of what it adds when it has 8."""

    def rows(x: Any) -> Any:
        return (x * 3).sum(1) + x.exp().amax(1)

    torch.manual_seed(0)
    x = torch.randn(37, 67)
    with torch.no_grad():
        return near([torch.compile(rows)(x)], [rows(x)])


def profile() -> bool:
    """Two sizes make a size dynamic; who has the profile of an earlier run spares itself the first, static graph."""
    torch.manual_seed(0)
    w = torch.randn(16, 4)

    def product(x: Any) -> Any:
        return x @ w

    compiled = torch.compile(product)
    equal = True
    with torch.no_grad():
        for count in (8, 12):
            x = torch.randn(count, 16)
            equal = near([compiled(x)], [product(x)]) and equal
    return equal


SECTIONS: dict[str, Callable[[], bool]] = {
    "inference": inference,
    "training": training,
    "guards": guards,
    "vectors": vectors,
    "profile": profile,
}


def counted() -> dict[str, int]:
    """The plug-in's counters as `outcome kind`, torch's own as `torch outcome cache`, and graphs that Dynamo made."""
    from torch._dynamo.utils import counters

    found = {"graphs": int(counters["stats"]["unique_graphs"])}
    summary = sys.modules.get("pilotlight._summary")
    told = summary.report.as_dict() if summary else {}
    for outcome, kinds in told.items():
        for kind, reasons in kinds.items() if isinstance(kinds, dict) else ():
            found[f"{outcome} {kind}"] = sum(reasons.values())
    kernels = sys.modules.get("pilotlight.torch.cpp_stats")
    for name, count in (kernels.stats() if kernels else {}).items():
        found[f"kernel {name}"] = count
    caches = sys.modules.get("torch._inductor.remote_cache")
    for name, stat in caches.cache_stats._stats.items() if caches else ():
        for outcome in ("hit", "miss", "put", "exception"):
            found[f"torch {outcome} {name}"] = getattr(stat, outcome, 0)
    return found


def run(section: str) -> dict[str, Any]:
    before = counted()
    torch._dynamo.reset()
    equal = SECTIONS[section]()
    # Read after the section: what torch put in the background would be missing, but it puts in the foreground.
    return {"equal": equal, "counts": {name: count - before.get(name, 0) for name, count in counted().items()}}


sections = {name: run(name) for name in sys.argv[1:]}
capability = torch.backends.cpu.get_cpu_capability()
active = "pilotlight.torch.activation" in sys.modules
print(json.dumps({"sections": sections, "capability": capability, "active": active, "heard": heard.lines}))
