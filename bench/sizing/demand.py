"""From loads to what a fleet needs: the figures of docs/sizing.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.sizing.facts import (
    CONNECTION_BYTES,
    CORE_HOUR_USD,
    DISK_GIB_MONTH_USD,
    ENTRY_BYTES,
    GIB_HOUR_USD,
    GPU_HOUR_USD,
    HOT_BYTES,
    KEPT_DAYS,
    NEW_VERSIONS_A_DAY,
    RECOMPRESSION_BYTES,
    SERVER_CARD_MAX_GBIT,
    SERVER_CORES_MAX,
    TRAFFIC_GB_USD,
    VARIANTS,
)
from bench.sizing.fleet import SCENARIOS, Fleet
from bench.sizing.load import backlog, card_carries, card_for, cores_for, run


@dataclass(frozen=True)
class Demand:
    """One scenario of one fleet. Rates are of the busiest second, unless they are means."""

    gpus: int
    scenario: str
    starts: int
    compiled: int
    requests: int
    mean_per_s: float
    peak_per_s: float
    gigabytes: float
    peak_gbit: float
    waiting: int
    peak_cpu_s: float
    saved_gpu_h: float
    cores: int
    card_gbit: int
    in_flight_bytes: float


def demand(fleet: Fleet, scenario: str) -> Demand:
    draw, seconds = SCENARIOS[scenario]
    starts, seen = draw(fleet)
    load = run(starts, fleet.program_of, seconds, seen)
    card = card_for(load.sent)
    # Until the last process is served, not until the clock of the scenario ends.
    busy = max((second for second, asked in enumerate(load.requests) if asked), default=0) + 1
    return Demand(
        fleet.gpus,
        scenario,
        load.starts,
        load.compiled,
        round(sum(load.requests)),
        sum(load.requests) / busy,
        max(load.requests),
        sum(load.sent) / 1e9,
        max(load.sent) * 8 / 1e9,
        round(max(load.waiting)),
        max(load.cpu_us) / 1e6,
        load.saved_s / 3600,
        cores_for(load.cpu_us),
        card,
        backlog(load.sent, card_carries(card)),
    )


@dataclass(frozen=True)
class Server:
    """What a server for all that a fleet asks for would be; and how many it takes, if that is too large for one."""

    gpus: int
    models: int
    entries: int
    disk_gib: float
    connections: int
    in_flight_gib: float
    memory_gib: float
    cores: int
    card_gbit: int
    servers: int
    usd_month: float
    saved_usd_month: float


def server(fleet: Fleet, demands: Sequence[Demand]) -> Server:
    kept = NEW_VERSIONS_A_DAY * KEPT_DAYS * VARIANTS
    entries = round(sum(program.lookups for program in fleet.programs) * kept)
    disk_gib = sum(program.read_bytes for program in fleet.programs) * kept / 2**30
    cores = max(2, *(each.cores for each in demands))
    card = max(each.card_gbit for each in demands)
    in_flight = max(1 << 30, *(each.in_flight_bytes for each in demands))
    memory = HOT_BYTES + RECOMPRESSION_BYTES + in_flight + fleet.gpus * CONNECTION_BYTES + entries * ENTRY_BYTES
    memory_gib = memory / 2**30
    day = next(each for each in demands if each.scenario == "day")
    # Twice the disk, so that what is popular need not be evicted for what is new.
    usd = (cores * CORE_HOUR_USD + memory_gib * GIB_HOUR_USD) * 730 + max(10.0, 2 * disk_gib) * DISK_GIB_MONTH_USD
    usd += day.gigabytes * 30 * TRAFFIC_GB_USD
    return Server(
        fleet.gpus,
        fleet.models,
        entries,
        disk_gib,
        fleet.gpus,
        in_flight / 2**30,
        memory_gib,
        cores,
        card,
        max(math.ceil(cores / SERVER_CORES_MAX), math.ceil(card / SERVER_CARD_MAX_GBIT)),
        usd,
        day.saved_gpu_h * 30 * GPU_HOUR_USD,
    )


def simulate(gpus: Sequence[int], seed: int) -> tuple[list[Demand], list[Server]]:
    demands: list[Demand] = []
    servers: list[Server] = []
    for count in gpus:
        fleet = Fleet(count, seed)
        of_fleet = [demand(fleet, scenario) for scenario in SCENARIOS]
        demands += of_fleet
        servers.append(server(fleet, of_fleet))
    return demands, servers
