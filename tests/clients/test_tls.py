"""TLS as clients and operators meet it: redis-py over `rediss://`, openssl, curl, and certificates that are renewed."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devtools import paths
from devtools.servers import Pilotlight
from tests.certificates import Authority
from tests.clients.conftest import Launch, need_tool
from tests.waiting import wait_until

PASSWORD = "correct horse"
SERVER_NAMES = "DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Files:
    """An authority, the server's pair and a client's."""

    authority: Authority
    server: tuple[Path, Path]
    client: tuple[Path, Path]

    def flags(self) -> list[str]:
        return ["--tls-cert", str(self.server[0]), "--tls-key", str(self.server[1])]

    def mutual(self) -> list[str]:
        return [*self.flags(), "--tls-client-ca", str(self.authority.pem)]

    def context(self, *, shows_itself: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.pem))
        if shows_itself:
            context.load_cert_chain(*map(str, self.client))
        return context

    def redis_py(self, *, shows_itself: bool = False) -> dict[str, Any]:
        settings: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(self.authority.pem), "ssl_cert_reqs": "required"}
        if shows_itself:
            settings |= {"ssl_certfile": str(self.client[0]), "ssl_keyfile": str(self.client[1])}
        return settings


def make(directory: Path) -> Files:
    authority = Authority(directory, "ca")
    server = authority.sign("server", "/CN=localhost", SERVER_NAMES)
    client = authority.sign("client", "/O=Example/CN=trainer", "URI:spiffe://example/trainer")
    return Files(authority, server, client)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=["5", "6", "7", "8"], ids=lambda major: f"redis-py-{major}")
def redis(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The redis package of one major version; only one of them is importable at a time."""
    target = paths.REDIS_PY / request.param
    if not target.exists():
        pytest.skip(f"redis-py {request.param} is not installed (make clients)")

    def forget() -> dict[str, Any]:
        names = [name for name in sys.modules if name == "redis" or name.startswith("redis.")]
        return {name: sys.modules.pop(name) for name in names}

    outside = forget()
    sys.path.insert(0, str(target))
    try:
        yield importlib.import_module("redis")
    finally:
        sys.path.remove(str(target))
        forget()
        sys.modules.update(outside)


def with_tls(launch: Launch, flags: list[str], **settings: Any) -> Pilotlight:
    return launch(listen=("127.0.0.1:0", "tls:127.0.0.1:0"), http=("127.0.0.1:0", "tls:127.0.0.1:0"), flags=flags, **settings)


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_speaks_tls(redis: Any, launch: Launch, files: Files, protocol: int) -> None:
    server = with_tls(launch, files.flags())
    with redis.Redis(host="localhost", port=server.tls_port, protocol=protocol, **files.redis_py()) as client:
        for size in (0, 1, 16_384, 300_000, 3 << 20):
            value = os.urandom(size)
            assert client.set("k", value) is True
            assert client.get("k") == value
        with client.pipeline() as pipeline:
            assert pipeline.set("a", "1").get("a").execute() == [True, b"1"]
    url = f"rediss://localhost:{server.tls_port}/0?ssl_ca_certs={files.authority.pem}"
    assert redis.Redis.from_url(url).get("a") == b"1"
    with redis.Redis(host="127.0.0.1", port=server.port) as plain:
        assert plain.get("a") == b"1"


def test_redis_py_is_known_by_its_certificate(redis: Any, launch: Launch, files: Files) -> None:
    server = with_tls(launch, files.mutual(), env={"PILOTLIGHT_PASSWORD": PASSWORD})
    port = server.tls_port
    with redis.Redis(host="localhost", port=port, **files.redis_py(shows_itself=True)) as client:
        assert client.set("k", "v") is True
        own = [one for one in client.client_list() if one["id"] == str(client.client_id())]
        assert own[0]["cert"] == "CN=trainer,O=Example"
    nobody = redis.Redis(host="localhost", port=port, **files.redis_py())
    with nobody, pytest.raises(redis.exceptions.ConnectionError):
        nobody.get("k")
    with redis.Redis(host="127.0.0.1", port=server.port, password=PASSWORD) as plain:
        assert plain.get("k") == b"v"
    assert "handshake failed" in server.log()
    assert PASSWORD not in server.log()


