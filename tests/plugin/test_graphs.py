"""Graphs and AOTAutograd entries through the plug-in: what the stock cache loses, refuses or gets wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devtools.servers import Pilotlight
from tests.plugin.conftest import Fleet, url_of

torch = pytest.importorskip("torch")


def product(x: Any, w: Any) -> Any:
    return x @ w


def train() -> None:
    """One training step, compared with the same in eager mode."""
    torch.manual_seed(0)
    x = torch.randn(8, 16)
    w = torch.randn(16, 4, requires_grad=True)
    plain = torch.autograd.grad(product(x, w).sum(), w)[0]
    compiled = torch.compile(product)
    got = compiled(x, w)
    assert torch.equal(got, product(x, w))
    got.sum().backward()
    assert torch.equal(w.grad, plain)


def infer() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(8, 16), torch.randn(16, 4)
    with torch.no_grad():
        assert torch.equal(torch.compile(product)(x, w), product(x, w))


def keys(fleet: Fleet, kind: str, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None] = infer) -> list[bytes]:
    """The keys that a program asks for, noted on a machine that finds nothing."""
    from pilotlight.torch import lookups

    asked = []
    original = lookups.Lookup.__init__

    def noting(self: Any, client: Any, cache: Any, key: str, kind: str, **more: Any) -> None:
        original(self, client, cache, key, kind, **more)
        asked.append((kind, self.remote_key))

    with monkeypatch.context() as noted:
        noted.setattr(lookups.Lookup, "__init__", noting)
        with fleet.machine():
            act()
    return [key for asked_kind, key in asked if asked_kind == kind]


def test_a_fresh_machine_finds_what_another_compiled(fleet: Fleet) -> None:
    with fleet.machine() as cold:
        train()
    assert (cold.total("hit"), cold.total("miss"), cold.total("put")) == (0, 3, 3)
    with fleet.machine() as warm, fleet.traffic() as asked:
        train()
    assert warm.counts["hit"] == {("aot-autograd", ""): 1, ("fx-graph", ""): 2}
    assert (warm.total("miss"), warm.total("put")) == (0, 0)
    assert warm.saved_ms > 0
    # The entry, then its two graphs together.
    assert asked == [("candidates", ["autograd-experimental"]), ("get_many", ["fx-graph-v1", "fx-graph-v1"])]


def test_torch_counts_what_happened_under_its_own_names(fleet: Fleet) -> None:
    from torch._inductor.remote_cache import cache_stats

    with fleet.machine():
        infer()
        assert (cache_stats._stats["RemoteFxGraphCache"].miss, cache_stats._stats["RemoteFxGraphCache"].put) == (1, 1)
        assert cache_stats._stats["LocalFxGraphCache"].put == 1
    with fleet.machine():
        infer()
        assert cache_stats._stats["RemoteFxGraphCache"].hit == 1
        assert cache_stats._stats["RemoteAOTAutogradCache"].hit == 1
        assert cache_stats._stats["backend:RedisRemoteCacheBackend"].hit == 2


def test_entries_stand_under_torch_s_own_keys_in_its_own_shape(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    (key,) = keys(fleet, "fx-graph", monkeypatch)
    assert key.startswith(b"pt2:fx-graph-v1::f")
    assert key.endswith(b":c1")
    raw = fleet.client.get_raw(key)
    assert raw is not None
    assert raw.startswith(b'{"data": "')
    (entry,) = fleet.client.candidates(key, _fingerprint())
    assert entry.compile_ms > 0
    assert entry.producer == f"torch {torch.__version__}"


@pytest.mark.parametrize("act", [infer, train])
@pytest.mark.parametrize("kind", ["fx-graph", "aot-autograd"])
def test_entries_tell_what_their_keys_are_made_of(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, kind: str, act: Callable[[], None]
) -> None:
    def components() -> dict[int, int]:
        # A graph whose AOTAutograd entry is there without it is asked for twice: by the entry, then for itself.
        key = keys(fleet, kind, monkeypatch, act)[-1]
        (entry,) = fleet.client.candidates(key, _fingerprint())
        fleet.client.delete(key)
        # One for each line by which torch explains a key.
        assert len(dict(entry.components)) > 100
        return dict(entry.components)

    first = components()
    assert components() == first, "of the same key"
    with torch.compiler.config.patch(cache_key_tag="another"):
        other = components()
    assert first.keys() == other.keys()
    assert [name for name, value in first.items() if other[name] != value] == [_hash_64(b"cache_key_tag")]


def _hash_64(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _put_as_stock(fleet: Fleet, key: bytes) -> bytes:
    """Puts an entry again as stock torch would, with nothing said about it; gives what was pickled."""
    (entry,) = fleet.client.candidates(key, _fingerprint())
    fleet.client.delete(key)
    value = {"data": base64.b64encode(entry.artifact).decode(), "time_taken_ms": 5}
    assert fleet.client.put_raw(key, json.dumps(value).encode())
    return entry.artifact


def test_entries_of_stock_clients_are_found(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("fx-graph", "aot-autograd"):
        (key,) = keys(fleet, kind, monkeypatch)
        _put_as_stock(fleet, key)
    with fleet.machine() as warm:
        infer()
    assert (warm.total("hit"), warm.total("miss")) == (2, 0)


def test_it_works_with_torch_s_local_caches_off(fleet: Fleet) -> None:
    with torch._inductor.config.patch(fx_graph_cache=False), torch._functorch.config.patch(enable_autograd_cache=False):
        with fleet.machine() as cold:
            infer()
        assert cold.total("put") == 2
        with fleet.machine() as warm:
            infer()
        assert (warm.total("hit"), warm.total("put")) == (2, 0)


def test_a_remote_hit_is_kept_locally(fleet: Fleet, server: Pilotlight, tmp_path: Path) -> None:
    with fleet.machine():
        train()
    with fleet.machine(tmp_path / "second"):
        train()
    server.stop()
    with fleet.machine(tmp_path / "second"):
        train()
        assert torch._dynamo.utils.counters["aot_autograd"]["autograd_cache_hit"] == 1
        assert torch._dynamo.utils.counters["inductor"]["fxgraph_cache_hit"] == 2


def test_a_local_hit_fills_an_empty_remote(fleet: Fleet, tmp_path: Path) -> None:
    with fleet.machine(tmp_path / "first"):
        train()
    with Pilotlight(tmp_path / "empty") as empty:
        fleet.use(url_of(empty))
        with fleet.machine(tmp_path / "first") as seeding:
            train()
        assert seeding.counts["backfill"] == {("aot-autograd", ""): 1, ("fx-graph", ""): 2}
        with fleet.machine() as seeded:
            train()
        assert (seeded.total("hit"), seeded.total("miss")) == (3, 0)
        with fleet.machine(tmp_path / "first") as again:
            train()
        assert again.total("put") == 0


def pool(x: Any) -> Any:
    return torch.nn.functional.adaptive_avg_pool2d(x, 2)


def both_pools() -> None:
    """Two variants under one key: the kernel of one size does not do for the other."""
    for size in (64, 96):
        torch._dynamo.reset()
        x = torch.arange(float(size * size)).reshape(1, 1, size, size)
        assert torch.equal(torch.compile(pool, dynamic=True)(x), pool(x))


def test_all_guard_variants_hit_from_a_fresh_machine(fleet: Fleet) -> None:
    with fleet.machine() as cold:
        both_pools()
    assert cold.counts["put"] == {("aot-autograd", ""): 2, ("fx-graph", ""): 2}
    with fleet.machine() as warm:
        both_pools()
    assert (warm.total("miss"), warm.total("put")) == (0, 0), warm.counts


def test_autograd_entries_bring_their_graphs_with_the_graph_switch_off(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotlight.torch import activation

    # As if the user had switched the AOTAutograd cache on, and so wants what it is of no use without.
    monkeypatch.setattr(activation, "switched_on", set())
    with torch._inductor.config.patch(fx_graph_remote_cache=False):
        with fleet.machine():
            infer()
        with fleet.machine() as warm:
            infer()
    assert (warm.total("hit"), warm.total("miss"), warm.total("put")) == (2, 0, 0)


def test_who_says_no_to_graphs_gets_none(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotlight.torch import activation

    monkeypatch.setattr(activation, "switched_on", {"TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE"})
    with torch._inductor.config.patch(fx_graph_remote_cache=False), fleet.machine() as machine:
        infer()
    counted = [kind for counts in machine.counts.values() for kind, _ in counts]
    assert "fx-graph" not in counted


def test_a_full_disk_loses_no_put(fleet: Fleet, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for directory in ("aotautograd", "fxgraph"):
        (broken / directory).write_text("a file where torch wants a directory")
    with fleet.machine(broken) as cold:
        infer()
    assert cold.total("put") == 2
    with fleet.machine() as warm:
        infer()
    assert warm.total("hit") == 2


def _garbage(_: bytes) -> bytes:
    return b"\x00 this is no pickle"


def _truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _of_another_type(_: bytes) -> bytes:
    return pickle.dumps({"not": "a graph"})


def _from_another_version(content: bytes) -> bytes:
    return content.replace(b"CompiledFxGraph", b"CompiledGxGraph").replace(b"AOTAutogradResult", b"AOTAutogradRezult")


SPOILS = [_garbage, _truncated, _of_another_type, _from_another_version]


@pytest.mark.parametrize("kind", ["fx-graph", "aot-autograd"])
@pytest.mark.parametrize("spoil", SPOILS)
def test_a_bad_entry_is_refused_and_compiled_anew(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, kind: str, spoil: Callable[[bytes], bytes]
) -> None:
    (key,) = keys(fleet, kind, monkeypatch)
    _spoil(fleet, key, spoil)
    with fleet.machine() as met:
        infer()
    assert sum(met.counts["refused"].values()) == 1, met.counts
    assert met.counts["miss"][kind, "refused"] == 1
    assert fleet.client.stats()["quarantined"] >= 1
    with fleet.machine() as after:
        infer()
    assert (after.total("hit"), after.total("refused")) == (2, 0)


def test_a_bad_older_variant_goes_and_the_newer_one_stays(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    key = keys(fleet, "fx-graph", monkeypatch, both_pools)[-1]
    newer, older = fleet.client.candidates(key, _fingerprint())
    for entry, content in ((older, _of_another_type(b"")), (newer, newer.artifact)):
        assert fleet.client.put_variant(key, entry.variant or 0, content, torch_json=True, fingerprint=entry.fingerprint)
    with fleet.machine() as met:
        both_pools()
    assert met.counts["refused"] == {("fx-graph", "wrong type"): 1}
    assert met.counts["hit"]["fx-graph", ""] == 1, "the other variant is still there"
    with fleet.machine() as after:
        both_pools()
    assert (after.total("refused"), after.total("miss")) == (0, 0), after.counts


def test_an_entry_whose_code_does_not_load_is_refused(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    (key,) = keys(fleet, "fx-graph", monkeypatch)
    _spoil(fleet, key, lambda content: content.replace(b"async_compile.wait", b"async_compile wait"))
    with fleet.machine() as met:
        infer()
    assert met.total("refused") == 1, met.counts
    assert met.counts["miss"]["fx-graph", "refused"] == 1
    with fleet.machine() as after:
        infer()
    assert (after.total("hit"), after.total("refused")) == (2, 0)


def _spoil(fleet: Fleet, key: bytes, spoil: Callable[[bytes], bytes]) -> None:
    (entry,) = fleet.client.candidates(key, _fingerprint())
    spoiled = spoil(entry.artifact)
    assert spoiled != entry.artifact
    fleet.client.delete(key)
    assert fleet.client.put_variant(key, entry.variant or 0, spoiled, torch_json=True, fingerprint=entry.fingerprint)


def _fingerprint() -> bytes | None:
    from pilotlight.torch import remote

    return remote.fingerprint()


def test_an_entry_of_another_host_is_left_there(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotlight.torch import remote

    with fleet.machine():
        infer()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(remote, "fingerprint", lambda: b"o" * 32)
        with fleet.machine() as other:
            infer()
        assert other.counts["miss"]["fx-graph", "fingerprint"] >= 1
        with fleet.machine() as again:
            infer()
        assert again.counts["hit"]["fx-graph", ""] == 1
    with fleet.machine() as first:
        infer()
    assert first.counts["hit"]["fx-graph", ""] == 1


def test_a_local_entry_of_another_host_is_not_used(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home directory may be shared by hosts of two kinds."""
    from pilotlight.torch import remote

    def local_hits() -> int:
        return int(torch._dynamo.utils.counters["inductor"]["fxgraph_cache_hit"])

    with fleet.machine(tmp_path / "shared"):
        infer()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(remote, "fingerprint", lambda: b"o" * 32)
        with fleet.machine(tmp_path / "shared") as other:
            infer()
            assert local_hits() == 0
        assert other.counts["miss"]["fx-graph", "fingerprint"] >= 1, other.counts
        with fleet.machine(tmp_path / "shared"):
            infer()
            assert local_hits() == 1
    with fleet.machine(tmp_path / "shared") as first:
        infer()
        assert local_hits() == 1
    assert first.total("miss") == 0


