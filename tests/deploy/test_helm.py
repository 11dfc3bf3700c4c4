"""The chart, rendered by Helm itself: valid objects, confined pods, servers whose settings `pilotlight serve` accepts."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools import paths
from tests.certificates import Authority
from tests.deploy import known

helm = pytest.importorskip(
    "helm_python", reason="helm-python-sdk is not installed (make venv-test); no wheel for this machine?"
)
kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed (make venv-test)")
yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (make venv-test)")
jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (make venv-test)")

CHART = known.DEPLOY / "helm" / "pilotlight"
EXAMPLE = known.DEPLOY / "examples" / "kubernetes-vllm"
KUBERNETES = "1.37.0"
Values = dict[str, Any]

VALUES: dict[str, Values] = {
    "default": {},
    "tls": {"tls": {"existingSecret": "certificate"}, "serviceMonitor": {"enabled": True}},
    "client certificates": {"tls": {"existingSecret": "certificate", "clientCa": True}, "auth": {"mode": "none"}},
    "users": {
        "auth": {"mode": "users", "existingSecret": "users"},
        "settings": {"quota": ["ci=1GiB", "release=2GiB"], "max_connections": 1000000, "strict": False, "idle_timeout": "5m"},
        "serviceMonitor": {"enabled": True, "credentialsSecret": {"name": "metrics", "key": "secret"}},
    },
    "open": {"auth": {"mode": "none"}},
    "on nodes": {"nodeCache": {"enabled": True}, "nodeSidecar": {"enabled": True, "urlSecret": "url", "caSecret": "ca"}},
    "example": yaml.safe_load((EXAMPLE / "values.yaml").read_text()),
}
CASES = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())


def render(values: Values) -> list[dict[str, Any]]:
    with helm.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)
        manifests = chart.render(values, name="pilotlight", namespace="ml")
    texts = [text for name, text in sorted(manifests.items()) if not name.endswith("NOTES.txt")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def workloads(values: Values) -> Iterator[dict[str, Any]]:
    yield from (document for document in render(values) if document["kind"] in ("StatefulSet", "DaemonSet"))


def only(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    found = [document for document in documents if document["kind"] == kind]
    assert len(found) == 1
    return found[0]


def test_helm_lint_finds_nothing() -> None:
    result = helm.lint(str(CHART))
    assert result["errors"] == []
    # There is no icon.
    assert [message["error"] for message in result["messages"] if "icon" not in message["error"]] == []


def test_schema_is_one_and_the_defaults_follow_it() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.Draft202012Validator(schema).validate(defaults)
    # Every value of the schema is in the file that people read, and the other way round.
    assert set(schema["properties"]) - {"global"} == set(defaults)


def test_chart_offers_every_setting_of_the_server_or_sets_it_itself() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    addresses = {"listen", "http", "data_dir", "port_file"}
    trust = {"tls_cert", "tls_key", "tls_client_ca", "tls_client_auth", "password", "password_file", "users", "insecure"}
    # Files, for which the chart has no volume.
    left_out = {"audit_log", "signers", "record_trace", "origin_credentials"}
    assert set(schema["$defs"]["settings"]["properties"]) == known.settings() - addresses - trust - left_out


@pytest.mark.parametrize(
    "values",
    [
        {"settings": {"maxsize": "1GiB"}},
        {"settings": {"max_size": "lots"}},
        {"image": {"tag": "latest"}},
        {"auth": {"mode": "password", "password": "in the values"}},
        {"replicas": 2},
    ],
    ids=lambda values: json.dumps(values),
)
def test_values_that_make_no_sense_are_refused(values: Values) -> None:
    with pytest.raises(helm.HelmError):
        render(values)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"tls": {"clientCa": True}}, "tls.existingSecret"),
        ({"auth": {"mode": "users"}}, "users.toml"),
        ({"nodeSidecar": {"enabled": True}}, "nodeSidecar.urlSecret"),
        ({"auth": {"mode": "users", "existingSecret": "u"}, "serviceMonitor": {"enabled": True}}, "credentialsSecret"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_missing_is_named(values: Values, reason: str) -> None:
    with pytest.raises(helm.HelmError, match=re.escape(reason)):
        render(values)


@CASES
def test_objects_are_as_kubernetes_wants_them(values: Values) -> None:
    kinds = set()
    for document in render(values):
        kinds.add(document["kind"])
        # Prometheus' operator defines that one, and there is no schema of it here.
        if document["kind"] != "ServiceMonitor":
            kubernetes.validate(document, KUBERNETES, strict=True)
    assert {"StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceAccount"} <= kinds


def test_vllm_example_is_as_kubernetes_wants_it() -> None:
    for document in yaml.safe_load_all((EXAMPLE / "vllm.yaml").read_text()):
        kubernetes.validate(document, KUBERNETES, strict=True)
    # It takes the password that the chart makes, at the service that the chart makes.
    documents = render(VALUES["example"])
    container = document["spec"]["template"]["spec"]["containers"][0]
    variables = {variable["name"]: variable for variable in container["env"]}
    secret = only(documents, "Secret")
    reference = variables["PILOTLIGHT_PASSWORD"]["valueFrom"]["secretKeyRef"]
    assert reference["name"] == secret["metadata"]["name"]
    assert reference["key"] in secret["data"]
    service = next(found for found in documents if found["kind"] == "Service" and found["spec"].get("clusterIP") != "None")
    port = next(port["port"] for port in service["spec"]["ports"] if port["name"] == "redis")
    assert variables["PILOTLIGHT_URL"]["value"].endswith(f"@{service['metadata']['name']}:{port}")


@CASES
def test_pods_are_confined_and_bounded(values: Values) -> None:
    for workload in workloads(values):
        pod = workload["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        # Root has to be where the kubelet makes directories on the node, and nowhere else.
        on_the_node = any("hostPath" in volume for volume in pod["volumes"])
        assert pod["securityContext"].get("runAsNonRoot", False) is not on_the_node
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
            assert not container["image"].endswith(":latest")
            assert "livenessProbe" in container


@CASES
def test_what_selects_the_server_selects_it_alone(values: Values) -> None:
    documents = render(values)
    labels = {
        workload["metadata"]["name"]: workload["spec"]["template"]["metadata"]["labels"] for workload in workloads(values)
    }

    def selected(selector: dict[str, str]) -> list[str]:
        return [name for name, of_pod in labels.items() if selector.items() <= of_pod.items()]

    selectors = [document["spec"]["selector"] for document in documents if document["kind"] == "Service"]
    selectors += [only(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    selectors += [only(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]]
    assert [selected(selector) for selector in selectors] == [["pilotlight"]] * len(selectors)
    container = only(documents, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    targets = {
        port["targetPort"] for document in documents if document["kind"] == "Service" for port in document["spec"]["ports"]
    }
    assert targets <= ports


def test_probes_ask_what_wants_no_password() -> None:
    container = next(workloads({}))["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    # The kubelet has no certificate to show.
    container = next(workloads(VALUES["client certificates"]))["spec"]["template"]["spec"]["containers"][0]
    assert "tcpSocket" in container["livenessProbe"]


def size_bytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMGT])i?B?", text).groups()  # type: ignore[union-attr]
    return int(number) << {"K": 10, "M": 20, "G": 30, "T": 40}[unit]


@CASES
def test_bound_fits_the_volume_and_memory_fits_the_limit(values: Values) -> None:
    server = only(render(values), "StatefulSet")
    volume = server["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    container = server["spec"]["template"]["spec"]["containers"][0]
    settings = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    # An operator's own settings replace the chart's one by one.
    assert size_bytes(settings["PILOTLIGHT_MAX_SIZE"]) <= 0.9 * size_bytes(volume)
    in_flight = 1 << 30
    assert size_bytes(settings["PILOTLIGHT_MEMORY"]) + in_flight < size_bytes(container["resources"]["limits"]["memory"])


def test_password_fits_into_a_url_and_an_existing_secret_is_left_alone() -> None:
    secret = only(render({}), "Secret")
    assert re.fullmatch(rb"[A-Za-z0-9]{43}", base64.b64decode(secret["data"]["password"]))
    assert not [found for found in render({"auth": {"existingSecret": "mine"}}) if found["kind"] == "Secret"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a node would mount: certificates, a users file and a password, at their paths below a directory."""
    root = tmp_path_factory.mktemp("mounted")
    tls, auth = root / "etc/pilotlight/tls", root / "etc/pilotlight/auth"
    for directory in (tls, auth, root / "data", root / "run/pilotlight"):
        directory.mkdir(parents=True)
    authority = Authority(tls, "ca")
    certificate, key = authority.sign("tls", "/CN=pilotlight", "DNS:pilotlight.ml.svc")
    certificate.rename(tls / "tls.crt")
    key.rename(tls / "tls.key")
    authority.pem.rename(tls / "ca.crt")
    (auth / "password").write_text("secret")
    assert known.pilotlight("users", "add", "ci", "--grant", "rw ci", "--file", str(auth / "users.toml")).returncode == 0
    return root