def test_noise_and_plain_bytes_on_a_tls_port_end_at_once(launch: Launch, files: Files) -> None:
    server = with_tls(launch, files.flags())
    for noise in (b"PING\r\n", b"\x00" * 64, b"\x16\x03\x01\x40\x00" + os.urandom(200), os.urandom(300)):
        with socket.create_connection((server.host, server.tls_port), timeout=30) as connection:
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while received := connection.recv(4096):
                    answer += received
            except ConnectionResetError:
                pass
            assert len(answer) <= 7, answer  # an alert
    openssl = need_tool("openssl")
    tls_on_plain = [openssl, "s_client", "-connect", f"{server.host}:{server.port}"]
    done = subprocess.run(tls_on_plain, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    assert done.returncode != 0
    ask = [openssl, "s_client", "-quiet", "-verify_return_error", "-CAfile", str(files.authority.pem)]
    for version in ("-tls1_2", "-tls1_3"):
        command = [*ask, version, "-connect", f"localhost:{server.tls_port}"]
        done = subprocess.run(command, input=b"PING\r\nQUIT\r\n", capture_output=True, timeout=30)
        assert done.stdout == b"+PONG\r\n+OK\r\n", done.stderr.decode()
    old = [openssl, "s_client", "-tls1_1", "-connect", f"localhost:{server.tls_port}"]
    assert subprocess.run(old, stdin=subprocess.DEVNULL, capture_output=True, timeout=30).returncode != 0


def test_half_handshakes_hold_up_nobody(launch: Launch, files: Files) -> None:
    server = with_tls(launch, files.flags())
    held = [socket.create_connection((server.host, server.tls_port)) for _ in range(200)]
    for connection in held[::2]:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01")
    begin = time.monotonic()
    for _ in range(5):
        assert ping(server, files.context()) == b"+PONG\r\n"
    assert time.monotonic() - begin < 5
    for connection in held:
        connection.close()


def connect(server: Pilotlight, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection((server.host, server.tls_port), timeout=30)
    return context.wrap_socket(plain, server_hostname="localhost")


def ping(server: Pilotlight, context: ssl.SSLContext) -> bytes:
    with connect(server, context) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64)


def serial(server: Pilotlight, context: ssl.SSLContext) -> str:
    with connect(server, context) as connection:
        certificate: Any = connection.getpeercert()
        return str(certificate["serialNumber"])


@pytest.mark.parametrize("how", ["SIGHUP", "poll"])
def test_renewed_certificates_are_taken_up_under_load(launch: Launch, tmp_path: Path, how: str) -> None:
    files = make(tmp_path)
    server = with_tls(launch, files.flags())
    context = files.context()
    first = serial(server, context)
    failures: list[BaseException] = []
    is_over = threading.Event()

    def load() -> None:
        while not is_over.is_set():
            try:
                assert ping(server, context) == b"+PONG\r\n"
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        new = files.authority.sign("new", "/CN=localhost", SERVER_NAMES)
        # First a key that does not belong: the old pair stays, and the log says why.
        shutil.copy(new[1], files.server[1])
        tell(server, how)
        wait_until(lambda: "does not belong to the certificate" in server.log())
        assert serial(server, context) == first
        shutil.copy(new[0], files.server[0])
        tell(server, how)
        wait_until(lambda: serial(server, context) != first)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    assert server.stop() == 0


def tell(server: Pilotlight, how: str) -> None:
    if how == "SIGHUP":
        os.kill(server.pid, signal.SIGHUP)


def test_http_and_the_commands_go_over_tls(launch: Launch, files: Files) -> None:
    server = with_tls(launch, files.mutual(), env={"PILOTLIGHT_PASSWORD": PASSWORD})
    curl = [need_tool("curl"), "-sS", "--cacert", str(files.authority.pem)]
    own = ["--cert", str(files.client[0]), "--key", str(files.client[1])]
    url = f"https://localhost:{server.https_port}"
    for version in ("--http1.1", "--http2"):
        done = subprocess.run([*curl, *own, version, f"{url}/api/stats"], capture_output=True, timeout=30)
        assert done.returncode == 0, done.stderr.decode()
        assert b'"version"' in done.stdout
    assert subprocess.run([*curl, f"{url}/healthz"], capture_output=True, timeout=30).returncode != 0
    environment = {
        **os.environ,
        "PILOTLIGHT_CLIENT_CERT": str(files.client[0]),
        "PILOTLIGHT_CLIENT_KEY": str(files.client[1]),
        "PILOTLIGHT_SERVER_CA": str(files.authority.pem),
    }
    # The URL that jobs have is enough: over it, the server says where it answers HTTP.
    for named in (url, f"pilotlights://localhost:{server.tls_port}", f"rediss://localhost:{server.tls_port}"):
        command = [str(paths.pilotlight()), "stats", "--server", named]
        done = subprocess.run(command, capture_output=True, timeout=60, env=environment)
        assert done.returncode == 0, done.stderr.decode()
    without = {**os.environ, "PILOTLIGHT_SERVER_CA": str(files.authority.pem)}
    command = [str(paths.pilotlight()), "stats", "--server", url]
    done = subprocess.run(command, capture_output=True, timeout=60, env=without)
    assert done.returncode == 2
    assert b"could not reach a server" in done.stderr


def test_what_is_wrong_with_the_files_is_said_at_the_start(files: Files, tmp_path: Path) -> None:
    def refused(certificate: Path, key: Path) -> str:
        command = [str(paths.pilotlight()), "serve", "--data-dir", str(tmp_path / "data"), "--http", "off"]
        tls = ["--listen", "tls:127.0.0.1:0", "--tls-cert", str(certificate), "--tls-key", str(key)]
        done = subprocess.run([*command, *tls], capture_output=True, timeout=60)
        assert done.returncode == 2
        return done.stderr.decode()

    certificate, key = files.server
    other = files.authority.sign("other", "/CN=localhost", SERVER_NAMES)
    for pair, expected in (
        ((certificate, other[1]), "does not belong to the certificate"),
        ((key, certificate), "there is no certificate in it"),
        ((certificate, certificate), "there is no private key in it"),
        ((tmp_path / "absent", key), "No such file or directory"),
    ):
        text = refused(*pair)
        assert expected in text, text
        assert "BEGIN" not in text.replace("-----BEGIN CERTIFICATE-----", "").replace("-----BEGIN PRIVATE KEY-----", "")


def test_a_key_that_everybody_can_read_is_warned_of(launch: Launch, tmp_path: Path) -> None:
    files = make(tmp_path)
    files.server[1].chmod(0o644)
    server = with_tls(launch, files.flags())
    assert "everybody on this machine can read the TLS key" in server.log()


def test_a_unix_socket_is_for_whom_it_was_made(launch: Launch, tmp_path: Path) -> None:
    private, shared = tmp_path / "private", tmp_path / "shared"
    launch(listen=("127.0.0.1:0", f"unix:{private}", f"unix:{shared}?mode=0660&group={os.getgid()}"))
    assert private.stat().st_mode & 0o777 == 0o600
    assert (shared.stat().st_mode & 0o777, shared.stat().st_gid) == (0o660, os.getgid())
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(shared))
        connection.sendall(b"PING\r\n")
        assert connection.recv(64) == b"+PONG\r\n"


