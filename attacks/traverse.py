"""Reach files by names: of keys, of namespaces, of pages."""

from __future__ import annotations

import os
from pathlib import Path

from attacks.arena import EVIL, VALUE, Arena, hold

NAMES = ("../../etc/passwd", "/etc/passwd", "..%2f..%2fetc%2fpasswd", "....//", "\0", "CON", "a/../../b", "%00", "..\\..\\x")


def files(directory: Path) -> set[str]:
    return {str(Path(base, name)) for base, _, names in os.walk(directory) for name in names}


def run(arena: Arena) -> None:
    outside = files(arena.root.parent) - files(arena.root)
    with arena.connect("guest") as guest:
        for name in NAMES:
            guest.ask("SET", f"{name}", EVIL)
            hold(guest.ask("GET", name) == EVIL, "a key is bytes, whatever they look like")
            guest.ask("SET", f"triton:{name}:{name}", EVIL * 5000)
            guest.ask("CONFIG", "SET", "dir", name)
            guest.ask("CONFIG", "SET", "dbfilename", name)
            guest.ask("DEBUG", "RELOAD")
    for name in NAMES:
        encoded = "".join(f"%{byte:02x}" for byte in name.encode())
        for path in (f"/cache/{encoded}", f"/{encoded}", f"/api/{encoded}", f"/cache/x?namespace={encoded}"):
            answer = arena.http(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{{login}}\r\n".encode(), user="guest")
            hold(b"root:" not in answer and VALUE not in answer, f"{path} shows no file and nobody else's entry")
            put = f"PUT {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{{login}}content-length: 1\r\n\r\nx"
            arena.http(put.encode(), user="guest")
    hold(files(arena.root.parent) - files(arena.root) == outside, "no file comes to be outside of the data directory")
    arena.check_unharmed()
