"""The tables against the toolchains they were made from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bpf import tables
from bpf.buildinfo import read_build_info
from bpf.dwarf import FIELDS, read_offsets
from bpf.elf import Elf
from bpf.pclntab import FunctionTable
from bpf.probes import SETS
from bpf.reasons import read_wait_reasons, wait_reasons
from provision import toolchains
from provision.gobuild import Variant
from tests.bpf.programs import VERSIONS, probed
from vm.paths import Layout


def line(version: str) -> str:
    return version.rpartition(".")[0]


def reasons_in_source(source: Path) -> tuple[str, ...]:
    """Return the words of each wait reason, in the order of the constants in ``runtime2.go``."""
    text = source.read_text("utf-8")
    constants = re.search(r"^const \(\n(\twaitReasonZero .*?)^\)", text, re.MULTILINE | re.DOTALL)
    strings = re.search(r"^var waitReasonStrings = .*?^}", text, re.MULTILINE | re.DOTALL)
    assert constants is not None
    assert strings is not None
    words = dict(re.findall(r'^\t(waitReason\w+):\s+"(.*)",$', strings[0], re.MULTILINE))
    return tuple(words[name] for name in re.findall(r"^\t(waitReason\w+)", constants[1], re.MULTILINE))


def test_each_pinned_toolchain_has_its_entries_and_there_are_no_others() -> None:
    lines = [line(version) for version in VERSIONS]

    assert lines == list(tables.KNOWN)
    assert lines == list(tables.WAIT_REASONS)
    assert all(list(entries) == list(FIELDS) for entries in tables.OFFSETS.values())


def test_each_set_asks_for_what_the_tables_have() -> None:
    for probe_set in SETS.values():
        assert set(probe_set.offsets) <= set(FIELDS)
        assert all(words.count(w) == 1 for words in tables.WAIT_REASONS.values() for w in probe_set.reasons.values())


@pytest.mark.build
@pytest.mark.parametrize("version", VERSIONS)
def test_offsets_are_those_of_the_dwarf(version: str) -> None:
    assert read_offsets(Elf.open(probed(version))) == tables.OFFSETS[line(version)]


@pytest.mark.build
@pytest.mark.parametrize("version", VERSIONS)
def test_wait_reasons_are_those_of_the_source(version: str) -> None:
    toolchain = toolchains.go_for(version, Layout.from_environment())

    assert reasons_in_source(toolchain.goroot / "src/runtime/runtime2.go") == tables.WAIT_REASONS[line(version)]


@pytest.mark.build
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("pie", [False, True])
def test_wait_reasons_are_those_of_the_binary(version: str, pie: bool) -> None:
    assert read_wait_reasons(Elf.open(probed(version, Variant(pie=pie)))) == tables.WAIT_REASONS[line(version)]


@pytest.mark.build
def test_a_version_that_is_not_in_the_table_is_read_from_the_binary() -> None:
    data = probed().read_bytes().replace(b"go1.27.3", b"go1.99.3")
    elf = Elf("newer", data)
    version = read_build_info(elf).version

    assert version.line not in tables.WAIT_REASONS
    assert wait_reasons(elf, version) == tables.WAIT_REASONS["1.27"]


@pytest.mark.build
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("pie", [False, True])
def test_the_function_table_agrees_with_the_symbol_table(version: str, pie: bool) -> None:
    elf = Elf.open(probed(version, Variant(pie=pie)))

    functions = [f for f in FunctionTable(elf).all() if f.name in elf.symbols]

    # ABI wrappers share a name in the function table, and have a suffix in the symbol table.
    unique = [
        f for f in functions if f"{f.name}.abi0" not in elf.symbols and f"{f.name}.abiinternal" not in elf.symbols
    ]
    assert len(unique) > 1000
    assert [(f.name, f.entry) for f in unique] == [(f.name, elf.symbols[f.name].address) for f in unique]
