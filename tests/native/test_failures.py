"""Servers that refuse, are full, are gone: never an exception, never long, and everything counted and told."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pilotlight import Client

from devtools import paths
from devtools.servers import Pilotlight, Redis, free_port

Key = Callable[[str], bytes]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis whose settings a test may change."""
    if paths.tool("redis-server") is None:
        pytest.skip("redis-server is not installed and could not be fetched (make tools)")
    with Redis(tmp_path / "redis", append_only=False) as running:
        yield running


def counts(client: Client, *names: str) -> list[int]:
    stats = client.stats()
    return [stats[name] for name in names]


def test_a_user_who_may_only_read_gets_and_its_puts_are_dropped(own_redis: Redis, key: Key) -> None:
    stock = redis.Redis(port=own_redis.port)
    stock.acl_setuser("reader", enabled=True, passwords=["+p@ss/word"], keys="*", categories=["+@read", "+@connection"])
    assert Client(f"redis://127.0.0.1:{own_redis.port}").put(key("k"), b"x")
    reader = Client(f"redis://reader:p%40ss%2Fword@127.0.0.1:{own_redis.port}")
    assert reader.get_raw(key("k")) == b"x"
    assert not reader.put(key("k"), b"y")
    assert reader.get_raw(key("k")) == b"x"
    assert counts(reader, "hits", "puts", "dropped", "denied") == [2, 0, 1, 1]
    assert "NOPERM" in (reader.notice() or "")


def test_a_full_redis_keeps_answering_gets(own_redis: Redis, key: Key) -> None:
    client = Client(f"redis://127.0.0.1:{own_redis.port}")
    assert client.put(key("k"), b"x")
    redis.Redis(port=own_redis.port).config_set("maxmemory", "1mb")
    redis.Redis(port=own_redis.port).config_set("maxmemory-policy", "noeviction")
    assert not client.put(key("l"), os.urandom(100_000))
    assert client.get_raw(key("k")) == b"x"
    assert counts(client, "puts", "dropped", "full", "hits") == [1, 1, 1, 1]


def test_a_replica_refuses_puts_and_says_so(own_redis: Redis, key: Key) -> None:
    redis.Redis(port=own_redis.port).slaveof("127.0.0.1", free_port())
    client = Client(f"redis://127.0.0.1:{own_redis.port}")
    assert client.get_raw(key("k")) is None
    assert not client.put(key("k"), b"x")
    assert counts(client, "misses", "dropped", "denied") == [1, 1, 1]


@pytest.mark.parametrize("login", ["", "me:wrong@", ":wrong@"])
def test_a_wrong_password_is_told_once_and_costs_one_connection(
    own_redis: Redis, launch: Callable[..., Pilotlight], key: Key, login: str
) -> None:
    redis.Redis(port=own_redis.port).config_set("requirepass", "secret")
    guarded = launch(env={"PILOTLIGHT_PASSWORD": "secret"})
    for port in (own_redis.port, guarded.port):
        assert Client(f"redis://:secret@127.0.0.1:{port}/1").ping() is not None
        client = Client(f"redis://{login}127.0.0.1:{port}")
        assert client.get_raw(key("k")) is None
        for _ in range(100):
            assert not client.put(key("k"), b"x")
        assert counts(client, "connections", "gets", "denied", "dropped", "puts") == [1, 1, 1, 100, 0]
        notice = client.notice()
        assert notice is not None
        assert "wrong@" not in notice
        assert client.notice() is None


def test_an_entry_above_the_servers_limit_is_dropped_and_the_connection_stays(
    launch: Callable[..., Pilotlight], key: Key
) -> None:
    server = launch(max_size="256MiB", env={"PILOTLIGHT_MAX_ENTRY_SIZE": "1MiB"})
    client = Client(f"pilotlight://127.0.0.1:{server.port}")
    assert not client.put(key("large"), bytes(3 << 20))
    assert not client.put(key("large"), os.urandom(3 << 20))
    assert client.put(key("small"), b"x")
    assert counts(client, "connections", "dropped", "puts", "unavailable") == [1, 2, 1, 0]


