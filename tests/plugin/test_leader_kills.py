"""Leaders that are killed at any moment of a real compile: whoever waits has right numbers in the end, within the budget."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.servers import Pilotlight
from tests.plugin.crew import Crew, Task, crew
from tests.soak import rounds, seeded
from tests.waiting import wait_until

pytest.importorskip("torch")
pytest.importorskip("pilotlight._native")
pytestmark = pytest.mark.xdist_group("leases")

KILLS = 3
HERD = 3
DONE_WITHIN_S = 60.0
"""Far less than `PILOTLIGHT_LEASE_BUDGET`, and than two compiles on a busy machine take."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Pilotlight]:
    with Pilotlight(tmp_path / "data") as running:
        yield running
        assert "panicked" not in running.log()


def leases(server: Pilotlight) -> dict[str, Any]:
    # Not by the command line, which takes longer to start than a lease may last.
    with urllib.request.urlopen(f"{server.http_url}/api/stats") as answer:
        found: dict[str, Any] = json.load(answer)["leases"]
    return found


def start(compilers: Crew, home: Path, number: int, server: Pilotlight) -> dict[int, Task]:
    """The leader, and when it leads those who follow it."""
    tasks = [Task(number, str(home / str(each))) for each in range(HERD)]
    for task in tasks:
        Path(task.home).mkdir(parents=True)
    running = {compilers.start(tasks[0]): tasks[0]}
    wait_until(lambda: leases(server)["open"] > 0 or tasks[0].report.exists(), every_s=0.002)
    assert not tasks[0].report.exists(), f"it never led: {tasks[0].report.read_text()}"
    return running | {compilers.start(task): task for task in tasks[1:]}


def finish(running: dict[int, Task], gone: set[int]) -> list[dict[str, Any]]:
    """The reports of all that were not killed."""
    deadline = time.monotonic() + DONE_WITHIN_S
    for process in running.keys() - gone:
        try:
            handle = os.pidfd_open(process)
        except ProcessLookupError:
            continue
        try:
            left_s = max(0.0, deadline - time.monotonic())
            assert select.select([handle], [], [], left_s)[0], "it waits for somebody for too long"
        finally:
            os.close(handle)
    return [json.loads(task.report.read_text()) for process, task in running.items() if process not in gone]


def kill(process: int) -> None:
    """With the compiler that it runs: its machine is gone."""
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:
        return  # it was done already


def test_followers_of_a_leader_that_is_killed_have_right_numbers_within_the_budget(
    server: Pilotlight, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rng: random.Random = seeded(request.node.nodeid)
    killed, slowest_s, number = 0, 0.0, 0
    with crew(f"pilotlight://{server.host}:{server.port}", tmp_path) as compilers:
        # How long it leads when nobody is killed, for the moments to choose from.
        running = start(compilers, tmp_path / "first", 0, server)
        begin = time.monotonic()
        assert all(report["equal"] for report in finish(running, set()))
        leads_s = time.monotonic() - begin
        for number in rounds(KILLS):
            home = tmp_path / f"round-{number}"
            running = start(compilers, home, number, server)
            begin = time.monotonic()
            leader = next(iter(running))
            time.sleep(rng.uniform(0, leads_s))  # the moment is the point
            kill(leader)
            killed += not running[leader].report.exists()
            reports = finish(running, {leader})
            assert [report["equal"] for report in reports] == [True] * (HERD - 1), reports
            slowest_s = max(slowest_s, time.monotonic() - begin)
            shutil.rmtree(home)
    counted = leases(server)
    print(f"{killed} leaders killed in {number} rounds, slowest {slowest_s:.1f} s (usual {leads_s:.1f} s): {counted}")
    assert counted["open"] == counted["waiting"] == 0
    assert counted["timed_out"] == counted["expired"] == 0
    # Later than a leader takes on a quiet machine, a few are killed when they are done.
    assert killed >= number / 3
    assert counted["gone"] > 0
