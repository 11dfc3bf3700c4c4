"""Fixtures: servers on ports the system chose, with data in a temporary directory, and a seed that can be set again."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools import paths
from devtools.servers import Pilotlight
from tests import soak


def pytest_configure(config: pytest.Config) -> None:
    soak.set_seed()


def pytest_report_header(config: pytest.Config) -> str:
    seed = soak.set_seed()
    return f"server: {paths.pilotlight()}\nseed: {seed} ({soak.SEED_VARIABLE}={seed} draws the same again)"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    return soak.seeded(request.node.nodeid)


Launch = Callable[..., Pilotlight]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts servers, each with its own data directory unless given one; all are ended after the test."""
    servers: list[Pilotlight] = []

    def start(data_dir: Path | None = None, **settings: Any) -> Pilotlight:
        server = Pilotlight(data_dir or tmp_path / f"data-{len(servers)}", **settings)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.kill()
    for server in servers:
        shutil.rmtree(server.data_dir, ignore_errors=True)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pilotlight]:
    """One server for all tests that mind neither its settings nor others' keys."""
    with Pilotlight(tmp_path_factory.mktemp("server") / "data") as running:
        yield running
        assert "panicked" not in running.log()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Begins every key of this test, so that tests can share a server."""
    return f"{request.node.name}:{os.getpid()}:"


@pytest.fixture(scope="module", params=["5", "6", "7", "8"], ids=lambda major: f"redis-py-{major}")
def redis(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The redis package of one major version; only one of them is importable at a time."""
    target = paths.REDIS_PY / request.param
    if not target.exists():
        pytest.skip(f"redis-py {request.param} is not installed (make clients)")
    outside = _forget_redis()
    sys.path.insert(0, str(target))
    try:
        module = importlib.import_module("redis")
        assert module.__version__.split(".")[0] == request.param
        yield module
    finally:
        sys.path.remove(str(target))
        _forget_redis()
        sys.modules.update(outside)


def _forget_redis() -> dict[str, Any]:
    names = [name for name in sys.modules if name == "redis" or name.startswith("redis.")]
    return {name: sys.modules.pop(name) for name in names}


def need_tool(name: str) -> str:
    """Path of an outside program, or skip the test and say why."""
    path = paths.tool(name)
    if path is None:
        pytest.skip(f"{name} is not installed and could not be fetched (make tools)")
    return path
