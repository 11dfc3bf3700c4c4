"""Whether code that nobody marked with a fingerprint was made for CPUs like this one.

A cached graph holds C++ source, tiled for the vector width of the CPU it was made for, and compiled anew where it is used.
With another width the result is wrong, silently (seen in torch 2.15: an AVX-512 entry under ATEN_CPU_CAPABILITY=avx2).
"""

from __future__ import annotations

import re
from typing import Any

# `x0+=static_cast<int64_t>(16L)`: a vector loop's step is the number of lanes (`_inductor/codegen/cpp.py`).
_STEP = re.compile(r"\+=\s*\(?(?:static_cast<int64_t>\()?(\d+)L?\)?")
_ELEMENT = re.compile(r"Vectorized(?:N)?<([\w:]+)")
_TEMPLATE = re.compile(r"micro_gemm|AMXState|brgemm|cpp_gemm|flash_attention")


def fits_unmarked(candidate: Any) -> bool:
    """True if no code in it touches the CPU, none has vectors, or all plainly has this CPU's vector width.

    Proof, not the absence of doubt: what is put because of it carries this host's fingerprint from then on.
    """
    return all(_graph_fits(graph) for graph in _graphs_in(candidate))


def touches_cpu(candidate: Any) -> bool:
    """Whether any code in it runs on the CPU."""
    return any("cpu" in getattr(graph, "device_types", ("cpu",)) for graph in _graphs_in(candidate))


def plainly_misfits(candidate: Any) -> bool:
    """True if code in it plainly has another CPU's vector width. Proof of the contrary: most code proves neither."""
    sources = [graph.source_code for graph in _graphs_in(candidate) if isinstance(getattr(graph, "source_code", None), str)]
    return any(_has_another_width(source) for source in sources)


def _has_another_width(source: str) -> bool:
    if "at::vec" not in source or _TEMPLATE.search(source) or not _only_floats(source):
        return False
    widths = _steps(source) - {1}
    return bool(widths) and _lanes() not in widths


def _graphs_in(candidate: Any) -> list[Any]:
    """A graph itself, or those that an AOTAutograd entry holds: most name theirs by key and hold none."""
    if hasattr(candidate, "source_code"):
        return [candidate]
    parts = (getattr(candidate, "compiled_fw", None), getattr(candidate, "compiled_bw", None))
    graphs = (getattr(part, "result", None) for part in parts)
    return [graph for graph in graphs if graph is not None]


def _graph_fits(graph: Any) -> bool:
    if "cpu" not in getattr(graph, "device_types", ("cpu",)):
        return True
    source = getattr(graph, "source_code", None)
    if not isinstance(source, str):
        return False
    return not _TEMPLATE.search(source) and ("at::vec" not in source or _has_width_of_this_cpu(source))


def _has_width_of_this_cpu(source: str) -> bool:
    # Other element types are tiled by widths that one ISA's narrow type shares with another's wide one.
    return _only_floats(source) and all(step in (1, _lanes()) for step in _steps(source))


def _only_floats(source: str) -> bool:
    return set(_ELEMENT.findall(source)) <= {"float"}


def _steps(source: str) -> set[int]:
    return {int(step) for step in _STEP.findall(source)}


def _lanes() -> int:
    import torch
    from torch._inductor import cpu_vec_isa

    isa = cpu_vec_isa.pick_vec_isa()
    return int(isa.nelements(torch.float)) if isa else 1
