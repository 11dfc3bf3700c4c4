"""Whether bytes are a whole shared object for this machine: asked before anything is written, let alone loaded."""

from __future__ import annotations

import functools
import struct
import sys

_MAGIC = b"\x7fELF"
_EI_CLASS, _EI_DATA = 4, 5
_CLASS_64, _LITTLE = 2, 1
_ET_DYN = 3
# e_type e_machine e_version e_entry e_phoff e_shoff e_flags e_ehsize e_phentsize e_phnum e_shentsize e_shnum e_shstrndx
_HEADER = struct.Struct("<HHIQQQIHHHHHH")
_HEADER_AT, _HEADER_END = 16, 16 + _HEADER.size
# p_type p_flags p_offset p_vaddr p_paddr p_filesz p_memsz p_align
_SEGMENT = struct.Struct("<IIQQQQQQ")


@functools.cache
def own_machine() -> int | None:
    """`e_machine` of the running interpreter; `None` where objects are not little-endian 64-bit ELF."""
    try:
        with open("/proc/self/exe", "rb") as file:
            head = file.read(_HEADER_END)
    except OSError:
        return None
    if sys.byteorder != "little" or not _is_elf_64(head):
        return None
    machine: int = _HEADER.unpack_from(head, _HEADER_AT)[1]
    return machine


def fault(data: bytes, machine: int | None = None) -> str | None:
    """What keeps `data` from being a shared object for this machine, or `None`. Reads headers only: microseconds."""
    machine = own_machine() if machine is None else machine
    if machine is None:
        return "objects of this platform are not known"
    if not _is_elf_64(data):
        return "not a little-endian 64-bit ELF file"
    kind, its_machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, _ = _HEADER.unpack_from(data, _HEADER_AT)
    if kind != _ET_DYN:
        return "not a shared object"
    if its_machine != machine:
        return f"made for machine {its_machine}, this one is {machine}"
    if phentsize != _SEGMENT.size or phnum == 0 or phoff + phnum * phentsize > len(data):
        return "segment table cut off"
    # Linkers put the section table last, so a cut file misses it.
    if shoff + shnum * shentsize > len(data):
        return "section table cut off"
    for index in range(phnum):
        _, _, offset, _, _, size, _, _ = _SEGMENT.unpack_from(data, phoff + index * phentsize)
        if offset + size > len(data):
            return "segment cut off"
    return None


def _is_elf_64(head: bytes) -> bool:
    return len(head) >= _HEADER_END and head[:4] == _MAGIC and head[_EI_CLASS] == _CLASS_64 and head[_EI_DATA] == _LITTLE
