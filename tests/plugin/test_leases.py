"""Compile once per fleet: processes that start together, with real torch, a real compiler and a real server."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devtools.servers import Pilotlight, free_port
from tests.plugin.machines import Machine, Ran
from tests.waiting import PATIENCE_S, wait_until

pytest.importorskip("torch")
pytest.importorskip("pilotlight._native")
pytestmark = pytest.mark.xdist_group("leases")

HERD = 3


def url_of(server: Pilotlight) -> str:
    return f"pilotlight://{server.host}:{server.port}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Pilotlight]:
    # On a port of its own, where it is found again after a restart.
    with Pilotlight(tmp_path / "data", listen=(f"127.0.0.1:{free_port()}",)) as running:
        yield running


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, dict[str, Any]]:
    """What one process does that has the server to itself, and what the server counted."""
    home = tmp_path_factory.mktemp("alone")
    with Pilotlight(home / "data") as server:
        ran = Machine(home / "machine").run("train", url=url_of(server))
        return ran, server.stats()


def compiles(ran: Ran) -> list[str]:
    """Its runs of the compiler, without the questions."""
    return [line for line in ran.started if not line.endswith((" --version", " -v"))]


def puts(stats: dict[str, Any], kind: str) -> int:
    return int(stats["kinds"][kind]["puts"])


def leases(server: Pilotlight) -> dict[str, Any]:
    found: dict[str, Any] = server.stats()["leases"]
    return found


@contextmanager
def leader_at_work(server: Pilotlight, machine: Machine, env: dict[str, str] | None = None) -> Iterator[Any]:
    """A process that compiles something for others right now."""
    running = machine.start("train", url=url_of(server), env=env)
    process = running[0]
    try:
        wait_until(lambda: leases(server)["open"] > 0)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_processes_that_start_together_compile_once(
    server: Pilotlight, tmp_path: Path, alone: tuple[Ran, dict[str, Any]]
) -> None:
    machines = [Machine(tmp_path / f"machine-{number}") for number in range(HERD)]
    running = [machine.start("train", url=url_of(server)) for machine in machines]
    herd = [machine.finish(process) for machine, process in zip(machines, running, strict=True)]
    assert all(ran.equal for ran in herd)
    single, counted = alone
    # What a process leads of a kind it does not wait for in another: on a busy machine a probe may run twice.
    assert sum(len(compiles(ran)) for ran in herd) <= 1.15 * len(compiles(single)), [ran.started for ran in herd]
    stats = server.stats()
    assert puts(stats, "fx-graph") == puts(counted, "fx-graph")
    assert sum(ran.kernels["puts"] for ran in herd) == single.kernels["puts"]
    assert stats["leases"]["open"] == 0
    # The forward's graph and the backward's, which the others waited for.
    assert stats["leases"]["looked"] >= 2
    assert stats["leases"]["saved_seconds"] > 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_leader_that_is_killed_or_stopped_is_waited_for_no_longer(
    server: Pilotlight, tmp_path: Path, how: signal.Signals
) -> None:
    with leader_at_work(server, Machine(tmp_path / "leader")) as leader:
        follower = Machine(tmp_path / "follower")
        running = follower.start("train", url=url_of(server))
        wait_until(lambda: leases(server)["waiting"] > 0)
        os.kill(leader.pid, how)
        ran = follower.finish(running)
    assert ran.equal
    counted = leases(server)
    assert counted["gone" if how == signal.SIGKILL else "expired"] >= 1
    # Ten seconds without a word from its leader, for each of what a stopped one leads, and a compile.
    assert counted["waited_seconds"] < PATIENCE_S / 2


def test_a_server_that_is_restarted_in_the_middle_keeps_nobody(
    server: Pilotlight, tmp_path: Path, alone: tuple[Ran, dict[str, Any]]
) -> None:
    machines = [Machine(tmp_path / f"machine-{number}") for number in range(HERD)]
    running = [machine.start("train", url=url_of(server)) for machine in machines]
    wait_until(lambda: leases(server)["waiting"] > 0)
    server.kill()
    server.start()
    herd = [machine.finish(process) for machine, process in zip(machines, running, strict=True)]
    assert all(ran.equal for ran in herd)
    # Who led goes on and is found again, or one more leads: fewer compile than there are.
    assert sum(len(compiles(ran)) for ran in herd) < HERD * len(compiles(alone[0]))


def test_leases_that_are_switched_off_are_not_asked_for(server: Pilotlight, tmp_path: Path) -> None:
    assert Machine(tmp_path / "machine").run(url=url_of(server), env={"PILOTLIGHT_LEASES": "0"}).equal
    assert leases(server)["granted"] == 0


def test_a_follower_waits_no_longer_than_it_is_told(server: Pilotlight, tmp_path: Path) -> None:
    with leader_at_work(server, Machine(tmp_path / "leader")) as leader:
        os.kill(leader.pid, signal.SIGSTOP)
        ran = Machine(tmp_path / "follower").run("train", url=url_of(server), env={"PILOTLIGHT_LEASE_BUDGET": "0.2"})
    assert ran.equal
    # A probe, two graphs, a few kernels: each a fifth of a second and what one question takes.
    assert leases(server)["waited_seconds"] < 10


RANKS = 4
DDP = """
import json, os, sys
import pilotlight.torch
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

