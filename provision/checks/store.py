"""Checks of the lock, the cache, the mirror and the programs that come from the locked tools root."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from provision.checks.host import Finding, Host
from vm import images, mirror
from vm.artefacts import command
from vm.errors import LabError
from vm.model import Kernel, Lock
from vm.paths import Layout
from vm.qemu.accel import Kvm, KvmReport
from vm.tools import ToolsRoot

PROGRAMS = ".venv/bin/"
BUILD = f"{PROGRAMS}invoke images.build"

QEMU = "qemu-system-x86_64"

MIRROR_SECONDS = 8.0
"""Time that a mirror gets to answer with one small file."""

Reach = Callable[[str, float], str]
"""Asks whether a URL can be had within some seconds; returns what went wrong, "" if nothing did."""


def lock(read: Callable[[], Lock]) -> tuple[Finding, Lock | None]:
    """Whether the lock can be used, and the lock."""
    try:
        found = read()
    except LabError as error:
        return Finding(check="lock", result="fail", detail=error.message, fix=error.hint), None
    packages = sum(
        map(
            len,
            (
                found.tools.packages,
                found.base.packages,
                found.boxes.packages,
                *(k.packages for k in found.kernels.values()),
            ),
        )
    )
    unknown = [
        name
        for name, artefact in (
            ("tools", found.tools.artefact),
            ("base", found.base.artefact),
            ("boxes", found.boxes.artefact),
            *((f"kernel:{line}", kernel.artefact) for line, kernel in found.kernels.items()),
        )
        if artefact is None
    ]
    detail = f"{len(found.kernels)} kernels, {packages} packages, whole"
    if unknown:
        detail += f"; no hash yet of {', '.join(unknown)}"
        return Finding(check="lock", result="warn", detail=detail, fix=f"{BUILD} --record"), found
    return Finding(check="lock", result="ok", detail=detail), found


def cache(rows: Sequence[images.Listed], deep: Sequence[images.Checked] | None) -> Finding:
    """What is built, and whether it is what the lock says.

    :param deep: result of reading every byte; None where only a glance was asked for.
    """
    current = [row for row in rows if row.in_lock]
    broken = [(row.name, f"{row.name}: {row.state}") for row in current if row.state != "whole"]
    broken += [(row.name, row.problem) for row in deep or () if row.problem]
    if broken:
        fix = " && ".join(dict.fromkeys(f"{PROGRAMS}{command(name)}" for name, _ in broken))
        return Finding(check="lock against cache", result="warn", detail="; ".join(what for _, what in broken), fix=fix)
    if not any(row.kind == "base" for row in current) or not any(row.kind == "tools" for row in current):
        detail = "tools root and base image are not built yet; the first run does it"
        return Finding(check="lock against cache", result="warn", detail=detail, fix=BUILD)
    kernels = sum(row.kind == "kernel" for row in current)
    how = "every byte read" if deep is not None else "as built, at a glance (--deep reads every byte)"
    detail = f"tools root, base image and {kernels} kernels; {how}"
    return Finding(check="lock against cache", result="ok", detail=detail)


def is_built(rows: Sequence[images.Listed]) -> bool:
    """Whether tools root and base image of this lock are there, so that a mirror is needed for kernels only."""
    kinds = {row.kind for row in rows if row.in_lock and row.state == "whole"}
    return {"tools", "base"} <= kinds


def reach(url: str, seconds: float) -> str:
    """Ask for the head of ``url``; return what went wrong, "" if nothing did."""
    import httpx

    if url.startswith("file://"):
        return "" if Path(url.removeprefix("file://")).exists() else "no such file"
    try:
        response = httpx.head(url, timeout=seconds, follow_redirects=True)
    except (httpx.HTTPError, OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return "" if response.status_code < 400 else f"it answers {response.status_code}"


def packages_mirror(
    locked: Lock | None, *, built: bool, find: Callable[[], mirror.Mirror] = mirror.resolve, ask: Reach = reach
) -> Finding:
    """Whether packages of the lock can be fetched.

    :param built: images are there, so that the lab works without a mirror, too.
    """
    worst: Literal["warn", "fail"] = "warn" if built else "fail"
    fix = "check the network, or set KMLAB_MIRROR (README.md, Offline and mirrors)"
    try:
        found = find()
        sample = locked.tools.packages[0] if locked is not None and locked.tools.packages else None
        urls = (
            found.candidates(sample) if sample else [f"{base}/dists/trixie/InRelease" for base in found.bases("debian")]
        )
    except LabError as error:
        return Finding(check="mirror", result=worst, detail=error.message, fix=error.hint)
    problem = ""
    for url in urls:
        problem = ask(url, MIRROR_SECONDS)
        if not problem:
            return Finding(check="mirror", result="ok", detail=f"answers (from: {found.source})")
    offline = "; images are built, and kernels that are built run without it" if built else ""
    return Finding(check="mirror", result=worst, detail=f"{problem} (from: {found.source}){offline}", fix=fix)


ASK_QEMU = "".join(f'{{"execute": "{name}"}}\n' for name in ("qmp_capabilities", "query-migrate-capabilities", "quit"))
"""What is said to QEMU's monitor to learn how it can save machines."""


