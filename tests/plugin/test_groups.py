"""An AOTAutograd entry, its graphs and their kernels: the server keeps all of it or nothing."""

from __future__ import annotations

import base64
import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.resp import Connection
from devtools.servers import Pilotlight
from tests.plugin.machines import Machine

pytest.importorskip("torch")
pytest.importorskip("pilotlight._native")
pytestmark = pytest.mark.xdist_group("cpp-kernels")


def url_of(server: Pilotlight) -> str:
    return f"pilotlight://{server.host}:{server.port}"


def entries(server: Pilotlight) -> dict[str, int | None]:
    """The group of each entry."""
    with urllib.request.urlopen(f"{server.http_url}/api/entries?limit=1000") as answer:
        return {entry["key"]: entry.get("group") for entry in json.load(answer)["entries"]}


def whole(server: Pilotlight) -> list[str]:
    """The keys of the only group, which is what a training step needs."""
    groups = entries(server)
    members = [key for key, group in groups.items() if group is not None]
    assert len({groups[key] for key in members}) == 1, groups
    kinds = [key.rpartition(":")[0] if key.startswith("cpp-kernel") else key.split(":")[1] for key in sorted(members)]
    assert kinds == ["cpp-kernel"] * 3 + ["cpp-kernel:set"] * 2 + ["autograd-experimental"] + ["fx-graph-v1"] * 2
    return members


# What the vector ISA is has no part in these tests, and finding out runs a compiler.
QUICKLY = {"TORCHINDUCTOR_VEC_ISA_OK": "1"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pilotlight, Machine]]:
    """A small server, and the machine that put a training step there."""
    home = tmp_path_factory.mktemp("groups")
    with Pilotlight(home / "data", max_size="12MiB", memory="0") as server:
        machine = Machine(home / "machine")
        machine.run("train", url=url_of(server), env=QUICKLY)
        yield server, machine


def test_a_local_hit_groups_what_it_puts(trained: tuple[Pilotlight, Machine], tmp_path: Path) -> None:
    first, machine = trained
    with Pilotlight(tmp_path / "data") as second:
        machine.run("train", url=url_of(second), env=QUICKLY)
        assert sorted(whole(second)) == sorted(whole(first))


def test_a_local_hit_fills_up_what_was_evicted(trained: tuple[Pilotlight, Machine]) -> None:
    """Kernels too, which the machine has noted to be there: they went with their graphs."""
    server, machine = trained
    members = whole(server)
    with Connection(server.host, server.port) as connection:
        assert connection.command(b"DEL", *members) == len(members)
    machine.run("train", url=url_of(server), env=QUICKLY)
    assert sorted(whole(server)) == sorted(members)


def test_what_is_put_together_is_evicted_together(trained: tuple[Pilotlight, Machine]) -> None:
    server, _ = trained
    members = [key.encode() for key in whole(server)]
    with Connection(server.host, server.port) as connection:
        there = connection.command(b"EXISTS", *members)
        assert there == len(members)
        # Others that took ten minutes to compile: it goes when the store is full, if it can go at all.
        for number in range(2000):
            data = base64.b64encode(os.urandom(30_000)).decode()
            value = json.dumps({"data": data, "time_taken_ms": 600_000}).encode()
            connection.command(b"SET", b"pt2:fx-graph-v1::f%d:c1" % number, value)
            before, there = there, connection.command(b"EXISTS", *members)
            # In the moment in which it goes, one may see a part of it.
            assert there in (0, len(members)) or before == len(members)
            if there == 0:
                break
        assert there == 0
