"""Triton's cache manager over our backend: no GPU is needed to keep and find files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devtools.servers import Pilotlight
from tests.plugin.conftest import url_of

cache = pytest.importorskip("triton.runtime.cache", reason="no triton here: its wheels are for Linux")

KEY = "ab" * 32
FILES = {"kernel.cubin": bytes(range(256)) * 500, "kernel.ttir": b"module {}", "kernel.json": b"{}"}


@pytest.fixture
def environment(server: Pilotlight, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("PILOTLIGHT_URL", url_of(server))
    monkeypatch.setenv("TRITON_CACHE_MANAGER", "triton.runtime.cache:RemoteCacheManager")
    monkeypatch.setenv("TRITON_REMOTE_CACHE_BACKEND", "pilotlight.triton:RemoteCacheBackend")
    return monkeypatch


def manager(environment: pytest.MonkeyPatch, directory: Path) -> Any:
    """Triton's, on a machine with nothing in it."""
    environment.setenv("TRITON_CACHE_DIR", str(directory))
    made = cache.get_cache_manager(KEY)
    assert type(made).__name__ == "RemoteCacheManager"
    assert type(made._backend).__module__ == "pilotlight.triton"
    return made


def put(made: Any) -> None:
    paths = {name: made.put(data, name) for name, data in FILES.items()}
    made.put_group("kernel.json", paths)


def test_another_machine_finds_the_whole_group(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = manager(environment, tmp_path / "first")
    assert first.get_group("kernel.json") is None
    put(first)
    second = manager(environment, tmp_path / "second")
    before = second._backend._client.stats()["round_trips"]
    group = second.get_group("kernel.json")
    assert second._backend._client.stats()["round_trips"] - before == 2
    assert group is not None
    assert {name: Path(path).read_bytes() for name, path in group.items()} == FILES
    assert all(str(tmp_path / "second") in path for path in group.values())
    assert Path(second.get_file("kernel.ttir")).read_bytes() == b"module {}"
    assert second.get_file("kernel.none") is None


def test_its_files_stand_under_triton_s_own_keys(environment: pytest.MonkeyPatch, tmp_path: Path, server: Pilotlight) -> None:
    made = manager(environment, tmp_path)
    put(made)
    with server.connect(timeout_s=5.0) as connection:
        for name, data in FILES.items():
            assert connection.command("GET", f"triton:{made._backend._key}:{name}") == data


@pytest.mark.parametrize("lost", list(FILES))
def test_a_group_that_lacks_a_file_is_a_miss_and_whole_after_the_next_put(
    environment: pytest.MonkeyPatch, tmp_path: Path, lost: str
) -> None:
    first = manager(environment, tmp_path / "first")
    put(first)
    assert first._backend._client.delete(first._backend._remote_key(lost))
    assert manager(environment, tmp_path / "second").get_group("kernel.json") is None
    put(manager(environment, tmp_path / "third"))
    assert manager(environment, tmp_path / "fourth").get_group("kernel.json") is not None


def test_a_group_one_of_whose_files_was_dropped_is_not_put(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = manager(environment, tmp_path)

    class Dropping:
        def __init__(self, client: Any) -> None:
            self._client = client

        def put(self, key: bytes, data: bytes, **more: Any) -> bool:
            return not key.endswith(b"cubin") and bool(self._client.put(key, data, **more))

        def get_many(self, keys: list[bytes]) -> Any:
            return self._client.get_many(keys)

    made._backend._client = Dropping(made._backend._client)
    put(made)
    assert manager(environment, tmp_path / "second").get_file("__grp__kernel.json") is None


def test_a_dead_remote_is_a_miss(environment: pytest.MonkeyPatch, tmp_path: Path, server: Pilotlight) -> None:
    server.stop()
    made = manager(environment, tmp_path)
    assert made.get_group("kernel.json") is None
    put(made)


def test_a_remote_named_as_for_stock_triton_is_found(
    environment: pytest.MonkeyPatch, tmp_path: Path, server: Pilotlight
) -> None:
    environment.delenv("PILOTLIGHT_URL")
    environment.setenv("TRITON_REDIS_HOST", server.host)
    environment.setenv("TRITON_REDIS_PORT", str(server.port))
    put(manager(environment, tmp_path / "first"))
    assert manager(environment, tmp_path / "second").get_group("kernel.json") is not None
