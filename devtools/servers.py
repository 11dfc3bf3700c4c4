"""Start and stop servers: Pilotlight, and the redis-server that the benchmark compares it with.

Both listen on ports the system chose, keep their data where they are told, and are gone when their block ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from devtools import paths
from devtools.resp import Connection, Disconnected, ReplyError

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


class ServerDied(RuntimeError):
    """The server ended when it should have been running; the message ends with its log."""


class Server:
    """A server process. Subclasses say which command starts it and when it is ready."""

    name = "server"
    host = "127.0.0.1"

    def __init__(self, data_dir: Path, env: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.port = 0
        # No settings but those given here: a variable of the shell's must not change what is tested.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PILOTLIGHT_")}
        self._env = {**inherited, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the server

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._log.close()

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> float:
        """Start and wait until it answers PING; returns the seconds that took."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        self._process = subprocess.Popen(
            self._command(), env=self._env, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        try:
            while not self._is_ready():
                if time.monotonic() - begin > START_TIMEOUT_S:
                    raise TimeoutError(f"{self.name} was not ready after {START_TIMEOUT_S:.0f} s; its log:\n{self.log()}")
                self._fail_if_ended(within_s=0.002)
        except BaseException:
            self.kill()
            raise
        return time.monotonic() - begin

    def stop(self) -> int | None:
        """Ask it to end (SIGTERM), kill it if it does not; returns its exit status."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise TimeoutError(f"{self.name} ignored SIGTERM for {STOP_TIMEOUT_S:.0f} s; its log:\n{self.log()}") from None

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def log(self) -> str:
        """What the server has written so far, the last 8 KiB of it."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 8192))
        text = self._log.read().decode(errors="replace")
        self._log.seek(0, os.SEEK_END)
        return text

    def connect(self, timeout_s: float = 30.0) -> Connection:
        return Connection(self.host, self.port, timeout_s)

    def cpu_s(self) -> float:
        """User and system CPU seconds spent so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self, field: str = "VmRSS") -> int:
        """A memory figure of `/proc/PID/status`; `VmRSS` is all of it, `RssAnon` leaves mapped files out."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise KeyError(field)

    def _command(self) -> Sequence[str]:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def _answers_ping(self) -> bool:
        """Whether a PING is answered; a demand for a password is an answer too."""
        try:
            with self.connect(timeout_s=5.0) as connection:
                return bool(connection.command("PING") == b"PONG")
        except ReplyError as error:
            return str(error).startswith("NOAUTH")
        except (ConnectionRefusedError, Disconnected):
            return False

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerDied(f"{self.name} is not running")
        return self._process

    def _fail_if_ended(self, within_s: float) -> None:
        try:
            status = self._running().wait(within_s)
        except subprocess.TimeoutExpired:
            return
        raise ServerDied(f"{self.name} ended with status {status}; its log:\n{self.log()}")


class Pilotlight(Server):
    """`pilotlight serve`, on free ports unless told where to listen."""

    name = "pilotlight"

    def __init__(
        self,
        data_dir: Path,
        *,
        max_size: str = "1GiB",
        memory: str = "64MiB",
        durability: str = "relaxed",
        listen: Sequence[str] = ("127.0.0.1:0",),
        http: Sequence[str] = ("127.0.0.1:0",),
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(data_dir, env)
        self.http_port = 0
        self.tls_port = 0
        self.https_port = 0
        self._port_file = data_dir.with_name(data_dir.name + ".ports.json")
        self._limits = ["--max-size", max_size, "--memory", memory, "--durability", durability]
        self._listen = listen
        self._http = http
        self._flags = flags

    @property
    def redis_url(self) -> str:
        return f"redis://{self.host}:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://{self.host}:{self.http_port}"

    def start(self) -> float:
        self._port_file.unlink(missing_ok=True)
        return super().start()

    def stats(self) -> dict[str, Any]:
        """`pilotlight stats --json`."""
        command = [str(paths.pilotlight()), "stats", "--server", self.http_url, "--json"]
        done = subprocess.run(command, check=True, capture_output=True, env=self._env)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def _command(self) -> list[str]:
        command = [str(paths.pilotlight()), "serve", "--data-dir", str(self.data_dir)]
        for flag, addresses in (("--listen", self._listen), ("--http", self._http)):
            for address in addresses:
                command += [flag, address]
        return [*command, *self._limits, *self._flags, "--port-file", str(self._port_file)]

    def _is_ready(self) -> bool:
        try:
            ports = json.loads(self._port_file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return False  # not written yet, or half written
        self.port = _port(ports["redis"][0])
        self.http_port = _port(ports["http"][0])
        self.tls_port, self.https_port = (_port(ports[name][0]) if ports[name] else 0 for name in ("rediss", "https"))
        return self._answers_ping()


class Redis(Server):
    """redis-server: without persistence, or appending to a log that it syncs every second."""

    def __init__(self, data_dir: Path, *, append_only: bool) -> None:
        super().__init__(data_dir)
        self.name = "redis-aof" if append_only else "redis"
        self._append_only = append_only

    def _command(self) -> list[str]:
        binary = paths.tool("redis-server")
        if binary is None:
            raise FileNotFoundError("no redis-server\nhint: make tools")
        self.port = free_port()
        options = {
            "port": str(self.port),
            "bind": self.host,
            "dir": str(self.data_dir),
            "save": "",
            "appendonly": "yes" if self._append_only else "no",
            "appendfsync": "everysec",
            # A rewrite in the middle of a measurement would charge one size for the writes of those before it.
            "auto-aof-rewrite-percentage": "0",
        }
        return [binary, *(word for key, value in options.items() for word in (f"--{key}", value))]

    def _is_ready(self) -> bool:
        return self._answers_ping()


class S3(Server):
    """s3s-fs: object storage in a directory. One that is started again is where it was."""

    name = "s3s-fs"
    access_key = "test-access-key"
    secret_key = "test-secret-key"
    bucket = "bucket"

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """What its clients find in their environment."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    def objects(self, prefix: str) -> list[Path]:
        """The files that hold the objects below `prefix`."""
        return sorted(path for path in (self.data_dir / self.bucket / prefix).rglob("*") if path.is_file())

    def _command(self) -> list[str]:
        binary = paths.tool("s3s-fs")
        if binary is None:
            raise FileNotFoundError("no s3s-fs\nhint: make clients")
        (self.data_dir / self.bucket).mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        keys = ["--access-key", self.access_key, "--secret-key", self.secret_key]
        return [binary, *keys, "--host", self.host, "--port", str(self.port), str(self.data_dir)]

    def _is_ready(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=5.0).close()
        except ConnectionRefusedError:
            return False
        return True


def free_port() -> int:
    """A TCP port that was free a moment ago; only for programs that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def disk_bytes(directory: Path) -> int:
    """Disk space that a directory really takes: the blocks of everything in it, directories included."""
    total = 0
    pending = [str(directory)]
    while pending:
        path = pending.pop()
        try:
            total += os.lstat(path).st_blocks * 512
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:
            continue  # it went away while we looked
    return total


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
