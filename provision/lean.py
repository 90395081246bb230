"""What of a workload travels to a machine: the program without symbols and DWARF, which only the probe plan needs."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bpf.plan import Plan
from provision.atomic import alone, staging
from vm.artefacts import sha256_file
from vm.errors import BuildError
from vm.paths import Layout
from vm.process import run
from vm.tools import ToolsRoot

INSTRUCTION = 16
"""Bytes compared at each probe; an instruction of x86-64 has 15 at most."""


def lean(binary: Path, plan: Plan, layout: Layout, tools: ToolsRoot) -> tuple[Path, Plan]:
    """Return a stripped copy of ``binary`` and the plan for it, made from ``plan``, that of ``binary`` itself.

    Stripping keeps what is loaded where it is (``llvm-strip -s`` leaves program headers and their file offsets alone);
    that the code at every probe is the same in both is checked all the same.

    :raises BuildError: stripping failed, or moved code.
    """
    name = f"lean-{plan.binary.sha256[:24]}"
    target = layout.builds / name / binary.name
    with alone(layout.builds, name):
        if not target.is_file():
            with staging(layout.builds) as stage:
                result = stage / name
                result.mkdir()
                copy = result / binary.name
                run(tools.command("llvm-strip", "-s", "-o", copy, binary), environment=tools.environment)
                copy.chmod(0o755)
                result.rename(layout.builds / name)
    check_same_code(binary, target, plan)
    about = msgspec.structs.replace(plan.binary, sha256=sha256_file(target), stripped=True)
    return target, msgspec.structs.replace(plan, binary=about)


def check_same_code(binary: Path, copy: Path, plan: Plan) -> None:
    """Compare the bytes at each probe of ``plan`` in two files.

    :raises BuildError: they differ.
    """
    whole, small = binary.read_bytes(), copy.read_bytes()
    for probe in plan.probes:
        stretch = slice(probe.offset, probe.offset + INSTRUCTION)
        if whole[stretch] != small[stretch]:
            raise BuildError(f"stripping {binary.name} moved {probe.symbol}", f"remove {copy.parent} and run again")
