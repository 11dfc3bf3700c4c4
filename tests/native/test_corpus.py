"""Real entries of torch.compile: what our client puts is byte for byte what torch's own client would have put."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

import pytest
import redis
from pilotlight import Client

from devtools import paths
from devtools.servers import Pilotlight
from tests.clients.test_entries import read_corpus
from tests.clients.test_recompress import SOON, put_and_recompress, recompiles


def test_corpus_entries_are_the_same_from_either_client(server: Pilotlight) -> None:
    corpus = paths.corpus()
    if corpus is None:
        pytest.skip("no corpus of real entries (set PILOTLIGHT_CORPUS to a directory with a manifest.jsonl)")
    client, stock = Client(f"pilotlight://127.0.0.1:{server.port}"), redis.Redis(port=server.port)
    for key, value in read_corpus(corpus).items():
        fields = json.loads(value)
        artifact = base64.b64decode(fields["data"])
        assert client.put(key, artifact, torch_json=True, compile_ms=fields["time_taken_ms"])
        assert stock.get(key) == value
        assert client.get_raw(key) == value
        stock.set(key, value)
        entry = client.get_many([key])[0]
        assert entry is not None
        assert (entry.artifact, entry.torch_json, entry.compile_ms) == (artifact, True, fields["time_taken_ms"])


def test_our_client_need_not_know_of_recompression(tmp_path: Path) -> None:
    entries = recompiles(random.Random(1), 5)
    with Pilotlight(tmp_path / "data", env=SOON) as server:
        put_and_recompress(server, entries)
        client = Client(f"pilotlight://127.0.0.1:{server.port}")
        for key, value in entries.items():
            fields = json.loads(value)
            # From the disk, and then from memory.
            for _ in range(2):
                entry = client.get_many([key])[0]
                assert entry is not None
                assert (entry.artifact, entry.compile_ms) == (base64.b64decode(fields["data"]), fields["time_taken_ms"])
