"""PyTorch's questions to the compiler, answered from what is known about it (`toolchain`) where that is possible.

Read against torch/_inductor/cpp_builder.py (`cpp_compiler_search`, `_compiler_version_string`) and cpu_vec_isa.py
(`VecISA.check_build`), torch 2.6 to 2.15. The answers are those that PyTorch would get, so its keys stay the same.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from pilotlight.torch.fingerprint import digest_of
from pilotlight.torch.once import log
from pilotlight.torch.shape import patch
from pilotlight.torch.toolchain import Toolchain, toolchain


def patch_cpp_builder(module: ModuleType) -> None:
    """For torch._inductor.cpp_builder."""
    patch(module, "cpp_compiler_search", ["search"], _search)
    patch(module, "_compiler_version_string", ["cpp_compiler"], _version_string)


def patch_cpu_vec_isa(module: ModuleType) -> None:
    """For torch._inductor.cpu_vec_isa."""
    patch(module.VecISA, "check_build", ["self", "code"], _check_build)


def _search(original: Callable[[Any], str]) -> Callable[[Any], str]:
    def cpp_compiler_search(search: Sequence[str | None]) -> str:
        return _known_compiler(search) or original(search)

    return cpp_compiler_search


def _known_compiler(search: Sequence[str | None]) -> str | None:
    """The compiler that PyTorch would find by starting them in turn, if it is one that answered on another host."""
    for command in search:
        if command is not None:
            known = _toolchain(command)
            return command if known is not None and known.version() else None
        # PyTorch's request to install one, which it ignores unless it is told to.
        if os.getenv("TORCH_INDUCTOR_INSTALL_GXX"):
            return None
    return None


def _version_string(original: Callable[[str], str]) -> Callable[[str], str]:
    @functools.cache
    def _compiler_version_string(cpp_compiler: str) -> str:
        known = _toolchain(cpp_compiler)
        if known is None:
            return original(cpp_compiler)
        if (text := known.version()) is None:
            text = original(cpp_compiler)
            known.keep_version(text)
        return text

    return _compiler_version_string


def _check_build(original: Callable[[Any, str], bool]) -> Callable[[Any, str], bool]:
    def check_build(self: Any, code: str) -> bool:
        probe, known = _probe(self, code)
        if probe is None or known is None:
            return original(self, code)
        if known.passed(probe):
            return True
        if passed := original(self, code):
            known.keep_passed(probe)
        return passed

    return check_build


def _probe(isa: Any, code: str) -> tuple[str | None, Toolchain | None]:
    """The name of one probe: what `check_build` compiles and with which flags."""
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        parts = [code, str(isa), isa.build_arch_flags(), *map(str, isa.build_macro())]
        return digest_of("probe 1", *parts).hex()[:32], _toolchain(get_cpp_compiler())
    except Exception:
        log.debug("pilotlight: a probe has no name", exc_info=True)
        return None, None


def _toolchain(command: str) -> Toolchain | None:
    try:
        return toolchain(command)
    except Exception:
        log.debug("pilotlight: nothing is known about %s", command, exc_info=True)
        return None
