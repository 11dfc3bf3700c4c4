"""Signatures, end to end: what signs, what is refused, and that what is refused never runs."""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pilotlight import Client

from devtools import paths
from devtools.servers import Pilotlight, Redis
from tests.plugin.conftest import PYTHON, Programs, Ran, url_of

torch = pytest.importorskip("torch")

GRAPH = """
import torch

def f(x, w):
    return x @ w

torch.manual_seed(0)
x, w = torch.randn(8, 16), torch.randn(16, 4)
with torch.no_grad():
    assert torch.equal(torch.compile(f)(x, w), f(x, w))
"""


def graphs(ran: Ran, outcome: str) -> int:
    """How many of the graph and its AOTAutograd entry had this outcome, for whatever reason; profiles are left out."""
    kinds = ran.report[outcome]
    return sum(sum(kinds.get(kind, {}).values()) for kind in ("fx-graph", "aot-autograd"))


class Touch:
    """A pickle that runs code where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


class Leave:
    """A pickle that ends the process in which it is unpickled, before that can say another word."""

    def __reduce__(self) -> Any:
        return os._exit, (0,)


class Keys:
    """`pilotlight keys`, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.trust = directory / "trusted.toml"

    def run(self, *arguments: str, url: str | None = None, status: int = 0, env: dict[str, str] | None = None) -> str:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PILOTLIGHT_")}
        clean |= {"HOME": str(self.directory), "XDG_CONFIG_HOME": ""} | (env or {})
        if url is not None:
            clean["PILOTLIGHT_URL"] = url
        done = subprocess.run([str(paths.pilotlight()), *arguments], capture_output=True, text=True, env=clean)
        assert done.returncode == status, (done.stdout, done.stderr)
        return (done.stdout or done.stderr).strip()

    def new(self, name: str) -> tuple[Path, str]:
        public = self.run("keys", "new", "--name", name, "--dir", str(self.directory))
        return self.directory / f"{name}.key", public

    def accept(self, public: str, *more: str) -> None:
        self.run("keys", "trust", public, "--name", "ci", "--file", str(self.trust), *more)

    def env(self, verify: str, key: Path | None = None) -> dict[str, str]:
        env = {"PILOTLIGHT_VERIFY": verify, "PILOTLIGHT_TRUST": str(self.trust)}
        return env if key is None else env | {"PILOTLIGHT_SIGNING_KEY": str(key)}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    directory = tmp_path / "keys"
    directory.mkdir()
    return Keys(directory)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Redis]:
    if paths.tool("redis-server") is None:
        pytest.skip("redis-server is not installed and could not be fetched (make tools)")
    with Redis(tmp_path / "redis", append_only=False) as running:
        yield running


def poison(port: int, evil: bytes) -> int:
    """Puts `evil` over every graph and AOTAutograd entry, as whoever can reach the server can; says over how many.

    On a Pilotlight as stock clients put, on a Redis as ours do: in envelopes, without a signature.
    """
    raw = redis.Redis(port=port)
    names = [key for key in raw.scan_iter(count=1000) if b":c1" in key and not key.endswith(b"#v")]
    for key in names:
        if key.startswith(b"pilotlight:1:"):
            url = f"redis://127.0.0.1:{port}"
            assert Client(url).put(key.removeprefix(b"pilotlight:1:"), evil, torch_json=True, compile_ms=5)
        else:
            value = json.dumps({"data": base64.b64encode(evil).decode(), "time_taken_ms": 5})
            assert raw.set(key, value.encode())
    return len(names)


