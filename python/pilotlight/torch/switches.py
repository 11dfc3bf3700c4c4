"""`torch._inductor.utils`: entries of the AOTAutograd cache are of use only with their graphs. Read against 2.6 to 2.15.

Stock torch asks the two switches apart: with the AOTAutograd remote on and the graph remote off, every process finds the
entry, misses the graph, compiles and puts the entry again, for ever (`_functorch/_aot_autograd/aot_autograd_result.py`).
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

from pilotlight.torch import activation, replacing

# Those that took the function by its name, in case they were imported before us.
_IMPORTERS = (
    "torch._inductor.compile_fx",
    "torch._functorch._aot_autograd.autograd_cache",
    "torch._functorch._aot_autograd.aot_autograd_result",
)

# Set to 0: compiled C++ kernels are neither fetched nor put, and every question goes to the compiler.
KERNELS_VARIABLE = "PILOTLIGHT_KERNELS"

_NAME = "should_use_remote_fx_graph_cache"


def patch(module: ModuleType) -> None:
    """Called when torch has executed the module."""
    for owner in (module, *(sys.modules[name] for name in _IMPORTERS if name in sys.modules)):
        if hasattr(owner, _NAME):
            replacing.replace(owner, _NAME, "", _also_for_autograd)


def _also_for_autograd(original: replacing.Function) -> replacing.Function:
    def should_use_remote_fx_graph_cache() -> bool:
        return bool(original()) or _autograd_remote_is_ours()

    return should_use_remote_fx_graph_cache


def kernels_are_refused() -> bool:
    """Whether the user leaves compiled C++ kernels to torch."""
    return os.environ.get(KERNELS_VARIABLE) == "0"


def parts() -> tuple[list[str], list[str]]:
    """What of the plug-in is on, and what the user has switched off, in the words of the start line."""
    inductor, dynamo = sys.modules.get("torch._inductor.config"), sys.modules.get("torch._dynamo.config")
    states = {
        "graphs": bool(getattr(inductor, "fx_graph_remote_cache", True)) or _autograd_remote_is_ours(),
        "kernels": not kernels_are_refused(),
        "profiles": bool(getattr(dynamo, "automatic_dynamic_remote_pgo", True)),
    }
    return [part for part, is_on in states.items() if is_on], [part for part, is_on in states.items() if not is_on]


def _autograd_remote_is_ours() -> bool:
    config = sys.modules.get("torch._functorch.config")
    caches = sys.modules.get("torch._inductor.remote_cache")
    if config is None or caches is None or not getattr(config, "enable_remote_autograd_cache", None):
        return False
    if graphs_are_refused():
        return False
    # With a test's own backends in place, the test means what it set.
    overridden = (caches.RemoteAOTAutogradCache.backend_override_cls, caches.RemoteFxGraphCache.backend_override_cls)
    return overridden == (None, None)


def graphs_are_refused() -> bool:
    """Whether the user says no to remote graphs, and it was not the user who said yes to AOTAutograd entries."""
    inductor = sys.modules.get("torch._inductor.config")
    is_refused = inductor is not None and inductor.fx_graph_remote_cache is False
    return is_refused and "TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE" in activation.switched_on
