"""What of this machine must match before what was compiled on another one may be used here.

Two fingerprints, both 32 bytes:

- `fingerprint(device_types)` goes with FX and AOTAutograd entries. Their code is source, tiled for the vector ISA that
  Inductor picked (torch/_inductor/cpu_vec_isa.py, `pick_vec_isa`); PyTorch's key knows nothing of the CPU (torch 2.15), and an
  entry made for 16 lanes gives wrong numbers when it is compiled for 8.
- `host_fingerprint()` goes with compiled C++ kernels. They are machine code, made with `-march=native`, so the CPU's whole
  feature set and its model count, and the C and C++ libraries that the object is linked to at run time.

Nothing is guessed: what cannot be found out makes kernels uncacheable, and graphs fit this process only.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import secrets
import sys
from collections.abc import Iterable, Sequence

from pilotlight.torch.once import warn_once

CPUINFO = "/proc/cpuinfo"
CXX_LIBRARY = "libstdc++.so.6"

# Flags of Linux' /proc/cpuinfo on x86 that say nothing of instructions a compiler may emit: they differ between kernels,
# hypervisors and microcodes, and each of them would split the cache for nothing. A flag that is not named here counts, so a
# new one costs a miss and never an illegal instruction.
_X86_NOISE = frozenset(
    """
    acpi aperfmperf apic arat arch_capabilities arch_lbr arch_perfmon art avic bts bus_lock_detect cat_l2 cat_l3 cdp_l2
    cdp_l3 cmp_legacy constant_tsc cpb cppc cpuid cpuid_fault cqm cqm_llc cqm_mbm_local cqm_mbm_total cqm_occup_llc
    cr8_legacy dca de debug_swap decodeassists ds_cpl dtes64 dtherm dts epb ept ept_ad est extapic extd_apicid
    flexpriority flush_l1d flushbyasid hfi ht hw_pstate hwp hwp_act_window hwp_epp hwp_notify hwp_pkg_req hypervisor
    ibpb ibpb_exit_to_user ibrs ibrs_enhanced ibs ida intel_ppin intel_pt invpcid_single irperf lbrv mba mca mce
    md_clear mtrr nodeid_msr nonstop_tsc nonstop_tsc_s3 npt nrip_save ospke osvw overflow_recov pat pausefilter pbe pcid
    pconfig pdcm pebs perfctr_core perfctr_llc perfctr_nb perfmon_v2 pfthreshold pge pln proc_feedback pse pse36 pti pts
    rdt_a rep_good retbleed rrsba rsb_ctxsw sdbg sev sev_es sev_snp skinit smap smca sme smep split_lock_detect ss ssbd
    stibp stibp_always_on succor svm svm_lock swap_prefetch tdx_guest tm tm2 tme topoext tpr_shadow tsc_adjust
    tsc_deadline_timer tsc_known_freq tsc_reliable tsc_scale tsx_force_abort umip v_spec_ctrl v_vmsave_vmload vgif
    virt_ssbd vmcb_clean vme vmmcall vmx vnmi vpid wdt x2apic x2avic xtopology xtpr
    """.split()  # noqa: SIM905 - a paragraph of 120 words reads better than 120 lines
)
# Lines that name the model, and lines that list features, of every architecture that Inductor compiles for.
_MODEL_FIELDS = frozenset(
    ("vendor_id", "cpu family", "model", "cpu", "CPU implementer", "CPU variant", "CPU part", "machine", "isa", "uarch")
)
_FEATURE_FIELDS = frozenset(("flags", "Features", "features", "CPU architecture", "isa"))


def fingerprint(device_types: Iterable[str]) -> bytes | None:
    """What a graph compiled for `device_types` asks of the host; `None` if it runs on any.

    A graph without CPU code depends on the GPU's name, which PyTorch's key contains, and on no host. One whose devices
    nobody named is treated as CPU code.
    """
    types = {device.partition(":")[0] for device in device_types}
    if types and "cpu" not in types:
        return None
    return _graph_fingerprint(_picked_isa(), _threads())


def host_fingerprint() -> bytes | None:
    """What machine code made here depends on; `None`, with one warning, if that cannot be found out."""
    digest = _host_digest()
    if digest is None:
        warn_once("cannot tell this CPU or its C++ library from others; compiled C++ kernels are not cached")
    return digest


@functools.cache
def _graph_fingerprint(isa: tuple[str, ...], threads: str) -> bytes:
    cpu = cpu_features()
    if cpu is None:
        # A host that cannot be described is one of a kind: what it puts fits nobody else.
        warn_once("cannot tell this CPU from others; what is compiled for it is shared with no other process")
        return secrets.token_bytes(32)
    return digest_of("graph 1", platform.machine(), *cpu, "isa", *isa, "threads", threads)


def _picked_isa() -> tuple[str, ...]:
    """The vector ISA that Inductor generates code for now; ATEN_CPU_CAPABILITY and `cpp.simdlen` govern it."""
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    isa = pick_vec_isa()
    if not isa:
        return ("none",)
    return (str(isa), str(isa.bit_width()), isa.build_arch_flags())


@functools.cache
def _thread_count_is_in_the_key() -> bool:
    from torch._inductor import codecache

    # `cpp_runtime_thread_count` came to FxGraphHashDetails after torch 2.12; before, a kernel for 2 threads met 64 cores.
    return "cpp_runtime_thread_count" in codecache.FxGraphHashDetails.__init__.__code__.co_names


def _threads() -> str:
    if _thread_count_is_in_the_key():
        return "in the key"
    import torch

    return str(torch.get_num_threads())


@functools.cache
def _host_digest() -> bytes | None:
    cpu, libraries = cpu_model(), runtime_libraries()
    if cpu is None or libraries is None:
        return None
    return digest_of("host 1", platform.machine(), sys.byteorder, *cpu, *libraries)


def cpu_is_known() -> bool:
    """Whether this host can be told from others; if not, `fingerprint` is another one in every process."""
    return cpu_features() is not None


def cpu_features(cpuinfo: str = CPUINFO) -> tuple[str, ...] | None:
    """The instructions that every core offers, by the kernel's names."""
    return _described(cpuinfo, _FEATURE_FIELDS)


