"""One call of `CppCodeCache.load_async`, followed from the source to the loaded object."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from pilotlight.torch import cpp_key, cpp_place, elf
from pilotlight.torch.cpp_sets import used, waiting
from pilotlight.torch.cpp_stats import count
from pilotlight.torch.leases import KernelLease
from pilotlight.torch.once import guarded, warn_once
from pilotlight.torch.toolchain import Toolchain, toolchain


class Origin(Enum):
    """Where the object came from."""

    UNKNOWN = "not looked up"
    LOCAL = "this disk"
    REMOTE = "the remote cache"
    COMPILED = "the compiler"


class Build:
    """State of one call. The methods raise nothing; what goes wrong in them leaves PyTorch to compile."""

    def __init__(self, cls: Any, main_code: str, optimized_code: str | None, extra_flags: object) -> None:
        self.origin = Origin.UNKNOWN
        self._cls = cls
        self._main_code = main_code
        self._optimized_code = optimized_code or None
        self._may_travel = cpp_key.is_portable(extra_flags)
        self._begin = time.monotonic()
        self._main_command: str | None = None
        self._local_key = ""
        self._binary = ""
        self._key: bytes | None = None
        self._toolchain: Toolchain | None = None
        self._settled = False
        self._lease = KernelLease()
        self._recovered = False

    @guarded(otherwise=None)
    def wrote(self, content: str | bytes, extra: str, result: tuple[str, str]) -> None:
        """A source was written. With the last one everything that makes up the key is known.

        Others may be written meanwhile: the first call of a process tries out vector ISAs.
        """
        if self._main_command is None and content == self._main_code:
            self._local_key, path = result
            self._binary = os.path.splitext(path)[0] + ".so"
            self._main_command = extra.removeprefix(f"{self._optimized_code} ")
            if self._optimized_code is None:
                self._resolve("")
        elif self._main_command is not None and content == self._optimized_code and self._key is None:
            self._resolve(extra)

    @guarded(otherwise=False)
    def is_done(self) -> bool:
        """Whether the object is in place, so that nothing needs to be compiled."""
        return self._binary != "" and cpp_place.is_there(self._binary)

    @guarded(otherwise=None)
    def loaded(self) -> None:
        """The object was loaded, so it is whole and usable: keep what the remote cache lacks. Once."""
        if self._settled or self._key is None or self._toolchain is None:
            return
        self._settled = True
        self._lease.end(stored=self._keep(self._toolchain, self._key))

    def over(self) -> None:
        """Nothing more will be put."""
        self._lease.end()

    @guarded(otherwise=True)
    def recover(self, error: BaseException) -> bool:
        """The object could not be loaded. Whether it is gone now, so that compiling it will help. Once.

        Wherever it came from: another process may have placed it while this one was about to compile it, or taken it away.
        """
        if self._recovered or not self._binary or not self._may_travel:
            return False
        if isinstance(error, TimeoutError) or getattr(error, "errno", None):
            # A lock that somebody holds, a limit of the system's: that says nothing about the object.
            return False
        self._recovered = True
        came_now, self.origin = self.origin is Origin.REMOTE, Origin.COMPILED  # by who called us, and then put
        if cpp_place.is_there(self._binary):
            whence = "a fetched" if came_now else "a cached"
            warn_once(f"{whence} C++ kernel cannot be loaded here and is compiled instead: {error}")
            count("refused")
            cpp_place.remove(self._binary)
        self._cls.cache.pop(self._local_key, None)
        sys.modules.pop(f"{self._local_key}.{getattr(self._cls, 'entry_function', '')}", None)
        # What lies on this disk says nothing about what the remote has, and the put that follows replaces that.
        if came_now and self._key and self._toolchain and (remote := self._toolchain.remote()) is not None:
            remote.refuse(self._key)
        return True

    def _resolve(self, optimized_command: str) -> None:
        before = self._local_key in self._cls.cache  # loaded by this process
        there = cpp_place.is_there(self._binary)
        if there and not before:
            count("local")
            self.origin = Origin.LOCAL
        if not self._may_travel:
            count("bound")
            return
        from torch._inductor.cpp_builder import get_cpp_compiler

        self._toolchain = toolchain(get_cpp_compiler())
        if self._toolchain is None:
            return
        source = cpp_key.Source(self._main_code, self._main_command or "", self._optimized_code, optimized_command)
        self._key = cpp_key.kernel(self._toolchain.base, source)
        used(self._key)
        if not there and not before:
            self.origin = Origin.REMOTE if self._fetch(self._toolchain, self._key) else Origin.COMPILED

    def _fetch(self, known: Toolchain, key: bytes) -> bool:
        from torch._inductor.codecache import get_lock_dir

        if (remote := known.remote()) is None:
            return False
        observed = remote.observed()
        data = remote.get(key)
        if data is None and self._lease.came(remote.client, key):
            data = remote.get(key)
        if data is None:
            count("misses", reason=observed.reason("absent"))
            return False
        if (fault := elf.fault(data) or self._lacks_entry(data)) is not None:
            warn_once(f"a fetched C++ kernel is no object for this machine and is compiled instead: {fault}")
            count("refused")
            remote.refuse(key)
            return False
        if not cpp_place.place(self._binary, os.path.join(get_lock_dir(), self._local_key + ".lock"), data):
            return False
        count("hits")
        remote.note(key)
        return True

    def _lacks_entry(self, data: bytes) -> str | None:
        """An object without the function that Python calls would stay mapped, and stand in the way of the right one."""
        function = getattr(self._cls, "entry_function", None)
        if function is None or f"PyInit_{function}\0".encode() in data:
            return None
        return f"no PyInit_{function} in it"

    def _keep(self, known: Toolchain, key: bytes) -> bool:
        """Puts what the remote cache lacks; whether that was stored."""
        remote = known.remote()
        if remote is None or self.origin not in (Origin.COMPILED, Origin.LOCAL):
            return False
        if self.origin is Origin.LOCAL and not remote.is_missing(key):
            return False
        with open(self._binary, "rb") as file:
            data = file.read()
        if elf.fault(data) is not None:
            return False
        elapsed_ms = int((time.monotonic() - self._begin) * 1000) if self.origin is Origin.COMPILED else 0
        observed = remote.observed()
        if remote.put(key, data, elapsed_ms):
            count("puts" if self.origin is Origin.COMPILED else "back_filled")
            return True
        count("dropped", reason=observed.reason("refused"))
        return False


def following(build: Build, load: Callable[[], Any], compile_again: Callable[[], Any]) -> Callable[[], Any]:
    """PyTorch's load function, which keeps what it compiled and survives what it fetched."""

    def load_and_keep() -> Any:
        try:
            try:
                with waiting():
                    library = load()
            except (ImportError, OSError) as error:
                if not build.recover(error):
                    raise
                with waiting():
                    library = compile_again()
            build.loaded()
            return library
        finally:
            build.over()

    return load_and_keep
