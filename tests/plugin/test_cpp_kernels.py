"""C++ kernels through the plug-in, with real torch, a real compiler and a real server: who compiled, who did not have to."""

from __future__ import annotations

import json
import os
import pickle
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devtools.servers import Pilotlight
from tests.plugin.machines import Machine, Ran

if TYPE_CHECKING:
    from pilotlight import Client

torch = pytest.importorskip("torch")
pytest.importorskip("pilotlight._native")
pytestmark = pytest.mark.xdist_group("cpp-kernels")

SEPARATE = {"TORCHINDUCTOR_CPP_WRAPPER": "1", "TORCHINDUCTOR_CPP_WRAPPER_BUILD_SEPARATE": "1"}


@dataclass(frozen=True)
class Fleet:
    """A server that knows what the first machine compiled."""

    server: Pilotlight
    first: Ran
    first_machine: Machine
    kernels: list[bytes]
    """The keys of the first machine's kernels."""
    graphs: list[bytes]
    """The keys of its graphs."""
    separate: Ran

    @property
    def url(self) -> str:
        return url_of(self.server)


def url_of(server: Pilotlight) -> str:
    return f"pilotlight://{server.host}:{server.port}"


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    home = tmp_path_factory.mktemp("fleet")
    with Pilotlight(home / "data") as server:
        machine = Machine(home / "first")
        first = machine.run("train", url=url_of(server))
        kernels, graphs = kernel_keys(server), keys(server, "pt2:fx-graph-v1::*")
        separate = machine.run(url=url_of(server), env=SEPARATE)
        yield Fleet(server, first, machine, kernels, graphs, separate)


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[], Machine]:
    count = iter(range(100))
    return lambda: Machine(tmp_path / f"machine-{next(count)}")


def test_the_first_machine_compiles_and_puts(fleet: Fleet) -> None:
    assert fleet.first.equal
    assert fleet.separate.equal
    assert fleet.first.kernels["misses"] == fleet.first.kernels["puts"] == 3
    assert fleet.separate.kernels["misses"] == fleet.separate.kernels["puts"] == 1
    assert any("-march=native" in line for line in fleet.first.started)
    assert any(".optimized.cpp" in line for line in fleet.separate.started)


def test_the_second_machine_starts_no_compiler_for_a_training_step(fleet: Fleet, machine: Callable[[], Machine]) -> None:
    ran = machine().run("train", url=fleet.url)
    assert ran.started == []  # no kernel, no header, no probe, not even --version
    assert ran.kernels["hits"] == 3
    assert ran.bytes == fleet.first.bytes


def test_the_second_machine_starts_no_compiler_for_the_separate_build(fleet: Fleet, machine: Callable[[], Machine]) -> None:
    ran = machine().run(url=fleet.url, env=SEPARATE)
    assert ran.started == []
    assert ran.kernels["hits"] == 1
    assert ran.bytes == fleet.separate.bytes


def test_seconds_saved_are_those_of_the_graphs_less_what_loading_them_takes(
    fleet: Fleet, machine: Callable[[], Machine], tmp_path: Path
) -> None:
    def report(**env: str) -> dict[str, Any]:
        path = tmp_path / f"report-{len(env)}"
        ran = machine().run("train", url=fleet.url, env={"PILOTLIGHT_REPORT": str(path), **env})
        assert ran.equal
        return dict(json.loads(path.read_text()))

    everything, but_kernels = report(), report(PILOTLIGHT_KERNELS="0")
    assert everything["hit"]["fx-graph"] == but_kernels["hit"]["fx-graph"] == {"": 2}
    assert everything["saved_ms"] <= sum(graph_ms for graph_ms, _ in graph_times(fleet)), "its kernels add nothing"
    assert but_kernels["saved_ms"] < everything["saved_ms"] - 500, "g++ ran again"
    assert "cpp-kernel" not in but_kernels["hit"]


