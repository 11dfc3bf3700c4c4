"""Clients for remotes that are named as for stock torch and stock Triton, where `PILOTLIGHT_URL` does not name one."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilotlight._native import Client


def client() -> Client | None:
    """The process's client; torch's variables count where ours is unset, and a Redis on this host where none is set.

    Raises like torch without redis-py where the extension module is not there.
    """
    try:
        from pilotlight import _client
    except ImportError as error:
        raise RuntimeError("pilotlight's extension module is not available but required for the remote cache") from error
    if os.environ.get("PILOTLIGHT_URL"):
        return _client.client()
    if url := os.environ.get("TORCHINDUCTOR_REDIS_URL"):
        return named(url)
    host = os.environ.get("TORCHINDUCTOR_REDIS_HOST", "localhost")
    return named(redis_url(host, int(os.environ.get("TORCHINDUCTOR_REDIS_PORT", "6379"))))


def pass_notices() -> None:
    """What the clients have to say to the user."""
    from pilotlight import _client

    _client.pass_notices()


def redis_url(host: str, port: int) -> str:
    return f"redis://[{host}]:{port}" if ":" in host else f"redis://{host}:{port}"


@functools.cache
def named(url: str) -> Client:
    """One client per process and URL: stock torch opens a connection for every graph."""
    from pilotlight import _client

    return _client.make(url)
