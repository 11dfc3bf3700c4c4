"""The plug-in with each engine it can use directly, with no Pilotlight server in between, and through a Unix socket."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools import paths
from devtools.servers import Pilotlight, Redis
from tests.plugin.machines import Machine, Ran

torch = pytest.importorskip("torch")
pytest.importorskip("pilotlight._native")
pytestmark = pytest.mark.xdist_group("engines")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, Ran]:
    """A machine that has compiled, and has put into a directory what it made."""
    home = tmp_path_factory.mktemp("engines")
    machine = Machine(home / "first")
    return machine, machine.run("train", url=f"file://{home}/cache")


@pytest.fixture(params=["file", "redis", "unix"])
def url(request: pytest.FixtureRequest, first: tuple[Machine, Ran], tmp_path: Path) -> Iterator[str]:
    """A cache that the first machine has filled: the directory by compiling, the others from its local caches."""
    if request.param == "file":
        yield f"file://{first[0].home.parent}/cache"
        return
    if request.param == "redis":
        if paths.tool("redis-server") is None:
            pytest.skip("there is no redis-server (make tools)")
        with Redis(tmp_path / "redis", append_only=False) as redis:
            url = f"redis://127.0.0.1:{redis.port}"
            assert first[0].run("train", url=url).equal
            yield url
        return
    # The path of a socket may have about a hundred bytes.
    with (
        tempfile.TemporaryDirectory(prefix="pl-") as short,
        Pilotlight(tmp_path / "data", listen=("127.0.0.1:0", f"unix:{short}/s")),
    ):
        assert first[0].run("train", url=f"unix://{short}/s").equal
        yield f"unix://{short}/s"


def test_a_fresh_machine_compiles_nothing(url: str, first: tuple[Machine, Ran], tmp_path: Path) -> None:
    found = Machine(tmp_path / "second").run("train", url=url)
    assert found.equal
    assert found.started == []
    assert found.bytes == first[1].bytes
    assert found.kernels["hits"] == first[1].kernels["puts"] == 3


def test_pilotlight_run_sums_up_what_a_command_gained(first: tuple[Machine, Ran], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    under = (str(paths.pilotlight()), "run", "--report", str(report), "--")
    found = Machine(tmp_path / "second").run("train", url=f"file://{first[0].home.parent}/cache", under=under)
    assert found.equal
    said = json.loads(report.read_text())
    assert said["processes"] == 1
    assert {kind: sum(reasons.values()) for kind, reasons in said["hit"].items()} == {
        "aot-autograd": 1,
        "fx-graph": 2,
        "cpp-kernel": 3,
        "pgo": 1,
    }
    assert "pilotlight: 7 hits, 0 misses, " in found.err
    assert " s of compiling saved in 1 process\n" in found.err
