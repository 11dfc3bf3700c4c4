"""Make the server hold, or wait for, more than it has: lengths that lie, heads without an end, values above the limit."""

from __future__ import annotations

from attacks.arena import ENTRY_MAX, GRAPH, Arena, hold

GROWN_MAX = 256 << 20
"""What is allowed for connections, buffers and the allocator's leavings; a single lie would be more."""


def run(arena: Arena) -> None:
    before = arena.server.memory_bytes("RssAnon")
    for lie in (
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870913\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9223372036854775807\r\n",
        b"*3\r\n$3\r\nSET\r\n$-9223372036854775808\r\n",
        b"*2147483647\r\n",
        b"*1048576\r\n" + b"$0\r\n\r\n" * 100_000,
        b"*1\r\n$" + b"9" * (1 << 20),
        b"A" * (4 << 20),
        b"\0" * 100_000 + b"\r\n",
    ):
        for user in (None, "guest"):
            with arena.connect(user) as raw:
                try:
                    raw.send(lie)
                    raw.socket.shutdown(1)
                except OSError:
                    pass  # it was closed already
                raw.rest()
    with arena.connect("guest") as guest:
        value = b"x" * (ENTRY_MAX + 1)
        hold(guest.ask("SET", GRAPH, value) is None, "a compiler's entry above the limit is nil")
        hold(str(guest.ask("SET", "k", value)).startswith("ERR"), "another's is an error")
        hold(guest.ask("PING") == "PONG", "and the connection goes on")
        hold(str(guest.ask("SET", b"k" * (1 << 20), b"v")).startswith("ERR"), "a key is bounded")
        guest.ask("MULTI")
        queued = [guest.ask("SET", f"k{number}", value[:-1]) for number in range(80)]
        hold(any(str(reply).startswith("ERR") for reply in queued), "a transaction is bounded")
        guest.ask("DISCARD")
    huge = 10 << 40
    for head in (
        f"PUT /cache/k HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{{login}}content-length: {huge}\r\n\r\n".encode(),
        b"PUT /cache/k HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{login}transfer-encoding: chunked\r\n\r\n"
        + b"10000\r\n"
        + b"x" * 0x10000
        + b"\r\n"
        + (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 20,
        b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"".join(b"h%d: %s\r\n" % (n, b"v" * 4000) for n in range(400)) + b"\r\n",
    ):
        answer = arena.http(head, user="guest")
        hold(not answer or answer.split(b" ")[1][:1] == b"4", f"it is refused: {answer[:60]!r}")
    grown = arena.server.memory_bytes("RssAnon") - before
    hold(grown < GROWN_MAX, f"the server grows by less than {GROWN_MAX >> 20} MiB, not {grown >> 20}")
    arena.check_unharmed()
