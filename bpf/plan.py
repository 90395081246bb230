"""The probe plan: which program goes at which file offset of which binary (``plan.json``).

A plan is decided on the host, from the binary alone, and holds all that the loader needs. It is JSON: it can be read,
compared and tested without a machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from vm.errors import ProbeError

PLAN_SCHEMA = 1
"""Version of the shape below."""

Point = Literal["pp", "ret", "entry"]
"""Where in a function: the ``push %rbp`` after the stack check, each RET, or the first instruction."""

Source = Literal["dwarf", "table"]
"""Where an offset comes from: the binary's own debug information, or ``bpf/tables.py`` by Go version."""


class Binary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The binary that a plan is for, and for no other.

    :param name: file name without its folder.
    :param build_id: Go's own build id, empty where it was removed.
    :param stripped: whether the symbol table is gone (functions then come from ``.gopclntab``).
    """

    name: str
    sha256: str
    go_version: str
    pie: bool
    stripped: bool
    build_id: str


class Offset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Offset in bytes of a field in a struct of Go's runtime."""

    value: int
    source: Source


class Probe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One uprobe.

    :param id: what the probe counts; all RETs of one function share an id, because one program serves them.
    :param program: function in the CO-RE object.
    :param address: linked virtual address; add the load bias for a PIE.
    :param offset: offset in the file, which is what a uprobe takes.
    """

    id: str
    set: str
    program: str
    symbol: str
    point: Point
    address: int
    offset: int


class Missing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A probe that was asked for and cannot be had; always an optional one, since a required one is an error."""

    id: str
    symbol: str
    why: str
    required: bool


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``plan.json``.

    :param offsets: by short name: ``goid``, ``parentgoid``, ``waitreason``, ``g_m``, ``m_p``, ``hchan_lock``.
    :param reasons: number of each wait reason in this Go version, by the short name that a probe set gives it.
    """

    schema: Literal[1]
    binary: Binary
    offsets: dict[str, Offset]
    reasons: dict[str, int]
    probes: list[Probe]
    missing: list[Missing]


def to_json(plan: Plan) -> bytes:
    """Return ``plan`` as indented JSON, ending with a newline; equal plans give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n"


def read(path: Path) -> Plan:
    """Read a plan from a file.

    :raises ProbeError: it is missing, is not JSON, or does not fit; the message has the field's path.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProbeError(f"{path} is no probe plan: {error}", "make it again with `invoke plan BINARY`") from error
