"""Fixtures: the built module, and the servers that it speaks to."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools import paths
from devtools.servers import Pilotlight, Redis

# The package lies beside its source; `make native` puts the built module into it.
sys.path.insert(0, str(paths.ROOT / "python"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pilotlight]:
    """A Pilotlight that listens on TCP and on a Unix socket called `socket` beside its data."""
    base = tmp_path_factory.mktemp("server")
    with Pilotlight(base / "data", listen=("127.0.0.1:0", f"unix:{base / 'socket'}")) as running:
        yield running
        assert "panicked" not in running.log()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    if paths.tool("redis-server") is None:
        pytest.skip("redis-server is not installed and could not be fetched (make tools)")
    with Redis(tmp_path_factory.mktemp("redis"), append_only=False) as running:
        yield running


@pytest.fixture(params=["pilotlight", "unix", "redis", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each engine in turn."""
    if request.param == "file":
        return f"file://{tmp_path}/cache"
    if request.param == "redis":
        redis: Redis = request.getfixturevalue("redis_server")
        return f"redis://127.0.0.1:{redis.port}"
    server: Pilotlight = request.getfixturevalue("server")
    if request.param == "unix":
        return f"unix://{server.data_dir.with_name('socket')}"
    return f"pilotlight://127.0.0.1:{server.port}"


@pytest.fixture
def key(request: pytest.FixtureRequest) -> Callable[[str], bytes]:
    """Keys of this test's own, so that tests can share a server."""
    own = f"{request.node.name}-{os.getpid()}"  # now: in a forked child it is another's
    return lambda name: f"pt2:fx-graph-v1::{own}-{name}:c1".encode()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Pilotlight]]:
    servers: list[Pilotlight] = []

    def start(**settings: object) -> Pilotlight:
        server = Pilotlight(tmp_path / f"data-{len(servers)}", **settings)  # type: ignore[arg-type]
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.kill()
        shutil.rmtree(server.data_dir, ignore_errors=True)
