"""``invoke doctor``: examine this host, say what is wrong and the command that mends it. It changes nothing.

With ``deep`` it reads every byte of the artefacts, and boots a kernel under KVM where no trial is remembered.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from provision.checks import basics, store, vagrant
from provision.checks.host import Finding, Host, ThisHost
from provision.frame import use_colour
from vm import bundle, images, tools
from vm import lock as locks
from vm.artefacts import TREE, Store
from vm.deadline import Deadline
from vm.errors import LabError, SetupError
from vm.model import Kernel, Lock
from vm.paths import REPOSITORY, Layout
from vm.progress import Silent
from vm.qemu import accel
from vm.qemu.accel import KvmReport
from vm.qemu.parts import qemu_version
from vm.tools import ToolsRoot

EXIT_UNSOUND = SetupError.exit_code
"""Exit status where the main job cannot run."""

MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL"}
COLOURS = {"ok": "\x1b[32m", "warn": "\x1b[33m", "fail": "\x1b[31m"}


def sound(findings: Sequence[Finding]) -> bool:
    """Whether the main job can run."""
    return all(finding.result != "fail" for finding in findings)


def examine(*, deep: bool = False, host: Host | None = None, layout: Layout | None = None) -> list[Finding]:
    """Return every finding, in the order in which one would mend them."""
    host = host or ThisHost()
    layout = layout or Layout.from_environment()
    lock_finding, lock = store.lock(locks.read)
    rows = images.listing(lock, layout) if lock is not None else []
    root = _tools_root(lock, layout)
    built = store.is_built(rows)
    checked = images.check_all(lock, layout) if deep and lock is not None else None
    return [
        basics.system(host),
        basics.python(host, REPOSITORY),
        basics.packages(host),
        basics.keyring(host),
        basics.subordinate_ids(host),
        basics.name_spaces(host),
        basics.processors(host),
        basics.memory(host),
        *basics.disk(host, layout, built=built),
        basics.folders(host, layout),
        lock_finding,
        *([basics.clock(host, lock.source_date_epoch)] if lock is not None else []),
        store.packages_mirror(lock, built=built),
        store.cache(rows, checked),
        store.qemu(host, root),
        _kvm(lock, layout, root, built=built, deep=deep),
        store.clang(host, root),
        store.go(host, Path(sys.executable).parent / "go"),
        store.btf(_built_kernels(lock, layout)),
        store.machines(layout),
        *vagrant.findings(host, known_kvm(lock, layout)),
    ]


def show(findings: Sequence[Finding]) -> None:
    """Print findings on stdout: a table at first, then what to do."""
    coloured = use_colour(sys.stdout.isatty())
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        mark = f"{MARKS[finding.result]:4}"
        if coloured:
            mark = f"{COLOURS[finding.result]}{mark}\x1b[0m"
        print(f"{mark}  {finding.check:{width}}  {finding.detail}")
        if finding.fix:
            print(f"{'':4}  {'':{width}}  fix: {finding.fix}")
    failed = sum(finding.result == "fail" for finding in findings)
    print("the main job can run" if not failed else f"the main job cannot run: {failed} to mend")


def _tools_root(lock: Lock | None, layout: Layout) -> ToolsRoot | None:
    """Return the tools root if it is built; nothing is built here."""
    if lock is None:
        return None
    found = Store(layout.artefacts, Silent()).find(tools.plan(lock))
    return None if found is None else ToolsRoot(found.path / TREE, found.hash.sha256)


def _built_kernels(lock: Lock | None, layout: Layout) -> list[tuple[Kernel, str]]:
    """Return the locked kernels whose bundles are there, with the text of their configuration."""
    if lock is None:
        return []
    artefacts = Store(layout.artefacts, Silent())
    found = []
    for kernel in lock.kernels.values():
        artefact = artefacts.find(bundle.plan(lock, kernel))
        if artefact is not None:
            found.append((kernel, (artefact.path / bundle.CONFIG).read_text("utf-8", "replace")))
    return found


def known_kvm(lock: Lock | None, layout: Layout) -> KvmReport:
    """Return what is known of KVM on this host without a trial."""
    try:
        root = _tools_root(lock, layout)
        return accel.glance() if root is None else accel.remembered(layout, qemu_version(layout, root))
    except LabError:
        return accel.glance()


def _kvm(lock: Lock | None, layout: Layout, root: ToolsRoot | None, *, built: bool, deep: bool) -> Finding:
    """Return what KVM is: by a glance and by what is remembered; with ``deep`` by a trial."""
    try:
        if root is None:
            return store.kvm(accel.glance())
        kernels = _built_kernels(lock, layout)
        if not (deep and built and kernels and lock is not None):
            return store.kvm(accel.remembered(layout, qemu_version(layout, root)))
        parts = images.Builder(lock, layout).images(kernels[0][0]).parts
        report, seconds = store.timed(lambda: accel.examine(layout, parts, Deadline.after(60)))
        return store.kvm(report, seconds)
    except LabError as error:
        return Finding(check="KVM", result="warn", detail=f"not examined: {error.message}", fix=error.hint)