@pytest.mark.parametrize("engine", ["pilotlight", "redis"])
def test_a_malicious_pickle_never_runs_under_require_and_is_told_under_warn(
    engine: str, request: pytest.FixtureRequest, programs: Programs, keys: Keys, tmp_path: Path
) -> None:
    running = request.getfixturevalue("server" if engine == "pilotlight" else "redis_server")
    url = url_of(running) if engine == "pilotlight" else f"redis://127.0.0.1:{running.port}"
    key, public = keys.new("ci")
    keys.accept(public)
    touched = tmp_path / "touched"
    evil = pickle.dumps(Touch(touched))
    signed = programs.run(GRAPH, url=url, env=keys.env("require", key))
    assert graphs(signed, "put") == 2
    warm = programs.run(GRAPH, url=url, env=keys.env("require"))
    assert (graphs(warm, "hit"), warm.report_total("miss")) == (2, 0)

    assert poison(running.port, evil) >= 2
    refused = programs.run(GRAPH, url=url, env=keys.env("require"))
    assert not touched.exists()
    assert refused.report_total("hit") == 0
    assert refused.count("miss", "aot-autograd", "unsigned") == 1
    assert refused.count("miss", "fx-graph", "unsigned") == 1
    assert "is not used (unsigned: it has no signature)" in refused.err
    assert "hint: none was used; `pilotlight doctor`" in refused.err

    # Who refused it deleted nothing, but put its own, unsigned, in the place.
    assert poison(running.port, evil) >= 2
    warned = programs.run(GRAPH, url=url, env=keys.env("warn"))
    assert "is used although nobody trusted signed it (unsigned: it has no signature)" in warned.err
    assert "used that nobody trusted signed" in warned.err
    assert touched.exists(), "the control: it does run where nobody requires a signature"
    touched.unlink()
    assert poison(running.port, evil) >= 2
    programs.run(GRAPH, url=url)
    assert touched.exists(), "the control"
    assert poison(running.port, pickle.dumps(Leave())) >= 2
    ended = programs.run(GRAPH, url=url, env=keys.env("warn"))
    assert ended.reports == []
    assert "is used although nobody trusted signed it" in ended.err, "said before it ran"


