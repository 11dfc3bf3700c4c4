"""Entries that nobody used: stored smaller while the server runs, and still what was put, byte for byte."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from devtools import paths
from devtools.servers import Pilotlight, disk_bytes
from tests.clients.artifacts import fx_key, torch_json
from tests.clients.conftest import Launch
from tests.clients.test_entries import read_corpus
from tests.waiting import wait_until

SOON = {"PILOTLIGHT_RECOMPRESS_AFTER": "1s"}
CORPUS_RATIO_MIN = 18
RECOMPILES_RATIO_MIN = 60


def recompiles(rng: random.Random, count: int) -> dict[bytes, bytes]:
    """What stock PyTorch puts when one model is compiled again and again after small edits."""
    fields = json.loads(torch_json(rng.getrandbits(60), 1 << 20))
    body = base64.b64decode(fields["data"])
    entries = {}
    for number in range(count):
        at = rng.randrange(len(body))
        edited = body[:at] + b"    # edit %d\n" % number + body[at:]
        entries[fx_key(rng.getrandbits(60))] = json.dumps({**fields, "data": base64.b64encode(edited).decode()}).encode()
    return entries


def test_ten_recompiles_of_one_model_take_a_sixtieth_and_survive_a_kill(
    launch: Launch, rng: random.Random, tmp_path: Path
) -> None:
    entries = recompiles(rng, 10)
    grown = put_and_recompress(launch(env=SOON), entries)
    as_json = sum(map(len, entries.values()))
    print(f"{as_json} bytes as JSON, {grown} on disk: {as_json / max(grown, 1):.1f} times smaller")
    assert grown * RECOMPILES_RATIO_MIN <= as_json


def test_the_recompressed_corpus_takes_an_eighteenth_on_disk(launch: Launch) -> None:
    corpus = paths.corpus()
    if corpus is None:
        pytest.skip("no corpus of real entries (set PILOTLIGHT_CORPUS to a directory with a manifest.jsonl)")
    entries = read_corpus(corpus)
    grown = put_and_recompress(launch(env=SOON), entries)
    as_json = sum(map(len, entries.values()))
    print(f"{as_json} bytes as JSON, {grown} on disk: {as_json / max(grown, 1):.1f} times smaller")
    assert grown * CORPUS_RATIO_MIN <= as_json


def put_and_recompress(server: Pilotlight, entries: Mapping[bytes, bytes]) -> int:
    """Puts the entries, waits until they are recompressed, and finds them again, also after a kill; gives what they take."""
    empty = disk_bytes(server.data_dir)
    with server.connect() as connection:
        for key, value in entries.items():
            assert connection.command("SET", key, value) == b"OK"
    # Asked all the time, it would rest most of it.
    wait_until(lambda: server.stats()["usage"]["recompressed"] >= len(entries), every_s=0.25, trouble=server.log)
    assert server.stats()["usage"]["deltas"] > 0
    check(server, entries)
    server.kill()
    server.start()
    check(server, entries)
    # What the kill left goes in the background, and this file with it.
    wait_until(lambda: not (server.data_dir / "UNSWEPT").exists(), trouble=server.log)
    server.stop()
    grown = disk_bytes(server.data_dir) - empty
    server.start()
    check(server, entries)
    return grown


def check(server: Pilotlight, entries: Mapping[bytes, bytes]) -> None:
    with server.connect() as connection:
        for key, value in entries.items():
            assert connection.command("GET", key) == value
        assert connection.command("MGET", *entries) == list(entries.values())
