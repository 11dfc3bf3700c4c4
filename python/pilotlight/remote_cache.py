"""A drop-in for `torch._inductor.remote_cache`, as it stands in torch 2.6 to 2.15, with Pilotlight's client behind it.

It can be imported without torch, and can stand in torch's place (`sys.modules["torch._inductor.remote_cache"]`).

The model: a `RemoteCache` is the controller; it turns objects into bytes with its serde and hands those to its backend.
One cache operation is one backend operation. Both count what came of it in `cache_stats`, under their class names.

What differs from torch's module:

1. `RedisRemoteCacheBackend` never raises for trouble on the other side, never hangs, and recovers: a failed get is a
   miss, a failed put is dropped.
2. A dropped put is counted as `drop`, not as `put`.
3. All caches of a process share one client.

What a user's own `_get`, `_put` or backend raises is counted and passed on, as torch does.

Sources: `torch/_inductor/remote_cache.py` of torch 2.6.0, 2.8.0, 2.10.0, 2.12.0 and 2.15.0.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import logging
import os
import sys
import tempfile
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, Union, cast

from pilotlight import _stock
from pilotlight._outcomes import _CacheStat as _CacheStat
from pilotlight._outcomes import _CacheStats as _CacheStats
from pilotlight._outcomes import drops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pilotlight._native import Client

# torch's name for it, so that TORCH_LOGS=cache shows what is logged here too.
log = logging.getLogger("torch._inductor.remote_cache")

Sample: TypeAlias = type[object]
JsonDataTy: TypeAlias = Union[int, float, str, bool, dict[str, "JsonDataTy"], list["JsonDataTy"], None]  # noqa: UP007

_T = TypeVar("_T")
_U = TypeVar("_U")


@contextlib.contextmanager
def _timed(name: str, **how: Any) -> Iterator[None]:
    """`torch._dynamo.utils.dynamo_timed` where torch is loaded, nothing elsewhere."""
    dynamo_utils = sys.modules.get("torch._dynamo.utils")
    if dynamo_utils is None:
        yield
    else:
        with dynamo_utils.dynamo_timed(name, **how):
            yield


def _timed_as(operation: str) -> Callable[..., contextlib.AbstractContextManager[None]]:
    return functools.partial(
        _timed,
        f"FbRemoteFxGraphCache.{operation}",
        phase_name=f"remote_fx_graph_cache_{operation}",
        log_pt2_compile_event=False,
        dynamo_compile_column_us=f"remote_fx_graph_cache_{operation}_time_us",
        log_waitcounter=True,
    )


remote_fx_cache_get_timed = _timed_as("get")
remote_fx_cache_put_timed = _timed_as("put")


def _wait_counted(name: str) -> contextlib.AbstractContextManager[Any]:
    """torch's counter of time spent waiting, where torch is loaded."""
    monitor = sys.modules.get("torch.monitor")
    counter = getattr(monitor, "_WaitCounter", None)
    return contextlib.nullcontext() if counter is None else counter(name).guard()


class RemoteCacheBackend(Generic[_T]):
    """Keeps values under keys. Subclasses write `_get` and `_put`; the public methods count."""

    def __init__(self) -> None:
        self._name = f"backend:{type(self).__name__}"

    @abstractmethod
    def _get(self, key: str) -> _T | None: ...

    @abstractmethod
    def _put(self, key: str, data: _T) -> None: ...

    def get(self, key: str) -> _T | None:
        """What stands under `key`, or `None`."""
        with _exceptions_counted(self._name):
            value = self._get(key)
            cache_stats.get(self._name, value)
        return value

    def put(self, key: str, data: _T) -> None:
        """Puts `data` in place of what stands under `key`."""
        with _exceptions_counted(self._name):
            dropped_before = drops.count
            self._put(key, data)
            cache_stats._put_or_drop(self._name, dropped_before)


class RemoteCacheSerde(Generic[_T, _U]):
    """Turns what the cache is given (`_T`) into what the backend keeps (`_U`), and back."""

    @abstractmethod
    def encode(self, data: _T) -> _U: ...

    @abstractmethod
    def decode(self, data: _U) -> _T: ...


