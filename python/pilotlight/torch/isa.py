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
from pilotlight.torch.leases import KernelLease
from pilotlight.torch.once import guarded
from pilotlight.torch.replacing import replace_if_there
from pilotlight.torch.toolchain import Toolchain, toolchain


def patch_cpp_builder(module: ModuleType) -> None:
    """For torch._inductor.cpp_builder."""
    replace_if_there(module, "cpp_compiler_search", "search ...", _search)
    replace_if_there(module, "_compiler_version_string", "cpp_compiler ...", _version_string)


def patch_cpu_vec_isa(module: ModuleType) -> None:
    """For torch._inductor.cpu_vec_isa."""
    replace_if_there(module.VecISA, "check_build", "self code ...", _check_build)


def _search(original: Callable[[Any], str]) -> Callable[[Any], str]:
    def cpp_compiler_search(search: Sequence[str | None]) -> str:
        if (known := _known_compiler(search)) is not None:
            return known
        found = original(search)
        _keep_answered(found)
        return found

    return cpp_compiler_search


@guarded(otherwise=None)
def _known_compiler(search: Sequence[str | None]) -> str | None:
    """The compiler that PyTorch would find by starting them in turn, if it is one that answered on another host."""
    for command in search:
        if command is not None:
            known = toolchain(command)
            return command if known is not None and known.answers() else None
        # PyTorch's request to install one, which it ignores unless it is told to.
        if os.getenv("TORCH_INDUCTOR_INSTALL_GXX"):
            return None
    return None


@guarded(otherwise=None)
def _keep_answered(command: str) -> None:
    if (known := toolchain(command)) is not None:
        known.keep_answered()


def _version_string(original: Callable[[str], str]) -> Callable[[str], str]:
    @functools.cache
    def _compiler_version_string(cpp_compiler: str) -> str:
        if (text := _known_version(cpp_compiler)) is not None:
            return text
        text = original(cpp_compiler)
        _keep_version(cpp_compiler, text)
        return text

    return _compiler_version_string


@guarded(otherwise=None)
def _known_version(command: str) -> str | None:
    known = toolchain(command)
    return None if known is None else known.version()


@guarded(otherwise=None)
def _keep_version(command: str, text: str) -> None:
    if (known := toolchain(command)) is not None:
        known.keep_version(text)


def _check_build(original: Callable[[Any, str], bool]) -> Callable[[Any, str], bool]:
    def check_build(self: Any, code: str) -> bool:
        lease = KernelLease()
        if _has_passed(self, code) or _passed_elsewhere(lease, self, code):
            return True
        # The name of the probe holds the flags as they are now.
        keep = _keeper(self, code)
        try:
            if (passed := original(self, code)) and keep is not None:
                keep()
            return passed
        finally:
            lease.end()

    return check_build


@guarded(otherwise=False)
def _has_passed(isa: Any, code: str) -> bool:
    known = _toolchain()
    return known is not None and known.passed(_probe(isa, code))


@guarded(otherwise=False)
def _passed_elsewhere(lease: KernelLease, isa: Any, code: str) -> bool:
    """Whether another process of a host like this found out while this one waited for it."""
    known = _toolchain()
    return known is not None and known.passed_elsewhere(lease, _probe(isa, code))


@guarded(otherwise=None)
def _keeper(isa: Any, code: str) -> Callable[[], None] | None:
    known, probe = _toolchain(), _probe(isa, code)
    return None if known is None else guarded(otherwise=None)(lambda: known.keep_passed(probe))


def _probe(isa: Any, code: str) -> str:
    """The name of one probe: what `check_build` compiles and with which flags."""
    return digest_of("probe 1", code, str(isa), isa.build_arch_flags(), *map(str, isa.build_macro())).hex()[:32]


def _toolchain() -> Toolchain | None:
    from torch._inductor.cpp_builder import get_cpp_compiler

    return toolchain(get_cpp_compiler())
