"""The probe plan: which program goes at which file offset of which binary (``plan.json``), and how it is decided.

A plan is decided on the host, from the binary alone, and holds all that the loader needs: it can be read, compared and
tested without a machine. Where neither the binary nor the tables are sure, there is no plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from bpf import disasm, tables
from bpf.buildinfo import GoVersion, read_build_id, read_build_info
from bpf.disasm import UndecodableError
from bpf.dwarf import read_offsets
from bpf.elf import Elf
from bpf.hooks import EVERY_WAIT, Feature, Hook, KernelEvent, Point, ProbeSet
from bpf.pclntab import Function, FunctionTable
from bpf.probes import find_sets
from bpf.reasons import wait_reasons
from vm.errors import ProbeError

PLAN_SCHEMA = 2
"""Version of the shape below."""

Source = Literal["dwarf", "table"]
"""Where an offset comes from: the binary's own debug information, or ``bpf/tables.py`` by Go version."""

_NEWEST = tuple(int(part) for part in tables.KNOWN[-1].split("."))


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


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Linked addresses of a function: from ``start`` to before ``end``."""

    start: int
    end: int


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``plan.json``.

    :param offsets: by short name (``bpf.dwarf.FIELDS``): ``goid``, ``parent_goid``, ``hchan_lock``, …
    :param reasons: number of each wait reason in this Go version, by the short name that a probe set gives it.
    :param wait_reasons: the runtime's words of every wait reason of this Go version, by number.
    :param recorded: numbers of the wait reasons of which each wait is recorded.
    :param ranges: functions that the programs compare addresses with; one that is not linked is absent.
    :param kernel: programs on kernel events, ``features``: what programs do besides counting (``bpf.hooks``).
    """

    schema: Literal[2]
    binary: Binary
    offsets: dict[str, Offset]
    reasons: dict[str, int]
    wait_reasons: list[str] = []
    recorded: list[int] = []
    ranges: dict[str, Range] = {}
    kernel: list[KernelEvent] = []
    features: list[Feature] = []
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


def plan_for(binary: Path, sets: Sequence[str]) -> Plan:
    """Decide where the programs of the probe ``sets`` go in ``binary``.

    :raises ProbeError: not a Go program for linux/amd64 of Go 1.21 or newer, a function that is absent, ambiguous or
        cannot be decoded, or an offset or wait reason that neither the binary nor the tables tell.
    :raises UsageError: there is no such probe set.
    """
    wanted = find_sets(sets)
    return make_plan(Elf.open(binary), wanted)


def make_plan(elf: Elf, sets: Sequence[ProbeSet]) -> Plan:
    """Decide where the programs of ``sets`` go in a binary that is in memory; see :func:`plan_for`."""
    info = read_build_info(elf)
    table = FunctionTable(elf)
    probes: dict[str, list[Probe]] = {}
    missing: dict[str, Missing] = {}
    for probe_set in sets:
        for hook in probe_set.hooks:
            symbol = hook.name(info.version.minor)
            if hook.id in probes or hook.id in missing or symbol is None:
                continue
            function = _find(elf, table, hook, symbol, info.version)
            if function is None:
                missing[hook.id] = _missing(hook, symbol)
            else:
                probes[hook.id] = list(_points(elf, function, hook, probe_set.name, info.version))
    return Plan(
        schema=2,
        binary=Binary(
            name=elf.name,
            sha256=hashlib.sha256(elf.data).hexdigest(),
            go_version=info.version.text,
            pie=elf.pie,
            stripped=elf.stripped,
            build_id=read_build_id(elf),
        ),
        offsets=_offsets(elf, info.version, {name for s in sets for name in s.offsets}),
        reasons=_reasons(elf, info.version, {short: words for s in sets for short, words in s.reasons.items()}),
        wait_reasons=list(wait_reasons(elf, info.version)) if any(s.reasons for s in sets) else [],
        recorded=_recorded(elf, info.version, {words for s in sets for words in s.recorded}),
        ranges=_ranges(elf, table, {short: symbol for s in sets for short, symbol in s.ranges.items()}),
        kernel=sorted({event for s in sets for event in s.kernel}),
        features=sorted({feature for s in sets for feature in s.features}),
        probes=[probe for group in probes.values() for probe in group],
        missing=list(missing.values()),
    )


def _find(elf: Elf, table: FunctionTable, hook: Hook, symbol: str, version: GoVersion) -> Function | None:
    found = table.find(symbol)
    if len(found) > 1:
        raise ProbeError(
            f"{elf.name} (Go {version.text}): {symbol} is ambiguous, {len(found)} functions have that name",
            "probing either could count the wrong one; build it without wrappers of that name",
        )
    if found:
        return found[0]
    if hook.runtime and version.minor > _NEWEST:
        raise ProbeError(
            f"{elf.name} (Go {version.text}): there is no function {symbol}; this version may name it otherwise",
            f"build it with Go {tables.KNOWN[-1]} or older, or add the name to bpf/probes.py",
        )
    if hook.required:
        raise ProbeError(
            f"{elf.name} (Go {version.text}): there is no function {symbol}",
            "the linker leaves out what a program never calls: probe a program that uses it",
        )
    return None


