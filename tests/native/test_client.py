"""What every engine keeps, and how stock clients see it."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from pilotlight import Client, Entry

from devtools import paths
from devtools.servers import Pilotlight, Redis, free_port

Key = Callable[[str], bytes]
HERE, THERE = b"h" * 32, b"t" * 32
SIZES = [0, 1, 127, 128, 4096, 100_000, 3 << 20]


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def one(client: Client, key: bytes) -> Entry | None:
    return client.get_many([key])[0]


def stock_json(artifact: bytes, compile_ms: int | None) -> bytes:
    value: dict[str, object] = {"data": base64.b64encode(artifact).decode("ascii")}
    if compile_ms is not None:
        value["time_taken_ms"] = compile_ms
    return json.dumps(value).encode()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("torch_json", [False, True])
def test_an_entry_comes_back_whole_with_what_is_known_about_it(url: str, key: Key, size: int, torch_json: bool) -> None:
    client = Client(url)
    assert one(client, key("k")) is None
    assert client.put(
        key("k"),
        noise(size),
        torch_json=torch_json,
        compile_ms=1234,
        producer="host torch-2.15",
        fingerprint=HERE,
        components=[(1, 2), (2**64 - 1, 0)],
    )
    entry = one(Client(url), key("k"))
    assert entry is not None
    assert entry.artifact == noise(size)
    assert entry.torch_json is torch_json
    assert (entry.compile_ms, entry.producer, entry.fingerprint, entry.variant) == (1234, "host torch-2.15", HERE, None)
    assert entry.components == [(1, 2), (2**64 - 1, 0)]
    assert entry.created_ms > 1_700_000_000_000
    assert client.get_raw(key("k")) == (stock_json(noise(size), 1234) if torch_json else noise(size))


@pytest.mark.parametrize("value", [b"", b"plain", b'{"num_warps": 4}', stock_json(noise(5000), 77), stock_json(b"", None)])
def test_a_value_comes_back_as_it_was_put(url: str, key: Key, value: bytes) -> None:
    client = Client(url)
    assert client.get_raw(key("k")) is None
    assert client.put_raw(key("k"), value)
    assert client.get_raw(key("k")) == value
    if b"time_taken_ms" in value:
        entry = one(client, key("k"))
        assert entry is not None
        assert (entry.artifact, entry.torch_json, entry.compile_ms) == (noise(5000), True, 77)


def test_answers_come_in_order_and_keys_may_repeat(url: str, key: Key) -> None:
    client = Client(url)
    assert client.get_many([]) == []
    for name in "ab":
        assert client.put(key(name), name.encode())
    found = client.get_many([key("b"), key("absent"), key("a"), key("b")])
    assert [entry and entry.artifact for entry in found] == [b"b", None, b"a", b"b"]


def test_deleting_says_whether_something_was_there(url: str, key: Key) -> None:
    client = Client(url)
    assert not client.delete(key("k"))
    assert client.put(key("k"), b"x")
    assert client.delete(key("k"))
    assert one(client, key("k")) is None
    assert client.put(key("k"), b"x")
    client.quarantine(key("k"))
    assert one(client, key("k")) is None
    assert client.stats()["quarantined"] == 1


def test_variants_that_fit_come_newest_first_and_sixteen_are_kept(url: str, key: Key) -> None:
    client = Client(url)
    for variant in range(20):
        fingerprint = [HERE, THERE, None][variant % 3]
        assert client.put_variant(key("k"), variant, b"%d" % variant, fingerprint=fingerprint, torch_json=True)
    kept = range(4, 20)
    for fingerprint, rest in [(HERE, 0), (THERE, 1)]:
        expected = [v for v in reversed(kept) if v % 3 in (rest, 2)]
        found = list(Client(url).candidates(key("k"), fingerprint))
        assert [int(entry.artifact) for entry in found] == expected
        assert [entry.variant for entry in found] == expected
    assert [int(e.artifact) for e in client.candidates(key("k"), None)] == [v for v in reversed(kept) if v % 3 == 2]
    # The same variant again takes the place of its older self.
    assert client.put_variant(key("k"), 11, b"again", fingerprint=HERE)
    assert [e.artifact for e in client.candidates(key("k"), HERE)][:3] == [b"again", b"18", b"17"]
    newest = one(client, key("k"))
    assert newest is not None
    assert newest.artifact == b"again"


def test_a_variant_that_does_not_fit_is_a_miss_and_counted(url: str, key: Key) -> None:
    client = Client(url)
    assert client.put_variant(key("k"), 1, b"foreign", fingerprint=THERE)
    assert list(client.candidates(key("k"), HERE)) == []
    assert list(client.candidates(key("absent"), HERE)) == []
    stats = client.stats()
    assert (stats["gets"], stats["hits"], stats["misses"], stats["misfit"]) == (2, 0, 2, 1)


def test_an_entry_without_a_variant_gives_way_and_is_kept(url: str, key: Key) -> None:
    client = Client(url)
    assert client.put_raw(key("k"), stock_json(noise(500), 5))
    assert client.put_variant(key("k"), 1, b"newer", fingerprint=HERE)
    assert [entry.artifact for entry in client.candidates(key("k"), HERE)] == [b"newer", noise(500)]
    assert [entry.artifact for entry in client.candidates(key("k"), THERE)] == [noise(500)]


def test_a_variant_that_is_quarantined_leaves_the_others(url: str, key: Key) -> None:
    client = Client(url)
    stock = stock_json(noise(500), 5)
    assert client.put_raw(key("k"), stock)
    for variant in (1, 2, 3):
        assert client.put_variant(key("k"), variant, b"%d" % variant)

    def left() -> list[bytes]:
        return [entry.artifact for entry in client.candidates(key("k"), None)]

    assert left() == [b"3", b"2", b"1", noise(500)]
    for bad in (b"2", noise(500), b"3", b"1"):
        before = left()
        entry = next(entry for entry in client.candidates(key("k"), None) if entry.artifact == bad)
        client.quarantine_variant(key("k"), entry)
        assert left() == [artifact for artifact in before if artifact != bad]
    assert client.stats()["quarantined"] == 4
    # One that was displaced and became the newest again leaves no copy behind.
    for variant in (1, 2, 1):
        assert client.put_variant(key("c"), variant, b"%d" % variant)
    client.quarantine_variant(key("c"), next(iter(client.candidates(key("c"), None))))
    assert [entry.artifact for entry in client.candidates(key("c"), None)] == [b"2"]


def test_one_can_ask_what_is_there_without_fetching_it(url: str, key: Key) -> None:
    client = Client(url)
    assert client.put(key("k"), noise(1 << 20))
    before = client.stats()
    assert client.has([key("k"), key("absent"), key("k")]) == [True, False, True]
    assert client.has([]) == []
    after = client.stats()
    assert after["round_trips"] - before["round_trips"] == 1
    assert after["bytes_read"] - before["bytes_read"] < 1000
    assert after["gets"] == before["gets"]


def test_entries_are_grouped_where_there_are_groups(url: str, key: Key) -> None:
    client = Client(url)
    assert all(client.put(key(name), noise(100)) for name in "abc")
    before = client.stats()["round_trips"]
    knows = url.startswith(("pilotlight:", "unix:"))
    for _ in range(2):
        assert client.group(key("a"), [key("b"), key("absent"), key("c")]) == (3 if knows else 0)
    assert client.stats()["round_trips"] - before == (2 if knows else 0)
    assert client.notice() is None


def test_a_cache_that_cannot_be_asked_has_nothing_to_say() -> None:
    assert Client(f"redis://127.0.0.1:{free_port()}").has([b"k"]) is None


def test_a_thread_learns_of_its_own_failures_only() -> None:
    client = Client(f"redis://127.0.0.1:{free_port()}")

    def own() -> int:
        return client.thread_stats()["unavailable"]

    before = own()  # of other clients, in other tests
    other = threading.Thread(target=lambda: client.get_many([b"k"]))
    other.start()
    other.join()
    assert (client.stats()["unavailable"], own() - before) == (1, 0)
    client.get_many([b"k", b"l"])
    assert own() - before == 2


@pytest.mark.parametrize("compile_ms", [0, 1, 4_000_000_000])
@pytest.mark.parametrize("size", SIZES)
def test_stock_clients_of_a_pilotlight_see_exactly_what_torch_writes(
    server: Pilotlight, key: Key, size: int, compile_ms: int
) -> None:
    client, stock = Client(f"pilotlight://127.0.0.1:{server.port}"), redis.Redis(port=server.port)
    assert client.put(key("k"), noise(size), torch_json=True, compile_ms=compile_ms)
    assert stock.get(key("k")) == stock_json(noise(size), compile_ms or None)
    stock.set(key("s"), stock_json(noise(size), compile_ms))
    entry = one(client, key("s"))
    assert entry is not None
    assert (entry.artifact, entry.torch_json) == (noise(size), True)


def test_a_plain_redis_has_envelopes_under_keys_of_our_own(redis_server: Redis, key: Key) -> None:
    client, stock = Client(f"redis://127.0.0.1:{redis_server.port}"), redis.Redis(port=redis_server.port)
    stock.set(key("k"), b"stock's")
    assert one(client, key("k")) is None
    assert client.get_raw(key("k")) is None
    assert client.put_raw(key("k"), b"ours")
    assert stock.get(key("k")) == b"stock's"
    envelope = stock.get(b"pilotlight:1:" + key("k"))
    assert isinstance(envelope, bytes)
    assert envelope.startswith(b"PLEv")
    # Verified there too.
    stock.set(b"pilotlight:1:" + key("k"), envelope[:-1] + b"!")
    assert client.get_raw(key("k")) is None
    assert client.stats()["corrupt"] == 1


def test_databases_are_apart(server: Pilotlight, redis_server: Redis, key: Key) -> None:
    for port in (server.port, redis_server.port):
        assert Client(f"redis://127.0.0.1:{port}/3").put(key("k"), b"3")
        assert one(Client(f"redis://127.0.0.1:{port}"), key("k")) is None
        assert one(Client(f"redis://127.0.0.1:{port}/3"), key("k")) is not None


def test_a_forked_child_makes_connections_of_its_own(url: str, key: Key) -> None:
    client = Client(url)
    assert client.put(key("k"), noise(1 << 20))

    def child(code: int) -> None:
        for _ in range(20):
            entry = one(client, key("k"))
            if entry is None or entry.artifact != noise(1 << 20):
                os._exit(1)
        stats = client.stats()
        is_own = stats["connections"] == (0 if url.startswith("file") else 1) and stats["gets"] == 20
        os._exit(code if is_own else 2)

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=child, args=(7,)) for _ in range(4)]
    for process in children:
        process.start()
    for _ in range(20):
        entry = one(client, key("k"))
        assert entry is not None
        assert entry.artifact == noise(1 << 20)
    for process in children:
        process.join(60)
    assert [process.exitcode for process in children] == [7] * 4


def test_a_fork_amid_busy_threads_does_not_hang_the_child(url: str, key: Key) -> None:
    client = Client(url)
    assert client.put(key("k"), b"x")
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            client.get_many([key("k")])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            pid = os.fork()
            if pid == 0:
                os._exit(0 if one(client, key("k")) is not None else 1)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_threads_share_a_client(url: str, key: Key) -> None:
    client = Client(url)
    failures: list[object] = []

    def work(number: int) -> None:
        mine = key(str(number))
        for turn in range(50):
            artifact = noise(10_000, seed=number * 1000 + turn)
            entry = one(client, mine) if client.put(mine, artifact) else None
            if entry is None or entry.artifact != artifact:
                failures.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    stats = client.stats()
    assert (stats["puts"], stats["hits"], stats["unavailable"]) == (400, 400, 0)


def test_a_url_that_cannot_be_understood_is_refused_with_a_hint_and_without_its_password() -> None:
    for url in ["", "cache:6379", "http://u:hunter2@cache", "redis://u:hunter2@cache:0", "file://relative"]:
        with pytest.raises(ValueError, match="hint: ") as raised:
            Client(url)
        assert "hunter2" not in str(raised.value)
    assert "hunter2" not in Client("redis://u:hunter2@cache").url + repr(Client("redis://u:hunter2@cache"))


def test_wrong_arguments_are_the_callers_matter(tmp_path: Path) -> None:
    client = Client(f"file://{tmp_path}")
    with pytest.raises(ValueError, match="expected 32"):
        client.put(b"k", b"", fingerprint=b"short")
    with pytest.raises(ValueError, match="stall_timeout"):
        Client("redis://h", stall_timeout=-1.0)
    with pytest.raises(TypeError):
        client.put("k", b"")  # type: ignore[arg-type]


def test_importing_the_package_imports_neither_torch_nor_the_module() -> None:
    code = "import sys, pilotlight; print(sorted(m for m in sys.modules if 'torch' in m or m.startswith('pilotlight')))"
    environment = {**os.environ, "PYTHONPATH": str(paths.ROOT / "python")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "['pilotlight']"