def test_what_a_graph_costs_is_without_what_its_kernels_cost(fleet: Fleet) -> None:
    """Those have entries of their own: a server that adds up what its hits saved would count them twice."""
    times = graph_times(fleet)
    assert len(times) == 2
    # One run of g++ over torch's headers takes longer.
    assert all(entry_ms < graph_ms - 200 for graph_ms, entry_ms in times), times


def graph_times(fleet: Fleet) -> list[tuple[int, int]]:
    """Of each graph of the first machine's training step what torch took for it, and what its entry says, in milliseconds."""
    from pilotlight import Client

    entries = Client(fleet.url).get_many(fleet.graphs)
    return [(pickle.loads(entry.artifact)._time_taken_ns // 1_000_000, entry.compile_ms) for entry in entries if entry]


def test_another_installation_path_of_torch_and_compiler_hits(
    fleet: Fleet, machine: Callable[[], Machine], tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere" / "site-packages"
    other.mkdir(parents=True)
    packages = Path(torch.__file__).parent.parent
    for name in ("torch", "torchgen"):
        (other / name).symlink_to(packages / name)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "g++").symlink_to("/usr/bin/g++")
    ran = machine().run("train", url=fleet.url, path=(other,), env={"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"})
    assert ran.torch == str(other / "torch")
    assert ran.torch != fleet.first.torch
    assert ran.started == []
    assert ran.bytes == fleet.first.bytes


def test_a_front_for_the_compiler_is_asked_what_it_is_and_nothing_else(machine: Callable[[], Machine], tmp_path: Path) -> None:
    """A script that counts, or ccache: its file does not tell which compiler it stands for."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "g++").write_text('#!/bin/sh\nexec /usr/bin/g++ "$@"\n')
    (tools / "g++").chmod(0o755)
    # The probes have no part in this, and take longest.
    env = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "TORCHINDUCTOR_VEC_ISA_OK": "1"}
    with Pilotlight(tmp_path / "data") as server:
        first = machine().run(url=url_of(server), env=env)
        assert first.kernels["puts"] == 1
        second = machine().run(url=url_of(server), env=env)
    assert second.kernels["hits"] == 1
    assert second.bytes == first.bytes
    assert second.started
    assert {line.split(maxsplit=1)[1] for line in second.started} <= {"--version", "-v"}


def test_processes_that_share_a_cache_directory_start_no_compiler(fleet: Fleet, machine: Callable[[], Machine]) -> None:
    shared = machine()
    running = [shared.start("train", url=fleet.url) for _ in range(2)]
    for ran in [shared.finish(process) for process in running]:
        assert ran.started == []
        assert ran.kernels["hits"] + ran.kernels["local"] == 3
        assert ran.bytes == fleet.first.bytes


@pytest.mark.skipif(platform.machine() != "x86_64" or not torch.cpu._is_avx512_supported(), reason="needs AVX-512")
def test_a_pinned_capability_never_loads_what_was_made_for_another(fleet: Fleet, machine: Callable[[], Machine]) -> None:
    pinned = {"ATEN_CPU_CAPABILITY": "avx2"}
    ran = machine().run("train", url=fleet.url, env=pinned)
    assert ran.equal
    assert ran.kernels["hits"] == 0
    assert ran.kernels["misses"] == 3
    again = machine().run("train", url=fleet.url, env=pinned)
    assert again.started == []
    assert again.bytes == ran.bytes


def test_a_local_hit_fills_an_empty_remote(fleet: Fleet, machine: Callable[[], Machine], tmp_path: Path) -> None:
    with Pilotlight(tmp_path / "data") as empty:
        url = url_of(empty)
        warm = fleet.first_machine.run("train", url=url)
        assert warm.started == []
        assert warm.kernels["back_filled"] == 3
        again = fleet.first_machine.run("train", url=url)
        assert again.kernels["local"] == 3
        assert again.kernels["back_filled"] == 0
        fresh = machine().run("train", url=url)
        assert fresh.started == []
        assert fresh.bytes == fleet.first.bytes


def test_entries_that_are_not_what_they_seem_are_compiled_instead(fleet: Fleet, machine: Callable[[], Machine]) -> None:
    """One kernel was made on another host, one is cut off, one needs a library that is not here."""
    from pilotlight import Client

    client = Client(fleet.url)
    foreign, cut, lost = fleet.kernels
    put_changed(client, foreign, fingerprint=b"\0" * 32)
    put_changed(client, cut, change=lambda artifact: artifact[: len(artifact) // 2])
    put_changed(client, lost, change=lambda artifact: artifact.replace(b"libstdc++.so.6", b"libstdc--.so.6"))
    ran = machine().run("train", url=fleet.url)
    assert ran.equal
    assert ran.bytes == fleet.first.bytes
    assert ran.kernels["refused"] == 3
    assert ran.kernels["hits"] == 1  # the one that could not be loaded in the end
    assert sum("main.cpp" in line for line in ran.started) == 3
    healed = machine().run("train", url=fleet.url)
    assert healed.started == []
    assert healed.bytes == fleet.first.bytes


def test_an_object_on_this_disk_that_does_not_load_is_compiled_instead(fleet: Fleet, machine: Callable[[], Machine]) -> None:
    """Another process may have fetched it, and ended before it was loaded."""
    here = machine()
    here.run("train", url=fleet.url)
    spoil_one(here)
    ran = here.run("train", url=fleet.url)
    assert ran.equal
    assert ran.bytes == fleet.first.bytes
    assert (ran.kernels["refused"], ran.kernels["puts"]) == (1, 1)
    assert sum("main.cpp" in line for line in ran.started) == 1
    assert here.run("train", url=fleet.url).started == []


def test_it_is_compiled_instead_with_kernels_switched_off_too(fleet: Fleet, machine: Callable[[], Machine]) -> None:
    """As somebody may do because of it."""
    here = machine()
    here.run("train", url=fleet.url)
    spoil_one(here)
    ran = here.run("train", url=fleet.url, env={"PILOTLIGHT_KERNELS": "0"})
    assert ran.bytes == fleet.first.bytes
    assert ran.kernels["refused"] == sum("main.cpp" in line for line in ran.started) == 1


def spoil_one(machine: Machine) -> None:
    """Makes an object need a library that is not there."""
    needing = [path for path in machine.cache.rglob("*.so") if b"libstdc++.so.6" in path.read_bytes()]
    assert len(needing) == 3
    needing[0].write_bytes(needing[0].read_bytes().replace(b"libstdc++.so.6", b"libstdc--.so.6"))


def test_a_server_that_dies_costs_the_job_nothing_but_its_cache(fleet: Fleet, tmp_path: Path) -> None:
    """It dies between two graphs; the second is one that no machine has compiled."""
    server = Pilotlight(tmp_path / "data")
    server.start()
    try:
        ran = fleet.first_machine.run("train", f"kill={server.pid}", url=url_of(server))
    finally:
        server.kill()
    assert ran.equal
    assert ran.kernels["back_filled"] == 3
    assert ran.kernels["misses"] == 1
    assert ran.kernels["puts"] == 0


def kernel_keys(server: Pilotlight) -> list[bytes]:
    """Of kernels alone: what else lies under this prefix has a name in its key."""
    return [key for key in keys(server, "cpp-kernel:*") if key.count(b":") == 1 and len(key) == len(b"cpp-kernel:") + 64]


def keys(server: Pilotlight, pattern: str) -> list[bytes]:
    with server.connect() as connection:
        _, found = connection.command("SCAN", b"0", "MATCH", pattern, "COUNT", "10000")
    return sorted(found)


def put_changed(
    client: Client, key: bytes, change: Callable[[bytes], bytes] = lambda artifact: artifact, fingerprint: bytes | None = None
) -> None:
    """Put an entry again, as somebody would who has no business to."""
    entry = client.get_many([key])[0]
    assert entry is not None
    assert client.put(
        key,
        change(entry.artifact),
        producer=entry.producer,
        fingerprint=fingerprint or entry.fingerprint,
        components=entry.components,
    )
