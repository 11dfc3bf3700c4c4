"""Which of torch's switches are set, and which of its modules are patched when they are imported."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from pilotlight import _client, _hooks, _summary

# Set the same everywhere, and before torch reads them: some are part of torch's keys, so that entries made without them
# are never found with them. TORCHINDUCTOR_BUNDLED_AUTOTUNE_REMOTE_CACHE is not among them: it is part of the key as well,
# the per-kernel cache covers what it does, and without a GPU stock torch fails every compile with it.
SWITCHES = {
    "TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE": ("torch._inductor.config", "fx_graph_remote_cache"),
    "TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE": ("torch._functorch.config", "enable_remote_autograd_cache"),
    "TORCHINDUCTOR_AUTOTUNE_REMOTE_CACHE": ("torch._inductor.config", "autotune_remote_cache"),
    "TORCH_DYNAMO_AUTOMATIC_DYNAMIC_REMOTE_PGO": ("torch._dynamo.config", "automatic_dynamic_remote_pgo"),
}

# Module of torch -> the module beside this one whose `patch` mends it. Nothing is imported before torch imports its own.
PATCHES = {
    "torch._inductor.remote_cache": ("caches",),
    "torch._inductor.utils": ("switches",),
    "torch._inductor.codecache": ("graphs", "cpp"),
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
    graphs_refused = os.environ.get("TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE") == "0"
    for variable, (module_name, attribute) in SWITCHES.items():
        # Who switched graphs off has switched off what is of no use without them.
        if not (graphs_refused and variable == "TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE"):
            _switch_on(variable, module_name, attribute)
    for target, patchers in PATCHES.items():
        for patcher in patchers:
            _hooks.when_imported(target, _patch_with(patcher))
    _summary.start()


def _switch_on(variable: str, module_name: str, attribute: str) -> None:
    if variable in os.environ:
        return
    os.environ[variable] = "1"
    switched_on.add(variable)
    # Imported before us: the variable comes too late for it.
    config = sys.modules.get(module_name)
    if config is not None and getattr(config, attribute, True) is None:
        setattr(config, attribute, True)


def _patch_with(patcher: str) -> _hooks.Hook:
    def hook(module: ModuleType) -> None:
        mender = importlib.import_module(f"pilotlight.torch.{patcher}")
        # A mender of several modules has a table of them.
        patches = getattr(mender, "PATCHES", None)
        (mender.patch if patches is None else patches[module.__name__])(module)

    return hook
