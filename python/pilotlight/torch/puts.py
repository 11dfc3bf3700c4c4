"""Putting entries: the bytes that torch writes to its local cache go to the remote as they are."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pilotlight import _summary
from pilotlight.torch import cpp_sets, groups, hosts, marks, remote, replacing

if TYPE_CHECKING:
    from pilotlight._native import Client


class _Saving(threading.local):
    contents: list[bytes] | None = None
    write = True
    host: bytes | None = None


_saving = _Saving()


@contextlib.contextmanager
def content_noticed(*, write: bool, host: bytes | None) -> Iterator[list[bytes]]:
    """What torch's save functions pickle while this lasts; with `write` it reaches the local cache as well, marked for `host`.

    torch writes locally before it puts remotely, and leaves the put out where the disk is full or read-only. Noticed here,
    the content is there all the same.
    """
    before = _saving.contents, _saving.write, _saving.host
    contents: list[bytes] = []
    _saving.contents, _saving.write, _saving.host = contents, write, host
    try:
        yield contents
    finally:
        _saving.contents, _saving.write, _saving.host = before


def noticing_content(original: replacing.Function) -> replacing.Function:
    """Wraps the caches' `_write_to_local_cache`."""

    def _write_to_local_cache(key: str, content: bytes) -> None:
        if _saving.contents is not None:
            _saving.contents.append(content)
            if not _saving.write or not marks.mark(content, _saving.host):
                return
        original(key, content)

    return _write_to_local_cache


class Catching:
    """In the place of a remote cache: catches what torch puts there."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Of torch's JSON, the part that is pickled."""
        self.contents.append(base64.b64decode(value["data"]))


def write_through(cls: Any, key: str, content: bytes | None, host: bytes | None) -> None:
    """Keeps a remote entry locally, so that the next process needs no network."""
    # A full or read-only disk is no reason to speak: nothing is lost but a round trip.
    with contextlib.suppress(OSError):
        if content is not None and marks.mark(content, host):
            cls._write_to_local_cache(key, content)


def host_of(candidate: Any) -> bytes | None:
    """What a compiled graph, or an AOTAutograd entry with those it holds, asks of the host; `None` if it runs on any."""
    with remote.guarded("finding out for which hosts a graph is"):
        return remote.fingerprint() if hosts.touches_cpu(candidate) else None
    return None


def put_graph(client: Client, cache: Any, key: str, graph: Any, content: bytes) -> bool:
    """Puts a compiled graph as the variant for its guards and, if it touches the CPU, for this host.

    Its kernels have entries of their own, which bring what they took: the graph's brings the rest, so that nothing is counted
    twice and each entry is worth what making it anew costs.
    """
    took_ms = (getattr(graph, "_time_taken_ns", None) or 0) // 1_000_000
    return _put(
        client,
        cache,
        key,
        "fx-graph",
        content,
        guards=graph.guards_expr,
        host=host_of(graph),
        compile_ms=max(0, took_ms - cpp_sets.waited_ms(key)),
        debug_lines=getattr(graph, "_fx_graph_cache_debug_lines", None),
    )


def put_autograd(
    client: Client,
    cache: Any,
    key: str,
    entry: Any,
    content: bytes,
    debug_lines: list[str] | None = None,
) -> bool:
    """Puts an AOTAutograd entry, which leaves the remote with its graphs and their kernels, and they with it."""
    stored = _put(
        client,
        cache,
        key,
        "aot-autograd",
        content,
        guards=entry.guards_expr,
        host=host_of(entry),
        compile_ms=int((entry.forward_time_taken_ns + entry.backward_time_taken_ns) // 1_000_000),
        debug_lines=debug_lines,
    )
    if stored:
        groups.form(client, cache._get_key(key).encode(), groups.graphs_of(entry))
    return stored


def _put(
    client: Client,
    cache: Any,
    key: str,
    kind: str,
    content: bytes,
    *,
    guards: str | None,
    host: bytes | None,
    compile_ms: int,
    debug_lines: list[str] | None,
) -> bool:
    import torch

    observed = remote.Observed(client)
    stored = client.put_variant(
        cache._get_key(key).encode(),
        remote.variant(guards, host),
        content,
        torch_json=True,
        compile_ms=compile_ms,
        producer=f"torch {torch.__version__}",
        fingerprint=host,
        components=remote.components(debug_lines),
    )
    remote.pass_notices()
    if stored:
        cache_stats = remote.cache_stats()
        cache_stats.put(type(cache).__name__)
        cache_stats.put("backend:RedisRemoteCacheBackend")
        _summary.record("put", kind)
    else:
        _summary.record("drop", kind, observed.reason("refused"))
    return stored