def test_the_throughput_of_tls_beside_plain(launch: Launch, files: Files) -> None:
    """Says what it finds; the bound is far below, so that a loaded machine does not fail it."""
    server = with_tls(launch, files.flags())
    for size in (1 << 10, 32 << 10, 1 << 20):
        rates = []
        for is_tls in (False, True):
            port = server.tls_port if is_tls else server.port
            with socket.create_connection((server.host, port), timeout=30) as plain:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection = files.context().wrap_socket(plain, server_hostname="localhost") if is_tls else plain
                rates.append(get_rate(connection, size))
        print(f"GET {size >> 10} KiB over TLS: {rates[1] / rates[0]:.2f} of plain ({rates[1]:.0f}/s, {rates[0]:.0f}/s)")
        assert rates[1] > rates[0] / 20


def get_rate(connection: socket.socket, size: int) -> float:
    value = os.urandom(size)
    connection.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%s\r\n" % (size, value))
    assert connection.recv(5) == b"+OK\r\n"
    request, expected = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", len(b"$%d\r\n\r\n" % size) + size
    buffer = bytearray(1 << 20)
    count, begin = 0, time.monotonic()
    while time.monotonic() - begin < 1.0:
        connection.sendall(request)
        left = expected
        while left:
            left -= connection.recv_into(buffer, min(left, len(buffer)))
        count += 1
    return count / (time.monotonic() - begin)
