"""The byte bound: never exceeded on disk, whatever clients put; and no client of a compile cache sees an error."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from pathlib import Path

from devtools import paths
from devtools.servers import Pilotlight, disk_bytes
from tests.clients.artifacts import fx_key, random_bytes, size_between
from tests.clients.conftest import Launch

MIB = 1 << 20
BOUND = 128 * MIB
TOTAL = 2048 * MIB
CLIENTS = 4


class Repeated(threading.Thread):
    """Calls something again and again until told to stop; fails the test when that fails."""

    def __init__(self, name: str, pause_s: float) -> None:
        super().__init__(name=name)
        self._pause_s = pause_s
        self._stop_now = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stop_now.wait(self._pause_s):
                self.step()
        except BaseException as error:
            self.failure = error

    def step(self) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        self._stop_now.set()
        self.join()
        if self.failure is not None:
            raise self.failure


class DiskWatch(Repeated):
    """Looks at what the data directory takes, all the time."""

    def __init__(self, directory: Path) -> None:
        super().__init__("disk watch", pause_s=0.002)
        self._directory = directory
        self.most_bytes = 0
        self.looks = 0

    def step(self) -> None:
        self.most_bytes = max(self.most_bytes, disk_bytes(self._directory))
        self.looks += 1


class PingWatch(Repeated):
    """Keeps asking whether the server is there."""

    def __init__(self, server: Pilotlight) -> None:
        super().__init__("ping watch", pause_s=0.01)
        self._connection = server.connect()
        self.slowest_s = 0.0

    def step(self) -> None:
        begin = time.monotonic()
        assert self._connection.command("PING") == b"PONG"
        self.slowest_s = max(self.slowest_s, time.monotonic() - begin)


class Putter(Repeated):
    """Puts its share of the bytes; an error reply fails the test."""

    def __init__(self, server: Pilotlight, seed: int) -> None:
        super().__init__(f"putter {seed}", pause_s=0)
        self._connection = server.connect()
        self._rng = random.Random(seed)
        self._left = TOTAL // CLIENTS
        self.done = threading.Event()
        self.kept = 0
        self.refused = 0

    def step(self) -> None:
        if self._left <= 0:
            self.done.set()
            return
        number = self._rng.getrandbits(60)
        data = random_bytes(number, size_between(self._rng, 1 << 10, 4 * MIB))
        reply = self._connection.command("SET", fx_key(number), data)
        assert reply in (b"OK", None), reply
        if reply is None:
            self.refused += 1
        else:
            self.kept += 1
        self._left -= len(data)

    def run(self) -> None:
        super().run()
        self.done.set()


def test_bound_of_128_mib_holds_under_2_gib_of_puts(launch: Launch, rng: random.Random) -> None:
    server = launch(max_size="128MiB", memory="32MiB")
    disk, ping = DiskWatch(server.data_dir), PingWatch(server)
    putters = [Putter(server, rng.getrandbits(60)) for _ in range(CLIENTS)]
    begin = time.monotonic()
    for thread in (disk, ping, *putters):
        thread.start()
    for putter in putters:
        putter.done.wait()
    seconds = time.monotonic() - begin
    for thread in (*putters, ping, disk):
        thread.finish()
    kept, refused = sum(p.kept for p in putters), sum(p.refused for p in putters)
    print(
        f"{kept} puts kept, {refused} refused in {seconds:.1f} s; disk at most {disk.most_bytes / MIB:.1f} MiB "
        f"in {disk.looks} looks; slowest PING {ping.slowest_s * 1000:.0f} ms"
    )
    assert disk.most_bytes <= BOUND
    assert disk.looks > 100
    assert ping.slowest_s < 1.0
    assert kept > refused, "a bound is kept by evicting, not by refusing most puts"

    # What is left is a cache that works: the newest entries are there, and whole.
    with server.connect() as connection:
        newest = random_bytes(1, 100_000)
        assert connection.command("SET", fx_key(1), newest) == b"OK"
        assert connection.command("GET", fx_key(1)) == newest
    server.stop()
    server.start()
    assert disk_bytes(server.data_dir) <= BOUND
    with server.connect() as connection:
        assert connection.command("GET", fx_key(1)) == newest


def test_bound_too_small_to_honour_is_refused_with_a_hint(tmp_path: Path) -> None:
    command = [str(paths.pilotlight()), "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    command += ["--data-dir", str(tmp_path / "data"), "--max-size", "1MiB"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "hint:" in done.stderr
