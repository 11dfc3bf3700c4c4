"""The units: what systemd says to them, and that the server they start lives through what they do to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from devtools import paths
from devtools.resp import Connection
from devtools.servers import Pilotlight
from tests.deploy import known
from tests.waiting import wait_until

SYSTEMD = known.DEPLOY / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
INSTALLED = "/usr/local/bin/pilotlight"
EXPOSURE_MAX = 2.0
"""Of 10, by `systemd-analyze security`; it is 1.5 with systemd 252."""


Traced = Callable[[Sequence[str], Mapping[str, str]], tuple[subprocess.Popen[bytes], Path]]


def exec_start(unit: Path) -> list[str]:
    found = re.search(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    assert found is not None
    words = found.group(1).split()
    assert words[0] == INSTALLED
    return words[1:]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = paths.tool("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not on this machine")
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if "nknown" in done.stderr and "option" in done.stderr:
        pytest.skip(f"this systemd-analyze is too old: {done.stderr.strip()}")
    return done


@pytest.fixture
def installed(unit: Path, tmp_path: Path) -> Path:
    """The unit with the program where it is, as systemd looks whether it is there."""
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace(INSTALLED, str(paths.pilotlight())))
    return copy


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit_without_a_word(installed: Path) -> None:
    done = analyze("verify", "--man=no", str(installed))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_unit_is_confined(installed: Path, unit: Path) -> None:
    for line in (
        "DynamicUser=yes",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "PrivateUsers=yes",
    ):
        assert line in unit.read_text().splitlines()
    done = analyze("security", "--offline=true", "--no-pager", str(installed))
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure is not None, done.stdout + done.stderr
    assert float(exposure.group(1)) <= EXPOSURE_MAX


def in_place(arguments: list[str], state: Path) -> list[str]:
    """Systemd's directories, below `state`."""
    for specifier in ("%S", "%L", "%t"):
        arguments = [word.replace(specifier, str(state / specifier[1])) for word in arguments]
    return arguments


