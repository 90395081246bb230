"""What goes onto a machine for one lab: the workload, its probe plan, the loader, BPF objects and kernel-side tools."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import bpf.build
from bpf import plan
from bpf.elf import Elf
from bpf.plan import Plan, make_plan, plan_for
from bpf.probes import find_sets
from go_labs.spec import LabFolder
from provision import gobuild, toolchains, vet
from provision.gobuild import Variant
from provision.lean import lean
from vm.errors import ProbeError, UsageError
from vm.paths import REPOSITORY, Layout
from vm.tools import ToolsRoot

KITS = "/lab/kit"
"""Where kits lie in a machine, a folder each."""

GUEST_SCRIPTS = Path(__file__).resolve().parent / "guest"
BPF = REPOSITORY / "bpf"


@dataclass(frozen=True, slots=True)
class Kit:
    """What is the same for every lab: the loader, BPF objects, kernel-side tools.

    :param files: by their path in the machine, below :attr:`folder`; those of a run see them beside their own.
    :param digest: SHA-256 over names and contents; a machine that has a folder of that name has the kit.
    :param gotrace: the program that summarises recordings of runtime/trace; it stays on the host.
    """

    files: dict[str, Path | bytes]
    digest: str
    gotrace: Path

    @property
    def folder(self) -> str:
        """Where it lies in a machine."""
        return f"{KITS}/{self.digest[:32]}"


@dataclass(frozen=True, slots=True)
class Payload:
    """Files of one lab by their path below the run's folder in the machine, and what is recorded of them.

    :param program: file name of the workload there; ``binary``: the workload on the host; ``plan``: its plan, JSON.
    :param build: how it is linked (``gobuild.Variant.name``).
    :param compiler: the compiler's words on it, where the lab wants them; ``vet``: those of ``go vet``.
    """

    files: dict[str, Path | bytes]
    kit: Kit
    program: str
    binary: Path
    plan: bytes
    go_version: str
    build: str
    compiler: bytes = b""
    vet: bytes = b""


def prepare(
    folder: LabFolder, go_version: str, layout: Layout, tools: ToolsRoot, variant: Variant = gobuild.PLAIN
) -> Payload:
    """Build all that ``folder`` needs with Go ``go_version``, or take it from the cache.

    A program that is no lab is taken as it is: it may read its own symbols, or what was appended to it.

    :raises UsageError: the lab needs a newer Go, or a tool that is not there. :raises BuildError: something did not
        compile. :raises ProbeError: no plan can be made for the workload.
    """
    if folder.program is not None:
        return _as_it_is(folder, folder.program, kit(layout, tools))
    require_go(folder, go_version)
    for phase in folder.lab.phases:
        for tool in phase.tools:
            _check_tool(tool)
    with ThreadPoolExecutor(1) as pool:
        shared = pool.submit(kit, layout, tools)
        toolchain = toolchains.go_for(go_version, layout)
        binary = gobuild.build(folder.path, toolchain, layout, variant)
        sets = sorted({name for phase in folder.lab.phases for name in phase.probes})
        probe_plan = make_plan(Elf.open(binary), find_sets(sets) if sets else [])
        _check_marks(folder, probe_plan)
        pushed, pushed_plan = lean(binary, probe_plan, layout, tools)
        encoded = plan.to_json(pushed_plan)
        files: dict[str, Path | bytes] = {folder.lab.name: pushed, "plan.json": encoded}
        flags = folder.lab.compiler
        return Payload(
            files=files,
            kit=shared.result(),
            program=folder.lab.name,
            binary=binary,
            plan=encoded,
            go_version=f"go{toolchain.version}",
            build=variant.name,
            compiler=gobuild.compiler_words(folder.path, toolchain, layout, flags) if flags else b"",
            vet=vet.words(folder.path, toolchain, layout, folder.lab.vet) if folder.lab.vet else b"",
        )


def _as_it_is(folder: LabFolder, binary: Path, shared: Kit) -> Payload:
    sets = sorted({name for phase in folder.lab.phases for name in phase.probes})
    made = plan_for(binary, sets)
    encoded = plan.to_json(made)
    name = folder.lab.name
    return Payload(
        files={f"program/{name}": binary, "plan.json": encoded},
        kit=shared,
        program=f"program/{name}",
        binary=binary,
        plan=encoded,
        go_version=f"go{made.binary.go_version}",
        build=Variant(pie=made.binary.pie, stripped=made.binary.stripped).name,
    )


def kit(layout: Layout, tools: ToolsRoot) -> Kit:
    """Build the kit, or take its parts from the cache.

    :raises BuildError: something did not compile.
    """
    loader = bpf.build.loader(layout)
    files: dict[str, Path | bytes] = {
        "labtrace": loader,
        "calibration.json": plan.to_json(plan_for(loader, ["calibration"])),
        "objects.o": bpf.build.objects(layout, tools),
    }
    files |= {script.name: script for script in GUEST_SCRIPTS.glob("*.*")}
    scripts = (*BPF.glob("bcc/*.py"), *BPF.glob("bpftrace/*.py"), *BPF.glob("bpftrace/*.bt"))
    files |= {f"tools/{script.parent.name}/{script.name}": script for script in scripts}
    digest = hashlib.sha256()
    for name, source in sorted(files.items()):
        data = source if isinstance(source, bytes) else source.read_bytes()
        digest.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
    return Kit(files, digest.hexdigest(), bpf.build.gotrace(layout))


def _check_marks(folder: LabFolder, probe_plan: Plan) -> None:
    """Refuse a lab that is traced and whose segments the probes could not see.

    :raises ProbeError: the workload never calls ``labkit.Mark``, so the linker left it out.
    """
    absent = next((each for each in probe_plan.missing if each.id == "mark"), None)
    if absent is not None:
        raise ProbeError(
            f"lab {folder.lab.name} marks no segments: {absent.why}",
            "call labkit.Mark around each stretch that is counted; docs/labs.md shows it",
        )


def _check_tool(tool: str) -> None:
    """Refuse a kernel-side tool ``bcc/NAME`` or ``bpftrace/NAME`` that is not there.

    :raises UsageError: it is not.
    """
    scripts = (*BPF.glob("bcc/[a-z]*.py"), *BPF.glob("bpftrace/[a-z]*.bt"))
    known = sorted(f"{script.parent.name}/{script.stem}" for script in scripts)
    if tool not in known:
        raise UsageError(f"there is no kernel-side tool {tool!r}", f"there are: {', '.join(known)}")


def require_go(folder: LabFolder, go_version: str) -> None:
    """Return if a lab can be built with ``go_version``.

    :raises UsageError: it needs a newer one.
    """

    def number(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split(".")[:2])

    if number(go_version) < number(folder.lab.go_minimum):
        raise UsageError(
            f"lab {folder.lab.name} needs Go {folder.lab.go_minimum} or newer, not {go_version}",
            "leave --go away to use the default version",
        )


def lab_digest(folder: LabFolder) -> str:
    """Return a SHA-256 over a lab's folder, or over a program that is no lab."""
    if folder.program is not None:
        return hashlib.sha256(folder.program.read_bytes()).hexdigest()
    return folder_digest(folder.path)


def folder_digest(path: Path) -> str:
    """Return a SHA-256 over names and contents of all files of a lab's folder, caches and hidden files left out."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        parts = file.relative_to(path).parts
        if any(part.startswith(".") or part == "__pycache__" for part in parts):
            continue
        digest.update("/".join(parts).encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