def _missing(hook: Hook, symbol: str) -> Missing:
    why = f"not linked: the program {'' if hook.runtime else 'is no lab of this project, or '}never calls it"
    return Missing(id=hook.id, symbol=symbol, why=why, required=False)


def _points(elf: Elf, function: Function, hook: Hook, set_name: str, version: GoVersion) -> Iterator[Probe]:
    try:
        code = disasm.decode(elf.read(function.entry, function.size), function.entry)
        found: list[tuple[int, Point]]
        if hook.point == "ret":
            found = [(address, "ret") for address in disasm.find_returns(code)]
        elif hook.point == "result":
            branches = disasm.find_results(code)
            found = [(at, "ret") for at in disasm.find_returns(code)]
            if branches is not None:
                found = [(at, "branch") for at in branches]
        elif hook.point == "entry":
            found = [(function.entry, "entry")]
        else:
            entrance = disasm.find_entrance(code)
            found = [(entrance.address, "pp" if entrance.pushed else "entry")]
    except UndecodableError as error:
        raise ProbeError(
            f"{elf.name} (Go {version.text}): no safe probe point in {function.name}: {error}",
            "build it with a Go release and without other tools that rewrite code",
        ) from error
    for address, point in found:
        yield Probe(
            id=hook.id,
            set=set_name,
            program=hook.program,
            symbol=function.name,
            point=point,
            address=address,
            offset=elf.file_offset(address),
        )


def _offsets(elf: Elf, version: GoVersion, names: set[str]) -> dict[str, Offset]:
    if not names:
        return {}
    own = read_offsets(elf)
    table = tables.OFFSETS.get(version.line, {}) if version.release else {}
    found: dict[str, Offset] = {}
    for name in sorted(names):
        if name in own:
            found[name] = Offset(value=own[name], source="dwarf")
        elif name in table:
            found[name] = Offset(value=table[name], source="table")
        else:
            raise ProbeError(
                f"{elf.name} (Go {version.text}): the offset of {name} is not known: no debug information, and the "
                f"tables speak for releases of Go {tables.KNOWN[0]} to {tables.KNOWN[-1]}",
                "link it without -w and -s, so that it keeps its DWARF",
            )
    return found


def _reasons(elf: Elf, version: GoVersion, wanted: dict[str, str]) -> dict[str, int]:
    if not wanted:
        return {}
    known = wait_reasons(elf, version)
    for words in wanted.values():
        if known.count(words) != 1:
            raise ProbeError(
                f"{elf.name} (Go {version.text}): the number of the wait reason {words!r} is not known",
                "link it without -s, so that it keeps its symbols",
            )
    return {short: known.index(words) for short, words in wanted.items()}


def _recorded(elf: Elf, version: GoVersion, wanted: set[str]) -> list[int]:
    """Return the numbers of the wait reasons ``wanted``; one that this version does not have is left out."""
    if not wanted:
        return []
    known = wait_reasons(elf, version)
    # Number 0 is no reason.
    return [number for number, words in enumerate(known) if number and (words in wanted or EVERY_WAIT in wanted)]


def _ranges(elf: Elf, table: FunctionTable, wanted: dict[str, str]) -> dict[str, Range]:
    found: dict[str, Range] = {}
    for short, symbol in wanted.items():
        functions = table.find(symbol)
        if len(functions) > 1:
            raise ProbeError(
                f"{elf.name}: {symbol} is ambiguous, {len(functions)} functions have that name",
                "build it without wrappers of that name",
            )
        if functions:
            found[short] = Range(start=functions[0].entry, end=functions[0].entry + functions[0].size)
    return found


def to_text(plan: Plan) -> str:
    """Return ``plan`` for a person: what it is for, each probe with its place, each number with its source."""
    binary = plan.binary
    kind = " ".join(word for word, true in (("PIE", binary.pie), ("stripped", binary.stripped)) if true)
    lines = [f"{binary.name}  Go {binary.go_version}{f'  {kind}' if kind else ''}", f"  sha256 {binary.sha256}", ""]
    rows = [(p.id, p.program, p.point, f"{p.address:#x}", f"{p.offset:#x}", p.symbol) for p in plan.probes]
    lines += _columns([("probe", "program", "point", "address", "offset", "function"), *rows])
    if plan.missing:
        lines += ["", *_columns([("absent", "function", "why"), *((m.id, m.symbol, m.why) for m in plan.missing)])]
    if plan.offsets:
        offsets = [(name, str(offset.value), offset.source) for name, offset in plan.offsets.items()]
        lines += ["", *_columns([("field", "offset", "from"), *offsets])]
    if plan.reasons:
        reasons = [(name, str(number)) for name, number in plan.reasons.items()]
        lines += ["", *_columns([("wait reason", "number"), *reasons])]
    return "\n".join(lines) + "\n"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