def test_behind_an_entry_that_does_not_load_no_other_host_s_is_taken(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pilotlight.torch import remote
    from torch._inductor.codecache import FxGraphCache

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(remote, "fingerprint", lambda: b"o" * 32)
        with fleet.machine(tmp_path / "shared"):
            infer()
    with fleet.machine():
        infer()
    loaded = []

    def failing(graph: Any, *_: Any) -> Any:
        loaded.append(graph)
        raise RuntimeError("this host's trouble")

    with monkeypatch.context() as troubled, fleet.machine(tmp_path / "shared"):
        troubled.setattr(FxGraphCache, "cache_hit_post_compile", staticmethod(failing))
        infer()
    assert len(loaded) == 1, "only the remote one was tried"


def test_what_a_stock_client_put_is_kept_locally_for_this_kind_of_host(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pilotlight.torch import marks

    (key,) = keys(fleet, "fx-graph", monkeypatch)
    content = _put_as_stock(fleet, key)
    with fleet.machine() as warm:
        infer()
        assert marks.is_ours(content)
    assert warm.total("hit") == 2


def test_what_cannot_be_marked_is_not_kept_locally_but_put(fleet: Fleet, tmp_path: Path) -> None:
    where = tmp_path / "here"
    (where / "pilotlight").mkdir(parents=True)
    (where / "pilotlight" / "made-for").write_text("a file where the marks belong")
    with fleet.machine(where) as cold:
        infer()
    assert cold.total("put") == 2
    kept = [path for path in (where / "fxgraph").rglob("*") if path.is_file()] if (where / "fxgraph").exists() else []
    assert kept == []
    with fleet.machine() as warm:
        infer()
    assert warm.total("hit") == 2


def test_a_host_that_cannot_be_told_from_others_marks_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its fingerprint is another one in every process: torch's own local cache must work there as without us."""
    from pilotlight.torch import fingerprint, remote

    monkeypatch.setattr(fingerprint, "cpu_features", lambda *_: None)
    for number in range(2):
        monkeypatch.setattr(remote, "fingerprint", lambda number=number: b"%d" % number * 32)
        with fleet.machine(tmp_path / "home"):
            infer()
            assert torch._dynamo.utils.counters["inductor"]["fxgraph_cache_hit"] == number


def test_a_graph_with_inputs_elsewhere_finds_the_code_it_runs_on_the_cpu(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotlight.torch import graphs

    # As if its inputs lay on a GPU: then a lookup asks for what fits everywhere first.
    monkeypatch.setattr(graphs, "_may_touch_cpu", lambda cls: False)
    with fleet.machine() as cold:
        infer()
    assert cold.total("put") == 2
    with fleet.machine() as warm:
        infer()
    assert (warm.total("hit"), warm.total("miss")) == (2, 0), warm.counts


def test_an_entry_that_torch_turns_down_is_a_miss(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.codecache import FxGraphCache

    with fleet.machine():
        infer()
    with monkeypatch.context() as later:
        later.setattr(FxGraphCache, "cache_hit_post_compile", staticmethod(lambda graph, info, constants: (None, info)))
        with fleet.machine() as met:
            infer()
    assert met.counts["miss"]["fx-graph", "turned down"] >= 1
    assert met.counts["hit"]["fx-graph", ""] == 0


def test_graphs_inside_autograd_entries_are_tied_to_the_host(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotlight.torch import remote

    with torch._functorch.config.patch(bundled_autograd_cache=True):
        (key,) = keys(fleet, "aot-autograd", monkeypatch)
        (entry,) = fleet.client.candidates(key, _fingerprint())
        assert entry.fingerprint == _fingerprint()
        with fleet.machine() as warm:
            infer()
        assert warm.counts["hit"] == {("aot-autograd", ""): 1}
        monkeypatch.setattr(remote, "fingerprint", lambda: b"o" * 32)
        with fleet.machine() as other:
            infer()
        assert other.counts["miss"]["aot-autograd", "fingerprint"] == 1


def test_a_dead_remote_costs_nothing_but_time(fleet: Fleet, server: Pilotlight) -> None:
    from torch._inductor.remote_cache import cache_stats

    server.stop()
    with fleet.machine() as alone:
        train()
        assert "RemoteFxGraphCache" not in cache_stats._stats or cache_stats._stats["RemoteFxGraphCache"].put == 0
    assert (alone.total("put"), alone.total("drop")) == (0, 3)
    assert set(alone.by_reason("drop")) == {"unavailable"}


def test_torch_2_6_asks_the_cache_itself_and_gets_what_fits(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotlight.torch import remote
    from torch._inductor.codecache import FxGraphCache

    (key,) = keys(fleet, "fx-graph", monkeypatch)
    cache: Any = FxGraphCache.get_remote_cache()
    plain = key.split(b"::")[1].split(b":")[0].decode()
    with fleet.machine() as report:
        found: Any = cache.get(plain)
        assert isinstance(pickle.loads(base64.b64decode(found["data"])), torch._inductor.output_code.CompiledFxGraph)
        monkeypatch.setattr(remote, "fingerprint", lambda: b"o" * 32)
        assert cache.get(plain) is None
    assert report.counts["hit"] == {("fx-graph", ""): 1}
    assert report.counts["miss"] == {("fx-graph", "fingerprint"): 1}


@pytest.mark.parametrize("wanted", [0, 1, None])
def test_torch_2_6_which_asks_once_gets_one_variant_after_the_other(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, wanted: int | None
) -> None:
    from pilotlight.torch import graphs
    from torch._inductor import codecache

    key = keys(fleet, "fx-graph", monkeypatch, both_pools)[-1]
    variants = [entry.artifact for entry in fleet.client.candidates(key, _fingerprint())]
    assert len(variants) == 2
    asked_locally = []

    def looking_once(key: str, example_inputs: Any, local: bool, remote_cache: Any) -> Any:
        """What torch 2.6 has there: local candidates, then whatever the remote cache has, if its guards hold."""
        asked_locally.append(local)
        value = remote_cache.get(key) if remote_cache is not None else None
        content = None if value is None else base64.b64decode(value["data"])
        holds = content is not None and wanted is not None and content == variants[wanted]
        return (pickle.loads(content) if holds and content else None), {}

    lookup = graphs._lookup_one_by_one(looking_once, codecache)
    plain = key.split(b"::")[1].split(b":")[0].decode()
    with fleet.machine() as report:
        graph, _ = lookup(plain, [torch.ones(1)], True, codecache.FxGraphCache.get_remote_cache())
    assert (graph is None) == (wanted is None)
    assert asked_locally[1:] == [False] * (len(asked_locally) - 1), "the local cache is asked once"
    expected = {("fx-graph", ""): 1} if wanted is not None else {}
    assert report.counts["hit"] == expected
    assert report.counts["miss"] == ({} if wanted is not None else {("fx-graph", "guards"): 1})


def test_torch_2_6_puts_what_the_cache_is_given(fleet: Fleet) -> None:
    from pilotlight.torch import puts

    content = b"pickled"
    catching = puts.Catching()
    catching.put("key", {"data": base64.b64encode(content).decode(), "time_taken_ms": 1})
    assert catching.contents == [content]


def test_an_error_of_our_own_costs_a_miss(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotlight.torch import hosts, puts, remote

    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("of our own")

    with fleet.machine():
        infer()
    for owner, name in ((hosts, "fits_unmarked"), (remote, "fingerprint"), (remote, "Observed"), (puts, "_put")):
        with monkeypatch.context() as broken, fleet.machine():
            broken.setattr(owner, name, failing)
            infer()


def test_a_bypass_is_counted_with_its_reason(fleet: Fleet) -> None:
    def unknown_pass(graph: Any) -> None:
        return None

    with fleet.machine() as bypassing, torch._inductor.config.patch(post_grad_custom_post_pass=unknown_pass):
        infer()
    assert bypassing.total("bypass") >= 1
    assert all(bypassing.by_reason("bypass"))


def test_a_test_s_own_backends_are_used_as_in_stock_torch(fleet: Fleet) -> None:
    from torch._inductor.mock_cache import PatchCaches, Stats, global_stats

    with fleet.traffic() as asked, PatchCaches():
        with fleet.machine():
            infer()
        with fleet.machine() as warm:
            infer()
        assert global_stats.fx_graph == Stats(1, 1, 1)
        assert global_stats.aot_autograd == Stats(1, 1, 1)
        assert all(key.startswith("pt2:fx-graph-v1::f") for key in global_stats.fx_graph.cache)
    assert not any(kind == "fx-graph" for outcome in warm.counts.values() for kind, _ in outcome)
    assert asked == []
