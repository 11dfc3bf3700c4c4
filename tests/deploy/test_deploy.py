"""What deploy/ holds can be deployed: its names exist, its files are as their formats want, its servers start."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devtools import paths
from tests.deploy import known

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (make venv-test)")

CONTAINERFILES = sorted(known.DEPLOY.rglob("Containerfile"))
YAML_FILES = [
    path for path in sorted(known.DEPLOY.rglob("*.yaml")) + sorted(known.DEPLOY.rglob("*.yml")) if "templates" not in path.parts
]
COMPOSE = known.DEPLOY / "compose.yaml"
WORKFLOW = known.DEPLOY / "examples" / "github-actions" / "tests.yml"


def names(path: Path) -> str:
    return str(path.relative_to(paths.ROOT))


@pytest.mark.parametrize("path", list(known.documents()), ids=names)
def test_every_variable_that_is_named_exists(path: Path) -> None:
    named = set(re.findall(r"\bPILOTLIGHT_[A-Z_]*[A-Z]\b", path.read_text()))
    assert named <= known.variables()


@pytest.mark.parametrize("path", list(known.documents()), ids=names)
def test_every_flag_of_ours_that_is_named_exists(path: Path) -> None:
    for called, flags in known.commands(path.read_text()):
        text = "".join(known.help_of(*called[:length]) for length in range(1, len(called) + 1))
        for flag in flags:
            assert re.search(rf"{re.escape(flag)}\b(?!-)", text), f"pilotlight {' '.join(called)} {flag}"


@pytest.mark.parametrize("path", known.DOCS, ids=names)
def test_every_key_that_is_set_in_a_document_exists(path: Path) -> None:
    assert set(re.findall(r"`([a-z_]+) = ", path.read_text())) <= known.settings()


def test_commands_are_found_in_prose_and_in_lists() -> None:
    text = 'Run `pilotlight serve --max-size 1GiB`.\nCMD ["pilotlight", "stats", "--json"]\npilotlight users add ci --grant x'
    assert list(known.commands(text)) == [
        (["serve"], ["--max-size"]),
        (["stats"], ["--json"]),
        (["users", "add"], ["--grant"]),
    ]
    assert list(known.commands("helm install pilotlight deploy/helm --namespace ml")) == []


@pytest.mark.parametrize("path", YAML_FILES, ids=names)
def test_yaml_parses(path: Path) -> None:
    assert [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


@pytest.mark.parametrize(
    ("path", "schema"), [(COMPOSE, "compose-spec"), (WORKFLOW, "github-workflows")], ids=["compose", "workflow"]
)
def test_file_is_as_its_format_wants(path: Path, schema: str) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed (make venv-test)")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


@pytest.mark.parametrize("path", CONTAINERFILES, ids=names)
def test_container_has_fixed_bases_a_user_that_is_not_root_and_fetches_nothing_by_add(path: Path) -> None:
    found = instructions(path)
    stages: set[str] = set()
    for base in [rest for word, rest in found if word == "FROM"]:
        image, _, stage = base.partition(" AS ")
        assert image == "scratch" or image in stages or re.search(r":(?!latest)\S+$", image), f"{image} has no fixed tag"
        stages.add(stage)
    assert not [rest for word, rest in found if word == "ADD"]
    after_the_last_base = found[max(index for index, (word, _) in enumerate(found) if word == "FROM") :]
    users = [rest for word, rest in after_the_last_base if word == "USER"]
    assert users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]), "a number that is not 0, which Kubernetes can check"
    assert not [rest for word, rest in found if re.search(r"(curl|wget)[^|]*\|", rest)]


@pytest.mark.parametrize("path", CONTAINERFILES, ids=names)
def test_hadolint_finds_nothing(path: Path) -> None:
    beside = Path(sys.executable).parent / "hadolint"
    hadolint = str(beside) if beside.exists() else paths.tool("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (make venv-test), and there is no wheel of it for every machine")
    done = subprocess.run([hadolint, "--no-color", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_image_is_built_from_what_the_repository_has_and_with_its_compiler() -> None:
    found = instructions(known.DEPLOY / "Containerfile")
    for sources in [rest for word, rest in found if word == "COPY" and "--from=" not in rest]:
        for source in sources.split()[:-1]:
            assert (paths.ROOT / source).exists(), source
    workspace = (paths.ROOT / "Cargo.toml").read_text()
    version = re.search(r'^rust-version = "([\d.]+)"', workspace, re.MULTILINE)
    assert version is not None
    assert ("ARG", f"RUST_VERSION={version.group(1)}") in found
    members = re.search(r"^members = \[(.*)\]", workspace, re.MULTILINE)
    assert members is not None
    copied = {source for word, rest in found if word == "COPY" for source in rest.split()[:-1]}
    assert {member.split("/")[0] for member in re.findall(r'"([^"]+)"', members.group(1))} <= copied


def test_image_starts_the_server_and_asks_it_by_itself() -> None:
    found = dict(instructions(known.DEPLOY / "Containerfile"))
    assert found["ENTRYPOINT"] == '["/usr/bin/pilotlight"]'
    assert found["CMD"] == '["serve"]'
    assert found["STOPSIGNAL"] == "SIGTERM"
    assert re.search(r'CMD \["/usr/bin/pilotlight", "stats", "--json"\]$', found["HEALTHCHECK"])


def environment_of_the_image() -> dict[str, str]:
    found = dict(instructions(known.DEPLOY / "Containerfile"))
    return dict(word.split("=", 1) for word in found["ENV"].split())


def test_image_refuses_to_start_open_to_the_network(tmp_path: Path) -> None:
    env = {**environment_of_the_image(), "PILOTLIGHT_DATA_DIR": str(tmp_path)}
    done = known.validate(["serve"], env)
    assert done.returncode == 2
    assert "there is no password" in done.stderr


def test_compose_service_is_valid_and_confined(tmp_path: Path) -> None:
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    service = document["services"]["server"]
    password = tmp_path / "password"
    password.write_text("secret\n")
    env = {**environment_of_the_image(), **service["environment"], "PILOTLIGHT_DATA_DIR": str(tmp_path / "data")}
    assert env["PILOTLIGHT_PASSWORD_FILE"] == f"/run/secrets/{service['secrets'][0]}"
    done = known.validate(service["command"], {**env, "PILOTLIGHT_PASSWORD_FILE": str(password)})
    assert done.returncode == 0, done.stderr
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert not service["image"].endswith(":latest")
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert set(service["secrets"]) <= set(document["secrets"])
    assert {volume.split(":")[0] for volume in service["volumes"]} <= set(document["volumes"])


def test_slurm_script_is_shell_and_its_configuration_is_valid(tmp_path: Path) -> None:
    directory = known.DEPLOY / "examples" / "slurm-torchrun"
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run([bash, "-n", str(directory / "train.sbatch")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    users = tmp_path / "users.toml"
    assert known.pilotlight("users", "add", "slurm", "--grant", "rw ''", "--file", str(users)).returncode == 0
    text = (directory / "README.md").read_text()
    shown = re.search(r"pilotlight\.toml <<EOF\n(.*?)^EOF$", text, re.DOTALL | re.MULTILINE)
    assert shown is not None
    file = tmp_path / "pilotlight.toml"
    file.write_text(shown.group(1).replace("/etc/pilotlight/users.toml", str(users)))
    done = known.validate(["serve", "--config", str(file), "--data-dir", str(tmp_path / "data")], {})
    assert done.returncode == 0, done.stderr
