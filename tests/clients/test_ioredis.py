"""ioredis, the Node client: another language's idea of the protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from devtools import paths
from devtools.servers import Pilotlight


def test_ioredis_gets_sets_pipelines_transacts_and_scans(server: Pilotlight) -> None:
    node = shutil.which("node")
    modules = paths.NODE_PREFIX / "node_modules"
    if node is None or not (modules / "ioredis").exists():
        pytest.skip("node or ioredis is not installed")
    script = Path(__file__).with_name("ioredis_client.cjs")
    env = {**os.environ, "NODE_PATH": str(modules)}
    done = subprocess.run([node, str(script), str(server.port)], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "ok"
