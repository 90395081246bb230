"""The CO-RE object: what it asks of a kernel, and that C, Go and Python mean the same bytes."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from bpf import build
from bpf.probes import SETS
from bpf.trace import EVENT
from vm import lock
from vm.images import Builder
from vm.paths import Layout
from vm.tools import ToolsRoot

CALL, MAP_OR_HELPER = 0x85, 0
"""Opcode of a call, and the source register of one that calls a helper."""

HELPERS = {
    1: "map_lookup_elem", 2: "map_update_elem", 3: "map_delete_elem", 5: "ktime_get_ns", 14: "get_current_pid_tgid",
    12: "tail_call", 112: "probe_read_user", 131: "ringbuf_reserve", 132: "ringbuf_submit",
}  # fmt: skip
"""Helpers that the programs may use (include/uapi/linux/bpf.h): all are in 5.8. probe_read (4) is deprecated."""

TAIL_CALL = 12

RAW_EVENT = bytes.fromhex(
    "0100000000000000 0200000000000000 08000000c0000000 0300000000000000 0400000000000000 1200000000000000"
    "ffffffff 39300000 ff01 01 16 00000000"
)
"""The record that shared_test.go writes."""


@pytest.fixture(scope="module")
def tools() -> ToolsRoot:
    return Builder(lock.read(), Layout.from_environment()).tools()


@pytest.fixture(scope="module")
def built(tools: ToolsRoot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("object")
    return build.objects(Layout(cache=folder, state=folder, runs=folder), tools)


def calls(elf: ELFFile) -> Iterator[int]:
    """Numbers of the helpers that any program calls."""
    for section in elf.iter_sections():
        if section["sh_type"] != "SHT_PROGBITS" or not section["sh_flags"] & 0x4:
            continue
        for opcode, registers, _, immediate in struct.iter_unpack("<BBhi", section.data()):
            if opcode == CALL and registers >> 4 == MAP_OR_HELPER:
                yield immediate


LOAD, STORE, STORE_IMMEDIATE, MOVE, ADD = 0x61, 0x63, 0x62, 0xBF, 0x07
"""Opcodes with the stack pointer (r10): the first three in any width, a copy of it, and what is added to the copy."""

PRIVATE_STACK_FROM = 64
"""Bytes of stack from which newer kernels give a program one that it shares with whoever preempts it
(``BPF_PRIV_STACK_MIN_SIZE`` of ``kernel/bpf/verifier.c``)."""


def programs(elf: ELFFile) -> Iterator[tuple[str, str, list[tuple[int, int, int, int]]]]:
    """Section, name and instructions (opcode, registers, offset, immediate) of each program."""
    for symbol in elf.get_section_by_name(".symtab").iter_symbols():
        if symbol["st_info"]["type"] != "STT_FUNC":
            continue
        section = elf.get_section(symbol["st_shndx"])
        code = section.data()[symbol["st_value"] : symbol["st_value"] + symbol["st_size"]]
        yield section.name, symbol.name, list(struct.iter_unpack("<BBhi", code))


def stack_bytes(instructions: list[tuple[int, int, int, int]]) -> int:
    """Deepest byte of the stack that the instructions name."""
    deepest, copies = 0, set()
    for opcode, registers, offset, immediate in instructions:
        target, source = registers & 0xF, registers >> 4
        kind = opcode & 0xE7  # without the width
        if (kind in (STORE, STORE_IMMEDIATE) and target == 10) or (kind == LOAD and source == 10):
            deepest = max(deepest, -offset)
        if opcode == MOVE:
            copies.discard(target)
            if source == 10:
                copies.add(target)
        elif opcode == ADD and target in copies:
            deepest = max(deepest, -immediate)
    return deepest


@pytest.mark.build
def test_a_program_that_can_be_preempted_stays_on_the_kernels_stack(built: Path) -> None:
    with built.open("rb") as file:
        found = {name: code for section, name, code in programs(ELFFile(file)) if section.startswith("uprobe")}
    deep = {name for name, code in found.items() if stack_bytes(code) >= PRIVATE_STACK_FROM}
    calling = {name for name, code in found.items() if any(o == CALL and i == TAIL_CALL for o, _, _, i in code)}

    assert {"go_malloc", "go_park"} <= deep
    assert deep - calling == set()


@pytest.mark.build
def test_the_programs_use_no_helper_newer_than_5_8_and_no_deprecated_one(built: Path) -> None:
    with built.open("rb") as stream:
        used = set(calls(ELFFile(stream)))

    assert used == set(HELPERS)


@pytest.mark.build
def test_the_object_has_type_information_and_nothing_for_a_debugger(built: Path) -> None:
    with built.open("rb") as stream:
        names = {section.name for section in ELFFile(stream).iter_sections()}

    assert {".BTF", ".BTF.ext", ".maps", "license"} <= names
    assert not [name for name in names if name.startswith(".debug")]


@pytest.mark.build
def test_every_program_that_a_probe_set_names_is_in_the_object(built: Path) -> None:
    with built.open("rb") as stream:
        symbols = ELFFile(stream).get_section_by_name(".symtab").iter_symbols()
        functions = {symbol.name for symbol in symbols if symbol["st_info"]["type"] == "STT_FUNC"}

    assert {hook.program for probes in SETS.values() for hook in probes.hooks} <= functions


@pytest.mark.build
def test_two_builds_give_the_same_bytes_with_no_path_of_the_host(built: Path, tools: ToolsRoot, tmp_path: Path) -> None:
    again = build.objects(Layout(cache=tmp_path, state=tmp_path, runs=tmp_path), tools)

    assert again != built
    assert again.read_bytes() == built.read_bytes()
    for path in (tools.root, build.SOURCES, Path.home()):
        assert str(path).encode() not in built.read_bytes()


@pytest.mark.build
def test_a_build_is_taken_from_the_cache_until_its_inputs_change(
    tools: ToolsRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(cache=tmp_path, state=tmp_path, runs=tmp_path)
    first = build.objects(layout, tools)
    stamp = first.stat().st_mtime_ns

    assert build.objects(layout, tools) == first
    assert first.stat().st_mtime_ns == stamp
    monkeypatch.setattr(build, "CLANG_FLAGS", (*build.CLANG_FLAGS, "-DCHANGED"))
    assert build.objects(layout, tools) != first
    assert [path.name for path in layout.builds.iterdir() if path.name.startswith(".")] == []


@pytest.mark.build
def test_structs_have_the_same_layout_in_the_object_and_in_the_loader(built: Path) -> None:
    done = subprocess.run(
        [build.go_command(), "test", "-count=1", "-tags=object", "-v", "-run", "Layout|Padding|Named|Numbers", "."],
        cwd=build.LOADER, env={**os.environ, "LABTRACE_OBJECT": str(built), "CGO_ENABLED": "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("--- PASS: Test") >= 6


def test_python_reads_the_record_that_the_loader_writes() -> None:
    (event,) = np.frombuffer(RAW_EVENT, dtype=EVENT)

    assert event.tolist() == (1, 2, 0xC000000008, 3, 4, 18, -1, 12345, 511, 1, 22, 0)
