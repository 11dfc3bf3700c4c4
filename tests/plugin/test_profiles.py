"""What is shared beside graphs: profiles (PGO), best configs of kernels, measured times of templates."""

from __future__ import annotations

import pickle
import sys
import types
import unittest
from pathlib import Path
from typing import Any

import pytest

from devtools.servers import Pilotlight
from tests.plugin.conftest import Fleet, Programs, url_of

torch = pytest.importorskip("torch")

# Two sizes make a size dynamic; the profile spares the second machine the first, static graph.
TWO_SIZES = """
import sys
import torch
from torch._dynamo.utils import counters
torch.manual_seed(0)
w = torch.randn(16, 4)
@torch.compile
def product(x): return x @ w
with torch.no_grad():
    for rows in (8, 12):
        x = torch.randn(rows, 16)
        print("equal", torch.equal(product(x), x @ w))
print("graphs", counters["stats"]["unique_graphs"])
"""


# A function with cells: torch 2.12 and later hash what is in them, tensors and functions.
CLOSURE = TWO_SIZES.replace("w = torch.randn(16, 4)\n", "w = torch.randn(16, 4)\ndef same(x): return x\n").replace(
    "@torch.compile\ndef product(x): return x @ w\n",
    "def make(w, same):\n    def product(x): return same(x) @ w\n    return torch.compile(product)\nproduct = make(w, same)\n",
)


@pytest.mark.parametrize("code", [TWO_SIZES, CLOSURE])
def test_a_script_has_a_profile_without_a_job_id(programs: Programs, server: Pilotlight, code: str) -> None:
    quiet = {"PILOTLIGHT_QUIET": "1"}
    cold = programs.run(code, url=url_of(server), env=quiet)
    assert cold.out.splitlines() == ["equal True", "equal True", "graphs 2"]
    warm = programs.run(code, url=url_of(server), env=quiet)
    assert warm.out.splitlines() == ["equal True", "equal True", "graphs 1"]
    assert warm.count("hit", "pgo") == 1
    for other in (
        programs.run(code, url=url_of(server), env=quiet, name="another.py"),
        programs.run(code, "--batch-size=8", url=url_of(server), env=quiet),
    ):
        assert other.out.splitlines() == ["equal True", "equal True", "graphs 2"]


def test_launchers_and_sessions_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotlight.torch import pgo

    script = tmp_path / "train.py"
    script.write_text("train()")
    beside = tmp_path / "elsewhere" / "train.py"
    beside.parent.mkdir()
    beside.write_text("train()")
    changed = tmp_path / "changed" / "train.py"
    changed.parent.mkdir()
    changed.write_text("train(2)")
    ids = {}
    for name in (str(script), str(beside), str(changed), "-c", "", pytest.__file__):
        monkeypatch.setattr("sys.argv", [name, "--lr", "1"])
        pgo.default_job_id.cache_clear()
        ids[name] = pgo.default_job_id()
    pgo.default_job_id.cache_clear()
    assert ids[str(script)] == ids[str(beside)] != ids[str(changed)]
    monkeypatch.setattr("sys.argv", [str(script), "--lr", "2"])
    assert pgo.default_job_id() != ids[str(script)], "other arguments may mean other sizes"
    pgo.default_job_id.cache_clear()
    assert (ids["-c"], ids[""], ids[pytest.__file__]) == (None, None, None)


def test_a_file_of_tests_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotlight.torch import pgo

    script = tmp_path / "test_model.py"
    script.write_text("unittest.main()")
    monkeypatch.setattr("sys.argv", [str(script)])
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    pgo.default_job_id.cache_clear()
    assert pgo.default_job_id() is not None
    main.TestModel = type("TestModel", (unittest.TestCase,), {})  # type: ignore[attr-defined]
    pgo.default_job_id.cache_clear()
    assert pgo.default_job_id() is None
    pgo.default_job_id.cache_clear()


def test_naming_a_closure_fails_no_compile(monkeypatch: pytest.MonkeyPatch, fleet: Fleet) -> None:
    from torch._dynamo import pgo

    def cell(content: Any) -> Any:
        return (lambda: content).__closure__[0]  # type: ignore[index]

    names = {pgo._get_cell_hash_content(cell(content)) for content in (lambda: 1, lambda: 2, two_sizes)}
    assert len(names) == 3
    assert all(isinstance(name, int) for name in names)
    assert pgo._get_cell_hash_content(cell(torch.ones(1))) == 0

    def unreadable(path: str) -> str:
        raise PermissionError(path)

    monkeypatch.setattr(pgo, "_hash_containing_file", unreadable)
    assert pgo._get_cell_hash_content(cell(two_sizes)) is two_sizes.__code__


def two_sizes() -> int:
    torch.manual_seed(0)
    w = torch.randn(16, 4)

    def product(x: Any) -> Any:
        return x @ w

    compiled = torch.compile(product)
    with torch.no_grad():
        for rows in (8, 12):
            x = torch.randn(rows, 16)
            assert torch.equal(compiled(x), x @ w)
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def test_a_job_s_profile_is_found_by_its_id(fleet: Fleet) -> None:
    with torch.compiler.config.patch(job_id="a-job"):
        with fleet.machine():
            assert two_sizes() == 2
        with fleet.machine() as warm:
            assert two_sizes() == 1
        assert warm.counts["hit"]["pgo", ""] == 1
    with torch.compiler.config.patch(job_id="another-job"), fleet.machine():
        assert two_sizes() == 2


