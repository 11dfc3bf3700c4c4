"""Warnings that are given once."""

from __future__ import annotations

import logging
import threading

# PyTorch's own name for this subject, so that TORCH_LOGS governs it (torch/_logging/_registrations.py).
log = logging.getLogger("torch._inductor.remote_cache")

_given: set[str] = set()
_lock = threading.Lock()


def warn_once(text: str) -> None:
    """Log a warning, unless this process has given it before."""
    with _lock:
        if text in _given:
            return
        _given.add(text)
    log.warning("pilotlight: %s", text)
