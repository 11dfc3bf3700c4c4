"""What was measured, and what is assumed. Each measured figure names its source, each assumption is yours to change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """What a process asks for and how long its first call takes, by `make bench-torch` (torch 2.15, CPU)."""

    name: str
    lookups: int
    round_trips: int
    read_bytes: int
    written_bytes: int
    cold_s: float
    warm_s: float


PROGRAMS = (
    Program("resnet18", 22, 7, 382_860, 2_013, 26.9, 3.1),
    Program("gpt2", 19, 7, 380_454, 1_767, 37.4, 5.0),
    Program("bert", 10, 7, 189_804, 1_028, 25.4, 4.6),
    Program("bert-training", 24, 7, 478_263, 2_178, 45.1, 4.1),
    Program("resnet18-training", 42, 7, 826_585, 3_654, 44.3, 2.9),
)

# Server CPU, by `make bench-sizing ARGS=--measure` on 2 cores that others used as well; the higher of two runs.
LOOKUP_US = 32.0
CONNECTION_US = 145.0
QUESTION_US = 40.0
PUT_US = 94.0
# crates/pilotlight-cache/src/client/{patience,leases}.rs.
QUESTIONS_PER_S = 2.0
RENEWED_EVERY_S = 3.0
# docs/limits.md; bench/README.md; docs/compression.md; the defaults of `memory` and of recompression's memory.
CONNECTION_BYTES = 20 << 10
ENTRY_BYTES = 181
HOT_BYTES = 256 << 20
RECOMPRESSION_BYTES = 100 << 20

# Assumptions of ours: change them to yours.
MODELS_PER_ROOT_OF_GPUS = 3.0
POPULARITY = 1.0
STARTS_A_DAY = 4
NEW_VERSIONS_A_DAY = 1.0
KEPT_DAYS = 30
VARIANTS = 3
UTILISED_MAX = 0.7
CARDS_GBIT = (1, 10, 25, 50, 100)
# A client that sees no byte for a second takes the server for stalled (PILOTLIGHT_STALL_TIMEOUT). Those that share a card all
# see bytes, and have ten seconds for an operation (PILOTLIGHT_TOTAL_TIMEOUT); those that wait for a core see none.
CARD_BACKLOG_MAX_S = 3.0
CORE_BACKLOG_MAX_S = 1.0
SERVER_CORES_MAX = 32
SERVER_CARD_MAX_GBIT = 50
CORE_HOUR_USD = 0.04
GIB_HOUR_USD = 0.005
DISK_GIB_MONTH_USD = 0.10
TRAFFIC_GB_USD = 0.01
GPU_HOUR_USD = 2.50