@pytest.mark.parametrize("content", [b"no pickle", pickle.dumps([1, 2])])
def test_a_bad_profile_is_refused(fleet: Fleet, content: bytes) -> None:
    key = b"pt2:dynamo-pgo::a-job:None::c1"
    assert fleet.client.put(key, content, torch_json=True)
    with torch.compiler.config.patch(job_id="a-job"):
        with fleet.machine() as met:
            assert two_sizes() == 2
        assert met.total("refused") == 1
        with fleet.machine() as after:
            assert two_sizes() == 1
        assert after.total("refused") == 0


def test_a_profile_that_cannot_be_put_ends_nothing(fleet: Fleet, server: Pilotlight) -> None:
    server.stop()
    with torch.compiler.config.patch(job_id="a-job"), fleet.machine() as alone:
        assert two_sizes() == 2
    assert alone.counts["put"]["pgo", ""] == 0
    assert sum(count for (kind, _), count in alone.counts["drop"].items() if kind == "pgo") >= 1


META = {"autotune_local_cache": True, "autotune_remote_cache": False, "bundled_autotune_remote_cache": True}


def _tune(cache_dir: Path, best: dict[str, Any] | None) -> Any:
    """One graph's compile, as torch brackets it, with one kernel: tuned to `best`, or looked up."""
    from torch._guards import CompileContext, CompileId, compile_context
    from torch._inductor.runtime.autotune_cache import AutotuneCache, AutotuneCacheBundler

    kernel = cache_dir / "ke" / "kernel.py"
    kernel.parent.mkdir(parents=True, exist_ok=True)
    meta: Any = {**META, "backend_hash": "of-a-backend"}
    with compile_context(CompileContext(CompileId(frame_id=0, frame_compile_id=0))):
        AutotuneCacheBundler.begin_compile(meta, code="def call(): ...")
        cache = AutotuneCache.create(meta, str(kernel), "configs")
        assert cache is not None
        assert cache.local_cache is not None
        found = cache._read()
        if found is None and best is not None:
            local, key = cache.local_cache
            local.put(key, best)
            AutotuneCacheBundler.put(key, best)
        AutotuneCacheBundler.end_compile()
    return found


def test_a_bundle_is_restored_where_it_is_read(fleet: Fleet, tmp_path: Path) -> None:
    best = {"XBLOCK": 64, "num_warps": 4, "num_stages": 1}
    with fleet.machine(tmp_path / "one"):
        assert _tune(tmp_path / "one", best) is None
    with fleet.machine(tmp_path / "two") as warm:
        assert _tune(tmp_path / "two", None) == best
    assert warm.counts["hit"] == {("bundled-autotune", ""): 1}


def test_the_bundle_switch_does_no_harm_without_a_gpu(fleet: Fleet) -> None:
    with fleet.machine(), torch._inductor.config.patch(bundled_autotune_remote_cache=True):
        assert two_sizes() == 2


class Choice:
    def __init__(self, name: str) -> None:
        self.name = name

    def hash_key(self) -> str:
        return self.name


def _lookup(names: str, seconds: dict[str, float] | None) -> tuple[dict[str, float], int]:
    from torch._inductor.codecache import PersistentCache

    measured = []

    def benchmark(choices: list[Choice]) -> dict[Choice, float]:
        measured.extend(choices)
        assert seconds is not None
        return {choice: seconds[choice.name] for choice in choices}

    choices: Any = [Choice(name) for name in names]
    cache: Any = PersistentCache()
    timings = cache.lookup(choices, "mm", "[(8, 16), (16, 4)]", benchmark)
    return {choice.name: time for choice, time in timings.items()}, len(measured)


def test_times_of_templates_are_measured_once_for_all(fleet: Fleet, tmp_path: Path, server: Pilotlight) -> None:
    times = {"a": 1.5, "b": 0.5, "c": float("inf")}
    with fleet.machine() as cold:
        assert _lookup("abc", times) == (times, 3)
    assert cold.counts["put"] == {("autotune", ""): 1}
    with fleet.machine(tmp_path / "second") as warm:
        assert _lookup("abc", None) == (times, 0)
    assert warm.counts["hit"] == {("autotune", ""): 1}
    with fleet.machine():
        assert _lookup("abcd", {**times, "d": 2.0}) == ({**times, "d": 2.0}, 4)
    server.stop()
    with fleet.machine(tmp_path / "second"):
        assert _lookup("abc", None) == (times, 0), "kept locally"
    with fleet.machine():
        assert _lookup("ab", times) == ({"a": 1.5, "b": 0.5}, 2), "measured as without a remote"


@pytest.mark.parametrize("value", [b"no json", b'{"times": [1, 2]}', b'{"times": {"a": "fast"}}', b"[]"])
def test_bad_times_are_measured_anew(fleet: Fleet, value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotlight.torch import templates

    asked = []
    original = templates._known

    def noting(client: Any, key: bytes, choices: Any) -> Any:
        asked.append(key)
        return original(client, key, choices)

    monkeypatch.setattr(templates, "_known", noting)
    with fleet.machine():
        _lookup("a", {"a": 1.0})
    assert fleet.client.put_raw(asked[0], value)
    with fleet.machine():
        assert _lookup("a", {"a": 2.0}) == ({"a": 2.0}, 1)
    with fleet.machine():
        assert _lookup("a", None) == ({"a": 2.0}, 0)
