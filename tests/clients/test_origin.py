"""Servers with object storage behind their disks: s3s-fs, a real S3 server, over a directory."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools import paths
from devtools.servers import S3, Pilotlight, free_port
from tests.clients.artifacts import fx_key, random_bytes, torch_json
from tests.clients.conftest import Launch, need_tool
from tests.waiting import wait_until

PREFIX = "team/cache"
TIMEOUT_S = 0.5
# What a lookup may take beside the origin's budget, on a machine that does other things as well.
SLACK_S = 1.0
PATIENCE_S = 60.0

# What clients differ in is tested elsewhere.
newest = pytest.mark.parametrize("redis", ["8"], indirect=True)


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[S3]:
    need_tool("s3s-fs")
    with S3(tmp_path / "s3") as running:
        yield running


@pytest.fixture
def nodes(launch: Launch, origin: S3) -> Callable[..., Pilotlight]:
    """Starts servers on that origin."""

    def start(*flags: str, data_dir: Path | None = None, timeout_s: float = TIMEOUT_S) -> Pilotlight:
        return launch(data_dir, flags=[*origin_flags(origin, timeout_s=timeout_s), *flags], env=origin.variables)

    return start


def origin_flags(origin: S3, bucket: str = S3.bucket, timeout_s: float = TIMEOUT_S) -> list[str]:
    timeout = ["--origin-timeout", f"{round(timeout_s * 1000)}ms"]
    return ["--origin", f"s3://{bucket}/{PREFIX}", "--origin-endpoint", origin.endpoint, *timeout]


def client(redis: Any, server: Pilotlight) -> Any:
    return redis.Redis(host=server.host, port=server.port, socket_timeout=30)


def counts(server: Pilotlight) -> dict[str, Any]:
    report: dict[str, Any] = server.stats()["origin"]
    return report


def sent(server: Pilotlight) -> None:
    wait_until(lambda: counts(server)["queued"] == 0)


def artifacts(rng: random.Random) -> dict[bytes, bytes]:
    """Of every size that takes another way: in the log, in a file, in PyTorch's JSON."""
    sizes = [1, 1000, 40_000, 3_000_000]
    made = {fx_key(rng.getrandbits(60)): random_bytes(rng.getrandbits(32), size) for size in sizes}
    made[fx_key(rng.getrandbits(60))] = torch_json(rng.getrandbits(32), 200_000)
    made[b"anything else"] = b"x" * 500
    return made


@newest
def test_a_put_on_one_server_is_a_hit_on_another_at_once(
    redis: Any, nodes: Callable[..., Pilotlight], rng: random.Random
) -> None:
    one, other = nodes("--origin-write", "through"), nodes("--origin-write", "through")
    writer, reader = client(redis, one), client(redis, other)
    for key, artifact in artifacts(rng).items():
        assert reader.get(key) is None
        assert writer.set(key, artifact, ex=3600)
        assert reader.get(key) == artifact
        assert 3500 < reader.ttl(key) <= 3600
    assert counts(other)["counts"]["hits"] == 6
    assert other.stats()["stack"].count(f"s3://bucket/{PREFIX} at http://127.0.0.1:") == 1
    with urllib.request.urlopen(other.http_url + "/metrics") as answer:
        text = answer.read().decode()
    assert "pilotlight_origin_hits_total 6\n" in text
    assert 'pilotlight_tier_hits_total{tier="2"} 6\n' in text


@newest
def test_a_pipeline_of_puts_behind_reaches_a_server_with_an_empty_disk(
    redis: Any, nodes: Callable[..., Pilotlight], origin: S3, rng: random.Random
) -> None:
    one = nodes()
    made = {fx_key(rng.getrandbits(60)): torch_json(number, 5000) for number in range(200)}
    with client(redis, one).pipeline(transaction=False) as pipeline:
        for key, artifact in made.items():
            pipeline.set(key, artifact)
        assert all(pipeline.execute())
    sent(one)
    assert len(origin.objects(f"{PREFIX}/v1/_/fx-graph")) == len(made)
    # s3s-fs takes some 25 ms for each. What does not come within the budget, on a machine that is busy, is a miss, and is
    # asked for again.
    other = client(redis, nodes(timeout_s=3.5))
    wait_until(lambda: other.mget(made) == list(made.values()), every_s=0.1)