def cpu_model(cpuinfo: str = CPUINFO) -> tuple[str, ...] | None:
    """`cpu_features` and the model: `-march=native` tunes by it, and knows features of it that an old kernel does not list."""
    return _described(cpuinfo, _FEATURE_FIELDS | _MODEL_FIELDS)


def _described(cpuinfo: str, fields: frozenset[str]) -> tuple[str, ...] | None:
    found: set[str] = set()
    for line in _cpuinfo_lines(cpuinfo):
        name, colon, value = line.partition(":")
        if colon and (name := name.strip()) in fields:
            words = set(value.split()) - (_X86_NOISE if name == "flags" else frozenset())
            found.add(f"{name}: {' '.join(sorted(words))}")
    if not any(line.partition(":")[0] in _FEATURE_FIELDS for line in found):
        return None
    return tuple(sorted(found))


@functools.cache
def _cpuinfo_lines(cpuinfo: str) -> Sequence[str]:
    """The lines about the first core of an x86, where all are alike, and about all cores elsewhere."""
    try:
        with open(cpuinfo, encoding="ascii", errors="replace") as file:
            if platform.machine() not in ("x86_64", "AMD64", "i686"):
                return tuple(dict.fromkeys(file))
            # The kernel makes this file up as it is read, a millisecond for a few dozen cores: stop early.
            lines: list[str] = []
            for line in file:
                if not line.strip():
                    break
                lines.append(line)
            return tuple(lines)
    except OSError:
        return ()


class _Place(ctypes.Structure):
    """`Dl_info` of dladdr(3)."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


@functools.cache
def runtime_libraries(soname: str = CXX_LIBRARY) -> tuple[str, ...] | None:
    """The libraries that a kernel finds in this process: the C library's version, and the C++ library's file name, which ends
    in that of its ABI.

    Copies under other names, which some wheels bring along, are never found by a kernel. libgomp has had one ABI for all of its
    life, and PyTorch ships its own, so PyTorch's identity covers it.
    """
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION")
        # Loaded it is, by torch; if not, there is nothing to find out.
        library = ctypes.CDLL(soname, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        place = _Place()
        if not libc or not ctypes.CDLL(None).dladdr(library.__cxa_throw, ctypes.byref(place)) or not place.file:
            return None
    except (AttributeError, OSError, ValueError):
        return None
    return (libc, os.path.basename(os.path.realpath(os.fsdecode(place.file))))


def digest_of(*parts: str | bytes) -> bytes:
    """SHA-256 over parts, each with its length, so that no two lists of parts look alike."""
    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.digest()
