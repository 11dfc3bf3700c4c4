"""redis-cli and redis-benchmark, as operators use them."""

from __future__ import annotations

import subprocess

import pytest

from devtools.resp import encode
from devtools.servers import Pilotlight
from tests.clients.conftest import need_tool


def _cli(server: Pilotlight, *arguments: str, stdin: bytes | None = None) -> str:
    command = [need_tool("redis-cli"), "-h", server.host, "-p", str(server.port), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().rstrip("\n")


def test_redis_cli_reads_and_writes(server: Pilotlight) -> None:
    assert _cli(server, "ping") == "PONG"
    assert _cli(server, "set", "cli:a", "1") == "OK"
    assert _cli(server, "get", "cli:a") == "1"
    assert _cli(server, "-3", "get", "cli:a") == "1"
    assert _cli(server, "incr", "cli:a") == "2"
    assert "cli:a" in _cli(server, "--scan", "--pattern", "cli:*").splitlines()
    assert _cli(server, "del", "cli:a") == "1"


def test_redis_cli_shows_info_as_sections(server: Pilotlight) -> None:
    sections = [line for line in _cli(server, "info").splitlines() if line.startswith("# ")]
    assert "# Server" in (line.strip() for line in sections)
    assert "redis_version:" in _cli(server, "info", "server")


def test_redis_cli_pipe_inserts_a_mass_of_entries(server: Pilotlight) -> None:
    count = 5000
    commands = b"".join(encode("SET", f"mass:{n}", f"value {n}") for n in range(count))
    assert f"errors: 0, replies: {count}" in _cli(server, "--pipe", stdin=commands)
    assert _cli(server, "get", f"mass:{count - 1}") == f"value {count - 1}"


@pytest.mark.parametrize("size", [3, 32 << 10])
def test_redis_benchmark_runs_without_errors(server: Pilotlight, size: int) -> None:
    command = [need_tool("redis-benchmark"), "-h", server.host, "-p", str(server.port), "-q"]
    command += ["-t", "set,get,incr,mset", "-n", "2000", "-r", "100", "-P", "16", "-c", "8", "-d", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "error" not in output.lower(), output
    for name in ("SET", "GET", "INCR", "MSET"):
        assert f"{name}" in output