def test_a_restarted_server_is_used_again_without_a_failure(
    launch: Callable[..., Pilotlight], key: Key, tmp_path: Path
) -> None:
    server = launch(listen=("127.0.0.1:0", f"unix:{tmp_path}/s"))
    client = Client(f"unix://{tmp_path}/s")
    assert client.put(key("k"), b"x")
    server.stop()
    server.start()
    assert client.get_raw(key("k")) == b"x"
    assert counts(client, "unavailable", "hits", "connections") == [0, 1, 2]
    assert client.notice() is None


def test_a_server_that_stalls_costs_at_most_the_budget(key: Key) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts in the kernel, and never answers
        client = Client(f"redis://127.0.0.1:{listener.getsockname()[1]}", stall_timeout=0.2, trouble_budget=0.3)
        asked, told = 0.0, list[str]()
        deadline = time.monotonic() + 30
        while len(told) < 2:
            assert time.monotonic() < deadline
            begin = time.monotonic()
            assert client.get_many([key("k")]) == [None]
            asked += time.monotonic() - begin
            told += [notice for notice in [client.notice()] if notice]
        assert asked < 1.0
        assert "compiling goes on without it" in told[0]
        assert "left alone from here on" in told[1]


def test_a_directory_that_cannot_be_written_drops_puts(tmp_path: Path, key: Key) -> None:
    (tmp_path / "file").write_text("in the way")
    client = Client(f"file://{tmp_path}/file")
    assert not client.put(key("k"), b"x")
    assert client.get_many([key("k")]) == [None]
    assert counts(client, "dropped", "puts") == [1, 0]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith("PILOTLIGHT_")}
    environment = {**base, "PYTHONPATH": str(paths.ROOT / "python"), **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)


ASK = "from pilotlight import client; c = client(); assert c is client(); print(c and c.get_many([b'k']))"


def test_the_process_client_is_made_from_the_environment() -> None:
    assert run(ASK).stdout == "None\n"
    dead = f"redis://me:hunter2@127.0.0.1:{free_port()}"
    done = run(ASK, PILOTLIGHT_URL=dead, PILOTLIGHT_STALL_TIMEOUT="soon", PILOTLIGHT_TROUBLE_BUDGET="1.5")
    assert (done.returncode, done.stdout) == (0, "[None]\n")
    first, second = done.stderr.splitlines()
    assert first == "pilotlight: PILOTLIGHT_STALL_TIMEOUT is 'soon', expected a number of seconds; using the default"
    assert second.startswith("pilotlight: the cache at redis://me:***@127.0.0.1:")
    assert "hunter2" not in done.stderr


def test_a_bad_url_is_said_and_the_program_goes_on_without() -> None:
    done = run(ASK, PILOTLIGHT_URL="redis://me:hunter2@:1")
    assert (done.returncode, done.stdout) == (0, "None\n")
    assert done.stderr.startswith("pilotlight: PILOTLIGHT_URL: the URL names no host\nhint: ")
    assert "hunter2" not in done.stderr


def test_quiet_says_nothing_on_stderr_and_the_log_still_has_it() -> None:
    dead = f"redis://127.0.0.1:{free_port()}"
    assert run(ASK, PILOTLIGHT_URL=dead, PILOTLIGHT_QUIET="1").stderr == ""
    logged = "import logging; logging.basicConfig(format='LOG %(name)s %(message)s')\n" + ASK
    done = run(logged, PILOTLIGHT_URL=dead, PILOTLIGHT_QUIET="1")
    assert done.stderr.startswith("LOG pilotlight the cache at")


def test_notices_are_passed_once(monkeypatch: pytest.MonkeyPatch, caplog: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from pilotlight import _client

    monkeypatch.setenv("PILOTLIGHT_URL", f"redis://127.0.0.1:{free_port()}")
    monkeypatch.delenv("PILOTLIGHT_QUIET", raising=False)
    client = _client.client()
    assert client is not None
    with caplog.at_level(logging.WARNING, logger="pilotlight"):
        for _ in range(3):
            client.get_many([b"k"])
            _client.pass_notices()
    assert len(caplog.records) == 1
    assert capsys.readouterr().err.count("pilotlight: ") == 1
