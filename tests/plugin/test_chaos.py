"""A remote cache that fails in every way there is, before a program that trains: it ends well, with right numbers, soon.

Most rows are steps of one process, since importing torch is what takes long. Each row has a URL of its own, and with it a
client that has counted nothing, told nothing and spent nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devtools import paths
from devtools.resp import Connection
from devtools.servers import Pilotlight, Redis, free_port
from tests.plugin.chaos_proxy import ChaosProxy, Fault

BUDGET_S, STALL_S = 2.0, 1.0
# For a machine with other things to do.
SLACK_S = 10.0
STEP_TIMEOUT_S = 120.0
SEEDED = 16
NOTICES = ("compiling goes on without it", "answers again", "left alone from here on")
_JOB = Path(__file__).with_name("chaos_job.py")

pytestmark = pytest.mark.xdist_group("chaos")


@dataclass(frozen=True)
class Step:
    """What the job said of one step, and what it told the user about that cache."""

    url: str
    wall_s: float
    stats: dict[str, int]
    counts: dict[str, int]
    told: list[str]
    """The notices on stderr meanwhile, in order."""

    def total(self, outcome: str, reason: str | None = None) -> int:
        """Of the graphs: there are an AOTAutograd entry, a forward and a backward."""
        return self._sum(outcome, reason, ("aot-autograd", "fx-graph"))

    def total_of_all(self, outcome: str) -> int:
        return self._sum(outcome, None, None)

    def _sum(self, outcome: str, reason: str | None, kinds: tuple[str, ...] | None) -> int:
        total = 0
        for key, count in self.counts.items():
            its_outcome, kind, its_reason = (*key.split("/", 2), "")[:3]
            if its_outcome == outcome and reason in (None, its_reason) and (kinds is None or kind in kinds):
                total += count
        return total

    @property
    def kernels_put(self) -> int:
        return self.counts.get("kernels/puts", 0) + self.counts.get("kernels/back_filled", 0)


class Job:
    """`chaos_job.py` in a process, on one machine."""

    def __init__(self, directory: Path, url: str, kernels: Path | None = None) -> None:
        directory.mkdir(parents=True)
        self._report = directory / "report"
        self._err = (directory / "stderr").open("w+")
        dropped = ("PILOTLIGHT_", "TORCH", "PYTHON", "ATEN_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        env |= {
            "PYTHONPATH": str(paths.ROOT / "python"),
            "TORCHINDUCTOR_CACHE_DIR": str(kernels or directory / "cache"),
            "TMPDIR": str(directory),
            "TORCHINDUCTOR_VEC_ISA_OK": "1",
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
            "CUDA_VISIBLE_DEVICES": "",
            "PILOTLIGHT_URL": url,
            "PILOTLIGHT_REPORT": str(self._report),
        }
        command = [sys.executable, str(_JOB)]
        self._process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._err, text=True, cwd=directory
        )
        self.url = url

    def step(self, url: str | None = None, width: int = SEEDED) -> Step:
        """One step of training; its numbers have to be right."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        url = self.url if url is None else url
        told_before = self.notices()
        self._process.stdin.write(json.dumps({"url": url, "width": width}) + "\n")
        self._process.stdin.flush()
        # A hang ends the job, and the read below.
        watchdog = threading.Timer(STEP_TIMEOUT_S, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        assert line, self.err()
        said = json.loads(line)
        assert said.pop("equal"), said
        return Step(url=url, told=self.notices()[len(told_before) :], **said)

    def notices(self) -> list[str]:
        """Which of the three notices it gave so far, in order."""
        return [notice for line in self.err().splitlines() for notice in NOTICES if notice in line]

    def err(self) -> str:
        return Path(self._err.name).read_text()

    def end(self) -> dict[str, Any]:
        """It ends by itself, and well; returns its report."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(STEP_TIMEOUT_S) == 0, self.err()
        assert "Traceback" not in self.err()
        report: dict[str, Any] = json.loads(self._report.read_text())
        return report

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._err.close()


def keys(server: Pilotlight | Redis) -> list[bytes]:
    with server.connect() as connection:
        return sorted(connection.command("KEYS", "*"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pilotlight]:
    """Where every row finds the seeded model, unless something is in the way."""
    with Pilotlight(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@dataclass
class Machine:
    """A job whose kernels are compiled, and what a step of it takes without a cache."""

    job: Job
    kernels: Path
    plain_s: float
    steps: list[Step]

    def step(self, url: str, width: int = SEEDED) -> Step:
        """A step that costs no more than it may, whatever is behind `url`; counts that do not contradict each other."""
        step = self.job.step(url, width)
        self.steps.append(step)
        stats = step.stats
        assert stats["trouble_us"] <= (BUDGET_S + STALL_S) * 1e6
        assert step.wall_s <= self.plain_s + BUDGET_S + STALL_S + SLACK_S
        # Every graph's put and kernel's is in one of them; the client's own list and epoch are neither.
        assert step.total_of_all("put") + step.kernels_put <= stats["puts"]
        assert step.total_of_all("drop") + step.counts.get("kernels/dropped", 0) <= stats["dropped"]
        for notice in NOTICES:
            assert step.told.count(notice) <= 1
        return step


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, server: Pilotlight) -> Iterator[Machine]:
    directory = tmp_path_factory.mktemp("chaos")
    job = Job(directory / "tour", url_of(server.port), directory / "cache")
    try:
        job.step("")
        machine = Machine(job, directory / "cache", job.step("").wall_s, [])
        seeded = machine.step(url_of(server.port))
        assert seeded.stats["trouble_us"] == 0
        assert seeded.stats["puts"] == len(keys(server))
        assert (seeded.total("put"), seeded.kernels_put, seeded.total("drop")) == (3, 3, 0)
        yield machine
        report = job.end()
        for outcome in ("hit", "miss", "put", "drop"):
            told = sum(sum(reasons.values()) for kind, reasons in report[outcome].items() if kind != "cpp-kernel")
            assert told == sum(step.total_of_all(outcome) for step in machine.steps), outcome
        dropped = sum(step.counts.get("kernels/dropped", 0) for step in machine.steps)
        assert sum(report["drop"].get("cpp-kernel", {}).values()) == dropped
    finally:
        job.kill()


def url_of(port: int, scheme: str = "pilotlight", login: str = "") -> str:
    return f"{scheme}://{login}127.0.0.1:{port}"


# fault, why lookups missed first, whether a step without an answer costs waiting
FAILING = [
    (Fault.RESET_ON_CONNECT, "unavailable", False),
    (Fault.STALL, "timeout", True),
    (Fault.GARBAGE, "unavailable", False),
    (Fault.OVERSIZED, "too large", False),
    (Fault.DRIP, "timeout", True),
    (Fault.STALL_IN_VALUE, "timeout", True),
    (Fault.RESET_IN_VALUE, "unavailable", False),
    (Fault.CUT_VALUE, "unavailable", False),
]
# What is small is answered: a kernel's presence, the epoch. Whether somebody asks in time is up to the breaker's pauses.
ANSWERS_WHAT_IS_SMALL = (Fault.DRIP, Fault.STALL_IN_VALUE, Fault.RESET_IN_VALUE, Fault.CUT_VALUE)


@pytest.mark.parametrize(("fault", "reason", "waits"), FAILING, ids=[fault.name.lower() for fault, _, _ in FAILING])
def test_who_does_not_answer_properly_is_done_without(
    machine: Machine, server: Pilotlight, fault: Fault, reason: str, waits: bool
) -> None:
    before = keys(server)
    with ChaosProxy(server.port, fault) as proxy:
        step = machine.step(url_of(proxy.port))
        assert proxy.connections >= 1
    assert step.total("miss", reason) >= 1
    assert (step.total("hit"), step.total("miss")) == (0, 3)
    assert (step.total("put"), step.total("drop")) == (0, 3)
    # With the epoch, a kernel may be put once more.
    if fault not in ANSWERS_WHAT_IS_SMALL:
        assert (step.stats["puts"], step.stats["hits"]) == (0, 0)
    assert keys(server) == before
    answered = [notice for notice in step.told if notice == "answers again" and fault in ANSWERS_WHAT_IS_SMALL]
    assert step.told == ["compiling goes on without it", *answered, *["left alone from here on"] * waits]
    assert (step.stats["trouble_us"] >= BUDGET_S * 1e6) == waits


def test_a_refused_connection_costs_nothing(machine: Machine) -> None:
    step = machine.step(url_of(free_port()))
    assert (step.total("miss", "unavailable"), step.total("drop", "unavailable"), step.total("put")) == (3, 3, 0)
    assert step.stats["trouble_us"] < 1e6
    assert step.told == ["compiling goes on without it"]


def test_puts_that_never_arrive_are_dropped_and_say_so(machine: Machine, server: Pilotlight) -> None:
    before = keys(server)
    with ChaosProxy(server.port, Fault.SWALLOW_PUTS) as proxy:
        step = machine.step(url_of(proxy.port), width=SEEDED + 1)
    assert (step.total("miss"), step.total("put"), step.total("drop")) == (3, 0, 3)
    # The backward's lookup comes after the forward's puts: with luck the breaker is closed again by then.
    assert step.total("miss", "absent") >= 2
    # A kernel that is asked about while the breaker is closed is seen to be there, and not put.
    assert (step.kernels_put, step.counts.get("kernels/dropped", 0) <= 3) == (0, True)
    assert step.stats["timeout"] >= 1
    # The epoch of an empty cache is small enough to arrive, and this one was there before. So is a graph's list of kernels.
    assert [key for key in keys(server) if not key.startswith(b"cpp-kernel:set:") or key in before] == before
    assert step.told[0] == "compiling goes on without it"


def test_a_flipped_bit_is_a_miss_and_what_is_put_instead_is_right(machine: Machine, server: Pilotlight) -> None:
    with ChaosProxy(server.port, Fault.FLIP_BIT) as proxy:
        step = machine.step(url_of(proxy.port))
    assert step.total("miss", "corrupt") == 3
    assert (step.total("hit"), step.total("put"), step.stats["trouble_us"]) == (0, 3, 0)
    again = machine.step(f"pilotlight://localhost:{server.port}")
    assert (again.total("hit"), again.total("miss"), again.stats["corrupt"]) == (3, 0, 0)


def test_an_honest_slow_link_is_no_trouble(machine: Machine, server: Pilotlight) -> None:
    with ChaosProxy(server.port, Fault.SLOW_LINK) as proxy:
        step = machine.step(url_of(proxy.port))
    assert (step.total("hit"), step.total("miss"), step.stats["timeout"]) == (3, 0, 0)
    assert step.told == []


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory, machine: Machine) -> Iterator[Redis]:
    """A Redis with the seeded model in it."""
    if paths.tool("redis-server") is None:
        pytest.skip("redis-server is not installed and could not be fetched (make tools)")
    with Redis(tmp_path_factory.mktemp("redis"), append_only=False) as running:
        seeded = machine.step(url_of(running.port, "redis"))
        assert len(keys(running)) == seeded.stats["puts"] >= 7
        yield running


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_values_damaged_where_they_are_kept_are_put_anew(machine: Machine, own_redis: Redis, damage: str) -> None:
    with own_redis.connect() as connection:
        for name in keys(own_redis):
            value = bytearray(connection.command("GET", name))
            value[len(value) // 2] ^= 1
            connection.command("SET", name, bytes(value if damage == "flipped" else value[: len(value) // 2]))
    database = {"flipped": "0", "cut": "00"}[damage]  # a URL of its own for the same cache
    step = machine.step(f"redis://127.0.0.1:{own_redis.port}/{database}")
    assert (step.total("miss"), step.total("hit"), step.total("put")) == (3, 0, 3), step
    assert step.total("miss", "corrupt") >= 2, step
    again = machine.step(f"redis://localhost:{own_redis.port}/{database}")
    assert (again.total("hit"), again.total("miss")) == (3, 0)


def full(connection: Connection) -> str:
    connection.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    connection.command("CONFIG", "SET", "maxmemory", "1mb")
    return ""


def read_only(connection: Connection) -> str:
    connection.command("ACL", "SETUSER", "reader", "on", ">pass", "~*", "+@read", "+@connection")
    return "reader:pass@"


@pytest.mark.parametrize(("prepare", "reason"), [(read_only, "denied"), (full, "full")])
def test_a_redis_that_takes_no_puts_still_answers_gets(
    machine: Machine, own_redis: Redis, prepare: Callable[[Connection], str], reason: str
) -> None:
    with own_redis.connect() as connection:
        login = prepare(connection)
    shown = url_of(own_redis.port, "redis", login.replace(":pass", ":***"))
    try:
        before = keys(own_redis)
        new = machine.step(url_of(own_redis.port, "redis", login) + "/000", width=SEEDED + 2)
        assert (new.total("drop"), new.total("put"), new.stats["puts"]) == (3, 0, 0)
        assert new.total("drop", reason) >= 1
        assert new.stats["trouble_us"] < 1e6
        assert keys(own_redis) == before
        seeded = machine.step(url_of(own_redis.port, "redis", login) + "/0000")
        assert (seeded.total("hit"), seeded.total("put")) == (3, 0)
    finally:
        with own_redis.connect() as connection:
            connection.command("CONFIG", "SET", "maxmemory", "0")
    assert shown.rpartition("@")[2] in machine.job.err()
    assert ":pass@" not in machine.job.err()


def test_a_wrong_password_is_tried_rarely_and_not_shown(machine: Machine, tmp_path: Path) -> None:
    with Pilotlight(tmp_path / "data", env={"PILOTLIGHT_PASSWORD": "secret"}) as guarded:
        step = machine.step(url_of(guarded.port, login=":wrong@"))
        assert (step.total("miss"), step.total("drop"), step.total("put")) == (3, 3, 0)
        assert step.total("miss", "denied") >= 1
        # It is asked again when a probe is due, at growing intervals.
        assert 1 <= step.stats["connections"] <= 4
        with guarded.connect() as connection:
            connection.command("AUTH", "secret")
            assert connection.command("DBSIZE") == 0
    assert "wrong" not in machine.job.err().replace("WRONGPASS", "")


def test_entries_above_the_servers_limit_are_dropped(machine: Machine, tmp_path: Path) -> None:
    with Pilotlight(tmp_path / "data", env={"PILOTLIGHT_MAX_ENTRY_SIZE": "4KiB"}) as small:
        step = machine.step(url_of(small.port))
        assert step.total("put") + step.total("drop") == 3
        assert step.total("drop") >= 1
        assert step.stats["puts"] == len(keys(small))


def test_a_server_killed_while_it_is_asked(machine: Machine, tmp_path: Path) -> None:
    with Pilotlight(tmp_path / "data") as mortal:
        assert machine.step(url_of(mortal.port)).total("put") == 3
        with ChaosProxy(mortal.port, on_value=mortal.kill) as proxy:
            step = machine.step(url_of(proxy.port))
    # The entry that came first is of no use without those that did not.
    assert step.total("hit") <= 1
    assert step.total("miss", "unavailable") >= 2
    assert step.total("drop") == 3
    assert step.stats["puts"] == 0
    assert step.told == ["compiling goes on without it"]


def test_a_server_killed_between_two_steps_and_started_again(machine: Machine, tmp_path: Path) -> None:
    with Pilotlight(tmp_path / "data", listen=(f"127.0.0.1:{free_port()}",)) as mortal:
        job = Job(tmp_path / "job", url_of(mortal.port), machine.kernels)
        try:
            steps = [job.step(width=SEEDED)]
            assert steps[-1].total("put") == 3
            mortal.kill()
            mortal.start()
            # The connection was lost with the server: that is no failure yet, and what was put is there.
            steps.append(job.step(width=SEEDED))
            assert (steps[-1].total("hit"), steps[-1].stats["unavailable"]) == (3, 0)
            assert job.notices() == []
            mortal.kill()
            steps.append(job.step(width=SEEDED))
            assert (steps[-1].total("miss", "unavailable"), steps[-1].total("drop")) == (3, 3)
            assert job.notices() == ["compiling goes on without it"]
            mortal.start()
            while "answers again" not in job.notices():
                assert len(steps) < 60
                steps.append(job.step(width=SEEDED))
            steps.append(job.step(width=SEEDED))
            assert (steps[-1].total("hit"), steps[-1].total("miss")) == (3, 0)
            mortal.kill()
            steps.append(job.step(width=SEEDED + 3))
            assert steps[-1].total("put") == 0
            assert steps[-1].stats["trouble_us"] < 1e6
            report = job.end()
        finally:
            job.kill()
    # Told once each, however often it went and came.
    assert job.notices() == ["compiling goes on without it", "answers again"]
    assert report["client"] == steps[-1].stats
    assert report["client"]["dropped"] >= sum(step.total("drop") for step in steps) >= 6
