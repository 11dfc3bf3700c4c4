"""What `make wheel` made, in a fresh environment that has nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from devtools import paths
from devtools.servers import Pilotlight


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of an environment with the wheel in it."""
    wheels = list((paths.TARGET / "wheels").glob("pilotlight-*.whl"))
    if len(wheels) != 1:
        pytest.skip("there is no wheel (make wheel)")
    directory = tmp_path_factory.mktemp("venv")
    venv.create(directory, with_pip=True, symlinks=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-index", str(wheels[0])], check=True)
    return directory / "bin"


def run(installed: Path, *command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PILOTLIGHT_", "PYTHON"))}
    program, *arguments = command
    done = subprocess.run(
        [installed / program, *arguments], capture_output=True, text=True, env=environment, check=True, cwd="/"
    )
    return done.stdout.strip()


def test_the_command_and_the_module_are_installed_and_agree_on_their_version(installed: Path) -> None:
    command = run(installed, "pilotlight", "--version").split()
    assert command[:1] == ["pilotlight"]
    assert run(installed, "python", "-c", "import pilotlight; print(pilotlight.__version__)") == command[1]


def test_the_module_speaks_to_a_server(installed: Path, server: Pilotlight) -> None:
    code = (
        f"from pilotlight import Client; c = Client('pilotlight://127.0.0.1:{server.port}');"
        "print(c.put(b'wheel', b'x'), c.get_many([b'wheel'])[0].artifact)"
    )
    assert run(installed, "python", "-c", code) == "True b'x'"


def test_importing_costs_next_to_nothing(installed: Path) -> None:
    code = "import sys, time; t = time.perf_counter(); import pilotlight; print(time.perf_counter() - t)"
    costs = sorted(float(run(installed, "python", "-c", code)) for _ in range(5))
    assert costs[0] < 0.004, f"{costs} s on {sys.version}"
