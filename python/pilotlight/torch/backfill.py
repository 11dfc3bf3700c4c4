"""What a hit brings with it: a local one fills an empty remote, one in the AOTAutograd cache fetches its graphs."""

from __future__ import annotations

import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pilotlight import _summary
from pilotlight.torch import cpp_remote, cpp_sets, groups, hosts, lookups, marks, puts, remote

if TYPE_CHECKING:
    from pilotlight._native import Client, Entry

# Looking whether the remote has what the local cache has may cost a process this much in all.
_BUDGET_S = 0.5

_checked: set[bytes] = set()
_spent_s = 0.0


def on_local_hit(lookup: lookups.Lookup, cache: Any, entry: Any, content: bytes) -> None:
    """Puts a local entry that the remote does not have: stock torch seeds nothing while its local caches are warm."""
    global _spent_s
    if lookup.remote_key in _checked or _spent_s > _BUDGET_S:
        return
    _checked.add(lookup.remote_key)
    begin = time.monotonic()
    # Directories are shared between hosts: what may be another's must not become one of this host's for everybody.
    if lookup.client.has([lookup.remote_key]) == [False] and (marks.is_ours(content) or hosts.fits_unmarked(entry)):
        put = puts.put_graph if lookup.kind == "fx-graph" else puts.put_autograd
        if put(lookup.client, cache, lookup.key, entry, content):
            _summary.record("backfill", lookup.kind)
            cpp_remote.doubt(lookup.client)
            if lookup.kind == "aot-autograd":
                groups.await_graphs(lookup.remote_key, groups.graphs_of(entry))
    _spent_s += time.monotonic() - begin


def fetch_graphs_of(client: Client, entry: Any, codecache: ModuleType) -> bool:
    """Gets the graphs that an AOTAutograd entry names and the lists of their kernels in one round trip.

    Returns whether each of them is on this disk, or came and fits this host.
    """
    local = codecache.FxGraphCache._get_tmp_dir_for_key
    wanted = [graph for graph in groups.graphs_of(entry) if not marks.any_may_be_used(local(graph))]
    if not wanted:
        return True
    graphs = [groups.remote_key(graph) for graph in wanted]
    lists = cpp_sets.set_keys(wanted)
    entries = client.get_many([*graphs, *lists])
    lookups.expect(dict(zip(graphs, entries, strict=False)))
    cpp_sets.prefetch_listed(lists, entries[len(graphs) :])
    return all(_has_fitting(client, key, newest) for key, newest in zip(graphs, entries, strict=False))


def _has_fitting(client: Client, key: bytes, newest: Entry | None) -> bool:
    if newest is None or newest.fingerprint is None:
        return newest is not None
    if newest.fingerprint == (host := remote.fingerprint()):
        return True
    # The newest variant is another kind of host's: there may be older ones.
    older = next(iter(client.candidates(key, host)), None)
    lookups.expect({key: older})
    return older is not None
