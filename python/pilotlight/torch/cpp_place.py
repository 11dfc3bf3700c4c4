"""Putting a fetched object where PyTorch looks for it."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from typing import Any

# PyTorch waits ten minutes for this lock (`LOCK_TIMEOUT`). Whoever holds it makes, or fetches, the very same object.
LOCK_TIMEOUT_S = 30.0


def is_there(binary: str) -> bool:
    return os.path.exists(binary)


def place(binary: str, lock_path: str, data: bytes) -> bool:
    """Write the object under PyTorch's lock, whole or not at all. Returns whether an object is there now.

    Raises no `OSError`: a directory that is full or read-only is PyTorch's to report, when it compiles.
    """
    temporary = f"{binary}.{os.getpid()}.{threading.get_ident()}.tmp"
    try:
        with _file_lock()(lock_path, timeout=LOCK_TIMEOUT_S):
            if is_there(binary):
                return True
            # As the linker makes it: for everyone whom the umask does not forbid.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o777)
            with open(descriptor, "wb") as file:
                file.write(data)
            os.replace(temporary, binary)
        return True
    except (OSError, TimeoutError):  # filelock's Timeout is a TimeoutError
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        return False


def _file_lock() -> Any:
    """The lock that PyTorch uses: since 2.8 a class of its own over that of the package, which it used by itself before."""
    try:
        module = importlib.import_module("torch.utils._filelock")
    except ImportError:
        module = importlib.import_module("filelock")
    return module.FileLock


def remove(binary: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(binary)
