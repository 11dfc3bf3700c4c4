"""Stock Triton's own Redis backend, driven through its cache manager: no GPU is needed to keep and find files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import Launch

SCRIPT = """
import sys
from triton import knobs
from triton.runtime.cache import get_cache_manager
if not hasattr(knobs.cache, "redis"):
    # Triton 3.9 looks for its own settings in the wrong place, and fails with any Redis.
    type(knobs.cache).redis = knobs.redis_knobs() if hasattr(knobs, "redis_knobs") else knobs.redis
manager = get_cache_manager("a" * 64)
files = {"kernel.cubin": bytes(range(256)) * 500, "kernel.ttir": b"module {}"}
if sys.argv[1] == "put":
    paths = {name: manager.put(data, name) for name, data in files.items()}
    manager.put_group("kernel.json", paths)
group = manager.get_group("kernel.json")
assert group is not None and set(group) == set(files), group
for name, data in files.items():
    assert open(group[name], "rb").read() == data
print("hit")
"""


def test_a_second_process_finds_a_whole_group_of_files(launch: Launch, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="no triton here: its wheels are for Linux")
    server = launch()
    for step in ("put", "get"):
        env = {
            **os.environ,
            "TRITON_CACHE_DIR": str(tmp_path / step),
            "TRITON_CACHE_MANAGER": "triton.runtime.cache:RemoteCacheManager",
            "TRITON_REMOTE_CACHE_BACKEND": "triton.runtime.cache:RedisRemoteCacheBackend",
            "TRITON_REDIS_HOST": server.host,
            "TRITON_REDIS_PORT": str(server.port),
        }
        done = subprocess.run([sys.executable, "-c", SCRIPT, step], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "hit"
    kinds = server.stats()["kinds"]
    assert "triton" in str(kinds), kinds
