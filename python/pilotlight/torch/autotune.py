"""`torch._inductor.runtime.autotune_cache`: best configs of Triton kernels. Read against torch 2.6 to 2.15."""

from __future__ import annotations

import contextlib
import os
import shutil
from types import ModuleType
from typing import Any

from pilotlight.torch import replacing


def patch(module: ModuleType) -> None:
    """Called when torch has executed the module."""
    replacing.replace(module.AutotuneCache, "_read", "self", _looking_where_bundles_are_restored)
    bundler = getattr(module, "_AutotuneCacheBundlerImpl", None)
    if bundler is not None:
        replacing.replace(bundler, "_should_use_bundled_autotune_remote_cache", "cls inductor_meta", _only_with_a_backend)


def _looking_where_bundles_are_restored(original: replacing.Function) -> replacing.Function:
    """torch restores a bundle to `<cache>/<hash[1:3]>/`, but reads beside the kernel's file: two directories, never equal."""

    def _read(self: Any) -> Any:
        if self.local_cache:
            # Not to be found is a miss, as it was.
            with contextlib.suppress(OSError, ValueError):
                _bring(self.local_cache[1])
        return original(self)

    return _read


def _bring(path: str) -> None:
    from torch._inductor import codecache

    if os.path.exists(path):
        return
    root, _, extension = os.path.basename(path).partition(".")
    restored = codecache.get_path(root, extension)[2]
    if os.path.exists(restored):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Other processes may read it: it has to appear as a whole.
        temporary = f"{path}.{os.getpid()}"
        shutil.copyfile(restored, temporary)
        os.replace(temporary, path)


def _only_with_a_backend(original: replacing.Function) -> replacing.Function:
    """Without a Triton driver torch asserts, and with it every compile fails."""

    def _should_use_bundled_autotune_remote_cache(cls: Any, inductor_meta: Any) -> bool:
        return isinstance(inductor_meta.get("backend_hash"), str) and bool(original(cls, inductor_meta))

    return _should_use_bundled_autotune_remote_cache
