"""Compile once per fleet: what another process compiles right now is waited for instead of compiled again.

Who misses a graph or a kernel asks the server who compiles it. Nothing here is needed for right numbers: whoever is not
answered, or has waited long enough, compiles. `PILOTLIGHT_LEASES=0` switches it off, `PILOTLIGHT_LEASE_BUDGET` says for how
many seconds a compile is waited for at most (600).

Nobody waits for another while a third may wait for it: a process that leads a kernel, or a thread that leads a graph, asks for
no more of that kind than to lead it as well. AOTAutograd entries are never waited for: they are put after the backward, by when
a distributed job may long wait for whoever waits here.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pilotlight import _client, _summary
from pilotlight._forks import Lock
from pilotlight.torch import coherence, remote, replacing
from pilotlight.torch.once import guarded

if TYPE_CHECKING:
    from pilotlight._native import Client, Lease

SWITCH = "PILOTLIGHT_LEASES"
BUDGET_VARIABLE = "PILOTLIGHT_LEASE_BUDGET"
BUDGET_S = 600.0


class _Graphs(threading.local):
    """The graphs that this thread compiles for others. They nest: compiling a graph may compile another."""

    led: dict[bytes, Lease] | None = None
    is_inner = False


_graphs = _Graphs()
_lock = Lock()
# The graphs that this process leads: it must not wait for itself. With the process, since a fork copies it.
_led: set[tuple[int, bytes]] = set()
_kernels: weakref.WeakSet[KernelLease] = weakref.WeakSet()
_warned = False


def patch(module: ModuleType) -> None:
    """For torch._inductor.compile_fx: a graph's lease ends with its compile, however that ends."""
    replacing.replace_if_there(module, "_compile_fx_inner", "gm example_inputs ...", _scoped)


def _scoped(original: replacing.Function) -> replacing.Function:
    def _compile_fx_inner(gm: Any, example_inputs: Any, *more: Any, **named: Any) -> Any:
        with compiling():
            return original(gm, example_inputs, *more, **named)

    return _compile_fx_inner


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """What this thread comes to lead meanwhile, and has not put, it gives up at the end."""
    before = _graphs.led, _graphs.is_inner
    _graphs.is_inner = bool(_graphs.led) or _graphs.is_inner
    _graphs.led = {}
    try:
        yield
    finally:
        led = _graphs.led
        _graphs.led, _graphs.is_inner = before
        for key, lease in led.items():
            _forget(key)
            lease.release()


@guarded(otherwise=False)
def graph_came(client: Client, key: bytes) -> bool:
    """After a graph was looked for in vain: whether another has put it. If not, this thread may lead it now."""
    if _graphs.led is None or (os.getpid(), key) in _led or not may_wait():
        return False
    came, lease = _ask(client, key, "fx-graph", limit_s=0.0 if _graphs.led or _graphs.is_inner else _limit_s())
    if lease is not None:
        _graphs.led[key] = lease
        with _lock:
            _led.add((os.getpid(), key))
    return came


def graph_put(key: bytes, *, stored: bool) -> None:
    """A graph was put, or could not be: that ends its lease."""
    lease = _graphs.led.pop(key, None) if _graphs.led else None
    if lease is not None:
        _forget(key)
        _end(lease, stored)


class KernelLease:
    """The compile of one kernel, or nothing. Given up when it is collected."""

    def __init__(self) -> None:
        self._lease: Lease | None = None
        self._pid = 0
        _kernels.add(self)

    @guarded(otherwise=False)
    def came(self, client: Client, key: bytes) -> bool:
        """After a kernel was looked for in vain: whether another has put it. If not, this process may lead it now."""
        if self._lease is not None or not may_wait():
            return False
        leads_another = any(kernel.leads() for kernel in list(_kernels))
        came, self._lease = _ask(client, key, "cpp-kernel", limit_s=0.0 if leads_another else _limit_s())
        self._pid = os.getpid()
        return came

    def end(self, *, stored: bool = False) -> None:
        """The kernel was put, or nothing will be."""
        lease, self._lease = self._lease, None
        if lease is not None:
            _end(lease, stored)

    def leads(self) -> bool:
        """Whether others may wait for what this process does."""
        return self._lease is not None and self._pid == os.getpid()


def _ask(client: Client, key: bytes, kind: str, limit_s: float) -> tuple[bool, Lease | None]:
    begin = time.monotonic()
    part, lease = client.lease(key, limit_s)
    waited_s = time.monotonic() - begin
    remote.pass_notices()
    if part in ("look", "timeout") and limit_s > 0:
        _summary.record_wait(kind, waited_s, came=part == "look")
        _extend_timeouts(waited_s)
    return part == "look", lease


def _end(lease: Lease, stored: bool) -> None:
    if stored:
        lease.put()
    else:
        lease.release()


def _forget(key: bytes) -> None:
    with _lock:
        _led.discard((os.getpid(), key))


def _limit_s() -> float:
    global _warned
    text = os.environ.get(BUDGET_VARIABLE, "").strip()
    with contextlib.suppress(ValueError):
        if not text or (seconds := float(text)) >= 0:
            return seconds if text else BUDGET_S
    if not _warned:
        _warned = True
        _client.tell(f"{BUDGET_VARIABLE} is {text!r}, expected a number of seconds; using {BUDGET_S:.0f}")
    return BUDGET_S


def may_wait() -> bool:
    """Not where ranks meet while they compile: one that waits there for another would wait for one that waits for it."""
    if os.environ.get(SWITCH) == "0" or coherence.is_wanted():
        return False
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return True
    return not _ranks_meet_in_compiles()


# Settings of torch's under which compiling a graph calls collectives, torch 2.6 to 2.15; where one is not there, it is off.
_MEETINGS = {
    "torch._inductor.config": (
        "distributed_max_autotune_gemm",
        "aten_distributed_optimizations.spmd_check",
        "aten_distributed_optimizations.enable_overlap_scheduling",
        "max_autotune",
        "max_autotune_gemm",
    ),
    "torch._functorch.config": ("_sync_decision_cross_ranks", "_sync_cache_decision_cross_ranks"),
}


def _ranks_meet_in_compiles() -> bool:
    for module_name, names in _MEETINGS.items():
        for name in names:
            value: Any = sys.modules.get(module_name)
            for part in name.split("."):
                value = getattr(value, part, None)
            if value:
                return True
    return False


def _extend_timeouts(waited_s: float) -> None:
    """As torch does for hits: the other ranks' collectives have waited for this one."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    with remote.guarded("extending the collectives' timeouts"):
        from torch._inductor.codecache import add_ephemeral_timeout_increase_for_distributed

        add_ephemeral_timeout_increase_for_distributed(int(waited_s * 1e9))
