"""Leaders that are killed, stopped or fork: whoever waits for them has the right bytes in the end, and soon."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pilotlight import Client

from devtools.servers import Pilotlight
from tests.native.herd import Done, Member, Task
from tests.soak import rounds, seeded

Key = Callable[[str], bytes]

KILLS = 30
HERD = 4
LASTS_S = 10.0
RENEWED_EVERY_S = 3.0
LIMIT_S = 60.0
"""Far more than anybody should wait."""
SOON_S = 8.0
"""Less than a lease lasts: who waits for so long was not told that its leader is gone."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Pilotlight]:
    """One whose leases are counted here."""
    with Pilotlight(tmp_path / "data") as running:
        yield running
        assert "panicked" not in running.log()


def url_of(server: Pilotlight) -> str:
    return f"pilotlight://{server.host}:{server.port}"


def leases(server: Pilotlight) -> dict[str, Any]:
    found: dict[str, Any] = server.stats()["leases"]
    return found


@contextmanager
def herd(server: Pilotlight, size: int) -> Iterator[list[Member]]:
    members: list[Member] = []
    try:
        members += [Member(url_of(server)) for _ in range(size)]
        yield members
    finally:
        for member in members:
            member.kill()


def test_followers_of_a_leader_that_is_killed_have_the_right_bytes_soon(
    server: Pilotlight, request: pytest.FixtureRequest
) -> None:
    rng = seeded(request.node.nodeid)
    killed, compiled, slowest_s = 0, 0, 0.0
    with herd(server, HERD) as members:
        for number in rounds(KILLS):
            done = kill_some(server, members, task(rng, number), rng)
            killed += HERD - len(done)
            assert all(each.is_right for each in done), done
            assert sum(each.has_compiled for each in done) <= 1, done
            compiled += sum(each.has_compiled for each in done)
            slowest_s = max(slowest_s, *(each.took_s for each in done))
            assert slowest_s < SOON_S, done
    counted = leases(server)
    print(f"{killed} killed, {compiled} compiled by another, slowest {slowest_s:.3f} s: {counted}")
    assert counted["open"] == counted["waiting"] == counted["timed_out"] == counted["expired"] == 0
    # Else they were killed when nobody waited for them.
    assert counted["gone"] >= killed / 16


def task(rng: random.Random, number: int) -> Task:
    size = rng.choice([100, 40_000, 3 << 20])
    return Task(f"pt2:fx-graph-v1::kill-{number}:c1", size, rng.uniform(0.01, 0.05), LIMIT_S, is_variant=rng.random() < 0.5)


def kill_some(server: Pilotlight, members: list[Member], task: Task, rng: random.Random) -> list[Done]:
    """Kill the first, who leads most likely, or the first two, from before they ask until after they have put. What the others
    did."""
    count = rng.choice([1, 1, 2])
    begin = time.monotonic()
    for member in members:
        member.begin(task)
    for number, moment in enumerate(sorted(rng.uniform(0, 1.2 * task.compile_s + 0.01) for _ in range(count))):
        time.sleep(max(0.0, begin + moment - time.monotonic()))
        members[number].kill()
    done = []
    for member in members[count:]:
        part, ended = member.part(), member.done()
        assert part in ("hit", "lead", "look"), ended
        assert ended.has_compiled == (part == "lead"), "told to look, and nothing was there"
        done.append(ended)
    members[:count] = [Member(url_of(server)) for _ in range(count)]
    return done


def test_a_lease_lasts_while_its_leader_lives_and_no_longer(server: Pilotlight) -> None:
    """Three at once, since each takes as long as a lease: a leader that is stopped, one that is dead but whose child has its
    connection open, and one that lives."""
    with herd(server, 6) as members:
        leaders, followers = members[:3], members[3:]
        for then, leader, limit_s in zip(("hold", "fork", "hold"), leaders, (LIMIT_S, LIMIT_S, LASTS_S + 2), strict=True):
            number = leaders.index(leader)
            of = Task(f"pt2:fx-graph-v1::lasts-{number}:c1", 1000, 0.0, limit_s, then=then)
            leader.begin(of)
            assert leader.part() == "lead"
            followers[number].begin(Task(of.key, of.size, 0.0, limit_s))
        os.kill(leaders[0].process.pid, signal.SIGSTOP)
        # Not with its pipes, or its child would end.
        leaders[1].process.kill()
        assert [follower.part() for follower in followers] == ["lead", "lead", "timeout"]
        done = [follower.done() for follower in followers]
        assert all(each.is_right and each.has_compiled for each in done)
        for each in done[:2]:
            # From when it was last heard of, and then the follower's next question.
            assert LASTS_S - RENEWED_EVERY_S - 1 < each.took_s < LASTS_S + 3, each
        assert leases(server)["expired"] == 2
        # Who was stopped does not know; its put is as good as the other's.
        os.kill(leaders[0].process.pid, signal.SIGCONT)
        for leader in (leaders[0], leaders[2]):
            leader.go_on()
            assert leader.done().is_right
    assert leases(server)["open"] == 0


def test_a_forked_child_leads_for_itself_only(server: Pilotlight, key: Key) -> None:
    parents, childs = key("parents"), key("childs")
    client = Client(url_of(server))
    part, lease = client.lease(parents, 0.0)
    assert part == "lead"
    assert lease is not None
    until(threads, 1)
    child = os.fork()
    if child == 0:
        checks = [threads() == 0, client.lease(parents, 0.0)[0] == "timeout"]
        del lease
        part, own = client.lease(childs, 0.0)
        checks += [part == "lead", client.put(childs, b"x"), leases(server)["open"] == 1]
        if own is not None:
            own.put()
        os._exit(0 if all(checks) else 1 + checks.index(False))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert Client(url_of(server)).lease(parents, 0.0)[0] == "timeout"
    assert client.put(parents, b"x")
    lease.put()
    assert leases(server)["open"] == 0


def test_the_thread_that_renews_ends_with_the_last_lease(server: Pilotlight, key: Key) -> None:
    client = Client(url_of(server))
    for _ in range(3):
        assert threads() == 0
        (_, first), (_, second) = client.lease(key("first"), 0.0), client.lease(key("second"), 0.0)
        assert first is not None
        assert second is not None
        first.release()
        until(threads, 1)
        del second
        # Sooner than it would look by itself.
        until(threads, 0, within_s=RENEWED_EVERY_S / 2)
    assert leases(server)["open"] == 0


def until(count: Callable[[], int], expected: int, within_s: float = SOON_S) -> None:
    begin = time.monotonic()
    while count() != expected:
        assert time.monotonic() - begin < within_s, f"there are {count()}, expected {expected}"


def threads() -> int:
    """Of this process, those that renew leases."""
    # Named by themselves, as soon as they run; the kernel keeps 15 letters of a name.
    return sum(name(thread) == "pilotlight-leas" for thread in Path("/proc/self/task").iterdir())


def name(thread: Path) -> str:
    try:
        return (thread / "comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has ended meanwhile