def test_the_drop_in_refuses_too(server: Pilotlight, keys: Keys, tmp_path: Path) -> None:
    key, public = keys.new("ci")
    keys.accept(public)
    code = """
import sys
from pilotlight.remote_cache import RemoteFxGraphCache
cache = RemoteFxGraphCache("fx-graph-v1")
if sys.argv[1] == "put":
    cache.put("k", {"data": "AAAA"})
print(cache.get("k"))
"""

    def run(what: str, env: dict[str, str]) -> tuple[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PILOTLIGHT_")}
        clean |= {"PILOTLIGHT_URL": url_of(server), "PYTHONPATH": str(PYTHON)} | env
        done = subprocess.run([sys.executable, "-c", code, what], capture_output=True, text=True, env=clean, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), done.stderr

    assert run("put", {})[0] == "{'data': 'AAAA'}"
    out, err = run("get", keys.env("require"))
    assert out == "None"
    assert "unsigned" in err
    assert run("put", keys.env("require", key))[0] == "{'data': 'AAAA'}"
    assert run("get", keys.env("require"))[0] == "{'data': 'AAAA'}"


def test_kernels_and_probes_are_signed_and_taken_after_unsigned_ones_were_there(
    server: Pilotlight, programs: Programs, keys: Keys
) -> None:
    code = """
import torch

def f(x):
    return torch.sin(x) + torch.cos(x) * 2

torch.manual_seed(0)
x = torch.randn(64)
with torch.no_grad():
    assert torch.allclose(torch.compile(f)(x), f(x), atol=1e-5)
"""
    key, public = keys.new("ci")
    keys.accept(public)
    url = url_of(server)
    programs.run(code, url=url)
    first = programs.run(code, url=url, env=keys.env("require", key))
    assert first.report_total("hit") == 0
    assert first.count("miss", "cpp-kernel", "unsigned") >= 1
    second = programs.run(code, url=url, env=keys.env("require"))
    assert second.report_total("miss") == 0, second.report
    assert second.report["hit"]["cpp-kernel"][""] >= 1
    refusals = {name: second.report["client"][name] for name in ("unsigned", "unknown_signer", "bad_signature")}
    assert set(refusals.values()) == {0}, refusals


def test_what_is_wrong_with_the_settings_is_said_and_never_fails_a_compile(
    server: Pilotlight, programs: Programs, keys: Keys, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.key"
    broken.write_text("hunter2")
    env = {"PILOTLIGHT_SIGNING_KEY": str(broken), "PILOTLIGHT_VERIFY": "requir", "PILOTLIGHT_TRUST": str(tmp_path / "none")}
    ran = programs.run(GRAPH, url=url_of(server), env=env)
    assert "holds no private key of Ed25519; what is put is not signed" in ran.err
    assert "PILOTLIGHT_VERIFY is `requir`" in ran.err
    assert "no entry is used" in ran.err
    assert "hunter2" not in ran.err
    assert graphs(ran, "put") == 2
    assert graphs(programs.run(GRAPH, url=url_of(server)), "hit") == 2


def test_rotation_revocation_and_what_show_and_the_doctor_say(server: Pilotlight, programs: Programs, keys: Keys) -> None:
    key, public = keys.new("ci")
    keys.accept(public)
    url = url_of(server)
    programs.run(GRAPH, url=url, env=keys.env("require", key))
    keys.run("keys", "rotate", "--name", "ci", "--overlap", "30d", "--dir", str(keys.directory), "--file", str(keys.trust))
    (new,) = keys.directory.glob("ci-*.key")
    assert graphs(programs.run(GRAPH, url=url, env=keys.env("require", new)), "hit") == 2

    shown = json.loads(keys.run("keys", "show", "--json", "--dir", str(keys.directory), "--file", str(keys.trust)))
    old_id = next(own["id"] for own in shown["keys"] if own["public_key"] == public)
    assert {own["standing"].split(" ")[0] for own in shown["keys"]} == {"trusted"}
    with server.connect() as raw:
        name = next(name for name in raw.command("KEYS", "pt2:fx-graph*") if not name.endswith(b"#v")).decode()
    environment = keys.env("require", new)
    assert keys.run("keys", "show", name, url=url, env=environment).startswith("taken: signed by `ci`")
    keys.run("keys", "revoke", old_id, "--reason", "lost", "--file", str(keys.trust))
    answer = keys.run("keys", "show", name, url=url, env=environment, status=1)
    assert answer.startswith(f"not taken: revoked: signer {old_id} is revoked: lost")
    revoked = programs.run(GRAPH, url=url, env=keys.env("require"))
    assert revoked.count("miss", "fx-graph", "revoked") == 1

    report = json.loads(keys.run("doctor", "--json", url=url, env=environment, status=1))
    findings = [it for it in report["findings"] if it["subject"] == "signatures"]
    # What was compiled after the revocation was put without a key.
    assert any("unsigned" in it["finding"] for it in findings), findings
    # A stranger's.
    stranger, _ = keys.new("stranger")
    programs.run(GRAPH, url=url, env={"PILOTLIGHT_SIGNING_KEY": str(stranger), **keys.env("require")})
    report = json.loads(keys.run("doctor", "--json", url=url, env=environment, status=1))
    (finding,) = (it for it in report["findings"] if "unknown-signer" in it["finding"])
    assert "pilotlight keys trust PUBLIC_KEY --name NAME" in finding["hint"]


def test_a_server_with_signers_takes_the_plug_in_s_puts_and_stock_reads_them(
    programs: Programs, keys: Keys, tmp_path: Path
) -> None:
    key, public = keys.new("ci")
    keys.accept(public)
    with Pilotlight(tmp_path / "guarded", env={"PILOTLIGHT_SIGNERS": str(keys.trust)}) as server:
        url = url_of(server)
        unsigned = programs.run(GRAPH, url=url)
        assert (unsigned.report_total("put"), graphs(unsigned, "drop")) == (0, 2)
        assert unsigned.report["client"]["denied"] >= 2
        assert "this server takes only what its signers signed" in unsigned.err
        assert graphs(programs.run(GRAPH, url=url, env=keys.env("require", key)), "put") == 2
        assert graphs(programs.run(GRAPH, url=url), "hit") == 2
        raw = redis.Redis(port=server.port)
        name = next(name for name in raw.scan_iter() if name.startswith(b"pt2:fx-graph") and not name.endswith(b"#v"))
        assert raw.get(name).startswith(b'{"data": "')
        assert raw.set(name, b"x") is None
        assert server.stats()["refused_puts"]["unverified"] >= 3
