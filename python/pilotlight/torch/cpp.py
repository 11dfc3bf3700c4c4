"""Compiled C++ kernels from the remote cache, and into it.

PyTorch compiles a kernel in `CppCodeCache.load_async` (torch/_inductor/codecache.py, read in torch 2.15): it writes the source
under a name that hashes source and command line, precompiles a header, has `_worker_compile_cpp` run g++ in another process
under a file lock unless the object exists, and loads it. There is no hook, but what stands where the object belongs is used.
So, in the parent:

- `load_async` is wrapped, to know whose source is being written and when the object is loaded;
- `write` is wrapped: the last source written makes the key known, and there the object is fetched, before anything else;
- `_precompile_header` is wrapped: with the object in place nobody needs the header;
- `FxGraphCache.load_with_key`, `cache_hit_post_compile` and `_save_graph` are wrapped, to fetch a graph's kernels together
  (`cpp_sets`);
- `_worker_compile_cpp` is wrapped: the separate build (`cpp_wrapper_build_separate`) makes two object files and links them, and
  none of the three has to be made if the last is there.

What was compiled here is put after it was loaded. An object that does not load although it fits is removed, and compiled. No
wrapper lets an error of its own escape: then the kernel is compiled as if there were no cache.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from pilotlight.torch import cpp_sets, groups, isa
from pilotlight.torch.cpp_build import Build, following
from pilotlight.torch.cpp_place import is_there
from pilotlight.torch.cpp_sets import prefetch, prefetch_listed, set_keys
from pilotlight.torch.cpp_stats import stats
from pilotlight.torch.once import guarded
from pilotlight.torch.replacing import replace, replace_if_there

__all__ = ["PATCHES", "patch_codecache", "prefetch", "prefetch_listed", "set_keys", "stats"]


class _Current(threading.local):
    """The call of `load_async` that this thread is in."""

    build: Build | None = None


_current = _Current()


def patch_codecache(module: ModuleType) -> None:
    """For torch._inductor.codecache."""
    if not replace(
        module.CppCodeCache,
        "load_async",
        "cls main_code device_type submit_fn extra_flags ...",
        _load_async,
        "cls source_code device_type submit_fn extra_flags ...",
    ):
        return
    replace(module, "write", "content extension extra ...", _write)
    replace_if_there(module, "_precompile_header", "header hashable_cmd_line ...", _precompile_header)
    # Before 2.7 it takes one builder, and there is no separate build.
    if "cpp_builders" in inspect.signature(module._worker_compile_cpp).parameters:
        replace(module, "_worker_compile_cpp", "lock_path cpp_builders ...", _worker_compile_cpp)
    graphs = module.FxGraphCache
    replace_if_there(graphs, "load_with_key", "key ...", _load_with_key)
    replace_if_there(graphs, "cache_hit_post_compile", "graph ...", _cache_hit_post_compile)
    replace_if_there(graphs, "_save_graph", "key ...", _save_graph)


PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "torch._inductor.codecache": patch_codecache,
    "torch._inductor.cpp_builder": isa.patch_cpp_builder,
    "torch._inductor.cpu_vec_isa": isa.patch_cpu_vec_isa,
}
"""What to call after which module was executed."""


def _load_async(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    def load_async(cls: Any, *args: Any, **kwargs: Any) -> Any:
        build = _build(signature, cls, args, kwargs)
        if build is None:
            return original(cls, *args, **kwargs)
        outer, _current.build = _current.build, build
        try:
            with cpp_sets.waiting():
                load = original(cls, *args, **kwargs)
        finally:
            _current.build = outer

        def compile_again() -> Any:
            arguments = signature.bind(cls, *args, **kwargs)
            arguments.arguments["submit_fn"] = None
            return original(*arguments.args, **arguments.kwargs)()

        return following(build, load, compile_again)

    return load_async


@guarded(otherwise=None)
def _build(signature: inspect.Signature, cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Build | None:
    given = signature.bind(cls, *args, **kwargs).arguments
    main_code = given["main_code" if "main_code" in given else "source_code"]
    return Build(cls, main_code, given.get("optimized_code"), given.get("extra_flags", ()))


def _write(original: Callable[..., tuple[str, str]]) -> Callable[..., tuple[str, str]]:
    def write(content: str | bytes, extension: str, extra: str = "", *args: Any, **kwargs: Any) -> tuple[str, str]:
        result = original(content, extension, extra, *args, **kwargs)
        if (build := _current.build) is not None:
            # What the lookup itself has written is not this kernel's source.
            _current.build = None
            try:
                build.wrote(content, extra, result)
            finally:
                _current.build = build
        return result

    return write


def _precompile_header(original: Callable[..., str]) -> Callable[..., str]:
    def _precompile_header(header: str, hashable_cmd_line: str, **compile_command: Any) -> str:
        build = _current.build
        if build is None:
            return original(header, hashable_cmd_line, **compile_command)
        if build.is_done():
            # Should the object vanish before it is loaded, g++ finds the header itself under this name, only slower.
            return header
        _current.build = None
        try:
            return original(header, hashable_cmd_line, **compile_command)
        finally:
            _current.build = build

    return _precompile_header


def _worker_compile_cpp(original: Callable[..., None]) -> Callable[..., None]:
    def _worker_compile_cpp(lock_path: str, cpp_builders: Any) -> None:
        if len(cpp_builders) > 1 and _is_linked(lock_path, cpp_builders[-1]):
            return
        original(lock_path, cpp_builders)

    return _worker_compile_cpp


@guarded(otherwise=False)
def _is_linked(lock_path: str, linker: Any) -> bool:
    """Whether the last step's result is there, and nobody is still writing it."""
    from torch._inductor.codecache import LOCK_TIMEOUT
    from torch.utils._filelock import FileLock

    path = linker.get_target_file_path()
    if not is_there(path):
        return False
    with FileLock(lock_path, timeout=LOCK_TIMEOUT):
        return is_there(path)


def _load_with_key(original: Callable[..., Any]) -> Callable[..., Any]:
    def load_with_key(key: str, *args: Any, **kwargs: Any) -> Any:
        cpp_sets.begin(key)
        result = original(key, *args, **kwargs)
        if isinstance(result, tuple) and result[0] is not None:
            cpp_sets.end(key)
            groups.loaded(key)
        return result

    return load_with_key


def _cache_hit_post_compile(original: Callable[..., Any]) -> Callable[..., Any]:
    def cache_hit_post_compile(graph: Any, *args: Any, **kwargs: Any) -> Any:
        cpp_sets.fetch_current()
        return original(graph, *args, **kwargs)

    return cache_hit_post_compile


def _save_graph(original: Callable[..., Any]) -> Callable[..., Any]:
    def _save_graph(key: str, *args: Any, **kwargs: Any) -> Any:
        cpp_sets.end(key)
        return original(key, *args, **kwargs)

    return _save_graph
