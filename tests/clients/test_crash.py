"""kill -9 under write load: what was acknowledged is there."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field

import pytest

from devtools.servers import Pilotlight
from tests.clients.artifacts import fx_key, random_bytes, size_between, torch_json
from tests.clients.conftest import Launch
from tests.soak import rounds

# Not beside the test that writes 2 GiB: how long a start takes is asserted here.
pytestmark = pytest.mark.xdist_group("disk")

KILLS = 100
WRITERS = 4
# A writer replaces what it wrote from there on: nothing may be evicted, however long this runs.
KEYS_MAX = 2000
REOPEN_S_MAX = 1.0
SAMPLE = 20


@dataclass(frozen=True)
class Artifact:
    """Enough to make the bytes again."""

    number: int
    size: int

    def data(self) -> bytes:
        return torch_json(self.number, self.size) if self.number % 4 == 0 else random_bytes(self.number, self.size)


@dataclass
class Written:
    """What one writer knows. A key whose put was cut off may hold the old artifact or the new one, but nothing else."""

    acknowledged: dict[bytes, Artifact] = field(default_factory=dict)
    unanswered: dict[bytes, Artifact] = field(default_factory=dict)

    def check(self, key: bytes, found: bytes | None) -> None:
        candidates = [artifacts[key].data() for artifacts in (self.acknowledged, self.unanswered) if key in artifacts]
        what = "nothing" if found is None else f"{len(found)} other bytes"
        assert found in candidates, f"{key!r}: acknowledged {self.acknowledged[key]}, found {what}"


class Writer(threading.Thread):
    """Puts entries until the server is gone. Every tenth put replaces an entry."""

    def __init__(self, server: Pilotlight, written: Written, seed: int, acknowledged: threading.Semaphore) -> None:
        super().__init__(name=f"writer-{seed}")
        self._server = server
        self._written = written
        self._rng = random.Random(seed)
        self._acknowledged = acknowledged
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            with self._server.connect() as connection:
                while True:
                    key, artifact = self._draw()
                    data = artifact.data()
                    self._written.unanswered[key] = artifact
                    assert connection.command("SET", key, data) == b"OK"
                    self._written.acknowledged[key] = artifact
                    del self._written.unanswered[key]
                    self._acknowledged.release()
        except ConnectionError:
            pass  # killed, as intended
        except Exception as error:
            self.failure = error

    def _draw(self) -> tuple[bytes, Artifact]:
        number = self._rng.getrandbits(60)
        artifact = Artifact(number, size_between(self._rng, 100, 1 << 20))
        keys = len(self._written.acknowledged)
        if keys >= KEYS_MAX or (keys and self._rng.random() < 0.1):
            return self._rng.choice(list(self._written.acknowledged)), artifact
        return (fx_key(number) if self._rng.random() < 0.5 else b"key:%d" % number), artifact


def test_every_acknowledged_entry_survives_kill_9_a_hundred_times(launch: Launch, rng: random.Random) -> None:
    server = launch(max_size="8GiB")
    all_written = [Written() for _ in range(WRITERS)]
    slowest_s = 0.0
    kills = 0
    for kills in rounds(KILLS):  # noqa: B007 - said at the end
        acknowledged = threading.Semaphore(0)
        writers = [Writer(server, written, rng.getrandbits(60), acknowledged) for written in all_written]
        for writer in writers:
            writer.start()
        for _ in range(rng.randint(1, 60)):
            assert acknowledged.acquire(timeout=30), [writer.failure for writer in writers] + [server.log()]
        server.kill()
        for writer in writers:
            writer.join(30)
            assert not writer.is_alive()
            assert writer.failure is None
        slowest_s = max(slowest_s, server.start())
        assert slowest_s < REOPEN_S_MAX, server.log()
        _check(server, all_written, rng, SAMPLE)

    _check(server, all_written, rng, None)
    count = sum(len(written.acknowledged) for written in all_written)
    print(f"{kills} kills, {count} acknowledged entries, slowest start {slowest_s:.3f} s")
    assert server.stop() == 0


def _check(server: Pilotlight, all_written: list[Written], rng: random.Random, sample: int | None) -> None:
    with server.connect() as connection:
        for written in all_written:
            keys = list(written.acknowledged)
            for key in keys if sample is None else rng.sample(keys, min(sample, len(keys))):
                written.check(key, connection.command("GET", key))
