"""PyTorch's own tests against ours. They are not kept here: PILOTLIGHT_UPSTREAM names files of theirs, parted by `:`.

Each runs unchanged, twice: with `pilotlight.remote_cache` standing at `torch._inductor.remote_cache`, and with the plug-in
active. A Markdown file is taken for its first `py` block.

    PILOTLIGHT_UPSTREAM=test_remote_cache.py:test_pgo.py pytest tests/plugin/test_upstream.py
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from devtools.servers import Pilotlight
from tests.plugin.conftest import Programs, url_of

FILES = [Path(name) for name in os.environ.get("PILOTLIGHT_UPSTREAM", "").split(":") if name]

STAND_IN = """
import sys, runpy
import torch
from pilotlight import remote_cache
sys.modules["torch._inductor.remote_cache"] = remote_cache
import torch._inductor
torch._inductor.remote_cache = remote_cache
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

PLUGGED_IN = "import sys, runpy\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("how", ["stand-in", "plugged-in"])
def test_theirs(file: Path, how: str, tmp_path: Path, programs: Programs, server: Pilotlight) -> None:
    source = file.read_text()
    if file.suffix == ".md":
        block = re.search(r"```py\n(.*?)```", source, re.DOTALL)
        assert block is not None
        source = block[1]
    theirs = tmp_path / f"{file.stem}.py"
    theirs.write_text(source)
    ran = programs.run(
        STAND_IN if how == "stand-in" else PLUGGED_IN,
        str(theirs),
        url=url_of(server),
        env={"TORCH_DEVICE_BACKEND_AUTOLOAD": "1" if how == "plugged-in" else "0", "CI": ""},
    )
    tail = ran.err[-3000:]
    assert re.search(r"^OK", tail, re.MULTILINE), tail
    print(tail)


def test_none_are_named() -> None:
    if not FILES:
        pytest.skip("PILOTLIGHT_UPSTREAM names no tests of PyTorch's")
