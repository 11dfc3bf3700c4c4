"""The remote key of a compiled C++ kernel.

PyTorch's own key hashes the source and the full command line (torch/_inductor/codecache.py, `CppCodeCache.load_async`,
2.6 to 2.15). That is too little for other machines: it says `-march=native` and `g++`, not which CPU and which g++. And it is
too much: the command line holds the absolute paths of torch, Python and their libraries, which differ between installations of
the same wheels. So the remote key hashes the source, the command line with those paths replaced by what they stand for, and
the identities of torch, Python, compiler and host.

That is safe because the objects hold no path that is looked up at run time: their libraries are named without directories and
found among those that torch has loaded, and they have no run path (`readelf -d`, torch 2.15). A path under none of the known
directories stays in the key as it is, and so does any that stands elsewhere than behind `-I` or `-L`, such as a run path.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import shlex
import sys
import sysconfig
from dataclasses import dataclass

from pilotlight.torch.compiler import Compiler, environment
from pilotlight.torch.fingerprint import digest_of

PREFIX = b"cpp-kernel:"
_SCHEMA = "kernel 1"
# Flags that say how to compile and name nothing to read.
_PLAIN_FLAG = re.compile(
    r"|-(?!fplugin|fprofile|Wl|Wa|Wp)(O[0-3sg]|Ofast|[DU]\w+(=[\w.+-]*)?|[fmWg][\w=.,+-]*|std=[\w+]+|pthread)"
)


@dataclass(frozen=True)
class Source:
    """What PyTorch hashes for one kernel."""

    main_code: str
    main_command: str
    optimized_code: str | None = None
    optimized_command: str = ""


def base(compiler: Compiler, host: bytes) -> bytes:
    """What all kernels made by `compiler` on `host` have in common."""
    return digest_of(_SCHEMA, host, compiler.digest, *environment(), *python_identity(), *torch_identity())


def kernel(base_digest: bytes, source: Source) -> bytes:
    """The key of one kernel."""
    optimized = [] if source.optimized_code is None else [source.optimized_code, portable(source.optimized_command)]
    return (
        PREFIX
        + digest_of(base_digest, portable_source(source.main_code), portable(source.main_command), *optimized).hex().encode()
    )


def listing(base_digest: bytes, fx_key: str) -> bytes:
    """The key under which stands which kernels a graph uses."""
    return PREFIX + b"set:" + digest_of(base_digest, "set", fx_key).hex().encode()


@functools.lru_cache(64)
def portable(command: str) -> str:
    """A compiler command line without the name of the compiler and the places of torch and Python.

    One that cannot be taken apart stays as it is, and is shared by machines that have everything in the same places.
    """
    try:
        # torch 2.6 hashes the command line's repr.
        plain = ast.literal_eval(command) if command[:1] in ("'", '"') else command
        words = shlex.split(plain)
    except (ValueError, SyntaxError, TypeError, AttributeError):
        return command
    if len(words) < 2:
        return command
    return "\n".join(["{compiler}", *(_portable_word(word) for word in words[1:])])


def portable_source(code: str) -> str:
    """Before torch 2.8 a source names its header by its place in the cache directory, under a name that hashes its content."""
    from torch._inductor.runtime.runtime_utils import cache_dir  # 2.6 has it there

    return code.replace(f'#include "{cache_dir()}{os.sep}', '#include "{cache}/')


def is_portable(extra_flags: object) -> bool:
    """Whether what a caller added names no file: one that is linked in or included would have to be here, and the same."""
    flags = extra_flags.split() if isinstance(extra_flags, str) else extra_flags
    return isinstance(flags, list | tuple) and all(_PLAIN_FLAG.fullmatch(str(flag)) for flag in flags)


def _portable_word(word: str) -> str:
    option, path = word[:2], word[2:]
    if option not in ("-I", "-L") or not os.path.isabs(path):
        return word
    path = os.path.normpath(path)
    for directory, name in _places():
        if path == directory or path.startswith(directory + os.sep):
            return option + name + path[len(directory) :]
    return word


@functools.cache
def _places() -> tuple[tuple[str, str], ...]:
    """Directories whose content an identity in the key stands for, with their names; the deepest first."""
    import torch

    paths = sysconfig.get_paths()
    found = {
        os.path.dirname(os.path.abspath(torch.__file__)): "{torch}",
        paths.get("include"): "{python}",
        paths.get("platinclude"): "{python}",
        sysconfig.get_path("include", scheme="posix_prefix"): "{python}",
        # Searched for libtorch, libgomp and the C++ library, of which only the sonames get into an object.
        sysconfig.get_config_var("LIBDIR"): "{python-libraries}",
    }
    places = [(os.path.normpath(path), name) for path, name in found.items() if path and os.path.isabs(path)]
    return tuple(sorted(places, key=lambda place: -len(place[0])))


@functools.cache
def python_identity() -> tuple[str, ...]:
    """The interpreter whose headers a kernel includes."""
    return (sys.version.split()[0], str(sysconfig.get_config_var("SOABI")), str(sysconfig.get_config_var("Py_DEBUG")))


@functools.cache
def torch_identity() -> tuple[str, ...]:
    """The torch whose headers a kernel includes and whose libraries it is linked to."""
    import torch

    identity = [torch.__version__, str(torch.version.git_version), str(torch.version.cuda), str(torch.version.hip)]
    if "git" in torch.__version__ or "a0" in torch.__version__:
        # Built by hand: the commit does not tell what was changed since, so only copies of this very build count.
        library = os.path.join(os.path.dirname(os.path.abspath(torch.__file__)), "lib", "libtorch_cpu.so")
        stat = os.stat(library)
        identity.append(f"{stat.st_size} {stat.st_mtime_ns}")
    return tuple(identity)
