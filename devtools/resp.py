"""A Redis client small enough to be sure of: one blocking socket, no retries, every reply seen as it came.

The tests of acknowledgement, bounds and crashes use it, because a client library that reconnects or retries by itself would
hide what they look for.
"""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Any

Arg = bytes | str | int


class ReplyError(Exception):
    """The server answered with an error."""


class Disconnected(ConnectionError):
    """The server closed the connection."""


def encode(*args: Arg) -> bytes:
    """One command as an array of bulk strings."""
    parts = [a if isinstance(a, bytes) else str(a).encode() for a in args]
    out = [b"*%d\r\n" % len(parts)]
    for part in parts:
        out += (b"$%d\r\n" % len(part), part, b"\r\n")
    return b"".join(out)


class Connection:
    """One connection; use it from one thread."""

    def __init__(self, host: str, port: int, timeout_s: float = 30.0) -> None:
        self._socket = socket.create_connection((host, port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb", buffering=1 << 16)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def send(self, *args: Arg) -> None:
        """Send a command without waiting for its reply."""
        self._socket.sendall(encode(*args))

    def command(self, *args: Arg) -> Any:
        """Send a command and return its reply; an error reply raises `ReplyError`."""
        self.send(*args)
        return self.reply()

    def reply(self) -> Any:
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise Disconnected("the server closed the connection in the middle of a reply" if line else "closed")
        mark, rest = line[:1], line[1:-2]
        if mark == b"$":
            return self._bulk(int(rest))
        if mark == b"+":
            return rest
        if mark == b":":
            return int(rest)
        if mark == b"-":
            raise ReplyError(rest.decode(errors="replace"))
        if mark == b"*":
            return None if rest == b"-1" else [self.reply() for _ in range(int(rest))]
        if mark == b"_":
            return None
        raise ValueError(f"not a reply: {line[:80]!r}")

    def _bulk(self, length: int) -> bytes | None:
        if length < 0:
            return None
        body: bytes = self._reader.read(length + 2)
        if len(body) != length + 2:
            raise Disconnected("the server closed the connection in the middle of a value")
        return body[:-2]
