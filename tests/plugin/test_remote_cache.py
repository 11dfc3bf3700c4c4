"""`pilotlight.remote_cache` by itself: what torch promises of its module, without torch; and its surface beside torch's."""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pilotlight import remote_cache
from pilotlight.remote_cache import (
    RemoteCache,
    RemoteCacheBackend,
    RemoteCacheJsonSerde,
    RemoteCachePassthroughSerde,
    create_cache,
)

from devtools.servers import Pilotlight
from tests.plugin.conftest import PYTHON


@pytest.fixture(autouse=True)
def stats(monkeypatch: pytest.MonkeyPatch) -> Any:
    fresh = remote_cache._CacheStats()
    monkeypatch.setattr(remote_cache, "cache_stats", fresh)
    return fresh._stats


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What goes to torch's logger. Not pytest's own fixture: torch, once imported, keeps its loggers to itself."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, logger = Handler(), logging.getLogger("torch._inductor.remote_cache")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.setLevel(before)
    logger.removeHandler(handler)


class Failing(RemoteCacheBackend[str]):
    def _get(self, key: str) -> str | None:
        raise RuntimeError(f"no {key} for you")

    def _put(self, key: str, data: str) -> None:
        raise RuntimeError(f"no place for {data}")


class Keeping(RemoteCacheBackend[Any]):
    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Any] = {}
        self.operations: list[str] = []

    def _get(self, key: str) -> Any:
        self.operations.append(f"get {key}")
        return self.kept.get(key)

    def _put(self, key: str, data: Any) -> None:
        self.operations.append(f"put {key}")
        self.kept[key] = data


@dataclass
class Noted:
    fail_reason: str | None = None


class Observed(RemoteCache[Any]):
    def __init__(self, backend: RemoteCacheBackend[Any]) -> None:
        super().__init__(backend, RemoteCachePassthroughSerde())
        self.logged: list[Any] = []

    def _create_sample(self) -> Any:
        return Noted()

    def _log_sample(self, sample: Any) -> None:
        self.logged.append(sample)


def outcomes(stat: Any) -> tuple[int, int, int, int, int]:
    return stat.hit, stat.miss, stat.put, stat.exception, stat.drop


def test_each_operation_is_one_of_the_backend_s_and_counted_at_both_levels(stats: Any) -> None:
    backend = Keeping()
    cache = Observed(backend)
    assert cache.get("k") is None
    cache.put("k", "v")
    assert cache.get("k") == "v"
    assert backend.operations == ["get k", "put k", "get k"]
    assert outcomes(stats["Observed"]) == outcomes(stats["backend:Keeping"]) == (1, 1, 1, 0, 0)
    assert [sample.fail_reason for sample in cache.logged] == [None, None, None]


def test_what_the_backend_raises_is_counted_noted_on_the_sample_and_raised(stats: Any) -> None:
    cache = Observed(Failing())
    with pytest.raises(RuntimeError):
        cache.put("k", "v")
    with pytest.raises(RuntimeError):
        cache.get("k")
    assert [sample.fail_reason for sample in cache.logged] == ["no place for v", "no k for you"]
    assert outcomes(stats["Observed"]) == outcomes(stats["backend:Failing"]) == (0, 0, 0, 2, 0)


def test_without_a_sample_the_error_is_raised_all_the_same() -> None:
    cache: RemoteCache[str] = RemoteCache(Failing(), RemoteCachePassthroughSerde())
    with pytest.raises(RuntimeError, match="no place"):
        cache.put("k", "v")
    with pytest.raises(RuntimeError, match="no k"):
        cache.get("k")


def test_none_cannot_be_put(stats: Any) -> None:
    backend = Keeping()
    with pytest.raises(AssertionError):
        Observed(backend).put("k", None)
    assert (backend.operations, dict(stats)) == ([], {})


def test_an_empty_value_is_a_hit_of_the_backend_and_a_miss_of_the_cache(stats: Any) -> None:
    backend = Keeping()
    backend.kept["k"] = b""
    assert Observed(backend).get("k") is None
    assert (stats["Observed"].miss, stats["backend:Keeping"].hit) == (1, 1)


def test_a_broken_value_is_an_exception_of_the_cache_and_a_hit_of_the_backend(stats: Any) -> None:
    class Json(RemoteCache[Any]):
        pass

    backend = Keeping()
    backend.kept["k"] = b"{"
    with pytest.raises(json.JSONDecodeError):
        Json(backend, RemoteCacheJsonSerde()).get("k")
    assert (stats["Json"].exception, stats["backend:Keeping"].hit) == (1, 1)


