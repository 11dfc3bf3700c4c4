"""Ranks that agree: what they meet in must end, however often."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from devtools import paths
from devtools.servers import free_port

pytest.importorskip("torch")
pytest.importorskip("pilotlight._native")

RANKS = 2
AGREEMENTS = 5000
DONE_WITHIN_S = 120.0
PROGRAM = f"""
import os
import torch
import torch.distributed as dist
from torch._dispatch.python import enable_python_dispatcher
from pilotlight.torch import coherence

dist.init_process_group("gloo")
rank = dist.get_rank()
# As in a compile, which traces with it.
with enable_python_dispatcher():
    for number in range({AGREEMENTS}):
        assert coherence.agreed(True)
        if number % 100 == 0:
            assert not coherence.agreed(rank == 0)
print("agreed", flush=True)
# Both are there until both are done.
dist.barrier()
dist.destroy_process_group()
"""


def test_thousands_of_agreements_end() -> None:
    settings = {
        "PYTHONPATH": str(paths.ROOT / "python"),
        "PILOTLIGHT_COHERENT": "1",
        "WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **settings, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    try:
        for rank in ranks:
            out, err = rank.communicate(timeout=DONE_WITHIN_S)
            assert out == "agreed\n", err
            assert "failed" not in err
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
