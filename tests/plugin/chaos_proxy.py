"""A TCP proxy that does to replies what networks and broken servers do."""

from __future__ import annotations

import enum
import random
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType

# Replies at least this long hold values; shorter ones pass, so that faults meet values and not greetings.
VALUE_BYTES_MIN = 600
DRIP_PAUSE_S = 0.002
LATENCY_S = 0.05
LINK_BYTES_PER_S = 1_000_000
_CHUNK_BYTES = 1 << 16


class Fault(enum.Enum):
    """What happens to a connection."""

    NONE = "forwarded"
    RESET_ON_CONNECT = "reset when it is made"
    STALL = "accepted and never answered"
    GARBAGE = "answered with noise"
    OVERSIZED = "greeted, then told of a value too large for anybody"
    DRIP = "answered a byte at a time"
    STALL_IN_VALUE = "stalled in the middle of a value"
    RESET_IN_VALUE = "reset in the middle of a value"
    CUT_VALUE = "closed in the middle of a value"
    FLIP_BIT = "one bit of each value is flipped"
    SWALLOW_PUTS = "large requests never arrive"
    SLOW_LINK = "answered after 50 ms with 1 MB/s: no fault"


class ChaosProxy:
    """Listens on a free port before a server, and may be told to misbehave otherwise at any time."""

    host = "127.0.0.1"

    def __init__(self, target_port: int, fault: Fault = Fault.NONE, on_value: Callable[[], None] | None = None) -> None:
        """`on_value` is called when a value has come from the server, before it is forwarded."""
        self.fault = fault
        self._on_value = on_value
        self.connections = 0
        self._target = (self.host, target_port)
        self._closed = threading.Event()
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server((self.host, 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> ChaosProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closed.set()
        # A shutdown wakes the thread that accepts; a close alone does not.
        _shut(self._listener)
        self._listener.close()
        with self._lock:
            for each in self._open:
                _shut(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        fault = self.fault
        with client, socket.socket() as server:
            with self._lock:
                self._open += [client, server]
            try:
                if fault is Fault.RESET_ON_CONNECT:
                    _reset_when_closed(client)
                elif fault is Fault.STALL:
                    self._closed.wait()
                elif fault is Fault.GARBAGE:
                    noise = random.Random(1)
                    while client.recv(_CHUNK_BYTES):
                        client.sendall(noise.randbytes(4096))
                else:
                    server.connect(self._target)
                    up = threading.Thread(target=self._requests, args=(client, server), daemon=True)
                    up.start()
                    try:
                        self._replies(server, client)
                    finally:
                        # Nothing is closed while another thread reads from it.
                        client.shutdown(socket.SHUT_RD)
                        up.join()
            except OSError:
                return
            finally:
                with self._lock:
                    self._open.remove(client)
                    self._open.remove(server)

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(_CHUNK_BYTES):
                if self.fault is not Fault.SWALLOW_PUTS or len(data) < VALUE_BYTES_MIN:
                    server.sendall(data)
        except OSError:
            pass
        finally:
            _shut(server)

    def _replies(self, server: socket.socket, client: socket.socket) -> None:
        greeted = False
        while data := server.recv(_CHUNK_BYTES):
            if greeted and self.fault is Fault.OVERSIZED:
                data = b"*1\r\n$600000000\r\n"
            greeted = True
            if self.fault is Fault.DRIP:
                for byte in data:
                    client.sendall(bytes([byte]))
                    if self._closed.wait(DRIP_PAUSE_S):
                        return
            elif self.fault is Fault.SLOW_LINK:
                self._closed.wait(LATENCY_S * (len(data) < _CHUNK_BYTES) + len(data) / LINK_BYTES_PER_S)
                client.sendall(data)
            elif len(data) < VALUE_BYTES_MIN or not self._breaks(data, client):
                client.sendall(data)

    def _breaks(self, data: bytes, client: socket.socket) -> bool:
        """Whether the fault of values was done to `data`. Ends the connection by raising."""
        if self._on_value is not None:
            self._on_value()
        half = len(data) // 2
        if self.fault is Fault.FLIP_BIT:
            client.sendall(data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :])
            return True
        if self.fault not in (Fault.STALL_IN_VALUE, Fault.RESET_IN_VALUE, Fault.CUT_VALUE):
            return False
        client.sendall(data[:half])
        if self.fault is Fault.STALL_IN_VALUE:
            self._closed.wait()
        if self.fault is Fault.RESET_IN_VALUE:
            _reset_when_closed(client)
        raise ConnectionAbortedError


def _reset_when_closed(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
