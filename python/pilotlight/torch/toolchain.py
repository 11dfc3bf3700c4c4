"""What PyTorch finds out about compiler and CPU by running g++, found out once per kind of host.

PyTorch starts the compiler to ask its version, compiles up to six probes of the vector ISA, and starts Python to load them:
3.5 CPU seconds on a fresh machine. The answers depend on compiler, host and torch only, so one small entry keeps them: what the
compiler says to `--version`, and the probes that passed. Probes that failed are not kept: a full disk fails one too,
and would then slow down a fleet.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from typing import TYPE_CHECKING

from pilotlight._forks import Lock
from pilotlight.torch import compiler as compilers
from pilotlight.torch import cpp_key, switches
from pilotlight.torch.compiler import Compiler
from pilotlight.torch.cpp_remote import Remote, remote
from pilotlight.torch.fingerprint import digest_of, host_fingerprint

if TYPE_CHECKING:
    from pilotlight.torch.leases import KernelLease

_VERSION_CHARS_MAX = 4096


class Toolchain:
    """One compiler on this host: what is known about it, here and remotely."""

    def __init__(self, compiler: Compiler, host: bytes, cache_dir: str) -> None:
        self.compiler = compiler
        self.host = host
        self.base = cpp_key.base(compiler, host)
        self.cache_dir = cache_dir
        self._key = cpp_key.PREFIX + b"host:" + digest_of(self.base, "host", os.path.basename(compiler.command)).hex().encode()
        self._path = os.path.join(cache_dir, "pilotlight", "host-" + self._key.rpartition(b":")[2].decode()[:32])
        # Held while the remote is asked, too: two threads that want to know the same ask once. Each wait is bounded.
        self._lock = Lock()
        self._version: str | None = None
        self._answered = False
        self._passed: set[str] = set()
        self._asked_remote = False
        with contextlib.suppress(OSError), open(self._path, "rb") as file:
            self._merge(file.read())
        self._from_disk = bool(self._passed)

    def remote(self) -> Remote | None:
        return remote(self.host, self.cache_dir)

    def version(self) -> str | None:
        """What the compiler says to `--version`. Only of one whose file tells which build it is: others are asked."""
        if not self.compiler.read:
            return None
        with self._lock:
            if self._version is None:
                self._ask_remote()
            return self._version

    def answers(self) -> bool:
        """Whether the compiler has answered to `--version`, here or on a host like this."""
        if not self.compiler.read:
            return False
        with self._lock:
            if not self._answered:
                self._ask_remote()
            return self._answered

    def keep_answered(self) -> None:
        with self._lock:
            if self.compiler.read and not self._answered:
                self._answered = True
                self._keep()

    def keep_version(self, text: str) -> None:
        with self._lock:
            if self.compiler.read and text and self._version != text:
                self._version = text
                self._keep()

    def passed(self, probe: str) -> bool:
        """Whether a probe passed on a host like this."""
        with self._lock:
            if probe not in self._passed:
                self._ask_remote()
            elif self._from_disk:
                self._back_fill()
            return probe in self._passed

    def passed_elsewhere(self, lease: KernelLease, probe: str) -> bool:
        """Takes the lease on a probe, and says whether it passed where it was tried until then.

        The lease is on a key that nothing stands under: the probes of a host are one entry. So whoever waited leads next, looks
        at that entry, and gives the lease up at once.
        """
        if (cache := self.remote()) is None:
            return False
        lease.came(cache.client, cpp_key.PREFIX + b"probe:" + digest_of(self.base, "probe", probe).hex().encode())
        if not lease.leads():
            return False
        with self._lock:
            self._asked_remote = False
            self._ask_remote()
            return probe in self._passed

    def keep_passed(self, probe: str) -> None:
        with self._lock:
            self._passed.add(probe)
            self._keep()

    def _ask_remote(self) -> None:
        if self._asked_remote or (cache := self.remote()) is None:
            return
        self._asked_remote = True
        if (artifact := cache.get(self._key)) is not None and self._merge(artifact):
            cache.note(self._key)
            self._write()

    def _back_fill(self) -> None:
        self._from_disk = False
        if (cache := self.remote()) is not None and cache.lacks(self._key):
            cache.put(self._key, self._json())

    def _keep(self) -> None:
        self._ask_remote()  # so that what others found out is not lost
        self._write()
        if (cache := self.remote()) is not None:
            cache.put(self._key, self._json())

    def _merge(self, data: bytes) -> bool:
        try:
            facts = json.loads(data)
            version, passed = facts["version"], facts["passed"]
        except (ValueError, KeyError, TypeError):
            return False
        if isinstance(version, str) and 0 < len(version) <= _VERSION_CHARS_MAX:
            self._version = self._version or version
        self._answered = self._answered or facts.get("answered") is True
        if isinstance(passed, list):
            self._passed.update(probe for probe in passed if isinstance(probe, str))
        return True

    def _json(self) -> bytes:
        return json.dumps({"answered": self._answered, "version": self._version, "passed": sorted(self._passed)}).encode()

    def _write(self) -> None:
        temporary = f"{self._path}.{os.getpid()}.{threading.get_ident()}"
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(self._json())
            os.replace(temporary, self._path)


_toolchains: dict[tuple[Compiler, bytes, str], Toolchain] = {}
_lock = Lock()


def toolchain(command: str) -> Toolchain | None:
    """The toolchain behind a compiler command; `None` where compiler or host cannot be told from others, or nobody wants to."""
    from torch._inductor import config
    from torch._inductor.runtime.runtime_utils import cache_dir  # 2.6 has it there

    if switches.kernels_are_refused() or getattr(config, "force_disable_caches", False):
        return None
    host = host_fingerprint()
    if host is None or (compiler := compilers.identify(command)) is None:
        return None
    directory = cache_dir()
    with _lock:
        key = (compiler, host, directory)
        if key not in _toolchains:
            _toolchains[key] = Toolchain(compiler, host, directory)
        return _toolchains[key]