def test_steps_can_be_overridden_one_by_one() -> None:
    class Upper(Observed):
        def _decode(self, data: Any, sample: Any) -> Any:
            return data.lower()

        def _encode(self, value: Any, sample: Any) -> object:
            return value.upper()

        def _backend_get(self, key: str) -> object:
            return super()._backend_get(f"p:{key}")

        def _backend_put(self, key: str, data: object) -> None:
            super()._backend_put(f"p:{key}", data)

    backend = Keeping()
    cache = Upper(backend)
    cache.put("k", "value")
    assert backend.kept == {"p:k": "VALUE"}
    assert cache.get("k") == "value"


@pytest.mark.parametrize(
    "name",
    [
        "RemoteFxGraphCache",
        "RemoteAOTAutogradCache",
        "RemoteAutotuneCache",
        "RemoteBundledAutotuneCache",
        "RemoteDynamoPGOCache",
    ],
)
def test_a_test_s_backend_takes_the_place_of_one_class_s(name: str, monkeypatch: pytest.MonkeyPatch, stats: Any) -> None:
    backend = Keeping()
    monkeypatch.setattr(getattr(remote_cache, name), "backend_override_cls", lambda: backend)
    # The shape in which torch 2.6 calls it.
    cache = create_cache("an-id", False, "FbNone", name)
    assert cache is not None
    cache.put("some-key", {"data": "x"})
    assert backend.kept == {"pt2:an-id::some-key:c1": b'{"data": "x"}'}
    assert cache.get("some-key") == {"data": "x"}
    assert outcomes(stats[name]) == (1, 0, 1, 0, 0)
    assert remote_cache.RedisRemoteCache.backend_override_cls is None


def test_what_cannot_be_made_is_none_with_a_warning(logged: list[str]) -> None:
    assert create_cache("id", oss_cache_cls="NoSuchCache") is None
    assert create_cache("id", is_fbcode=True, fb_cache_cls="FbCache") is None
    assert create_cache("id") is None
    assert logged == ["Unable to create cache"] * 3


def test_local_caches_keep_files(tmp_path: Path, stats: Any, logged: list[str]) -> None:
    cache = create_cache("local-autotune", local_cache_cls="LocalAutotuneCache")
    assert cache is not None
    key = str(tmp_path / "ab" / "k.best_config")
    assert cache.get(key) is None
    cache.put(key, {"num_warps": 4})
    assert cache.get(key) == {"num_warps": 4}
    assert [path.name for path in (tmp_path / "ab").iterdir()] == ["k.best_config"]
    for broken in (b'{"num_warps": 4', b"\xff"):
        Path(key).write_bytes(broken)
        assert cache.get(key) is None
    assert [line.startswith("Ignoring corrupt local cache entry") for line in logged] == [True, True]
    assert outcomes(stats["LocalAutotuneCache"]) == (1, 3, 1, 0, 0)


@pytest.mark.parametrize("variable", ["PILOTLIGHT_URL", "TORCHINDUCTOR_REDIS_URL", "TORCHINDUCTOR_REDIS_PORT"])
def test_each_way_to_name_a_remote_reaches_it(
    server: Pilotlight, variable: str, monkeypatch: pytest.MonkeyPatch, stats: Any
) -> None:
    for name in ("PILOTLIGHT_URL", "TORCHINDUCTOR_REDIS_URL", "TORCHINDUCTOR_REDIS_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCHINDUCTOR_REDIS_HOST", server.host)
    monkeypatch.setenv(variable, str(server.port) if variable.endswith("PORT") else server.redis_url)
    value: Any = {"data": "QUJD", "time_taken_ms": 7}
    for name in ("first", "second"):
        cache = create_cache("fx-graph-v1", oss_cache_cls="RemoteFxGraphCache")
        assert cache is not None
        if name == "first":
            assert cache.get("f" * 52) is None
            cache.put("f" * 52, value)
    assert cache is not None
    assert cache.get("f" * 52) == value
    with server.connect(timeout_s=5.0) as connection:
        assert json.loads(connection.command("GET", f"pt2:fx-graph-v1::{'f' * 52}:c1")) == value
    assert outcomes(stats["RemoteFxGraphCache"]) == outcomes(stats["backend:RedisRemoteCacheBackend"]) == (1, 1, 1, 0, 0)


