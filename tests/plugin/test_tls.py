"""The plug-in over TLS, known to the server by its certificate."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.servers import Pilotlight
from tests.certificates import Authority
from tests.plugin.conftest import Programs
from tests.plugin.test_activation import COMPILE

pytest.importorskip("torch")


def test_a_machine_starts_warm_over_mutual_tls(programs: Programs, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.sign("server", "/CN=localhost", "DNS:localhost")
    own, own_key = authority.sign("client", "/CN=trainer", "DNS:trainer")
    flags = ["--tls-cert", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(authority.pem)]
    settings = {"PILOTLIGHT_PASSWORD": "not needed by whoever has a certificate"}
    with Pilotlight(tmp_path / "data", listen=("127.0.0.1:0", "tls:127.0.0.1:0"), flags=flags, env=settings) as server:
        url = f"pilotlights://localhost:{server.tls_port}"
        tls = {"PILOTLIGHT_SERVER_CA": str(authority.pem)}
        mutual = {**tls, "PILOTLIGHT_CLIENT_CERT": str(own), "PILOTLIGHT_CLIENT_KEY": str(own_key)}
        cold = programs.run(COMPILE, url=url, env=mutual)
        assert cold.report_total("put") > 0
        warm = programs.run(COMPILE, url=url, env=mutual)
        assert warm.report_total("hit") > 0
        assert warm.report_total("put") == 0
        # Without its certificate it compiles by itself, and says why.
        outside = programs.run(COMPILE, url=url, env=tls)
        assert "equal True" in outside.out
        assert "ertificate" in outside.err
