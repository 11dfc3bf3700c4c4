"""Put code where somebody else reads it: with a reader's secret, with none, by every way to write, and where strangers may."""

from __future__ import annotations

from attacks.arena import EVIL, GRAPH, PLAIN, VALUE, Arena, Refused, hold


def run(arena: Arena) -> None:
    with arena.connect("guest") as guest:
        # There is no way to where the owner's entries are but their namespace's name, which only HTTP takes.
        for number in range(16):
            guest.ask("SELECT", str(number))
            for key in (GRAPH, PLAIN):
                hold(guest.ask("GET", key) != VALUE, "a database number leads to no foreign namespace")
                guest.ask("SET", key, EVIL)
        for name in ("release", "../release", "release\0", "*"):
            hold(isinstance(guest.ask("SELECT", name), Refused), "a name is no database")
    for user, status in (("guest", b"403"), ("blind", b"403"), (None, b"401")):
        for method in ("PUT", "DELETE"):
            for page in (f"/cache/{GRAPH}", f"/cache/{PLAIN}", f"/api/pins/{PLAIN}", "/api/entries"):
                head = f"{method} {page}?namespace=release HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{{login}}"
                answer = arena.http(f"{head}content-length: {len(EVIL)}\r\n\r\n".encode() + EVIL, user=user)
                hold(answer.split(b" ")[1] == status, f"{method} {page} is refused: {answer[:60]!r}")
        answer = arena.http(
            b"POST /api/import HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{login}content-length: 4\r\n\r\nevil", user=user
        )
        hold(answer.split(b" ")[1] == status, "an import is refused")
    with arena.connect() as nobody:
        for command in (("SET", GRAPH, EVIL), ("GET", GRAPH), ("PILOTLIGHT.PUT", GRAPH, EVIL), ("FLUSHALL",), ("MULTI",)):
            hold(str(nobody.ask(*command)).startswith("NOAUTH"), f"{command[0]} needs a login")
    arena.check_unharmed()
    first_wins(arena)


def first_wins(arena: Arena) -> None:
    """Among strangers, nobody can change what another put first."""
    key = "pt2:fx-graph-v1::shared:c1"
    with arena.connect("other") as other, arena.connect("guest") as guest:
        hold(other.ask("SET", key, VALUE) == "OK", "the first may put")
        hold(guest.ask("SET", key, EVIL) is None, "a second put is nil, as stock PyTorch expects")
        guest.ask("SET", "evil", EVIL)
        for command in (
            ("SET", key, EVIL, "XX"),
            ("SET", key, EVIL, "GET"),
            ("GETSET", key, EVIL),
            ("SETEX", key, "1", EVIL),
            ("PSETEX", key, "1", EVIL),
            ("MSET", key, EVIL),
            ("APPEND", key, EVIL),
            ("SETRANGE", key, "0", EVIL),
            ("INCR", key),
            ("DEL", key),
            ("UNLINK", key),
            ("GETDEL", key),
            ("GETEX", key, "PX", "1"),
            ("EXPIRE", key, "0"),
            ("PEXPIREAT", key, "1"),
            ("RENAME", "evil", key),
            ("RENAME", key, "gone"),
            ("COPY", "evil", key, "REPLACE"),
            ("MOVE", key, "1"),
            ("PILOTLIGHT.PUT", key, EVIL),
            ("FLUSHDB",),
            ("FLUSHALL",),
        ):
            guest.ask(*command)
            hold(other.ask("GET", key) == VALUE, f"{command[0]} leaves what another put")
            hold(other.ask("TTL", key) == -1, f"{command[0]} has it expire no sooner")
            guest.ask("MULTI")
            guest.ask(*command)
            guest.ask("EXEC")
            hold(other.ask("GET", key) == VALUE, f"{command[0]} in a transaction leaves it as well")
            guest.ask("SET", "evil", EVIL)