def test_trouble_is_a_miss_and_a_drop_and_never_raised(monkeypatch: pytest.MonkeyPatch, stats: Any) -> None:
    monkeypatch.setenv("PILOTLIGHT_URL", "redis://127.0.0.1:9")
    cache = create_cache("fx-graph-v1", oss_cache_cls="RemoteFxGraphCache")
    assert cache is not None
    assert cache.get("k") is None
    cache.put("k", {"data": ""})
    assert outcomes(stats["RemoteFxGraphCache"]) == outcomes(stats["backend:RedisRemoteCacheBackend"]) == (0, 1, 0, 0, 1)


def test_counters_are_logged_as_torch_logs_them(stats: Any, logged: list[str]) -> None:
    remote_cache.dump_cache_stats()
    remote_cache.cache_stats.hit("RemoteFxGraphCache", 2)
    remote_cache.cache_stats.drop("RemoteAutotuneCache")
    remote_cache.dump_cache_stats()
    assert logged == [
        "Cache Metrics: None\n",
        "Cache Metrics:\n"
        "  RemoteAutotuneCache: {hit: 0, miss: 0, put: 0, exception: 0, drop: 1}\n"
        "  RemoteFxGraphCache: {hit: 2, miss: 0, put: 0, exception: 0}\n",
    ]


def test_counters_are_logged_at_exit_only_if_asked_for() -> None:
    code = "import logging, pilotlight.remote_cache as r\nlogging.basicConfig(level='{}')\nr.cache_stats.miss('X')"
    for level, told in (("INFO", True), ("WARNING", False)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(level)], env={"PYTHONPATH": str(PYTHON)}, capture_output=True, text=True
        )
        assert done.returncode == 0
        assert ("X: {hit: 0, miss: 1, put: 0, exception: 0}" in done.stderr) == told


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['redis'] = None; sys.modules['typing_extensions'] = None\n"
        "import pilotlight.remote_cache as r\n"
        "with r.remote_fx_cache_get_timed(): pass\n"
        "with r.remote_fx_cache_put_timed(): pass\n"
        "c = r.create_cache('local', local_cache_cls='LocalAutotuneCache')\n"
        "import tempfile, os; k = os.path.join(tempfile.mkdtemp(), 'd', 'k'); c.put(k, [1]); print(c.get(k))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], env={"PYTHONPATH": str(PYTHON)}, text=True) == "[1]\n"


def test_the_surface_is_torch_s() -> None:
    theirs = _theirs()
    for name in [*_own_names(theirs), "_CacheStat", "_CacheStats"]:
        if not hasattr(theirs, name):
            continue
        ours = getattr(remote_cache, name)
        their = getattr(theirs, name)
        if inspect.isclass(their):
            assert [base.__name__ for base in ours.__mro__] == [base.__name__ for base in their.__mro__], name
            for member, value in vars(their).items():
                if callable(value) and (not member.startswith("__") or member == "__init__"):
                    _same_parameters(getattr(ours, member), value, f"{name}.{member}")
                elif not member.startswith("__"):
                    assert hasattr(ours, member), f"{name}.{member}"
        elif inspect.isfunction(their):
            _same_parameters(ours, their, name)
        else:
            assert callable(ours) == callable(their), name


def _theirs() -> Any:
    """torch's module from its file: the one that torch has imported may be patched."""
    stock = pytest.importorskip("torch._inductor.remote_cache")
    spec = importlib.util.spec_from_file_location("stock_remote_cache", stock.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _own_names(module: Any) -> Iterator[str]:
    """What the module itself defines, not what it imports."""
    for name, value in vars(module).items():
        home = getattr(value, "__module__", module.__name__)
        if not name.startswith("_") and not inspect.ismodule(value) and home in (module.__name__, "functools"):
            yield name


def _same_parameters(ours: Any, theirs: Any, what: str) -> None:
    shapes = [
        # A parameter that only the dataclass here has comes last and has a default.
        [(parameter.name, parameter.kind, parameter.default) for parameter in inspect.signature(function).parameters.values()]
        for function in (ours, theirs)
    ]
    assert shapes[0][: len(shapes[1])] == shapes[1], what
    assert all(default is not inspect.Parameter.empty for _, _, default in shapes[0][len(shapes[1]) :]), what
