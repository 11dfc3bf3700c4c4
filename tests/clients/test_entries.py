"""PyTorch's entries: stored small, and given back byte for byte."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from devtools import paths
from devtools.servers import Pilotlight, disk_bytes
from tests.clients.artifacts import fx_key, size_between, torch_json
from tests.clients.conftest import Launch

RATIO_MIN = 13


def test_torch_shaped_entries_come_back_byte_equal_also_after_a_restart(launch: Launch, rng: random.Random) -> None:
    entries = {fx_key(n): torch_json(n, size_between(rng, 300, 2 << 20)) for n in (rng.getrandbits(60) for _ in range(60))}
    # Nearly PyTorch's, but spelled otherwise: must be kept as it came.
    genuine = torch_json(1, 50_000)
    fields = json.loads(genuine)
    entries |= {
        b"spelled:compact": json.dumps(fields, separators=(",", ":")).encode(),
        b"spelled:indented": json.dumps(fields, indent=1).encode(),
        b"spelled:other-order": json.dumps(dict(reversed(list(fields.items())))).encode(),
        b"spelled:more": json.dumps(fields | {"more": [1, 2.50, None]}).encode(),
        b"spelled:float": genuine.replace(b'_ms": ', b'_ms": 1e'),
        b"spelled:base64-with-newline": json.dumps({**fields, "data": fields["data"] + "\n"}).encode(),
        b"spelled:base64-unpadded": json.dumps({**fields, "data": "QUI"}).encode(),
        b"spelled:base64-stray-bits": json.dumps({**fields, "data": "QUJ="}).encode(),
        b"spelled:empty": json.dumps({**fields, "data": ""}).encode(),
        b"spelled:trailing-space": genuine + b" ",
        b"spelled:cut": genuine[:-1],
        b"spelled:escaped": genuine.replace(b'"data"', b'"d\\u0061ta"'),
    }
    server = launch()
    _put(server, entries)
    _check(server, entries)
    server.stop()
    server.start()
    _check(server, entries)


def test_corpus_entries_come_back_byte_equal_and_take_a_thirteenth_on_disk(launch: Launch, tmp_path: Path) -> None:
    corpus = paths.corpus()
    if corpus is None:
        pytest.skip("no corpus of real entries (set PILOTLIGHT_CORPUS to a directory with a manifest.jsonl)")
    entries = read_corpus(corpus)
    as_json = sum(map(len, entries.values()))

    server = launch()
    empty = disk_bytes(server.data_dir)
    _put(server, entries)
    server.stop()
    grown = disk_bytes(server.data_dir) - empty
    server.start()
    _check(server, entries)
    print(f"{len(entries)} entries, {as_json} bytes as JSON, {grown} on disk: {as_json / max(grown, 1):.1f} times smaller")
    assert grown * RATIO_MIN <= as_json


def read_corpus(corpus: Path) -> dict[bytes, bytes]:
    """Keys and entries as PyTorch put them. They hold pickles, which nothing here opens."""
    zstandard = pytest.importorskip("zstandard")
    lines = (corpus / "manifest.jsonl").read_text().splitlines()
    entries = {}
    for line in map(json.loads, lines):
        data = zstandard.ZstdDecompressor().decompressobj().decompress((corpus / line["file"]).read_bytes())
        assert len(data) == line["size_bytes"]
        entries[line["key"].encode()] = data
    return entries


def _put(server: Pilotlight, entries: Mapping[bytes, bytes]) -> None:
    with server.connect() as connection:
        for key, data in entries.items():
            assert connection.command("SET", key, data) == b"OK"


def _check(server: Pilotlight, entries: Mapping[bytes, bytes]) -> None:
    with server.connect() as connection:
        for key, data in entries.items():
            assert connection.command("GET", key) == data, key
