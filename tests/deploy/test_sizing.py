"""The sizing guide: its tables are what the simulation prints, and its figures are those of the code and of other documents."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from bench.sizing import DOCUMENT, GPUS, SEED, facts
from bench.sizing.demand import Demand, Server, simulate
from bench.sizing.fleet import Fleet, Start
from bench.sizing.load import backlog, run
from bench.sizing.report import table, written
from devtools import paths

# One simulation for all, and not one for each of pytest's workers.
pytestmark = pytest.mark.xdist_group("sizing")

GRAPH = facts.Program("graph", 10, 7, 1_000_000, 100, cold_s=20.0, warm_s=2.0)


@pytest.fixture(scope="module")
def simulated() -> tuple[list[Demand], list[Server]]:
    return simulate(GPUS, SEED)


def test_tables_of_the_document_are_what_the_simulation_prints(simulated: tuple[list[Demand], list[Server]]) -> None:
    document = DOCUMENT.read_text()
    assert written(document, table(*simulated)) == document, "make bench-sizing ARGS=--write"
    assert {10, 1_000, 100_000} <= set(GPUS)


def test_servers_of_the_summary_are_as_large_as_the_simulated_ones(simulated: tuple[list[Demand], list[Server]]) -> None:
    document = DOCUMENT.read_text()
    for server in simulated[1][1:]:
        row = next(line for line in document.splitlines() if line.startswith(f"| {server.gpus:,} | ") and " cores" in line)
        servers = 2 if "two, each" in row else 1
        assert servers == server.servers
        found = re.search(r"(\d+) cores, (\d+) GiB, (\d+) GiB of disk, (\d+) Gbit/s", row)
        assert found is not None
        cores, memory, disk, card = (servers * int(figure) for figure in found.groups())
        assert cores >= server.cores
        assert memory >= server.memory_gib
        # Divided by team: what both halves run, both keep.
        assert disk / servers >= 2 * server.disk_gib
        assert card >= server.card_gbit
        for setting, needed in (("max_connections", server.connections), ("connection_memory", server.in_flight_gib)):
            named = re.search(rf'{setting} = "?(\d+)', row)
            default = {"max_connections": 20_000, "connection_memory": 1}[setting]
            assert servers * int(named.group(1) if named else default) >= needed


def test_programs_of_the_document_are_those_that_are_simulated() -> None:
    document = DOCUMENT.read_text()
    for program in facts.PROGRAMS:
        figures = f"{program.lookups} | {program.round_trips} | {program.read_bytes:,} | {program.written_bytes:,}"
        assert f"| {program.name} | {figures} | {program.cold_s} s | {program.warm_s} s |" in document
    count = len(facts.PROGRAMS)
    mean_kib = sum(program.read_bytes for program in facts.PROGRAMS) / count / 1024
    lookups = sum(program.lookups for program in facts.PROGRAMS) / count
    assert f"| mean | {lookups:.0f} | 7 | {mean_kib:.0f} KiB |" in document
    start_ms = (lookups * facts.LOOKUP_US + facts.CONNECTION_US) / 1000
    assert f"| **a warm start**: {lookups:.0f} lookups and a connection | **{start_ms:.1f} ms** |" in document
    for cost_us in (facts.LOOKUP_US, facts.PUT_US, facts.CONNECTION_US, facts.QUESTION_US):
        assert f"| {cost_us:.0f} us |" in document


def test_facts_are_those_of_the_code_and_of_the_documents_they_are_from() -> None:
    client = paths.ROOT / "crates" / "pilotlight-cache" / "src" / "client"
    wait = re.search(r"const WAIT: Duration = Duration::from_millis\((\d+)\);", (client / "patience.rs").read_text())
    assert wait is not None
    assert 1000 / int(wait.group(1)) == facts.QUESTIONS_PER_S
    renewed = re.search(r"RENEWED_EVERY: Duration = Duration::from_secs\((\d+)\);", (client / "leases.rs").read_text())
    assert renewed is not None
    assert int(renewed.group(1)) == facts.RENEWED_EVERY_S
    assert (
        f"| what an idle connection holds | {facts.CONNECTION_BYTES >> 10} KiB" in (paths.ROOT / "docs/limits.md").read_text()
    )
    assert (
        f"| resident memory after it, for each entry | {facts.ENTRY_BYTES} B |" in (paths.ROOT / "bench/README.md").read_text()
    )


def load_of(starts: Sequence[Start], seen: set[int]) -> tuple[int, float, float, float]:
    load = run(starts, lambda version: GRAPH, 60, seen)
    return load.compiled, max(load.waiting), sum(load.sent), load.saved_s


def test_one_compiles_and_who_comes_meanwhile_waits_for_it() -> None:
    starts = [Start(0.0, 1), Start(5.0, 1), Start(6.0, 1), Start(30.0, 1)]
    compiled, waiting, sent, saved_s = load_of(starts, set())
    assert (compiled, waiting) == (1, 2)
    # The one that compiled fetched nothing; only the last found it there.
    assert sent == pytest.approx(3 * GRAPH.read_bytes)
    assert saved_s == 18.0
    load = run(starts, lambda version: GRAPH, 60, set())
    assert load.requests[10] == 2 * facts.QUESTIONS_PER_S


def test_versions_are_compiled_one_by_one_and_what_is_there_by_nobody() -> None:
    assert load_of([Start(0.0, 1), Start(0.0, 2)], set())[:2] == (2, 0)
    assert load_of([Start(0.0, 1), Start(0.0, 2)], {1, 2})[:2] == (0, 0)


def test_backlog_is_what_a_second_leaves_to_the_next() -> None:
    assert backlog([10, 10, 0, 0], each_second=5) == 10
    assert backlog([5, 5, 5], each_second=5) == 0


def test_draws_of_a_seed_are_the_same_and_those_of_another_differ() -> None:
    def day(seed: int) -> list[Start]:
        return Fleet(50, seed).day()[0]

    assert day(1) == day(1)
    assert day(1) != day(2)
    assert len(day(1)) == 50 * facts.STARTS_A_DAY
