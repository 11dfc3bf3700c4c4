"""Take all there is: connections, memory, patience. Others must be served meanwhile."""

from __future__ import annotations

from contextlib import ExitStack, suppress

from attacks.arena import ENTRY_MAX, Arena, Raw, hold, request

CONNECTIONS = 300
GROWN_MAX = 384 << 20


def run(arena: Arena) -> None:
    before = arena.server.memory_bytes("RssAnon")
    with ExitStack() as stack:

        def connect(user: str | None = None) -> Raw:
            return stack.enter_context(arena.connect(user))

        # Requests that never end, before and after a login, over both protocols.
        for _ in range(CONNECTIONS):
            connect().send(b"*2\r\n$3\r\nGET\r\n$10")
            raw = stack.enter_context(Raw(arena.server.host, arena.server.http_port))
            raw.send(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ")
        arena.check_alive()
        # Values that lack their last byte: more than all connections together may hold.
        for number in range(100):
            connect("guest").send(b"*3\r\n$3\r\nSET\r\n$4\r\nk%03d\r\n$%d\r\n" % (number, ENTRY_MAX) + b"x" * (ENTRY_MAX - 1))
        arena.check_alive()
        # Replies that nobody reads.
        with arena.connect("guest") as guest:
            guest.ask("SET", "big", b"x" * ENTRY_MAX)
        for _ in range(20):
            greedy = connect("guest")
            greedy.socket.settimeout(0.2)
            # It reads no more at some time, which is right.
            with suppress(TimeoutError):
                greedy.send(request("GET", "big") * 200)
        arena.check_alive()
        watcher = connect("guest")
        watched = [watcher.ask("WATCH", *(f"{batch}-{key}" * 10 for key in range(100))) for batch in range(40)]
        hold(any(str(reply).startswith("ERR") for reply in watched), "watched keys are bounded")
        hold(str(connect("guest").ask("CLIENT", "SETNAME", "n" * 100_000)).startswith("ERR"), "names are bounded")
        hold(str(connect("guest").ask("CLIENT", "KILL", "TYPE", "normal")).startswith("NOPERM"), "nobody is thrown out")
        arena.check_alive()
        grown = arena.server.memory_bytes("RssAnon") - before
        hold(grown < GROWN_MAX, f"the server grows by less than {GROWN_MAX >> 20} MiB, not {grown >> 20}")
    arena.check_unharmed()