@CASES
def test_serve_accepts_the_settings_of_every_server(values: Values, files: Path) -> None:
    servers = 0
    for workload in workloads(values):
        container = workload["spec"]["template"]["spec"]["containers"][0]
        if container["args"][0] != "serve":
            continue
        servers += 1
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        env = {}
        for variable in container["env"]:
            value = variable["value"]
            path = value.removeprefix("unix:")
            if path.startswith("/"):
                assert any(path.startswith(mount + "/") for mount in mounts), f"{path} is on no volume"
                value = value.replace(path, f"{files}{path}")
            env[variable["name"]] = value
        assert set(env) <= known.variables()
        done = known.validate(container["args"], env)
        assert done.returncode == 0, f"{workload['metadata']['name']}: {done.stderr}"
    assert servers >= 1


def test_sidecar_is_given_flags_that_it_has() -> None:
    sidecar = next(found for found in workloads(VALUES["on nodes"]) if found["metadata"]["name"].endswith("node-sidecar"))
    container = sidecar["spec"]["template"]["spec"]["containers"][0]
    command, *flags = container["args"]
    assert command == "sidecar"
    assert all(flag in known.help_of("sidecar") for flag in flags if flag.startswith("--"))
    assert {variable["name"] for variable in container["env"]} <= known.variables()
    # Loopback of the node: without its network nobody could reach it.
    assert sidecar["spec"]["template"]["spec"]["hostNetwork"] is True


def test_versions_are_those_of_the_workspace() -> None:
    version = re.search(r'^version = "([^"]+)"', (paths.ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert version is not None
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version.group(1), version.group(1))
    assert f"image: pilotlight:{version.group(1)}\n" in (known.DEPLOY / "compose.yaml").read_text()