@newest
def test_a_tampered_a_truncated_and_a_misplaced_object_are_misses_and_moved_aside(
    redis: Any, nodes: Callable[..., Pilotlight], origin: S3, rng: random.Random
) -> None:
    one, other = nodes(), nodes()
    keys = [fx_key(rng.getrandbits(60)) for _ in range(4)]
    for key in keys:
        client(redis, one).set(key, random_bytes(rng.getrandbits(32), 100_000))
    sent(one)
    tampered, truncated, misplaced, untouched = origin.objects(f"{PREFIX}/v1")
    whole = tampered.read_bytes()
    tampered.write_bytes(whole[:70_000] + bytes([whole[70_000] ^ 1]) + whole[70_001:])
    truncated.write_bytes(truncated.read_bytes()[:-1])
    misplaced.write_bytes(untouched.read_bytes())
    answers = client(redis, other).mget(keys)
    assert sum(answer is not None for answer in answers) == 1
    assert all(answer is None or answer == client(redis, one).get(key) for key, answer in zip(keys, answers, strict=True))
    assert counts(other)["counts"]["quarantined"] == 3
    wait_until(lambda: len(origin.objects(f"{PREFIX}/quarantine")) == 3)
    wait_until(lambda: origin.objects(f"{PREFIX}/v1") == [untouched])


@newest
def test_a_dead_origin_costs_misses_some_time_and_nothing_else_and_gets_all_when_it_is_back(
    redis: Any, nodes: Callable[..., Pilotlight], origin: S3, rng: random.Random
) -> None:
    one = nodes("--origin-write", "through")
    here, there = fx_key(rng.getrandbits(60)), fx_key(rng.getrandbits(60))
    connection = client(redis, one)
    assert connection.set(here, b"here")
    origin.kill()
    slowest = 0.0
    for number in range(20):
        begin = time.monotonic()
        assert connection.get(here) == b"here"
        assert connection.get(fx_key(rng.getrandbits(60))) is None
        assert connection.exists(fx_key(rng.getrandbits(60))) == 0
        assert connection.set(there + b"%d" % number, b"there")
        slowest = max(slowest, time.monotonic() - begin)
    assert slowest < 3 * TIMEOUT_S + SLACK_S
    report = counts(one)
    assert report["is_reading_paused"]
    assert report["queued"] == 20
    assert report["errors"]["unreachable"] > 0
    assert one.stats()["absorbed_gets"]["unavailable"] > 0
    origin.start()
    sent(one)
    wait_until(lambda: not counts(one)["is_reading_paused"])
    fresh = client(redis, nodes())
    assert all(fresh.get(there + b"%d" % number) == b"there" for number in range(20))


@newest
def test_what_waits_to_be_sent_or_deleted_survives_kill_9(
    redis: Any, nodes: Callable[..., Pilotlight], origin: S3, rng: random.Random, tmp_path: Path
) -> None:
    data_dir = tmp_path / "node"
    one = nodes(data_dir=data_dir)
    deleted, put = fx_key(rng.getrandbits(60)), [fx_key(rng.getrandbits(60)) for _ in range(50)]
    client(redis, one).set(deleted, b"old")
    sent(one)
    origin.kill()
    connection = client(redis, one)
    assert connection.delete(deleted) == 1
    for key in put:
        connection.set(key, b"new")
    one.kill()
    again = nodes(data_dir=data_dir)
    assert "does not answer: serving from the disk until it does" in again.log()
    assert counts(again)["queued"] == 51
    origin.start()
    sent(again)
    assert client(redis, again).get(deleted) is None
    other = client(redis, nodes())
    assert other.get(deleted) is None
    assert other.mget(put) == [b"new"] * 50


