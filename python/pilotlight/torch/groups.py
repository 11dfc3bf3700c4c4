"""What is of use only together: an AOTAutograd entry, its graphs, and the kernels that each graph's list names.

The server is told, and evicts all of it or nothing. Kernels that several graphs use it keeps by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pilotlight.torch import cpp_sets, remote
from pilotlight.torch.once import guarded

if TYPE_CHECKING:
    from pilotlight._native import Client

# Graph -> the entry that was put before it.
_awaited: dict[str, bytes] = {}

# Graphs that torch does not load after all stay here.
_AWAITED_MAX = 256


def graphs_of(entry: Any) -> list[str]:
    """The keys of the graphs that an AOTAutograd entry names; none where it holds them itself."""
    infos = (getattr(part, "fx_graph_cache_info", None) for part in (entry.compiled_fw, entry.compiled_bw))
    return [info[0] for info in infos if info and info[0]]


def remote_key(graph: str) -> bytes:
    """Where a graph stands in the remote cache."""
    return f"pt2:fx-graph-v1::{graph}:c1".encode()


def form(client: Client, leader: bytes, graphs: Iterable[str]) -> None:
    """Groups what was put under `leader` with these graphs and their kernels, as far as they are there."""
    keys = [key for graph in graphs for key in (remote_key(graph), *cpp_sets.keys_of(graph))]
    if keys:
        client.group(leader, keys)


def await_graphs(leader: bytes, graphs: Iterable[str]) -> None:
    """The graphs may be put later than what names them: torch loads them from this disk next, and then they are back-filled."""
    _awaited.update(dict.fromkeys(graphs, leader))
    while len(_awaited) > _AWAITED_MAX:
        _awaited.pop(next(iter(_awaited)), None)


@guarded(otherwise=None)
def loaded(graph: str) -> None:
    """A graph was loaded, its kernels too, and what of it the remote did not have was put."""
    if (leader := _awaited.pop(graph, None)) is not None and (client := remote.connect()) is not None:
        form(client, leader, [graph])
