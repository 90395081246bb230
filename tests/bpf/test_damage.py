"""Damaged binaries: whatever is wrong with them, a plan or a ProbeError comes of it, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from bpf import probes
from bpf.buildinfo import parse_version
from bpf.elf import Elf
from bpf.pclntab import FunctionTable
from bpf.plan import make_plan
from bpf.reasons import read_wait_reasons
from tests.bpf.programs import gofmt, probed
from vm.errors import ProbeError


def refused(work: Callable[[], object]) -> bool:
    """Return whether ``work`` ended in a ProbeError that helps; any other exception is the test's failure."""
    try:
        work()
    except ProbeError as error:
        return bool(error.message and error.hint)
    return False


def has_plan(data: bytes) -> bool:
    """Return whether a plan can be made for a damaged binary."""
    return not refused(lambda: make_plan(Elf("damaged", data), [probes.MUTEX]))


def test_a_file_that_is_cut_off_has_no_plan() -> None:
    data = gofmt()
    points = [*range(0, 4096, 67), *range(4096, len(data), len(data) // 150)]

    # Section headers come first in what Go's linker writes, sections last: a missing tail is always noticed.
    assert [size for size in points if has_plan(data[:size])] == []


@pytest.mark.build
def test_a_file_with_dwarf_that_is_cut_off_has_no_plan() -> None:
    data = probed().read_bytes()

    assert [size for size in range(0, len(data), len(data) // 100) if has_plan(data[:size])] == []


def damage(data: bytes, start: int, size: int, seed: int) -> bytes:
    """Return ``data`` with some bytes between ``start`` and ``start + size`` changed."""
    chance = random.Random(seed)  # noqa: S311
    changed = bytearray(data)
    for _ in range(chance.choice((1, 4, 32))):
        changed[start + chance.randrange(size)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    return bytes(changed)


@pytest.mark.parametrize("seed", range(80))
@pytest.mark.parametrize("part", ["headers", ".go.buildinfo", ".gopclntab", ".shstrtab", ".note.go.buildid"])
def test_damage_in_any_part_ends_in_a_plan_or_a_probe_error(part: str, seed: int) -> None:
    data = gofmt()
    start, size = 0, 0x400 + 64 * 40
    if part != "headers":
        section = Elf("gofmt", data).section(part)
        assert section is not None
        start, size = section.offset, min(section.size, 4096)

    has_plan(damage(data, start, size, seed))


@pytest.mark.parametrize("seed", range(40))
def test_damage_in_the_function_table_ends_in_frames_or_a_probe_error(seed: int) -> None:
    data = gofmt()
    section = Elf("gofmt", data).section(".gopclntab")
    assert section is not None
    changed = data
    for again in range(20):
        changed = damage(changed, section.offset, section.size, 1000 * seed + again)

    def walk() -> None:
        table = FunctionTable(Elf("damaged", changed))
        for function in table.all()[::40]:
            table.frames(function.entry + function.size // 2)

    refused(walk)


@pytest.mark.build
@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("part", [".debug_info", ".debug_abbrev", ".symtab", ".strtab", ".data"])
def test_damage_in_what_a_stripped_program_lacks_ends_in_a_plan_or_a_probe_error(part: str, seed: int) -> None:
    data = probed().read_bytes()
    section = Elf("probed", data).section(part)
    assert section is not None
    changed = damage(data, section.offset, section.size, seed)

    has_plan(changed)
    refused(lambda: read_wait_reasons(Elf("damaged", changed)))


@pytest.mark.parametrize(
    ("text", "version", "release"),
    [
        ("go1.27.3", "1.27.3", True),
        ("go1.21", "1.21", True),
        ("go1.27rc1", "1.27rc1", False),
        ("go1.26.1 X:arenas", "1.26.1", False),
        ("go1.28-devel_abc", "1.28", False),
    ],
)
def test_versions_that_a_binary_can_name(text: str, version: str, release: bool) -> None:
    found = parse_version(text)

    assert found is not None
    assert (found.text, found.release) == (version, release)


@pytest.mark.parametrize("text", ["", "go", "1.27.3", "gccgo 12", "go1", "gone1.2"])
def test_what_is_no_version(text: str) -> None:
    assert parse_version(text) is None


SIZED: list[tuple[str, Callable[[], bytes]]] = [
    ("nothing", bytes),
    ("the magic alone", lambda: b"\x7fELF"),
    ("zeros", lambda: b"\x7fELF" + bytes(4096)),
    ("noise", lambda: b"\x7fELF" + random.Random(7).randbytes(4096)),  # noqa: S311
]


@pytest.mark.parametrize(("name", "make"), SIZED)
def test_what_is_hardly_a_file(name: str, make: Callable[[], bytes]) -> None:
    assert not has_plan(make()), name
