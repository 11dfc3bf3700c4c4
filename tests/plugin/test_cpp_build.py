"""What one call of `load_async` decides, without torch calling it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("pilotlight._native")

from pilotlight.torch.cpp_build import Build, Origin


def test_what_else_is_written_meanwhile_is_not_taken_for_the_kernel(tmp_path: Path) -> None:
    """The first call of a process compiles probes of the vector ISA inside `load_async`."""
    probe = tmp_path / "probe.cpp"
    probe.with_suffix(".so").write_text("")
    build = Build(SimpleNamespace(cache={}), "int kernel;", None, ())
    build.wrote("int probe;", "g++ i", ("probe", str(probe)))
    assert not build.is_done()


@pytest.mark.parametrize("origin", ["UNKNOWN", "LOCAL", "COMPILED"])
def test_an_object_that_does_not_load_is_removed_once_whoever_placed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    """Another process may have fetched it while this one missed it, or this one has kernels switched off by now."""
    monkeypatch.setenv("PILOTLIGHT_KERNELS", "0")
    source = tmp_path / "kernel.main.cpp"
    binary = source.with_suffix(".so")
    build = Build(SimpleNamespace(cache={"k": "failed"}), "int kernel;", None, ())
    build.wrote("int kernel;", "g++ i", ("k", str(source)))
    build.origin = Origin[origin]
    binary.write_text("no object")
    assert not build.recover(OSError(24, "too many open files")), "that says nothing about the object"
    assert build.recover(ImportError("no object"))
    assert not binary.exists()
    assert build._cls.cache == {}
    binary.write_text("what the compiler made")
    assert not build.recover(ImportError("nor does it"))
    assert binary.exists()


def test_an_object_that_links_files_of_this_machine_is_left_to_torch(tmp_path: Path) -> None:
    binary = tmp_path / "kernel.so"
    binary.write_text("linked to what is not there")
    build = Build(SimpleNamespace(cache={}), "int kernel;", None, ["-lcustom"])
    build.wrote("int kernel;", "g++ i", ("k", str(tmp_path / "kernel.cpp")))
    assert not build.recover(ImportError("libcustom.so: cannot open shared object file"))
    assert binary.exists()
