"""The units: what systemd says to them, and that the server they start lives through what they do to it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from devtools import paths
from devtools.servers import Pilotlight
from tests.deploy import known
from tests.waiting import wait_until

SYSTEMD = known.DEPLOY / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
INSTALLED = "/usr/local/bin/pilotlight"
EXPOSURE_MAX = 2.0
"""Of 10, by `systemd-analyze security`; it is 1.5 with systemd 252."""


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
