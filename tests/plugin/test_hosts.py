"""Code made for another CPU is not used: it would give wrong numbers, and nothing in torch's key tells."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devtools.servers import Pilotlight
from tests.plugin.conftest import Programs, url_of

torch = pytest.importorskip("torch")

# The sum of a row is tiled for the vector width; a tile of 16 under 8 lanes leaves out half of what it adds.
VECTORS = """
import sys
import torch
from torch._inductor import config
config.cpp_cache_precompile_headers = False
torch.manual_seed(0)
x = torch.randn(37, 67)
def work(x): return (x * 3).sum(1) + x.exp().amax(1)
with torch.no_grad():
    got, want = torch.compile(work)(x), work(x)
print(torch.backends.cpu.get_cpu_capability(), torch.allclose(got, want, rtol=1e-4))
"""


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="this CPU has no AVX-512 to differ by")
def test_an_avx512_entry_gives_right_numbers_on_avx2(programs: Programs, server: Pilotlight) -> None:
    quiet = {"PILOTLIGHT_QUIET": "1"}
    wide = programs.run(VECTORS, url=url_of(server), env=quiet)
    assert wide.out == "AVX512 True\n"
    narrow = programs.run(VECTORS, url=url_of(server), env={**quiet, "ATEN_CPU_CAPABILITY": "avx2"})
    assert narrow.out == "AVX2 True\n"
    assert narrow.count("miss", "fx-graph", "fingerprint") >= 1, narrow.report
    assert narrow.count("hit", "fx-graph") == 0
    again = programs.run(VECTORS, url=url_of(server), env=quiet)
    assert again.out == "AVX512 True\n"
    assert again.count("hit", "fx-graph") == 1, "both hosts' entries are kept"


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="this CPU has no AVX-512 to differ by")
def test_an_avx512_entry_in_a_shared_home_directory_is_not_used_on_avx2(
    programs: Programs, server: Pilotlight, tmp_path: Path
) -> None:
    quiet = {"PILOTLIGHT_QUIET": "1"}
    home = tmp_path / "home"
    for capability in ("AVX512", "AVX2", "AVX512"):
        pinned = quiet | ({"ATEN_CPU_CAPABILITY": "avx2"} if capability == "AVX2" else {})
        ran = programs.run(VECTORS, url=url_of(server), env=pinned, machine=home)
        assert ran.out == f"{capability} True\n"
    assert ran.report_total("miss") == 0, "the first one's entry is still there"


SAVED = """
import contextlib, sys, tempfile
import torch
from torch._inductor import CompiledArtifact, config, standalone_compile
module = torch.nn.Linear(8, 3)
def work(x):
    with torch.no_grad(): return module(x), x.sin()
def backend(gm, args, **kwargs):
    artifact = standalone_compile(gm, args)
    with tempfile.TemporaryDirectory() as directory:
        artifact.save(path=directory, format="unpacked")
        return CompiledArtifact.load(path=directory, format="unpacked")
refused = config.patch(fx_graph_remote_cache=False) if "refused" in sys.argv else contextlib.nullcontext()
with refused:
    torch.compile(work, fullgraph=True, backend=backend)(torch.randn(4, 8))
print("saved")
"""


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="this CPU has no AVX-512 to differ by")
def test_what_another_kind_of_cpu_put_does_not_keep_an_artifact_from_being_saved(
    programs: Programs, server: Pilotlight
) -> None:
    quiet = {"PILOTLIGHT_QUIET": "1"}
    assert programs.run(SAVED, url=url_of(server), env=quiet).out == "saved\n"
    narrow = programs.run(SAVED, url=url_of(server), env={**quiet, "ATEN_CPU_CAPABILITY": "avx2"})
    assert narrow.out == "saved\n", narrow.err
    assert narrow.count("miss", "aot-autograd", "graphs") == 1, "an entry is of no use without its graphs"
    for pinned in ({}, {"ATEN_CPU_CAPABILITY": "avx2"}):
        warm = programs.run(SAVED, url=url_of(server), env=quiet | pinned)
        assert warm.out == "saved\n", warm.err
        assert warm.report_total("miss") == 0, warm.report


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="this CPU has no AVX-512 to differ by")
def test_what_another_kind_of_cpu_left_in_a_shared_home_directory_does_not_either(
    programs: Programs, server: Pilotlight, tmp_path: Path
) -> None:
    quiet, home = {"PILOTLIGHT_QUIET": "1"}, tmp_path / "home"
    assert programs.run(SAVED, url=url_of(server), env=quiet, machine=home).out == "saved\n"
    narrow = programs.run(SAVED, url=url_of(server), env={**quiet, "ATEN_CPU_CAPABILITY": "avx2"}, machine=home)
    assert narrow.out == "saved\n", narrow.err
    assert narrow.count("miss", "aot-autograd", "graphs") == 1, "the entry is on this disk, its graph for this CPU is not"
    assert narrow.count("put", "fx-graph") == narrow.count("put", "aot-autograd") == 1, narrow.report
    for pinned in ({}, {"ATEN_CPU_CAPABILITY": "avx2"}):
        warm = programs.run(SAVED, url=url_of(server), env=quiet | pinned, machine=home)
        assert warm.out == "saved\n", warm.err
        assert warm.report_total("miss") + warm.report_total("put") == 0, warm.report


def test_graphs_that_are_refused_in_code_take_the_entries_that_need_them_along(programs: Programs, server: Pilotlight) -> None:
    for _ in range(2):
        ran = programs.run(SAVED, "refused", url=url_of(server), env={"PILOTLIGHT_QUIET": "1"})
        assert ran.out == "saved\n", ran.err
        assert ran.count("hit", "aot-autograd") + ran.count("put", "aot-autograd") == 0, ran.report


OVERRIDDEN = """
import torch
from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache
from torch._inductor import remote_cache
torch.compile(lambda x: x + 1)(torch.ones(3))
first = AOTAutogradCache.get_remote_cache()
class Backend(remote_cache.RemoteCacheBackend):
    def _get(self, key): return None
    def _put(self, key, data): pass