class RemoteCacheJsonSerde(RemoteCacheSerde[JsonDataTy, bytes]):
    """JSON in ASCII."""

    def encode(self, data: JsonDataTy) -> bytes:
        return json.dumps(data).encode("ascii")

    def decode(self, data: bytes) -> JsonDataTy:
        return cast(JsonDataTy, json.loads(data))


class RemoteCachePassthroughSerde(RemoteCacheSerde[_T, _T]):
    """The value as it is."""

    def encode(self, data: _T) -> _T:
        return data

    def decode(self, data: _T) -> _T:
        return data


class LocalCacheBackend(RemoteCacheBackend[bytes]):
    """A file per key; the key is its path."""

    def _get(self, key: str) -> bytes | None:
        try:
            with open(key, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def _put(self, key: str, data: bytes) -> None:
        os.makedirs(os.path.dirname(key), exist_ok=True)
        codecache = sys.modules.get("torch._inductor.codecache")
        if codecache is not None:
            codecache.write_atomic(key, data)
        else:
            _write_atomic(key, data)


class RemoteCache(Generic[_T]):
    """The controller over a serde and a backend. Subclass it: the class's name is what the counters go by."""

    # Tests put their own backend in the place of every cache of a class with it.
    backend_override_cls: Callable[[], RemoteCacheBackend[Any]] | None = None

    def __init__(self, backend: RemoteCacheBackend[_U], serde: RemoteCacheSerde[_T, _U]) -> None:
        override = type(self).backend_override_cls
        # Not generic over what the backend keeps: torch's class is not either.
        self.backend: RemoteCacheBackend[Any] = backend if override is None else override()
        self.serde: RemoteCacheSerde[_T, Any] = serde

    def get(self, key: str) -> _T | None:
        """The value under `key`, or `None`."""
        with _wait_counted("pytorch.remote_cache.get"), self._observed() as sample:
            value = self._get(key, sample)
            cache_stats.get(type(self).__name__, value)
        return value

    def put(self, key: str, value: _T) -> None:
        """Puts `value` under `key`. `None` is refused, since a get could not tell it from a miss."""
        if value is None:
            raise AssertionError("cannot put None into the cache")
        with _wait_counted("pytorch.remote_cache.put"), self._observed() as sample:
            dropped_before = drops.count
            self._put(key, value, sample)
            cache_stats._put_or_drop(type(self).__name__, dropped_before)

    @contextlib.contextmanager
    def _observed(self) -> Iterator[Sample | None]:
        """One operation's sample: logged however the operation ends, with the reason if it fails."""
        sample = self._create_sample()
        try:
            with _exceptions_counted(type(self).__name__):
                yield sample
        except Exception as error:
            if sample:
                sample.fail_reason = str(error)  # type: ignore[attr-defined]
            raise
        finally:
            self._log_sample(sample)

    # The steps of get and put. Each can be overridden by itself, as in torch.

    def _decode(self, data: Any, sample: Sample | None) -> _T:
        return self.serde.decode(data)

    def _encode(self, value: _T, sample: Sample | None) -> object:
        return self.serde.encode(value)

    def _get(self, key: str, sample: Sample | None) -> _T | None:
        # An empty value is a miss here, though a hit for the backend: torch's own rule.
        data = self._backend_get(key)
        return self._decode(data, sample) if data else None

    def _backend_get(self, key: str) -> object:
        return self.backend.get(key)

    def _put(self, key: str, value: _T, sample: Sample | None) -> None:
        self._backend_put(key, self._encode(value, sample))

    def _backend_put(self, key: str, data: object) -> None:
        self.backend.put(key, data)

    def _create_sample(self) -> Sample | None:
        return None

    def _log_sample(self, sample: Sample | None) -> None:
        return None


class RedisRemoteCacheBackend(RemoteCacheBackend[bytes]):
    """The remote that PILOTLIGHT_URL names; without it the one that torch's own variables name.

    Those are TORCHINDUCTOR_REDIS_URL, or TORCHINDUCTOR_REDIS_HOST and _PORT, or a Redis on this host.
    """

    # Named as in torch.
    _redis: Client | None = None

    def __init__(self, cache_id: str) -> None:
        super().__init__()
        self._redis = _stock.client()

    def _get(self, key: str) -> bytes | None:
        if self._redis is None:
            return None
        value = self._redis.get_raw(key.encode())
        # Whoever decodes it shall have been told first that nobody trusted signed it.
        _stock.pass_notices()
        return value

    def _put(self, key: str, data: bytes) -> None:
        if self._redis is None or not self._redis.put_raw(key.encode(), data):
            drops.count += 1


class RedisRemoteCache(RemoteCache[JsonDataTy]):
    """JSON values under `pt2:{cache_id}::{key}:c1`."""

    def __init__(self, cache_id: str) -> None:
        # With another backend in its place there is nothing to connect to, and no client has to be there.
        overridden = type(self).backend_override_cls is not None
        backend = cast(RedisRemoteCacheBackend, None) if overridden else RedisRemoteCacheBackend(cache_id)
        super().__init__(backend, RemoteCacheJsonSerde())
        self._key_fmt = f"pt2:{cache_id}::{{key}}:c1"

    def _get_key(self, key: str) -> str:
        return self._key_fmt.format(key=key)

    def _get(self, key: str, sample: Sample | None) -> JsonDataTy | None:
        return super()._get(self._get_key(key), sample)

    def _put(self, key: str, value: JsonDataTy, sample: Sample | None) -> None:
        super()._put(self._get_key(key), value, sample)


class LocalCache(RemoteCache[JsonDataTy]):
    """JSON files. Made through `create_cache` like the remote ones, hence the unused `cache_id`."""

    def __init__(self, cache_id: str) -> None:
        super().__init__(LocalCacheBackend(), RemoteCacheJsonSerde())

    def _get(self, key: str, sample: Sample | None) -> JsonDataTy | None:
        try:
            return super()._get(key, sample)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            log.warning("Ignoring corrupt local cache entry %s: %s: %s", key, type(error).__name__, error)
            return None


class LocalAutotuneCache(LocalCache):
    """A kernel's best config, beside the kernel."""


class RemoteAutotuneCache(RedisRemoteCache):
    """A Triton kernel's best config."""


class RemoteBundledAutotuneCache(RedisRemoteCache):
    """The best configs of all kernels of one graph."""


class RemoteFxGraphCache(RedisRemoteCache):
    """Compiled graphs."""


class RemoteAOTAutogradCache(RedisRemoteCache):
    """What stands around compiled graphs: wrappers, guards, and the keys of the graphs."""


class RemoteDynamoPGOCache(RedisRemoteCache):
    """Which sizes have changed in earlier runs."""


def create_cache(
    key: str,
    is_fbcode: bool = False,
    fb_cache_cls: str | None = None,
    oss_cache_cls: str | None = None,
    *,
    local_cache_cls: str | None = None,
) -> RemoteCache[JsonDataTy] | None:
    """A cache of the named class for the cache id `key`, or `None` with a warning."""
    try:
        module = sys.modules[__name__]
        name = local_cache_cls
        if name is None and is_fbcode:
            module, name = importlib.import_module("torch._inductor.fb.remote_cache"), fb_cache_cls
        elif name is None:
            name = oss_cache_cls
        if name is None:
            raise AssertionError("the name of the cache's class must not be None")
        # Looked up now, so that a class put in another's place counts.
        return cast("RemoteCache[JsonDataTy]", getattr(module, name)(key))
    except Exception:
        log.warning("Unable to create cache", exc_info=True)
        return None


cache_stats = _CacheStats()


@atexit.register
def dump_cache_stats() -> None:
    """Logs the counters; at exit by itself."""
    if not log.isEnabledFor(logging.INFO):
        return
    lines = [f"  {name}: {stat}" for name, stat in sorted(cache_stats._stats.items())]
    log.info("Cache Metrics:%s", "\n" + "\n".join(lines) + "\n" if lines else " None\n")


@contextlib.contextmanager
def _exceptions_counted(name: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        cache_stats.exception(name)
        raise


def _write_atomic(path: str, data: bytes) -> None:
    """Readers see the old file or the whole new one."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