@newest
def test_deletions_and_flushes_reach_the_origin(
    redis: Any, nodes: Callable[..., Pilotlight], origin: S3, rng: random.Random
) -> None:
    one, other = nodes(), nodes()
    connection = client(redis, one)
    keys = [fx_key(rng.getrandbits(60)) for _ in range(30)]
    connection.mset(dict.fromkeys(keys, b"x"))
    client(redis, other).select(1)
    redis.Redis(host=one.host, port=one.port, db=1).set(b"kept", b"x")
    sent(one)
    # Not here but there.
    assert client(redis, other).delete(keys[0]) == 1
    sent(other)
    assert len(origin.objects(f"{PREFIX}/v1/_")) == 29
    connection.flushdb()
    sent(one)
    assert origin.objects(f"{PREFIX}/v1/_") == []
    assert connection.get(keys[1]) is None
    assert len(origin.objects(f"{PREFIX}/v1/db1")) == 1


@newest
def test_a_stop_sends_what_is_left(redis: Any, nodes: Callable[..., Pilotlight], origin: S3, rng: random.Random) -> None:
    one = nodes()
    with client(redis, one).pipeline(transaction=False) as pipeline:
        for _ in range(300):
            pipeline.set(fx_key(rng.getrandbits(60)), b"x" * 1000)
        pipeline.execute()
    assert one.stop() == 0
    assert len(origin.objects(f"{PREFIX}/v1")) == 300


@pytest.mark.parametrize(
    ("bucket", "flags", "variables", "expected"),
    [
        (S3.bucket, [], {"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, ["the origin refuses", "hint: check AWS_ACCESS_KEY_ID"]),
        (S3.bucket, [], {"AWS_ACCESS_KEY_ID": "nobody"}, ["the origin refuses", "hint: check AWS_ACCESS_KEY_ID"]),
        ("no-such-bucket", [], {}, ["no such bucket", "hint: make the bucket"]),
        (S3.bucket, ["--origin-credentials", "/nowhere"], {}, ["could not read the credentials in `/nowhere`"]),
    ],
    ids=["secret", "access key", "bucket", "credentials file"],
)
def test_an_origin_that_cannot_be_used_is_told_at_the_start(
    origin: S3, tmp_path: Path, bucket: str, flags: list[str], variables: dict[str, str], expected: list[str]
) -> None:
    command = [str(paths.pilotlight()), "serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
    command += ["--http", "off", *origin_flags(origin, bucket), *flags]
    env = {**os.environ, **origin.variables, **variables}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 2, ended.stderr
    for text in expected:
        assert text in ended.stderr
    assert env["AWS_SECRET_ACCESS_KEY"] not in ended.stderr


@newest
def test_credentials_may_stand_in_a_file_and_are_shown_nowhere(redis: Any, launch: Launch, origin: S3, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(
        f"[other]\naws_access_key_id = x\n[default]\naws_access_key_id = {S3.access_key}\n"
        f"aws_secret_access_key = {S3.secret_key}\n"
    )
    flags = [*origin_flags(origin), "--origin-credentials", str(file)]
    one = launch(flags=flags, env={"AWS_PROFILE": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ACCESS_KEY_ID": ""})
    client(redis, one).set(b"k", b"x")
    sent(one)
    assert S3.secret_key not in one.log() + json.dumps(one.stats())
    command = [str(paths.pilotlight()), "serve", "--validate-config", *flags]
    env = {**os.environ, **origin.variables}
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert f"s3://bucket/{PREFIX}" in shown
    assert S3.secret_key not in shown


@newest
def test_an_origin_that_is_away_at_the_start_is_used_when_it_comes(redis: Any, launch: Launch, tmp_path: Path) -> None:
    need_tool("s3s-fs")
    origin = S3(tmp_path / "s3")
    origin.port = free_port()
    one = launch(flags=origin_flags(origin), env=origin.variables)
    connection = client(redis, one)
    assert connection.set(fx_key(1), b"x")
    assert connection.get(fx_key(1)) == b"x"
    assert connection.get(fx_key(2)) is None
    with origin:
        sent(one)
        assert len(origin.objects(f"{PREFIX}/v1/_/fx-graph")) == 1
