"""Have a value, or a request of another protocol, be taken for commands."""

from __future__ import annotations

from attacks.arena import EVIL, GRAPH, PLAIN, Arena, exchange, hold, request

SMUGGLED = b"DELETE /cache/plain?namespace=release HTTP/1.1\r\nhost: x\r\n\r\n"


def run(arena: Arena) -> None:
    commands = request("SET", PLAIN, EVIL) + request("DEL", GRAPH) + b"\r\n+OK\r\n:1\r\n"
    with arena.connect("owner") as owner, arena.connect("guest") as guest:
        hold(owner.ask("SET", "x", commands) == "OK", "a value may look like commands")
        hold(owner.ask("GET", "x") == commands, "and is a value")
        hold(owner.ask("DEL", "x") == 1, "and goes")
        # Replies stay in step, whatever is between them.
        guest.send(request("ECHO", commands) + request("GET", "absent\r\n$1\r\nx") + request("PING"))
        hold([guest.reply() for _ in range(3)] == [commands, None, "PONG"], "one reply a request, in order")
    # A web page can make a browser send this to any port of its reader's machine.
    for page in (
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"OPTIONS / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ):
        login = request("AUTH", "owner", arena.secrets["owner"])
        answer = exchange(arena.server.host, arena.server.port, page + login + request("SET", PLAIN, EVIL), ends=True)
        hold(b"+OK" not in answer, "what follows a line of HTTP is no command")
    # Two ends of one request, of which a proxy and a server could each believe another.
    for head in (
        b"content-length: 4\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 0\r\ncontent-length: 4\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"transfer-encoding : chunked\r\n",
        b"content-length: +4\r\n",
    ):
        sent = b"PUT /cache/g HTTP/1.1\r\nhost: x\r\n{login}" + head + b"\r\n0\r\n\r\n" + SMUGGLED
        answer = arena.http(sent, user="guest")
        hold(b" 204 " not in answer and b" 200 " not in answer.split(b"\r\n\r\n", 1)[-1], f"{head!r} smuggles nothing")
    arena.check_unharmed()
