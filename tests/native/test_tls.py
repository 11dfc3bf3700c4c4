"""`rediss://` against a real Redis with TLS, and against a Pilotlight that wants to know who one is."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pilotlight import Client

from devtools import paths
from devtools.servers import Pilotlight, Redis, free_port
from tests.certificates import Authority


class TlsRedis(Redis):
    """A redis-server that also listens with TLS, on `tls_port`."""

    def __init__(self, data_dir: Path, certificates: Path) -> None:
        super().__init__(data_dir, append_only=False)
        self.tls_port = 0
        self._certificates = certificates

    def _command(self) -> list[str]:
        self.tls_port = free_port()
        files = {"cert": "server.pem", "key": "server.key", "ca-cert": "ca.pem"}
        options = [word for kind, name in files.items() for word in (f"--tls-{kind}-file", str(self._certificates / name))]
        return [*super()._command(), "--tls-port", str(self.tls_port), "--tls-auth-clients", "no", *options]


def openssl(directory: Path, arguments: Sequence[str]) -> None:
    binary = paths.tool("openssl")
    if binary is None:
        pytest.skip("openssl is not installed")
    subprocess.run([binary, *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority of our own, a certificate of its for `localhost`, and another authority."""
    made = tmp_path_factory.mktemp("certificates")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    for name in ("ca", "other"):
        subject = ["-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        openssl(made, ["req", "-x509", *key, *subject])
    (made / "names").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
    openssl(made, ["req", *key[:-2], "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"])
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
    openssl(made, ["x509", "-req", "-in", "server.csr", *signing, "-out", "server.pem"])
    return made


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[TlsRedis]:
    if paths.tool("redis-server") is None:
        pytest.skip("redis-server is not installed and could not be fetched (make tools)")
    with TlsRedis(tmp_path_factory.mktemp("redis"), certificates) as running:
        yield running


def test_entries_come_back_over_tls(tls_redis: TlsRedis, certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    client = Client(f"rediss://localhost:{tls_redis.tls_port}")
    for size in (0, 1, 16_384, 5 << 20):
        artifact = os.urandom(size)
        assert client.put(b"k", artifact)
        entry = client.get_many([b"k"])[0]
        assert entry is not None
        assert entry.artifact == artifact
    assert client.stats()["connections"] == 1
    pid = os.fork()
    if pid == 0:
        os._exit(0 if client.get_many([b"k"])[0] is not None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert client.get_many([b"k"])[0] is not None


@pytest.mark.parametrize(("host", "authority"), [("localhost", "other.pem"), ("127.0.0.1", "ca.pem")])
def test_a_server_that_cannot_prove_its_name_is_not_spoken_to(
    tls_redis: TlsRedis, certificates: Path, monkeypatch: pytest.MonkeyPatch, host: str, authority: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / authority))
    client = Client(f"rediss://user:secret@{host}:{tls_redis.tls_port}")
    assert client.ping() is None
    notice = client.notice()
    assert notice is not None
    assert "certificate" in notice
    stats = client.stats()
    assert (stats["unavailable"], stats["bytes_written"], stats["connections"]) == (1, 0, 0)


def test_both_ways_to_mix_up_plain_and_tls_fail_quickly(
    tls_redis: TlsRedis, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    begin = time.monotonic()
    assert Client(f"rediss://localhost:{tls_redis.port}").ping() is None
    assert Client(f"redis://localhost:{tls_redis.tls_port}", stall_timeout=0.3).ping() is None
    assert time.monotonic() - begin < 2.0


def test_a_handshake_that_stalls_is_given_up(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts in the kernel, and never answers
        client = Client(f"rediss://127.0.0.1:{listener.getsockname()[1]}", stall_timeout=0.2)
        begin = time.monotonic()
        assert client.ping() is None
        assert time.monotonic() - begin < 1.0
        assert client.stats()["timeout"] == 1


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "ca")


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Pilotlight]:
    """A Pilotlight whose clients over TLS need a certificate."""
    certificate, key = authority.sign("server", "/CN=localhost", "DNS:localhost")
    flags = ["--tls-cert", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(authority.pem)]
    directory = tmp_path_factory.mktemp("mutual") / "data"
    with Pilotlight(directory, listen=("127.0.0.1:0", "tls:127.0.0.1:0"), flags=flags) as running:
        yield running
        assert "panicked" not in running.log()


@pytest.mark.parametrize("scheme", ["pilotlights", "rediss"])
def test_a_client_proves_itself_with_its_certificate(mutual: Pilotlight, authority: Authority, scheme: str) -> None:
    certificate, key = authority.sign("client", "/CN=trainer", "DNS:trainer")
    url = f"{scheme}://localhost:{mutual.tls_port}"
    client = Client(url, client_cert=certificate, client_key=key, server_ca=authority.pem)
    for size in (0, 1, 300_000, 5 << 20):
        artifact = os.urandom(size)
        assert client.put(b"k", artifact)
        entry = client.get_many([b"k"])[0]
        assert entry is not None
        assert entry.artifact == artifact
    with mutual.connect() as plain:
        assert b"cert=CN=trainer" in plain.command("CLIENT", "LIST")


def test_a_client_without_a_certificate_is_told_and_left_alone(mutual: Pilotlight, authority: Authority) -> None:
    client = Client(f"pilotlights://localhost:{mutual.tls_port}", server_ca=str(authority.pem))
    assert client.ping() is None
    notice = client.notice()
    assert notice is not None
    assert "ertificate" in notice
    assert client.put(b"k", b"v") is False


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("client_cert",), "needs its key"),
        (("client_key",), "needs its key"),
        (("client_cert", "client_key"), "cannot use the certificate in"),
        (("server_ca",), "cannot use the authorities in"),
    ],
)
def test_files_that_cannot_be_used_are_named(mutual: Pilotlight, tmp_path: Path, names: tuple[str, ...], expected: str) -> None:
    (tmp_path / "nothing").write_text("nothing\n")
    files: dict[str, Any] = {name: str(tmp_path / "nothing") for name in names}
    client = Client(f"pilotlights://localhost:{mutual.tls_port}", **files)
    assert client.ping() is None
    notice = client.notice()
    assert notice is not None
    assert expected in notice
