"""Offsets of fields in the structs of Go's runtime, from DWARF.

Go's linker writes names inline (``DW_FORM_string``), so that the bytes of a struct's name lead to its entry at once;
walking all entries of the unit would take seconds in Python. What is found is then parsed and checked as an entry.
"""

from __future__ import annotations

from dataclasses import dataclass

from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.die import DIE
from elftools.dwarf.dwarfinfo import DWARFInfo

from bpf.elf import Elf, malformed_is_probe_error


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a struct, by the names in Go's source: ``runtime.g``, ``goid``."""

    struct: str
    field: str


FIELDS = {
    "goid": Field("runtime.g", "goid"),
    "parent_goid": Field("runtime.g", "parentGoid"),
    "wait_reason": Field("runtime.g", "waitreason"),
    "g_m": Field("runtime.g", "m"),
    "m_p": Field("runtime.m", "p"),
    "hchan_lock": Field("runtime.hchan", "lock"),
    "hchan_recvq": Field("runtime.hchan", "recvq"),
    "hchan_sendq": Field("runtime.hchan", "sendq"),
    "start_pc": Field("runtime.g", "startpc"),
    "go_pc": Field("runtime.g", "gopc"),
    "ctx_done": Field("context.cancelCtx", "done"),
    "ctx_children": Field("context.cancelCtx", "children"),
    "ctx_mu": Field("context.cancelCtx", "mu"),
    "ctx_err": Field("context.cancelCtx", "err"),
}
"""Every offset that a plan can have, by its name there."""


def read_offsets(elf: Elf) -> dict[str, int]:
    """Return each offset of :data:`FIELDS` that the binary's own debug information gives, in bytes.

    Empty where there is none, or where it is written in another way than Go's linker does.

    :raises ProbeError: the debug information is malformed.
    """
    dwarf = elf.dwarf
    if dwarf is None:
        return {}
    with malformed_is_probe_error(elf.name, "the debug information"):
        structs = {name: _members(dwarf, name) for name in {f.struct for f in FIELDS.values()}}
        return {
            name: structs[field.struct][field.field]
            for name, field in FIELDS.items()
            if field.field in structs[field.struct]
        }


def _members(dwarf: DWARFInfo, struct: str) -> dict[str, int]:
    section = dwarf.debug_info_sec
    if section is None:
        return {}
    section.stream.seek(0)
    data = section.stream.read()
    # The byte before the name is the entry's abbreviation code; Go has fewer than 128 of them, so it is one byte.
    needle = struct.encode() + b"\0"
    at = data.find(needle)
    while at > 0:
        found = _members_at(dwarf, at - 1, struct)
        if found:
            return found
        at = data.find(needle, at + 1)
    return {}


def _members_at(dwarf: DWARFInfo, offset: int, struct: str) -> dict[str, int]:
    unit: CompileUnit = dwarf.get_CU_containing(offset)
    try:
        entry: DIE = unit.get_DIE_from_refaddr(offset)
        if entry.tag != "DW_TAG_structure_type" or _name(entry) != struct:
            return {}
    except (KeyError, ValueError, AttributeError):
        return {}  # The same bytes inside another entry.
    return {
        _name(child): int(child.attributes["DW_AT_data_member_location"].value)
        for child in entry.iter_children()
        if child.tag == "DW_TAG_member" and "DW_AT_data_member_location" in child.attributes
    }


def _name(entry: DIE) -> str:
    attribute = entry.attributes.get("DW_AT_name")
    return attribute.value.decode() if attribute is not None else ""
