"""A server that takes only what its signers signed, and reads again who they are."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from pilotlight import Client

from devtools import paths
from devtools.servers import Pilotlight

KEY = b"pt2:fx-graph-v1::fabc:c1"


def keys(*arguments: str) -> str:
    command = [str(paths.pilotlight()), "keys", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_hangup_has_the_signers_read_again(tmp_path: Path) -> None:
    public = keys("new", "--name", "ci", "--dir", str(tmp_path)).strip()
    trust = tmp_path / "signers.toml"
    trust.touch()
    with Pilotlight(tmp_path / "data", flags=("--signers", str(trust))) as server:
        client = Client(f"pilotlight://{server.host}:{server.port}", signing_key=str(tmp_path / "ci.key"))
        assert not client.put(KEY, b"graph" * 100)
        keys("trust", public, "--name", "ci", "--file", str(trust))
        assert not client.put(KEY, b"graph" * 100), "it was not told yet"
        os.kill(server.pid, signal.SIGHUP)
        while not client.put(KEY, b"graph" * 100):
            pass
        # What cannot be understood changes nothing.
        trust.write_text("nonsense")
        os.kill(server.pid, signal.SIGHUP)
        while "the signers stay as they were" not in server.log():
            pass
        assert client.put(KEY, b"graph" * 200)
