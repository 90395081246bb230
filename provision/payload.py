"""What goes onto a machine for one lab: the workload, its probe plan, the loader, BPF objects and kernel-side tools."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import bpf.build
from bpf import plan
from bpf.plan import Plan, plan_for
from go_labs.spec import LabFolder
from provision import gobuild, toolchains
from vm.errors import ProbeError, UsageError
from vm.paths import REPOSITORY, Layout
from vm.tools import ToolsRoot

GUEST_SCRIPTS = Path(__file__).resolve().parent / "guest"
BPF = REPOSITORY / "bpf"


@dataclass(frozen=True, slots=True)
class Payload:
    """Files by their path below the run's folder in the machine, and what is recorded of them.

    :param binary: the workload, on the host; ``plan``: its probe plan, JSON.
    """

    files: dict[str, Path | bytes]
    binary: Path
    plan: bytes
    go_version: str


def prepare(folder: LabFolder, go_version: str, layout: Layout, tools: ToolsRoot) -> Payload:
    """Build all that ``folder`` needs with Go ``go_version``, or take it from the cache.

    :raises UsageError: the lab needs a newer Go. :raises BuildError: something did not compile.
    :raises ProbeError: no plan can be made for the workload.
    """
    _check_version(folder, go_version)
    with ThreadPoolExecutor(3) as pool:
        objects = pool.submit(bpf.build.objects, layout, tools)
        loader = pool.submit(bpf.build.loader, layout)
        toolchain = toolchains.go_for(go_version, layout)
        binary = gobuild.build(folder.path, toolchain, layout)
        sets = sorted({name for phase in folder.lab.phases for name in phase.probes})
        probe_plan = plan_for(binary, sets)
        _check_marks(folder, probe_plan)
        files: dict[str, Path | bytes] = {
            folder.lab.name: binary,
            "plan.json": plan.to_json(probe_plan),
            "labtrace": loader.result(),
            "calibration.json": plan.to_json(_calibration(loader.result())),
            "objects.o": objects.result(),
            "with_tools.sh": GUEST_SCRIPTS / "with_tools.sh",
        }
    for tool in sorted({tool for phase in folder.lab.phases for tool in phase.tools}):
        files |= _tool_files(tool)
    return Payload(files=files, binary=binary, plan=plan.to_json(probe_plan), go_version=f"go{toolchain.version}")


def _check_marks(folder: LabFolder, probe_plan: Plan) -> None:
    """Refuse a lab that is traced and whose segments the probes could not see.

    :raises ProbeError: the workload never calls ``labkit.Mark``, so the linker left it out.
    """
    absent = next((each for each in probe_plan.missing if each.id.endswith(".mark")), None)
    if absent is not None:
        raise ProbeError(
            f"lab {folder.lab.name} marks no segments: {absent.why}",
            "call labkit.Mark around each stretch that is counted; docs/labs.md shows it",
        )


def _calibration(loader: Path) -> Plan:
    return plan_for(loader, ["calibration"])


def _tool_files(tool: str) -> dict[str, Path | bytes]:
    """Return the files of kernel-side tool ``bcc/NAME`` or ``bpftrace/NAME``, and what the tools of its kind share.

    :raises UsageError: there is no such tool.
    """
    kind, _, name = tool.partition("/")
    suffix = {"bcc": ".py", "bpftrace": ".bt"}.get(kind)
    path = BPF / kind / f"{name}{suffix}"
    if suffix is None or not path.is_file():
        scripts = (*BPF.glob("bcc/[a-z]*.py"), *BPF.glob("bpftrace/[a-z]*.bt"))
        known = sorted(f"{script.parent.name}/{script.stem}" for script in scripts)
        raise UsageError(f"there is no kernel-side tool {tool!r}", f"there are: {', '.join(known)}")
    return {f"tools/{kind}/{file.name}": file for file in (path, *(BPF / kind).glob("_*.py"))}


def _check_version(folder: LabFolder, go_version: str) -> None:
    def number(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split(".")[:2])

    if number(go_version) < number(folder.lab.go_minimum):
        raise UsageError(
            f"lab {folder.lab.name} needs Go {folder.lab.go_minimum} or newer, not {go_version}",
            "leave --go away to use the default version",
        )


def folder_digest(path: Path) -> str:
    """Return a SHA-256 over names and contents of all files of a lab's folder, caches and hidden files left out."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        parts = file.relative_to(path).parts
        if any(part.startswith(".") or part == "__pycache__" for part in parts):
            continue
        digest.update("/".join(parts).encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
