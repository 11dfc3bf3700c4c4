"""One process of a herd: for each task on stdin it does what a compiler's cache does, and says how that went.

    python -m tests.native.herd URL

It answers with two lines: its part, as soon as that is known, and what came of it.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pilotlight import Client

ROOT = Path(__file__).resolve().parent.parent.parent
ANSWER_WITHIN_S = 60.0


@dataclass(frozen=True)
class Task:
    key: str
    size: int
    compile_s: float
    limit_s: float
    """How long another's compile is waited for."""
    is_variant: bool = False
    then: str = ""
    """`hold`: compile until a line comes. `fork`: do so for ever, beside a child that drops its copy of the lease."""

    def artifact(self) -> bytes:
        return random.Random(self.key).randbytes(self.size)


@dataclass(frozen=True)
class Done:
    part: str
    is_right: bool
    """Whether what it has in the end are the right bytes."""
    has_compiled: bool
    took_s: float


class Member:
    """Such a process, from outside."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.native.herd", url],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'python'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._line() == "ready"

    def begin(self, task: Task) -> None:
        self._say(json.dumps(asdict(task)))

    def part(self) -> str:
        return self._line()

    def go_on(self) -> None:
        """Ends a `hold`."""
        self._say("go on")

    def done(self) -> Done:
        return Done(**json.loads(self._line()))

    def kill(self) -> None:
        """kill -9, and wait until it is gone; what it has forked sees its stdin end."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def _line(self) -> str:
        out = self.process.stdout
        assert out is not None
        assert select.select([out], [], [], ANSWER_WITHIN_S)[0], "no answer"
        # Byte by byte, since a line that is buffered here would not show in the next select.
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(out.fileno(), 1)
            assert byte, f"the process ended with status {self.process.wait()}"
            line += byte
        return line.decode().strip()


def main(url: str) -> None:
    client = Client(url)
    assert client.ping() is not None
    _tell("ready")
    while line := sys.stdin.readline():
        _tell(json.dumps(asdict(_do(client, Task(**json.loads(line))))))


def _do(client: Client, task: Task) -> Done:
    begin = time.monotonic()
    key = task.key.encode()
    part, lease, found = "hit", None, _get(client, key)
    if found is None:
        part, lease = client.lease(key, task.limit_s)
        if part == "look":
            found = _get(client, key)
    _tell(part)
    if found is not None:
        return Done(part, found == task.artifact(), False, time.monotonic() - begin)
    if task.then == "fork":
        if os.fork() == 0:
            del lease
            sys.stdin.read()
            os._exit(0)
        signal.pause()
    elif task.then == "hold":
        sys.stdin.readline()
    time.sleep(task.compile_s)
    is_put = client.put_variant(key, 1, task.artifact()) if task.is_variant else client.put(key, task.artifact())
    if lease is not None:
        lease.put() if is_put else lease.release()
    return Done(part, is_put, True, time.monotonic() - begin)


def _get(client: Client, key: bytes) -> bytes | None:
    entry = next(client.candidates(key, None), None)
    return None if entry is None else entry.artifact


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
