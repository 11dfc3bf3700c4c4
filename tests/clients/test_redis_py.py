"""redis-py 5, 6, 7 and 8: what people write with it works as it does with Redis."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.servers import Pilotlight
from tests.clients.conftest import Launch

PASSWORD = "correct horse"
MIB = 1 << 20


@pytest.fixture(params=[2, 3], ids=lambda protocol: f"resp{protocol}")
def client(request: pytest.FixtureRequest, redis: Any, server: Pilotlight) -> Iterator[Any]:
    with redis.Redis(host=server.host, port=server.port, protocol=request.param) as connected:
        yield connected


def test_values_come_back(client: Any, prefix: str) -> None:
    key = prefix + "k"
    assert client.ping() is True
    assert client.get(key) is None
    assert client.set(key, "v") is True
    assert client.get(key) == b"v"
    assert client.exists(key) == 1
    assert client.type(key) == b"string"
    assert client.strlen(key) == 1
    assert client.append(key, "w") == 2
    assert client.set(key, "x", nx=True) is None
    assert client.set(key, "x", xx=True, get=True) == b"vw"
    assert client.getdel(key) == b"x"
    assert client.delete(key) == 0


def test_many_values_in_one_command(client: Any, prefix: str) -> None:
    values = {f"{prefix}{n}": f"value {n}".encode() for n in range(50)}
    assert client.mset(values) is True
    assert client.mget([*values, prefix + "absent"]) == [*values.values(), None]
    assert client.delete(*values) == len(values)


def test_counters(client: Any, prefix: str) -> None:
    key = prefix + "n"
    assert client.incr(key) == 1
    assert client.incrby(key, 41) == 42
    assert client.decr(key) == 41
    assert client.incrbyfloat(key, 0.5) == 41.5
    client.set(key, "not a number")
    with pytest.raises(Exception, match="not an integer") as error:
        client.incr(key)
    assert type(error.value).__name__ == "ResponseError"


@pytest.mark.parametrize("size", [0, 1, 511, 16 << 10, (64 << 10) + 1, MIB, 8 * MIB])
def test_binary_values_of_any_size(client: Any, prefix: str, rng: random.Random, size: int) -> None:
    key = (prefix + "\x00\xff\r\n").encode("latin-1")
    value = rng.randbytes(size)
    client.set(key, value)
    assert client.get(key) == value
    client.delete(key)


@pytest.mark.parametrize("transaction", [True, False], ids=["transaction", "plain"])
def test_pipelines(client: Any, prefix: str, transaction: bool) -> None:
    with client.pipeline(transaction=transaction) as pipeline:
        for n in range(100):
            pipeline.set(f"{prefix}{n}", n)
        for n in range(100):
            pipeline.get(f"{prefix}{n}")
        pipeline.get(prefix + "absent")
        replies = pipeline.execute()
    assert replies == [True] * 100 + [str(n).encode() for n in range(100)] + [None]


def test_an_error_inside_a_pipeline_leaves_the_others_alone(client: Any, prefix: str) -> None:
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set(prefix + "a", "text")
        pipeline.incr(prefix + "a")
        pipeline.get(prefix + "a")
        first, second, third = pipeline.execute(raise_on_error=False)
    assert (first, third) == (True, b"text")
    assert type(second).__name__ == "ResponseError"


def test_watched_key_unchanged_lets_the_transaction_run(client: Any, prefix: str) -> None:
    key = prefix + "balance"
    client.set(key, 10)

    def add_one(pipeline: Any) -> None:
        current = int(pipeline.get(key))
        pipeline.multi()
        pipeline.set(key, current + 1)

    assert client.transaction(add_one, key) == [True]
    assert client.get(key) == b"11"


def test_watched_key_changed_by_another_aborts_the_transaction(redis: Any, client: Any, prefix: str) -> None:
    key = prefix + "balance"
    client.set(key, 10)
    with client.pipeline() as pipeline:
        pipeline.watch(key)
        client.set(key, 99)  # another connection of the pool
        pipeline.multi()
        pipeline.set(key, 11)
        with pytest.raises(redis.WatchError):
            pipeline.execute()
    assert client.get(key) == b"99"


def test_expiry(client: Any, prefix: str) -> None:
    key = prefix + "k"
    client.set(key, "v", ex=100)
    assert 98 <= client.ttl(key) <= 100
    assert client.persist(key) is True
    assert client.ttl(key) == -1
    assert client.ttl(prefix + "absent") == -2
    assert client.pexpire(key, 50_000) is True
    assert 49_000 < client.pttl(key) <= 50_000
    client.set(key, "v", px=1)
    _until_gone(client, key)
    client.set(key, "v")
    client.expire(key, -1)
    assert client.exists(key) == 0


def _until_gone(client: Any, key: str) -> None:
    for _ in range(10_000):
        if client.get(key) is None:
            return
    pytest.fail("an entry outlived its time to live of 1 ms by 10,000 round trips")


def test_scan_finds_every_key_once_it_is_there(client: Any, prefix: str) -> None:
    keys = {f"{prefix}{n}".encode() for n in range(500)}
    client.mset(dict.fromkeys(keys, "v"))
    pattern = prefix.replace("[", "\\[").replace("]", "\\]") + "*"
    assert set(client.scan_iter(match=pattern, count=37)) == keys
    assert set(client.scan_iter(match=pattern, _type="string")) == keys
    assert set(client.scan_iter(match=pattern, _type="list")) == set()
    assert set(client.keys(pattern)) == keys


def test_client_name_and_info(client: Any) -> None:
    with client.client() as one:
        assert one.client_setname("a-name") is True
        assert one.client_getname() in ("a-name", b"a-name")
    info = client.info()
    assert "redis_version" in info
    assert client.dbsize() >= 0
    assert client.echo("hello") == b"hello"


def test_decode_responses(redis: Any, server: Pilotlight, prefix: str) -> None:
    with redis.Redis(host=server.host, port=server.port, decode_responses=True) as client:
        client.set(prefix + "k", "grüße")
        assert client.get(prefix + "k") == "grüße"
        assert client.set(prefix + "k", "neu", get=True) == "grüße"


def test_from_url_with_defaults_as_torch_uses_it(redis: Any, server: Pilotlight, prefix: str) -> None:
    with redis.Redis.from_url(server.redis_url) as client:
        client.set(prefix + "k", b"v")
        assert client.get(prefix + "k") == b"v"


def test_host_and_port_with_defaults_as_torch_uses_it(redis: Any, server: Pilotlight, prefix: str) -> None:
    with redis.Redis(host=server.host, port=server.port) as client:
        client.set(prefix + "k", b"v", ex=None)
        assert client.get(prefix + "k") == b"v"


def test_unix_socket(redis: Any, launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> None:
    # Not below this test's own directory: a socket's path may have at most 107 bytes, and test names are long.
    path = _short_directory(tmp_path_factory) / "s"
    launch(listen=("127.0.0.1:0", f"unix:{path}"))
    with redis.Redis(unix_socket_path=str(path)) as client:
        client.set("k", "v")
        assert client.get("k") == b"v"
    with redis.Redis.from_url(f"unix://{path}") as client:
        assert client.get("k") == b"v"


def _short_directory(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("u")


def test_right_password_works_and_a_wrong_one_has_the_error_torch_handles(redis: Any, launch: Launch) -> None:
    server = launch(env={"PILOTLIGHT_PASSWORD": PASSWORD})
    with redis.Redis(host=server.host, port=server.port, password=PASSWORD) as client:
        client.set("k", "v")
        assert client.get("k") == b"v"
    with redis.Redis(host=server.host, port=server.port, username="default", password=PASSWORD) as client:
        assert client.get("k") == b"v"
    # Without retries, which redis-py 6 and later make for half a minute even when the password is what is wrong.
    once = importlib.import_module("redis.retry").Retry(importlib.import_module("redis.backoff").NoBackoff(), 0)
    # Stock PyTorch turns its cache off on a ConnectionError; any other class would reach the user's compile.
    for wrong in ({"password": "wrong"}, {"username": "default", "password": "wrong"}, {}):
        with redis.Redis(host=server.host, port=server.port, retry=once, **wrong) as client:
            with pytest.raises(redis.AuthenticationError) as error:
                client.get("k")
            assert isinstance(error.value, redis.ConnectionError)


def test_unknown_commands_answer_an_error_and_keep_the_connection(redis: Any, client: Any) -> None:
    with client.client() as one:
        with pytest.raises(redis.ResponseError, match="unknown command"):
            one.execute_command("EVALUATE", "1")
        assert one.ping() is True