def qemu(host: Host, tools: ToolsRoot | None) -> Finding:
    """QEMU's version, and whether it can do what is needed: save machines in place, user networking."""
    if tools is None:
        detail = "comes with the tools root, which is not built yet; the first run does it"
        return Finding(check="QEMU", result="warn", detail=detail, fix=BUILD)
    try:
        version = tools.qemu_version
        monitor = tools.command(QEMU, "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio")
        asked = host.run(monitor, 30, ASK_QEMU).text
        # Not "-netdev help": a listing loads every module, those of the host's own QEMU, too, where it is installed
        # (Vagrant needs it), and QEMU aborts over modules of another version.
        networked = host.run([*monitor, "-netdev", "user,id=probe"], 30, ASK_QEMU)
    except LabError as error:
        fix = f".venv/bin/invoke doctor --deep, then {BUILD}"
        return Finding(check="QEMU", result="fail", detail=f"it does not run: {error.message}", fix=fix)
    lacking = []
    if '"mapped-ram"' not in asked:  # from 9.0
        lacking.append("saved states (mapped-ram)")
    if networked.status != 0:
        lacking.append("user networking")
    if lacking:
        fix = f".venv/bin/invoke doctor --deep, then {BUILD}"
        return Finding(check="QEMU", result="fail", detail=f"{version} lacks {', '.join(lacking)}", fix=fix)
    return Finding(check="QEMU", result="ok", detail=f"{version} of the tools root; mapped-ram, user networking")


def clang(host: Host, tools: ToolsRoot | None) -> Finding:
    """The compiler of BPF programs, and that it knows BPF."""
    if tools is None:
        detail = "comes with the tools root, which is not built yet; the first run does it"
        return Finding(check="clang", result="warn", detail=detail, fix=BUILD)
    try:
        answer = host.run(tools.command("clang", "--target=bpf", "--version"), 30)
    except LabError as error:
        return Finding(check="clang", result="fail", detail=error.message, fix=BUILD)
    if answer.status != 0 or "bpf" not in answer.text:
        words = answer.text.splitlines()[0][:200] if answer.text else "without a word"
        fix = ".venv/bin/invoke doctor --deep"
        return Finding(check="clang", result="fail", detail=f"it does not compile for BPF: {words}", fix=fix)
    return Finding(check="clang", result="ok", detail=answer.text.splitlines()[0].replace("Debian ", ""))


def go(host: Host, program: Path) -> Finding:
    """The Go toolchain of the virtual environment."""
    answer = host.run([str(program), "version"], 30)
    if answer.status != 0:
        return Finding(check="Go", result="fail", detail=f"{program} does not run: {answer.text}", fix="./setup.sh")
    return Finding(check="Go", result="ok", detail=answer.text.removeprefix("go version "))


def kvm(report: KvmReport, seconds: float | None = None) -> Finding:
    """Which of the four things KVM is here; without it the lab emulates, which is no failure.

    :param seconds: how long the trial took, if there was one.
    """
    took = f" (trial of {seconds:.1f} s)" if seconds is not None else ""
    if report.state is Kvm.WORKS:
        return Finding(check="KVM", result="ok", detail=f"{report.state}: {report.detail}{took}")
    if report.state is Kvm.UNTRIED:
        detail = f"{report.detail}; the first start tries it, or --deep now"
        return Finding(check="KVM", result="ok", detail=detail)
    detail = f"{report.state}: {report.detail}{took}; machines are emulated, times are marked as such"
    return Finding(check="KVM", result="warn", detail=detail, fix=report.hint)


def btf(kernels: Sequence[tuple[Kernel, str]]) -> Finding:
    """Whether the kernels that are built describe their own types, which CO-RE programs need.

    :param kernels: each with the text of its configuration.
    """
    if not kernels:
        return Finding(check="BTF", result="warn", detail="no kernel is built yet; the first run does it", fix=BUILD)
    lacking = [kernel.release for kernel, config in kernels if "CONFIG_DEBUG_INFO_BTF=y" not in config.splitlines()]
    if lacking:
        fix = "scripts/config -e DEBUG_INFO_BTF in its build tree, or choose another kernel"
        return Finding(check="BTF", result="fail", detail=f"missing in {', '.join(lacking)}", fix=fix)
    return Finding(check="BTF", result="ok", detail=f"in all {len(kernels)} kernels that are built")


def machines(layout: Layout) -> Finding:
    """What runs, and what died by itself."""
    from vm.registry import Registry

    rows = [(row, row.state) for row in Registry(layout).all()]
    dead = [row.name for row, state in rows if state == "dead" and row.owner == "person"]
    if dead:
        fix = f".venv/bin/invoke vm.down --name {dead[0]}"
        return Finding(check="machines", result="warn", detail=f"ended by themselves: {', '.join(dead)}", fix=fix)
    counts = {"running": 0, **Counter(state for _, state in rows)}
    detail = ", ".join(f"{number} {state}" for state, number in counts.items())
    return Finding(check="machines", result="ok", detail=detail)


def timed(function: Callable[[], KvmReport]) -> tuple[KvmReport, float]:
    """Return what ``function`` gives, and how many seconds it took."""
    began = time.monotonic()
    return function(), time.monotonic() - began
