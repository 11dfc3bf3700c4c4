"""Users: real clients, real torch, a users file that the command line writes."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.processes import fresh_machine, stock
from devtools import paths
from devtools.servers import Pilotlight
from tests.clients.conftest import Launch

GRAPH = "pt2:fx-graph-v1::f:c1"


class Users:
    """A users file, and the secrets that were made for it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.secrets: dict[str, str] = {}

    def command(self, *args: str) -> Any:
        command = [str(paths.pilotlight()), "users", *args, "--file", str(self.file), "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def add(self, name: str, *grants: str, home: str = "") -> None:
        options = [word for grant in grants for word in ("--grant", grant)]
        self.secrets[name] = self.command("add", name, *options, *(["--home", home] if home else []))["secret"]

    def rotate(self, name: str) -> None:
        self.secrets[name] = self.command("rotate", name)["secret"]


@pytest.fixture
def users(tmp_path: Path) -> Users:
    users = Users(tmp_path / "users.toml")
    users.add("root", "rwa *")
    users.add("ci", "rw ci", home="ci")
    users.add("reader", "r ci", home="ci")
    return users


@pytest.fixture
def server(launch: Launch, users: Users) -> Pilotlight:
    return launch(env={"PILOTLIGHT_USERS": str(users.file)})


@pytest.fixture
def log_in(redis: Any, server: Pilotlight, users: Users) -> Iterator[Any]:
    clients = []

    def connect(name: str, **options: Any) -> Any:
        # Without retries: redis-py 6 and later make them for half a minute, even when the password is what is wrong.
        once = importlib.import_module("redis.retry").Retry(importlib.import_module("redis.backoff").NoBackoff(), 0)
        options = {"username": name, "password": users.secrets[name], "retry": once} | options
        client = redis.Redis(host=server.host, port=server.port, **options)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_reader_reads_and_its_puts_are_none(redis: Any, log_in: Any, protocol: int) -> None:
    ci, reader = log_in("ci", protocol=protocol), log_in("reader", protocol=protocol)
    assert ci.set(GRAPH, b"graph") is True
    assert reader.get(GRAPH) == b"graph"
    # As stock torch puts: an error here would end the user's compile.
    assert reader.set(GRAPH, b"x") is None
    assert reader.set("triton:ABC:kernel.cubin", b"x", ex=10) is None
    assert reader.mget([GRAPH, "cpp-kernel:k"]) == [b"graph", None]
    with reader.pipeline() as pipeline:
        pipeline.get(GRAPH)
        pipeline.set(GRAPH, b"x")
        assert pipeline.execute() == [b"graph", None]
    with pytest.raises(redis.exceptions.NoPermissionError):
        reader.set("other", b"x")
    with pytest.raises(redis.exceptions.NoPermissionError):
        reader.delete(GRAPH)
    assert ci.get(GRAPH) == b"graph"
    assert log_in("root", protocol=protocol).get(GRAPH) is None, "another namespace"


def test_by_url_and_with_the_wrong_secret(redis: Any, server: Pilotlight, users: Users, log_in: Any) -> None:
    with redis.Redis.from_url(f"redis://ci:{users.secrets['ci']}@{server.host}:{server.port}/0") as client:
        assert client.set("k", "v") is True
    assert log_in("ci").get("k") == b"v"
    for wrong in ({"username": "root"}, {"password": "wrong"}, {"username": None}, {"username": None, "password": None}):
        # Stock PyTorch turns its cache off on a ConnectionError; any other class would reach the user's compile.
        with pytest.raises(redis.AuthenticationError) as error:
            log_in("ci", **wrong).get("k")
        assert isinstance(error.value, redis.ConnectionError)


def test_who_is_removed_is_put_out_and_who_is_rotated_stays(redis: Any, server: Pilotlight, users: Users, log_in: Any) -> None:
    ci, reader = log_in("ci", single_connection_client=True), log_in("reader", single_connection_client=True)
    assert ci.set(GRAPH, b"graph") is True
    assert reader.get(GRAPH) == b"graph"
    users.command("remove", "reader")
    users.rotate("ci")
    os.kill(server.pid, signal.SIGHUP)
    error = _until_put_out(reader)
    assert isinstance(error, redis.AuthenticationError)
    assert isinstance(error, redis.ConnectionError), "stock torch turns its cache off and goes on"
    assert ci.get(GRAPH) == b"graph", "by its old secret"
    assert log_in("ci").get(GRAPH) == b"graph", "by its new one"
    users.command("rotate", "ci", "--drop-old")
    # Noticed without a signal.
    assert isinstance(_until_put_out(ci), redis.AuthenticationError)
    assert log_in("ci").get(GRAPH) == b"graph"


def _until_put_out(client: Any) -> Exception:
    """Asks until that fails, which takes a server two seconds at most, and says how."""
    begin = time.monotonic()
    while time.monotonic() - begin < 30:
        try:
            client.get(GRAPH)
        except Exception as error:
            return error
    pytest.fail("a user that was removed still had its rights after 30 s")


def test_a_reload_under_load(server: Pilotlight, users: Users, log_in: Any) -> None:
    is_over = threading.Event()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            while not is_over.is_set():
                client = log_in("ci")
                for turn in range(20):
                    value = f"{number} {turn}".encode()
                    assert client.set(f"{GRAPH}{number}", value) is True
                    assert client.get(f"{GRAPH}{number}") == value
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for turn in range(20):
        users.add(f"user-{turn}", "r *")
        os.kill(server.pid, signal.SIGHUP)
    is_over.set()
    for worker in workers:
        worker.join()
    assert not failures


def test_http_asks_for_the_same_secrets(server: Pilotlight, users: Users) -> None:
    def status(method: str, target: str, secret: str) -> int:
        request = urllib.request.Request(
            server.http_url + target,
            method=method,
            data=b"v" if method == "PUT" else None,
            headers={"authorization": f"Bearer {secret}"},
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    ci, reader, root = (users.secrets[name] for name in ("ci", "reader", "root"))
    assert status("PUT", "/cache/k", ci) == 201
    assert status("GET", "/cache/k", reader) == 200
    assert status("PUT", "/cache/k", reader) == 403
    assert status("GET", "/cache/k?namespace=ci", root) == 200
    assert status("GET", "/api/stats", reader) == 200
    assert status("POST", "/api/verify", reader) == 403
    assert status("GET", "/cache/k", "wrong") == 401


def test_stock_torch_compiles_with_a_reader_and_with_a_wrong_secret(launch: Launch, users: Users) -> None:
    server = launch(env={"PILOTLIGHT_USERS": str(users.file)})
    reader, ci = (("reader", users.secrets["reader"]), ("ci", users.secrets["ci"]))
    in_turn = [reader, ci, reader, ("ci", "pls_wrong")]
    urls = [f"redis://{name}:{secret}@{server.host}:{server.port}" for name, secret in in_turn]
    with fresh_machine() as machine:
        output = machine.run(["tests.clients.torch_as_users", *urls], stock(urls[0]))
    ran = [json.loads(line) for line in output.splitlines()]
    assert all(one["is_right"] for one in ran)
    empty, first, warm, wrong = ran
    # Nothing is there, and nothing comes to be there; nor does anything fail.
    assert (empty["hits"], empty["misses"], empty["exceptions"]) == (0, 2, 0)
    assert (first["hits"], first["misses"]) == (0, 2), "the reader put nothing"
    assert (warm["hits"], warm["misses"], warm["exceptions"]) == (2, 0, 0)
    assert wrong["hits"] == 0
