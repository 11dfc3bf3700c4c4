"""What is attacked: a server with users, and somebody's entries on it. An attacker has the network, and the secret of a user
who may read one namespace and write another."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devtools import paths
from devtools.servers import Pilotlight

GRAPH = "pt2:fx-graph-v1::fvictim:c1"
"""A key that a compiler reads: its value is code."""
PLAIN = "plain"
VALUE = b"what the owner put"
EVIL = b"what the attacker put"
PATIENCE_S = 30.0
ENTRY_MAX = 1 << 20
WEAK_PASSWORD = "dragon"
"""Of the user `default`, who may everything: chosen by a person."""


class Breach(Exception):
    """The attack succeeded."""


def hold(holds: bool, what: str) -> None:
    """`what` is the promise."""
    if not holds:
        raise Breach(what)


@dataclass(frozen=True)
class Arena:
    server: Pilotlight
    secrets: dict[str, str]
    root: Path
    """All that the server may write in is below this."""

    def connect(self, user: str | None = None) -> Raw:
        """A connection, logged in as `user`."""
        raw = Raw(self.server.host, self.server.port)
        if user is not None:
            hold(raw.ask("AUTH", user, self.secrets[user]) == "OK", f"{user} can log in")
        return raw

    def http(self, request: bytes, *, user: str | None = None) -> bytes:
        """All that is answered to `request`, which may be nonsense; `{login}` stands for the header that proves `user`."""
        login = f"authorization: Bearer {self.secrets[user]}\r\n" if user else ""
        return exchange(self.server.host, self.server.http_port, request.replace(b"{login}", login.encode()))

    def check_unharmed(self) -> None:
        """Whether the owner's entries are as they were, and no others of hers are there."""
        with self.connect("owner") as owner:
            for key in (GRAPH, PLAIN):
                hold(owner.ask("GET", key) == VALUE, f"`{key}` is what its owner put")
                hold(owner.ask("TTL", key) == -1, f"`{key}` does not expire")
            hold(owner.ask("DBSIZE") == 2, "nothing else is there")

    def check_alive(self, within_s: float = 5.0) -> None:
        """Whether others are served meanwhile."""
        with self.connect("owner") as owner:
            owner.socket.settimeout(within_s)
            try:
                hold(owner.ask("GET", GRAPH) == VALUE, "others are served meanwhile")
            except TimeoutError:
                raise Breach(f"others are served within {within_s} s") from None


@contextmanager
def arena(home: Path) -> Iterator[Arena]:
    file = home / "users.toml"
    secrets: dict[str, str] = {}
    for name, *options in (
        ("owner", "--home", "release", "--grant", "rw release"),
        ("guest", "--home", "guests", "--grant", "r release", "--grant", "rw guests"),
        ("other", "--home", "guests", "--grant", "rw guests"),
        ("blind", "--home", "nowhere"),
    ):
        command = [str(paths.pilotlight()), "users", "add", name, *options, "--file", str(file), "--json"]
        secrets[name] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["secret"]
    with file.open("a") as text:
        text.write('\n[namespaces.guests]\ntrust = "low"\n')
    flags = ("--users", str(file), "--max-entry-size", str(ENTRY_MAX), "--connection-memory", "64MiB")
    with Pilotlight(home / "root" / "data", flags=flags, env={"PILOTLIGHT_PASSWORD": WEAK_PASSWORD}) as server:
        made = Arena(server, secrets, home / "root")
        with made.connect("owner") as owner:
            for key in (GRAPH, PLAIN):
                hold(owner.ask("SET", key, VALUE) == "OK", "the owner can put")
        yield made


class Raw:
    """A connection that sends whatever it is told to."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=PATIENCE_S)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, *words: str | bytes) -> Any:
        """The reply to one command: text of a status, bytes, a number, `None`, a list; `Refused` of an error."""
        self.send(request(*words))
        return self.reply()

    def reply(self) -> Any:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return Refused(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        raise Breach(f"replies are RESP, not {line!r}")

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        try:
            return self._file.read()
        except ConnectionError:
            return b""


class Refused(str):
    """An error's text."""


def request(*words: str | bytes) -> bytes:
    parts = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def exchange(host: str, port: int, sent: bytes, *, ends: bool = False) -> bytes:
    """All that is answered until the server closes; with `ends`, it is told that nothing will follow."""
    with Raw(host, port) as raw:
        # It may have heard enough before the end.
        with contextlib.suppress(ConnectionError):
            raw.send(sent)
            if ends:
                raw.socket.shutdown(socket.SHUT_WR)
        return raw.rest()
