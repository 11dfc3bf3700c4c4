"""Connections are cheap: stock PyTorch opens one for every compiled graph."""

from __future__ import annotations

import resource

from tests.clients.conftest import Launch

CONNECTIONS = 1000
BYTES_MAX = 20 << 20


def test_a_thousand_idle_connections_take_at_most_20_mib(launch: Launch) -> None:
    server = launch()
    # Warm, so that what the first connections set up once is not counted as theirs.
    for connection in [server.connect() for _ in range(16)]:
        connection.command("PING")
        connection.close()
    # Many systems let a process have 1,024 files. This raises only the test's limit: the server is started and has its own.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = server.memory_bytes("RssAnon")
    connections = [server.connect() for _ in range(CONNECTIONS)]
    for connection in connections:
        assert connection.command("SET", "k", "v" * 100) == b"OK"
        assert connection.command("GET", "k") == b"v" * 100
    taken = server.memory_bytes("RssAnon") - before
    for connection in connections:
        connection.close()
    print(f"{CONNECTIONS} connections take {taken / 2**20:.1f} MiB")
    assert taken <= BYTES_MAX