def test_server_of_the_unit_has_a_valid_configuration(tmp_path: Path) -> None:
    arguments = in_place(exec_start(SYSTEMD / "pilotlight.service"), tmp_path)
    done = known.validate(arguments, {"XDG_CONFIG_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    # The file that the unit speaks of is read.
    (tmp_path / "pilotlight").mkdir()
    (tmp_path / "pilotlight" / "pilotlight.toml").write_text('max_size = "7GiB"\n')
    assert re.search(r"^max-size\s+7GiB", known.validate(arguments, {"XDG_CONFIG_HOME": str(tmp_path)}).stdout, re.MULTILINE)


def test_server_of_the_unit_lives_through_a_reload_and_ends_in_good_order(tmp_path: Path) -> None:
    arguments = in_place(exec_start(SYSTEMD / "pilotlight.service"), tmp_path)
    for flag in ("--data-dir", "--audit-log"):
        Path(arguments[arguments.index(flag) + 1]).parent.mkdir(parents=True, exist_ok=True)
    audit = arguments[arguments.index("--audit-log") + 1]
    with Pilotlight(tmp_path / "S" / "pilotlight", flags=["--audit-log", audit]) as server:
        # As logrotate does.
        Path(audit).rename(audit + ".1")
        os.kill(server.pid, signal.SIGHUP)
        wait_until(Path(audit).exists, trouble=server.log)
        for path in ("healthz", "readyz"):
            with urllib.request.urlopen(f"{server.http_url}/{path}") as answer:
                assert answer.status == 200
        assert server.stop() == 0
    text = (SYSTEMD / "pilotlight.service").read_text()
    assert "ExecReload=/bin/kill -HUP $MAINPID" in text.splitlines()


def system_calls(group: str) -> set[str]:
    """Those of a group of systemd's, such as `@chown`, and of the groups in it."""
    found: set[str] = set()
    for line in analyze("syscall-filter", "--no-pager", group).stdout.splitlines():
        word = line.strip()
        if word.startswith("@") and word != group:
            found |= system_calls(word)
        elif re.fullmatch(r"[a-z0-9_]+", word):
            found.add(word)
    return found


def permitted(unit: Path) -> set[str]:
    """What the unit's filter lets through: groups and single calls, added and taken away line by line."""
    calls: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit.read_text(), re.MULTILINE):
        words = line.removeprefix("~").split()
        named = set().union(*(system_calls(word) if word.startswith("@") else {word} for word in words))
        calls = calls - named if line.startswith("~") else calls | named
    return calls


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Traced]:
    """Starts the program with a tracer beside it, which counts its system calls into a file when it ends."""
    strace = paths.tool("strace")
    if strace is None:
        pytest.skip("strace is not on this machine")
    started: list[subprocess.Popen[bytes]] = []

    def start(arguments: Sequence[str], env: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], Path]:
        counts = tmp_path / f"{arguments[0]}.calls"
        # `-D`: the child is the program itself, and not the tracer.
        command = [strace, "-D", "-f", "-qq", "-c", "-o", str(counts), str(paths.pilotlight()), *arguments]
        started.append(subprocess.Popen(command, env=dict(env), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return started[-1], counts

    yield start
    for process in started:
        process.kill()
        process.wait()


def called(counts: Path) -> set[str]:
    wait_until(lambda: counts.exists() and "total" in counts.read_text())
    lines = [line.split() for line in counts.read_text().splitlines()]
    return {line[-1] for line in lines if line and re.match(r"[\d.]+$", line[0])} - {"total"}


def test_filter_lets_through_what_the_server_calls(tmp_path: Path, traced: Traced) -> None:
    ports, audit = tmp_path / "ports", tmp_path / "audit.jsonl"
    arguments = ["serve", "--data-dir", str(tmp_path / "data"), "--audit-log", str(audit), "--port-file", str(ports)]
    arguments += ["--listen", "127.0.0.1:0", "--listen", f"unix:{tmp_path / 'socket'}?mode=0666", "--http", "127.0.0.1:0"]
    server, counts = traced([*arguments, "--recompress-after", "1s"], {})
    wait_until(lambda: server.poll() is not None or (ports.exists() and bool(ports.read_text())))
    assert server.poll() is None
    host, _, port = json.loads(ports.read_text())["redis"][0].rpartition(":")
    with Connection(host, int(port)) as connection:
        for number in range(64):
            connection.command("SET", f"pt2:fx-graph-v1::f{number}:c1", os.urandom(64) * (number * 32 + 1))
            connection.command("GET", f"pt2:fx-graph-v1::f{number}:c1")
    audit.rename(tmp_path / "audit.1")
    server.send_signal(signal.SIGHUP)
    wait_until(audit.exists)
    server.terminate()
    assert server.wait(60) == 0
    calls = called(counts)
    assert any("chown" in call for call in calls)
    assert calls <= permitted(SYSTEMD / "pilotlight.service")


def test_filter_lets_through_what_the_sidecar_calls(tmp_path: Path, traced: Traced) -> None:
    address = tmp_path / "address"
    with Pilotlight(tmp_path / "data") as upstream:
        env = {"PILOTLIGHT_URL": f"pilotlight://127.0.0.1:{upstream.port}"}
        sidecar, counts = traced(["sidecar", "--listen", "127.0.0.1:0", "--port-file", str(address)], env)
        wait_until(lambda: sidecar.poll() is not None or (address.exists() and bool(address.read_text())))
        assert sidecar.poll() is None
        host, _, port = address.read_text().rpartition(":")
        with Connection(host, int(port)) as connection:
            connection.command("SET", "pt2:fx-graph-v1::fa:c1", b"bytes")
            assert connection.command("GET", "pt2:fx-graph-v1::fa:c1") == b"bytes"
    # Now it answers itself.
    with Connection(host, int(port)) as connection:
        assert connection.command("GET", "pt2:fx-graph-v1::fa:c1") is None
    sidecar.terminate()
    assert sidecar.wait(60) == 0
    calls = called(counts)
    assert "socket" in calls
    assert calls <= permitted(SYSTEMD / "pilotlight-sidecar.service")


def test_stop_timeout_is_longer_than_the_drain() -> None:
    timeout = re.search(r"^TimeoutStopSec=(\d+)$", (SYSTEMD / "pilotlight.service").read_text(), re.MULTILINE)
    assert timeout is not None
    drain = re.search(r'^# drain_timeout = "(\d+)s"$', known.pilotlight("config", "--example").stdout, re.MULTILINE)
    assert drain is not None
    assert int(timeout.group(1)) > int(drain.group(1))


def test_sidecar_of_the_unit_wants_the_variable_that_its_file_sets() -> None:
    arguments = exec_start(SYSTEMD / "pilotlight-sidecar.service")
    assert arguments[0] == "sidecar"
    listen = arguments.index("--listen")
    arguments[listen + 1] = "127.0.0.1:0"
    done = known.pilotlight(*arguments)
    assert done.returncode == 2
    assert "PILOTLIGHT_URL" in done.stderr
