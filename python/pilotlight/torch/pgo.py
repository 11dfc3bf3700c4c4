"""`torch._dynamo.pgo`: which sizes changed in earlier runs. Read against torch 2.6 to 2.15.

Stock torch keeps it only for programs that are given a job id. Here a script has one by itself: its name, its content and its
arguments. Without the arguments runs of other batch sizes or models would share a profile, and each would make the others'
sizes dynamic: their graphs become slower, and those that were cached are missed.
"""

from __future__ import annotations

import collections
import functools
import os
import sys
import sysconfig
from types import CodeType, ModuleType
from typing import Any

from pilotlight import _summary
from pilotlight.torch import remote, replacing
from pilotlight.torch.fingerprint import digest_of

# Enough of any script to tell it from others.
_SCRIPT_BYTES_MAX = 1 << 20


def patch(module: ModuleType) -> None:
    """Called when torch has executed the module."""
    replacing.replace(module, "get_cache_key", "", lambda original: _with_default(original, module))
    replacing.replace_if_there(
        module,
        "lookup_remote_cache_entry",
        "remote_cache cache_key event_name",
        lambda original: _checked(original, module),
    )
    # Of torch 2.12 and later.
    replacing.replace_if_there(module, "_get_cell_hash_content", "content", lambda original: _lasting(original, module))


def _with_default(original: replacing.Function, module: ModuleType) -> replacing.Function:
    def get_cache_key() -> str | None:
        key: str | None = original()
        if key is not None:
            return key
        with remote.guarded("naming a profile"):
            if _caches_disabled() or not module.should_use_remote_dynamo_pgo_cache():
                return None
            job = default_job_id()
            if job is None:
                return None
            if hasattr(module, "format_cache_key"):
                return str(module.format_cache_key(job))
            # Before 2.10 only torch itself puts a key together.
            with module.torch.compiler.config.patch(job_id=job):
                key = original()
        return key

    return get_cache_key


def _caches_disabled() -> bool:
    """The switch is one of Inductor's settings, and in torch 2.10 and later of the compiler's too."""
    configs = (sys.modules.get(name) for name in ("torch.compiler.config", "torch._inductor.config"))
    return any(getattr(config, "force_disable_caches", False) for config in configs)


@functools.cache
def default_job_id() -> str | None:
    """The same wherever the same script runs with the same arguments; `None` for what is no script of the user's.

    Launchers that live beside torch (pytest, vllm) run many different programs, a file of tests many in one process, an
    interactive session is a new one each time: a profile shared by those would make them recompile what they need not.
    """
    script = sys.argv[0] if sys.argv else ""
    if not os.path.isfile(script) or _holds_tests(sys.modules.get("__main__")):
        return None
    path = os.path.realpath(script)
    if any(path.startswith(os.path.realpath(sysconfig.get_path(where)) + os.sep) for where in ("purelib", "scripts", "stdlib")):
        return None
    try:
        with open(path, "rb") as file:
            content = file.read(_SCRIPT_BYTES_MAX)
    except OSError:
        return None
    digest = digest_of(os.path.basename(path), content, *map(str, sys.argv[1:])).hex()
    return f"pilotlight-{digest[:32]}"


def _holds_tests(module: ModuleType | None) -> bool:
    """Whether the program is a file of tests that runs itself."""
    unittest = sys.modules.get("unittest")
    if unittest is None or module is None:
        return False
    return any(isinstance(value, type) and issubclass(value, unittest.TestCase) for value in vars(module).values())


def _lasting(original: replacing.Function, module: ModuleType) -> replacing.Function:
    """What a function closes over is part of its name in a profile, as the hash of code objects and of `None`: both differ from
    process to process, so that no closure would ever find its sizes. These last."""

    def _get_cell_hash_content(content: Any) -> Any:
        code = original(content)
        if not isinstance(code, CodeType):
            return 0
        with remote.guarded("naming a closure"):
            plain = [constant for constant in code.co_consts if isinstance(constant, int | float | str | bytes)]
            file = module._hash_containing_file(code.co_filename)
            return remote.hash_64(digest_of(file, str(code.co_firstlineno), code.co_name, code.co_code, repr(plain)))
        return code

    return _get_cell_hash_content


class _Noting:
    """A cache that notes what was found in it."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self.found = False

    def get(self, key: str) -> Any:
        value = self._cache.get(key)
        self.found = value is not None
        return value


def _checked(original: replacing.Function, module: ModuleType) -> replacing.Function:
    """torch unpickles a profile and asserts its type later, where the failure ends the compile."""

    def lookup_remote_cache_entry(remote_cache: Any, cache_key: str, event_name: str | None = None) -> Any:
        client = remote.client_of(remote_cache)
        if client is None:
            return original(remote_cache, cache_key, event_name)
        noting = _Noting(remote_cache)
        state = original(noting, cache_key, event_name)
        if not noting.found or _is_profile(state, module):
            return state
        with remote.guarded("refusing a profile"):
            _summary.record("refused", "pgo", "not loadable" if state is None else "wrong type")
            client.quarantine(remote_cache._get_key(cache_key).encode())
        return None

    return lookup_remote_cache_entry


def _is_profile(state: Any, module: ModuleType) -> bool:
    return isinstance(state, collections.defaultdict) and all(
        isinstance(code, module.CodeId) and isinstance(sizes, module.CodeState) for code, sizes in state.items()
    )