remote_cache.RemoteAOTAutogradCache.backend_override_cls = lambda: Backend()
print(type(first.backend).__name__, type(AOTAutogradCache.get_remote_cache().backend).__name__)
"""


def test_a_backend_that_a_test_puts_in_place_late_is_used(programs: Programs, server: Pilotlight) -> None:
    ran = programs.run(OVERRIDDEN, url=url_of(server), env={"PILOTLIGHT_QUIET": "1"})
    assert ran.out == "RedisRemoteCacheBackend Backend\n", ran.err


def loop(step: int, element: str = "float") -> str:
    return (
        f"for(int64_t x0=static_cast<int64_t>(0L); x0<static_cast<int64_t>(64L); x0+=static_cast<int64_t>({step}L)) {{"
        f" auto tmp0 = at::vec::Vectorized<{element}>::loadu(in_ptr0 + x0, static_cast<int64_t>({step})); }}"
    )


SCALAR = "for(int64_t x0=static_cast<int64_t>(0L); x0<static_cast<int64_t>(64L); x0+=static_cast<int64_t>(1L)) {}"


@pytest.mark.parametrize(
    ("source", "devices", "fits", "misfits"),
    [
        (SCALAR, ("cpu",), True, False),
        (loop(8), ("cpu",), True, False),
        (loop(8) + SCALAR, ("cpu",), True, False),
        (loop(16), ("cpu",), False, True),
        # With narrow types the step is another ISA's for wide ones: nothing can be said.
        (loop(8, "at::BFloat16"), ("cpu",), False, False),
        (loop(16, "at::BFloat16"), ("cpu",), False, False),
        (loop(8) + "kernel_micro_gemm", ("cpu",), False, False),
        (loop(16), ("cuda",), True, False),
        ("extern_kernels.mm(arg0, arg1)", ("cpu",), True, False),
    ],
)
def test_code_that_nobody_marked_is_used_only_where_it_plainly_fits(
    source: str, devices: tuple[str, ...], fits: bool, misfits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pilotlight.torch import hosts

    monkeypatch.setattr(hosts, "_lanes", lambda: 8)
    graph: Any = SimpleNamespace(source_code=source, device_types=devices)
    assert hosts.fits_unmarked(graph) == fits
    bundled = SimpleNamespace(compiled_fw=SimpleNamespace(result=None), compiled_bw=SimpleNamespace(result=graph))
    assert hosts.fits_unmarked(bundled) == fits, "an AOTAutograd entry that holds it"
    if "cpu" in devices:
        # What torch's own local cache holds is used unless it plainly does not fit.
        assert hosts.plainly_misfits(graph) == hosts.plainly_misfits(bundled) == misfits


@pytest.mark.parametrize(
    ("forward", "backward", "is_tied"),
    [
        (("cuda",), ("cuda",), False),
        (("cuda", "cpu"), ("cuda",), True),
        (("cuda",), ("cuda", "cpu"), True),
        (("cuda",), None, False),
    ],
)
def test_an_entry_any_of_whose_graphs_runs_on_the_cpu_is_tied_to_the_host(
    forward: tuple[str, ...], backward: tuple[str, ...] | None, is_tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pilotlight.torch import puts, remote

    def part(devices: tuple[str, ...] | None) -> Any:
        return devices and SimpleNamespace(result=SimpleNamespace(source_code="", device_types=devices))

    monkeypatch.setattr(remote, "fingerprint", lambda: b"h" * 32)
    entry = SimpleNamespace(compiled_fw=part(forward), compiled_bw=part(backward))
    assert puts.host_of(entry) == (b"h" * 32 if is_tied else None)


def test_code_that_cannot_be_seen_is_not_used() -> None:
    from pilotlight.torch import hosts

    named = SimpleNamespace(compiled_fw=SimpleNamespace(fx_graph_cache_info=("f", [])), compiled_bw=None)
    assert hosts.fits_unmarked(named), "it holds no code, its graphs are looked up by their keys"
    hidden: Any = SimpleNamespace(compiled_fw=SimpleNamespace(result=object()), compiled_bw=None)
    assert not hosts.fits_unmarked(hidden)
