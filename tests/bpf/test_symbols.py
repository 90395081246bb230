"""Stacks against what Go's own runtime says of them: the probed program prints one of its stacks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bpf import symbols
from bpf.elf import Elf
from bpf.pclntab import Frame, FunctionTable
from bpf.symbols import Symbolizer
from bpf.trace import Trace
from provision.gobuild import Variant
from tests.bpf.programs import VERSIONS, gofmt, probed
from tests.bpf.test_trace import DOCUMENT


def stack_of(program: Path) -> dict[str, Any]:
    done = subprocess.run([program, "stack"], capture_output=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.build
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("pie", [False, True])
@pytest.mark.parametrize("stripped", [False, True])
def test_frames_are_those_that_the_runtime_names(version: str, pie: bool, stripped: bool) -> None:
    program = probed(version, Variant(pie=pie, stripped=stripped))
    said = stack_of(program)
    (main,) = FunctionTable(Elf.open(program)).find("main.main")
    symbolizer = Symbolizer.open(program, load_bias=said["Main"] - main.entry)

    stack = [symbolizer.frames(pc, returns=True) for pc in said["PCs"]]

    # The runtime gives an address to each frame, inlined ones too: from each on, the frames must be those it names.
    names = [(f["Function"], f["File"], f["Line"]) for f in said["Frames"]]
    for number, frames in enumerate(stack):
        assert [(f.function, f.file, f.line) for f in frames] == names[number : number + len(frames)]
        assert [f.inlined for f in frames] == [True] * (len(frames) - 1) + [False]
    assert len(stack) == len(names)
    assert "main.inner" in [frame.function for frames in stack for frame in frames if frame.inlined]


@pytest.mark.build
def test_the_symbols_of_a_trace_are_by_runtime_address() -> None:
    program = probed()
    table = FunctionTable(Elf.open(program))
    (park,), (main,) = table.find("runtime.gopark"), table.find("main.main")
    bias = 0x1000
    stacks = [[park.entry + bias, main.entry + main.size // 2 + bias, 12]]
    trace = msgspec.convert(DOCUMENT | {"stacks": stacks, "load_bias": bias, "counters": {}}, Trace)

    found = symbols.symbols_of(program, trace)

    assert list(found) == stacks[0][:2]
    assert found[stacks[0][0]][-1].startswith("runtime.gopark runtime/proc.go:")
    assert found[stacks[0][1]][-1].startswith("main.main probed/main.go:")
    assert json.loads(symbols.to_json(found)) == {str(address): frames for address, frames in found.items()}


def test_the_probed_address_is_exact_and_the_others_are_return_addresses() -> None:
    symbolizer = Symbolizer(Elf("gofmt", gofmt()))
    (park,) = FunctionTable(Elf("gofmt", gofmt())).find("runtime.gopark")

    exact, returned = symbolizer.stack([park.entry])[-1], symbolizer.stack([park.entry, park.entry])[-1]

    assert exact.function == "runtime.gopark"
    assert returned.function != "runtime.gopark"  # One byte before its entry is the end of another function.


@pytest.mark.parametrize("address", [0, 1, 0x1000, 1 << 63, (1 << 64) - 1])
def test_an_address_outside_go_has_no_frames(address: int) -> None:
    symbolizer = Symbolizer(Elf("gofmt", gofmt()))

    assert symbolizer.frames(address, returns=True) == []


def test_each_function_is_found_by_its_addresses() -> None:
    table = FunctionTable(Elf("gofmt", gofmt()))

    for function in table.all()[::50]:
        if function.size:
            assert table.at(function.entry) == function
            assert table.at(function.entry + function.size - 1) == function
            assert function in table.find(function.name)


def test_words_name_function_file_and_line() -> None:
    assert symbols.words(Frame("main.work", "main.go", 7, inlined=True)) == "main.work main.go:7"
