"""Guess a password, fast."""

from __future__ import annotations

import time

from attacks.arena import WEAK_PASSWORD, Arena, hold

WORDS = ("123456", "password", "qwerty", "letmein", "admin", "welcome", "monkey", "football", "iloveyou", "master")
GUESSES = [f"{word}{number}" for number in range(20) for word in WORDS]
"""The password is among them, in the middle: it would be found within a second."""


def run(arena: Arena) -> None:
    guesses = [*GUESSES[:100], WEAK_PASSWORD, *GUESSES[100:]]
    begin = time.monotonic()
    with arena.connect() as raw:
        for guess in guesses:
            try:
                reply = raw.ask("AUTH", guess)
            except (EOFError, ConnectionError):
                break
            hold(reply != "OK", f"a password is not guessed by trying {len(guesses)}, in {time.monotonic() - begin:.1f} s")
            hold(str(raw.ask("GET", "x")).startswith("NOAUTH"), "and a wrong one logs nobody in")
    for guess in (*GUESSES[:3], WEAK_PASSWORD):
        head = f"GET /api/user HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {guess}\r\n\r\n"
        hold(arena.http(head.encode()).split(b" ")[1] == b"401", "nor over HTTP")
    # Whoever has a secret that was made for it is let in meanwhile, from the same address too.
    arena.check_alive()
    arena.check_unharmed()
