"""Which of torch's switches are set, and which of its modules are patched when they are imported."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType

from pilotlight import _client, _hooks, _summary

# Module with settings -> the variables that it reads and the settings that they become. Set the same everywhere, and before
# torch reads them: some are part of torch's keys, so that entries made without them are never found with them.
# TORCHINDUCTOR_BUNDLED_AUTOTUNE_REMOTE_CACHE is not among them: it is part of the key as well, the per-kernel cache covers
# what it does, and without a GPU stock torch fails every compile with it.
SWITCHES = {
    "torch._inductor.config": {
        "TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE": "fx_graph_remote_cache",
        "TORCHINDUCTOR_AUTOTUNE_REMOTE_CACHE": "autotune_remote_cache",
    },
    "torch._functorch.config": {"TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE": "enable_remote_autograd_cache"},
    "torch._dynamo.config": {"TORCH_DYNAMO_AUTOMATIC_DYNAMIC_REMOTE_PGO": "automatic_dynamic_remote_pgo"},
}

# Switch -> those with which a user says no to it as well: who wants no such entries on the own disk wants none from elsewhere,
# and AOTAutograd entries are of no use without their graphs.
REFUSED_WITH = {
    "TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE": ("TORCHINDUCTOR_FX_GRAPH_CACHE",),
    "TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE": (
        "TORCHINDUCTOR_AUTOGRAD_CACHE",
        "TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE",
        "TORCHINDUCTOR_FX_GRAPH_CACHE",
    ),
}

# Module of torch -> the module beside this one whose `patch` mends it. Nothing is imported before torch imports its own.
PATCHES = {
    "torch._inductor.remote_cache": ("caches",),
    "torch._inductor.utils": ("switches",),
    "torch._inductor.codecache": ("graphs", "cpp"),
    "torch._inductor.compile_fx": ("leases",),
    "torch._inductor.cpp_builder": ("cpp",),
    "torch._inductor.cpu_vec_isa": ("cpp",),
    "torch._functorch._aot_autograd.autograd_cache": ("autograd",),
    "torch._dynamo.pgo": ("pgo",),
    "torch._inductor.runtime.autotune_cache": ("autotune",),
}

_active = False
# What we switched on, as the user did not say.
switched_on: set[str] = set()


def activate() -> None:
    """Does it once per process; children made by fork have it already."""
    global _active
    if _active:
        return
    _active = True
    # First: with the switches set and nothing in its place, torch would go to a Redis of its own.
    if _client.client() is None:
        return
    for module_name in SWITCHES:
        if not _hooks.while_executed(module_name, functools.partial(_switches_set, module_name)):
            _switch_on_late(module_name)
    for target, patchers in PATCHES.items():
        for patcher in patchers:
            _hooks.when_imported(target, _patch_with(patcher))
    _summary.start()


def _left_open(module_name: str) -> dict[str, str]:
    """The switches that the user neither set nor, with another one, said no to."""
    return {
        variable: setting
        for variable, setting in SWITCHES[module_name].items()
        if variable not in os.environ and not any(os.environ.get(other) == "0" for other in REFUSED_WITH.get(variable, ()))
    }


@contextlib.contextmanager
def _switches_set(module_name: str) -> Iterator[None]:
    """While torch reads its settings, and no longer: a child in an environment without this package would take up a variable
    that stayed, and ask a Redis of its own."""
    variables = _left_open(module_name)
    switched_on.update(variables)
    os.environ.update(dict.fromkeys(variables, "1"))
    try:
        yield
    finally:
        for variable in variables:
            os.environ.pop(variable, None)


def _switch_on_late(module_name: str) -> None:
    """The settings were read before us."""
    config = sys.modules[module_name]
    for variable, setting in _left_open(module_name).items():
        if getattr(config, setting, True) is not None:
            continue
        switched_on.add(variable)
        # In torch 2.15 a setting that is set counts in the thread that set it, and backward graphs may be compiled in another;
        # the default counts in all of them.
        entry = getattr(config, "_config", {}).get(setting)
        if entry is not None and getattr(entry, "default", True) is None:
            entry.default = True
        setattr(config, setting, True)


def _patch_with(patcher: str) -> _hooks.Hook:
    def hook(module: ModuleType) -> None:
        mender = importlib.import_module(f"pilotlight.torch.{patcher}")
        # A mender of several modules has a table of them.
        patches = getattr(mender, "PATCHES", None)
        (mender.patch if patches is None else patches[module.__name__])(module)

    return hook
