"""Ranks that agree: with `PILOTLIGHT_COHERENT=1` a lookup is a hit on every rank of a job or on none.

For jobs whose ranks meet while they compile (torch's overlap scheduling with benchmarks, distributed autotuning): one that hit
would not come to where the others wait for it. torch 2.15 can do so for AOTAutograd entries
(`_sync_cache_decision_cross_ranks`); here it holds for graphs too, and from torch 2.7 on.

Every rank must look up the same graphs in the same order, as ranks that run the same program do. A rank that leaves the cache
out, for a graph that it cannot cache or a switch of its own, keeps the others waiting until their timeout.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from pilotlight.torch.once import guarded

SWITCH = "PILOTLIGHT_COHERENT"

# The job's own group, and ours.
_groups: tuple[Any, Any] = (None, None)


def is_wanted() -> bool:
    """Whether ranks agree on each lookup, and so meet in it."""
    return os.environ.get(SWITCH, "") not in ("", "0")


def agreed(hit: bool) -> bool:
    """Whether every rank hit. Called by all of them, or it does not return."""
    distributed = sys.modules.get("torch.distributed")
    if not is_wanted() or distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return hit
    return _all(hit) if distributed.get_world_size() > 1 else hit


@contextlib.contextmanager
def even_if_it_fails() -> Iterator[None]:
    """A lookup that raises is no hit to the other ranks. Whoever is interrupted does not meet them first."""
    try:
        yield
    except Exception:
        agreed(False)
        raise


@guarded(otherwise=False)
def _all(hit: bool) -> bool:
    global _groups
    import torch
    from torch import distributed
    from torch._dispatch.python import no_python_dispatcher
    from torch._subclasses.fake_tensor import unset_fake_temporarily
    from torch.utils._mode_utils import no_dispatch

    # A lookup runs inside torch's tracing, whose tensors hold nothing. Its Python dispatcher would hold the interpreter's lock
    # while the group's own is taken, by a thread that may want the interpreter's, to free the tensor of the call before.
    with no_python_dispatcher(), no_dispatch(), unset_fake_temporarily():
        if _groups[0] is not distributed.group.WORLD:
            _groups = distributed.group.WORLD, distributed.new_group(backend="gloo")
        decision = torch.tensor([int(hit)], dtype=torch.int32)
        distributed.all_reduce(decision, op=distributed.ReduceOp.MIN, group=_groups[1])
        return bool(decision.item())
