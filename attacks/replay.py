"""Pass an old, signed entry off as another: under another key, in another namespace, with a byte changed, or unsigned."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pilotlight import Client

from attacks.arena import GRAPH, Arena, Raw, hold
from devtools import paths
from devtools.servers import Pilotlight

OTHER = "pt2:fx-graph-v1::fother:c1"
ARTIFACT = b"a graph" * 300


def run(arena: Arena) -> None:
    # A server that lets everybody do everything: the signature is all that there is between writer and reader.
    home = arena.root.parent / "replay"
    home.mkdir()
    key, trust = home / "ci.key", home / "trusted.toml"
    public = command("keys", "new", "--name", "ci", "--dir", str(home)).strip()
    command("keys", "trust", public, "--name", "ci", "--file", str(trust))
    with Pilotlight(home / "data") as server, Raw(server.host, server.port) as attacker:
        url = f"pilotlight://{server.host}:{server.port}"
        hold(Client(url, signing_key=str(key)).put(GRAPH.encode(), ARTIFACT), "who has a key can put")
        (envelope,) = attacker.ask("PILOTLIGHT.MGET", GRAPH)
        hold(read(url, trust, GRAPH) == ARTIFACT, "it is taken where it was put")

        attacker.ask("PILOTLIGHT.PUT", OTHER, envelope)
        hold(read(url, trust, OTHER) is None, "not under another key")
        attacker.ask("SELECT", "1")
        attacker.ask("PILOTLIGHT.PUT", GRAPH, envelope)
        hold(read(f"{url}/1", trust, GRAPH) is None, "not in another namespace")
        attacker.ask("SELECT", "0")
        for at in range(0, len(envelope), 7):
            changed = envelope[:at] + bytes([envelope[at] ^ 1]) + envelope[at + 1 :]
            attacker.ask("DEL", GRAPH)
            attacker.ask("PILOTLIGHT.PUT", GRAPH, changed)
            found = read(url, trust, GRAPH)
            hold(found in (None, ARTIFACT), f"not with byte {at} changed")
        attacker.ask("SET", GRAPH, ARTIFACT)
        hold(read(url, trust, GRAPH) is None, "not without a signature")
        stranger = home / "stranger.key"
        command("keys", "new", "--name", "stranger", "--dir", str(home))
        Client(url, signing_key=str(stranger)).put(GRAPH.encode(), b"evil" * 300)
        hold(read(url, trust, GRAPH) is None, "not by somebody else")
        attacker.ask("PILOTLIGHT.PUT", GRAPH, envelope)
        identity = next(
            word
            for word in command("keys", "show", "--json", "--dir", str(home), "--file", str(trust)).split('"')
            if len(word) == 16 and all(c in "0123456789abcdef" for c in word)
        )
        command("keys", "revoke", identity, "--reason", "lost", "--file", str(trust))
        hold(read(url, trust, GRAPH) is None, "not by one who is revoked")
    arena.check_unharmed()


def read(url: str, trust: Path, key: str) -> bytes | None:
    """What a reader takes that wants signatures."""
    entry = next(Client(url, verify="require", trust=str(trust)).candidates(key.encode(), None), None)
    return None if entry is None else entry.artifact


def command(*arguments: str) -> str:
    return subprocess.run([str(paths.pilotlight()), *arguments], check=True, capture_output=True, text=True).stdout
