"""The sidecar: a plain port for clients that know neither TLS nor passwords, whatever becomes of the server behind it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools import paths
from devtools.resp import Connection, Disconnected
from devtools.servers import Pilotlight, free_port
from tests.certificates import Authority
from tests.waiting import wait_until

PASSWORD = "correct horse"
GRAPH = "pt2:fx-graph-v1::sidecar:c1"


class Running:
    """A `pilotlight sidecar`."""

    def __init__(self, directory: Path, upstream: str, authority: Authority) -> None:
        ports = directory / "sidecar.port"
        self._log = (directory / "sidecar.log").open("w+")
        command = [str(paths.pilotlight()), "sidecar", "--listen", "127.0.0.1:0", "--port-file", str(ports)]
        environment = {**os.environ, "PILOTLIGHT_URL": upstream, "PILOTLIGHT_SERVER_CA": str(authority.pem)}
        self.process = subprocess.Popen(command, env=environment, stderr=self._log)
        wait_until(lambda: ports.exists() and ports.read_text() != "")
        self.port = int(ports.read_text().rpartition(":")[2])

    def connect(self) -> Connection:
        return Connection("127.0.0.1", self.port, 30.0)

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[tuple[Pilotlight, Authority]]:
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.sign("server", "/CN=localhost", "DNS:localhost")
    port = free_port()  # one that it has again after a restart
    server = Pilotlight(
        tmp_path / "data",
        listen=("127.0.0.1:0", f"tls:127.0.0.1:{port}"),
        flags=["--tls-cert", str(certificate), "--tls-key", str(key)],
        env={"PILOTLIGHT_PASSWORD": PASSWORD},
    )
    server.start()
    yield server, authority
    server.kill()


Start = Callable[[str], Running]


@pytest.fixture
def sidecar(tmp_path: Path, upstream: tuple[Pilotlight, Authority]) -> Iterator[Start]:
    started: list[Running] = []

    def start(url: str) -> Running:
        started.append(Running(tmp_path, url, upstream[1]))
        return started[-1]

    yield start
    for one in started:
        one.process.terminate()
        one.process.wait()


def is_closed(client: Connection) -> bool:
    """Asks once; while the connection stands the answer is a miss."""
    try:
        assert client.command("GET", GRAPH) is None
    except (Disconnected, ConnectionError):
        return True
    return False


def test_a_plain_client_reaches_a_server_with_tls_and_a_password(
    upstream: tuple[Pilotlight, Authority], sidecar: Start
) -> None:
    server, _ = upstream
    running = sidecar(f"pilotlights://:{PASSWORD.replace(' ', '%20')}@localhost:{server.tls_port}/3")
    value = os.urandom(3 << 20)
    with running.connect() as client:
        assert client.command("SET", GRAPH, value) == b"OK"
        assert client.command("GET", GRAPH) == value
    with Connection("127.0.0.1", server.port, 30.0) as direct:
        direct.command("AUTH", PASSWORD)
        assert direct.command("GET", GRAPH) is None
        direct.command("SELECT", "3")
        assert direct.command("GET", GRAPH) == value
    os.kill(running.process.pid, signal.SIGTERM)
    assert running.process.wait(30) == 0
    assert not list(Path(tempfile.gettempdir()).glob(f"pilotlight-sidecar-{running.process.pid}-*"))
    assert PASSWORD not in running.log()


def test_while_the_server_is_away_lookups_are_misses_and_puts_are_nil(
    upstream: tuple[Pilotlight, Authority], sidecar: Start
) -> None:
    server, _ = upstream
    running = sidecar(f"rediss://:{PASSWORD.replace(' ', '%20')}@localhost:{server.tls_port}")
    with running.connect() as client:
        assert client.command("SET", GRAPH, "v") == b"OK"
    server.kill()
    with running.connect() as client:
        assert client.command("GET", GRAPH) is None
        assert client.command("SET", GRAPH, "other") is None
        assert client.command("MGET", GRAPH, GRAPH) == [None, None]
        server.start()
        # It is asked to connect anew, between two commands.
        wait_until(lambda: is_closed(client))
    with running.connect() as client:
        assert client.command("GET", GRAPH) == b"v"
    assert "cannot be reached" in running.log()
    assert "is back" in running.log()


def test_it_starts_also_where_the_server_is_away_or_refuses(upstream: tuple[Pilotlight, Authority], sidecar: Start) -> None:
    server, _ = upstream
    running = sidecar(f"rediss://:wrong@localhost:{server.tls_port}")
    with running.connect() as client:
        assert client.command("GET", GRAPH) is None
    assert "WRONGPASS" in running.log()
    assert ":wrong@" not in running.log()


STOCK_TRITON = """
from triton import knobs
from triton.runtime.cache import get_cache_manager
if not hasattr(knobs.cache, "redis"):
    # Triton 3.9 looks for its own settings in the wrong place, and fails with any Redis.
    type(knobs.cache).redis = knobs.redis_knobs() if hasattr(knobs, "redis_knobs") else knobs.redis
manager = get_cache_manager("b" * 64)
print("hit" if manager.get_group("kernel.json") else "miss")
manager.put_group("kernel.json", {"kernel.ttir": manager.put(b"module {}", "kernel.ttir")})
"""


def test_stock_triton_shares_kernels_over_tls_and_compiles_while_the_server_is_away(
    upstream: tuple[Pilotlight, Authority], sidecar: Start, tmp_path: Path
) -> None:
    pytest.importorskip("triton", reason="no triton here: its wheels are for Linux")
    server, _ = upstream
    running = sidecar(f"pilotlights://:{PASSWORD.replace(' ', '%20')}@localhost:{server.tls_port}")
    for step, expected in enumerate(("miss", "hit", "away", "hit")):
        if expected == "away":
            server.kill()
        elif step == 3:
            server.start()
            wait_until(lambda: "is back" in running.log())
        env = {
            **os.environ,
            "TRITON_CACHE_DIR": str(tmp_path / f"machine-{step}"),
            "TRITON_CACHE_MANAGER": "triton.runtime.cache:RemoteCacheManager",
            "TRITON_REMOTE_CACHE_BACKEND": "triton.runtime.cache:RedisRemoteCacheBackend",
            "TRITON_REDIS_HOST": "127.0.0.1",
            "TRITON_REDIS_PORT": str(running.port),
        }
        done = subprocess.run([sys.executable, "-c", STOCK_TRITON], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == expected.replace("away", "miss")


def test_only_loopback_is_listened_on() -> None:
    command = [str(paths.pilotlight()), "sidecar", "--listen", "0.0.0.0:0", "--upstream", "redis://127.0.0.1"]
    done = subprocess.run(command, capture_output=True, timeout=30)
    assert done.returncode == 2
    assert b"can be reached from other machines" in done.stderr
