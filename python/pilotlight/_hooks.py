"""Calls back right after a module was executed, or stands around its execution, without importing it.

A finder stands first in `sys.meta_path`. It asks the others for a watched module's spec and lets its loader call back when
the module's code has run: before whoever imports it sees it, so names taken with `from ... import` are the patched ones.
The module's file stays as it is, and with it torch's own hash of its source.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from importlib.machinery import ModuleSpec
from types import ModuleType

log = logging.getLogger("pilotlight")

Hook = Callable[[ModuleType], None]
Around = Callable[[], AbstractContextManager[object]]


class _Finder:
    """Watches the modules that somebody waits for; of others it knows nothing."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Hook]] = {}
        self.around: dict[str, list[Around]] = {}
        self._asking = threading.local()

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec that the other finders have for a watched module, its loader prepared."""
        if not (name in self.waiting or name in self.around) or getattr(self._asking, "now", False):
            return None
        self._asking.now = True
        try:
            spec = _ask_others(self, name, path, target)
        finally:
            self._asking.now = False
        if spec is not None:
            self._prepare(spec)
        return spec

    def _prepare(self, spec: ModuleSpec) -> None:
        execute = getattr(spec.loader, "exec_module", None)
        if execute is None:
            return

        def execute_and_call_back(module: ModuleType) -> None:
            with ExitStack() as stack:
                for around in self.around.get(spec.name, []):
                    # Nothing of ours escapes into the import.
                    with contextlib.suppress(Exception):
                        stack.enter_context(around())
                execute(module)
            # Only now: an import that fails may be tried again.
            self.around.pop(spec.name, None)
            for hook in self.waiting.pop(spec.name, []):
                call(hook, module)

        try:
            # On the loader of this spec only. Its class stays what it is: linecache and inspect ask for it.
            spec.loader.exec_module = execute_and_call_back  # type: ignore[union-attr, method-assign]
        except AttributeError:
            log.warning("pilotlight: cannot watch %s, it stays unpatched", spec.name)


_finder = _Finder()


def when_imported(name: str, hook: Hook) -> None:
    """Calls `hook` with the module `name` once it has been executed: now, if it has been."""
    module = sys.modules.get(name)
    if module is not None:
        call(hook, module)
        return
    _finder.waiting.setdefault(name, []).append(hook)
    _watch()


def while_executed(name: str, around: Around) -> bool:
    """Executes the module `name` inside of `around()`, once it is imported. Whether that is still to come."""
    if name in sys.modules:
        return False
    _finder.around.setdefault(name, []).append(around)
    _watch()
    return True


def _watch() -> None:
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def call(hook: Hook, module: ModuleType) -> None:
    """Lets nothing escape into the import."""
    try:
        hook(module)
    except Exception:
        log.warning("pilotlight: could not patch %s, it stays as it is", module.__name__, exc_info=True)


def _ask_others(this: _Finder, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if finder is this or find is None:
            continue
        spec: ModuleSpec | None = find(name, path, target)
        if spec is not None:
            return spec
    return None