rank = int(os.environ["RANK"])
dist.init_process_group("gloo")
if os.environ.get("ANOTHER_HOST") == str(rank):
    # What this rank looks up is not there for it.
    from pilotlight.torch import fingerprint
    fingerprint.fingerprint = lambda devices: bytes(32)

# Of its own: under DistributedDataParallel, torch compiles no frame of its modules.
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(
            torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.LayerNorm(32), torch.nn.Linear(32, 1)
        )

    def forward(self, batch):
        return self.inner(batch)

torch.manual_seed(0)
plain = Model()
batch = torch.randn(8, 16, generator=torch.Generator().manual_seed(rank))
grads = []
for compiled in (False, True):
    plain.zero_grad()
    model = DistributedDataParallel(plain)
    loss = (torch.compile(model) if compiled else model)(batch).square().mean()
    loss.backward()
    grads.append([p.grad.clone() for p in plain.parameters()])
equal = all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*grads))
from pilotlight import _summary
kernels = sys.modules.get("pilotlight.torch.cpp_stats")
print(json.dumps({"equal": equal, "bytes": [], "torch": "", "kernels": kernels.stats() if kernels else {}}))
dist.destroy_process_group()
"""


def ranks(server: Pilotlight, home: Path, **env: str) -> list[Ran]:
    """DDP training, each rank on a machine of its own."""
    port = str(free_port())
    machines = [Machine(home / f"rank-{rank}") for rank in range(RANKS)]
    running = []
    for rank, machine in enumerate(machines):
        (machine.home / "program.py").write_text(DDP)
        variables = {
            "RANK": str(rank),
            "WORLD_SIZE": str(RANKS),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
        }
        report = {"PILOTLIGHT_REPORT": str(machine.home / "report")}
        running.append(machine.start(url=url_of(server), env=variables | report | env))
    return [machine.finish(process) for machine, process in zip(machines, running, strict=True)]


def test_ranks_that_train_together_compile_once(server: Pilotlight, tmp_path: Path) -> None:
    trained = ranks(server, tmp_path)
    assert all(ran.equal for ran in trained)
    # One rank may lead the forward's graph and another the backward's.
    needed = {ran.kernels["hits"] + ran.kernels["puts"] for ran in trained}
    assert needed == {sum(ran.kernels["puts"] for ran in trained)}, [ran.kernels for ran in trained]
    assert leases(server)["looked"] >= RANKS - 1


def test_ranks_that_agree_all_hit_or_all_compile(server: Pilotlight, tmp_path: Path) -> None:
    def graphs(run: str, **env: str) -> list[tuple[dict[str, int], dict[str, int]]]:
        trained = ranks(server, tmp_path / run, PILOTLIGHT_COHERENT="1", **env)
        assert all(ran.equal for ran in trained)
        reports = [json.loads((tmp_path / run / f"rank-{rank}" / "report").read_text()) for rank in range(RANKS)]
        return [(report["hit"].get("fx-graph", {}), report["miss"].get("fx-graph", {})) for report in reports]

    assert all(not hit for hit, _ in graphs("cold"))
    for rank, (hit, miss) in enumerate(graphs("one-misses", ANOTHER_HOST="1")):
        assert not hit
        assert miss == ({"fingerprint": 2} if rank == 1 else {"ranks": 2})
    assert all(hit and not miss for hit, miss in graphs("warm"))
    assert leases(server)["granted"] == 0
