"""Every attack of `attacks/` fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from attacks.all import ATTACKS
from attacks.arena import arena


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_fails(name: str, tmp_path: Path) -> None:
    with arena(tmp_path) as attacked:
        ATTACKS[name](attacked)
        assert "panicked" not in attacked.server.log()
