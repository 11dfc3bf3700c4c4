"""Triton's cache manager over our backend: no GPU is needed to keep and find files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devtools import paths
from devtools.servers import Pilotlight, Redis
from tests.plugin.conftest import Programs, url_of

cache = pytest.importorskip("triton.runtime.cache", reason="no triton here: its wheels are for Linux")

KEY = "ab" * 32
FILES = {"kernel.cubin": bytes(range(256)) * 500, "kernel.ttir": b"module {}", "kernel.json": b"{}"}


VARIABLES = {
    "TRITON_CACHE_MANAGER": "triton.runtime.cache:RemoteCacheManager",
    "TRITON_REMOTE_CACHE_BACKEND": "pilotlight.triton:RemoteCacheBackend",
}


@pytest.fixture
def environment(server: Pilotlight, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    from pilotlight import _summary, triton

    monkeypatch.setenv("PILOTLIGHT_URL", url_of(server))
    for variable, value in VARIABLES.items():
        monkeypatch.setenv(variable, value)
    # This process is no program of a user's: it is not to speak at its end.
    monkeypatch.setattr(_summary, "start", lambda: None)
    monkeypatch.setattr(triton, "_asked_s", 0.0)
    triton._tell.cache_clear()
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


def found(made: Any) -> dict[str, bytes] | None:
    group = made.get_group("kernel.json")
    return None if group is None else {name: Path(path).read_bytes() for name, path in group.items()}


def test_a_kernel_on_this_disk_needs_no_network(environment: pytest.MonkeyPatch, tmp_path: Path, server: Pilotlight) -> None:
    put(manager(environment, tmp_path))
    here = manager(environment, tmp_path)
    before = here._backend._client.stats()
    assert found(here) == FILES
    after = here._backend._client.stats()
    assert (after["gets"], after["puts"]) == (before["gets"], before["puts"]), "the remote has it, and is asked just that"
    server.stop()
    assert found(manager(environment, tmp_path)) == FILES
    environment.delenv("PILOTLIGHT_URL")
    assert found(manager(environment, tmp_path)) == FILES


def test_a_kernel_on_this_disk_fills_an_empty_remote(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("TRITON_CACHE_DIR", str(tmp_path / "first"))
    alone = cache.FileCacheManager(manager(environment, tmp_path / "first")._backend._key)
    alone.put_group("kernel.json", {name: alone.put(data, name) for name, data in FILES.items()})
    first = manager(environment, tmp_path / "first")
    assert found(first) == FILES
    assert found(manager(environment, tmp_path / "second")) == FILES
    group = first._backend._client.get_many([first._backend._remote_key("__grp__kernel.json")])[0]
    assert str(tmp_path).encode() not in group.artifact, "where this disk has its files is nobody else's"


def test_what_lies_on_this_disk_in_part_comes_whole(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put(manager(environment, tmp_path / "first"))
    second = manager(environment, tmp_path / "second")
    assert found(second) == FILES
    Path(second.get_file("kernel.cubin")).unlink()
    # As from another compile: not to be mixed with the one that comes.
    Path(second.get_file("kernel.ttir")).write_bytes(b"other")
    assert found(manager(environment, tmp_path / "second")) == FILES


def test_a_remote_that_nobody_named_is_said_once(
    environment: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pilotlight import _summary

    environment.setattr(_summary, "may_speak", lambda: True)
    environment.delenv("PILOTLIGHT_URL")
    environment.delenv("PILOTLIGHT_QUIET", raising=False)
    for _ in range(2):
        put(manager(environment, tmp_path))
    said = capsys.readouterr().err
    assert said.startswith("pilotlight: PILOTLIGHT_URL is not set: Triton's kernels are kept on this disk only\nhint: ")
    assert said.count("pilotlight: ") == 1
    environment.setenv("TRITON_REDIS_HOST", "127.0.0.1")
    environment.setenv("TRITON_REDIS_PORT", "none")
    put(manager(environment, tmp_path))
    assert capsys.readouterr().err.startswith("pilotlight: TRITON_REDIS_HOST and TRITON_REDIS_PORT: ")


PROGRAM = f"""
from triton.runtime.cache import get_cache_manager
made = get_cache_manager({KEY!r})
if made.get_group("kernel.json") is None:
    made.put_group("kernel.json", {{name: made.put(data, name) for name, data in {FILES!r}.items()}})
"""


def test_a_program_without_torch_says_and_reports_what_it_did(programs: Programs, server: Pilotlight, tmp_path: Path) -> None:
    ran = [
        programs.run(PROGRAM, url=url_of(server), env=VARIABLES | {"TRITON_CACHE_DIR": str(tmp_path / name)})
        for name in ("first", "second")
    ]
    assert [(each.report["miss"], each.report["put"], each.report["hit"]) for each in ran] == [
        ({"triton": {"absent": 1}}, {"triton": {"": 1}}, {}),
        ({}, {}, {"triton": {"": 1}}),
    ]
    start, summary = ran[1].err.splitlines()
    assert start.startswith(f"pilotlight: {url_of(server)}, Triton's kernels, round trip ")
    assert summary.startswith("pilotlight: 1 hit, 0 misses, 0 puts; ")


def test_on_a_plain_redis_keys_are_the_same_behind_a_prefix(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if paths.tool("redis-server") is None:
        pytest.skip("redis-server is not installed and could not be fetched (make tools)")
    with Redis(tmp_path / "redis", append_only=False) as redis:
        environment.setenv("PILOTLIGHT_URL", f"redis://{redis.host}:{redis.port}")
        made = manager(environment, tmp_path / "first")
        put(made)
        with redis.connect(timeout_s=5.0) as connection:
            keys = connection.command("KEYS", "*")
        names = (*FILES, "__grp__kernel.json")
        assert set(keys) == {f"pilotlight:1:triton:{made._backend._key}:{name}".encode() for name in names}
        assert found(manager(environment, tmp_path / "second")) == FILES
