"""Whether KVM really works here: a kernel is booted under it to a marker, and the answer is remembered.

``/dev/kvm`` can exist, open, and still be useless: in a nested, paravirtual KVM stock kernels die with an internal
error or hang. That the file is there, or that QEMU starts, proves nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
import tempfile
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vm.deadline import Deadline
from vm.errors import SetupError
from vm.machine import Accelerator, AcceleratorChoice
from vm.paths import Layout
from vm.qemu.command import TRIAL_MARKER, trial_arguments
from vm.qemu.parts import Parts, qemu_version
from vm.qemu.process import end, spawn

TRIAL_SECONDS = 15.0
"""A kernel reaches the marker in one second where KVM works."""

DEVICE = Path("/dev/kvm")


class Kvm(StrEnum):
    """What KVM is on this host."""

    ABSENT = "absent"
    NO_PERMISSION = "no permission"
    UNUSABLE = "present but unusable"
    WORKS = "works"
    UNTRIED = "present, not tried yet"


@dataclass(frozen=True, slots=True)
class KvmReport:
    """What KVM is here, why, and what to do about it."""

    state: Kvm
    detail: str
    hint: str = ""


def glance(device: Path = DEVICE) -> KvmReport:
    """Look at the device only."""
    if not device.exists():
        hint = (
            "enable virtualization in the firmware, or nested virtualization of the outer machine; emulation works too"
        )
        return KvmReport(Kvm.ABSENT, f"{device} is not there", hint)
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        return KvmReport(
            Kvm.NO_PERMISSION, f"{device} may not be opened", "sudo usermod -aG kvm $USER, then log in again"
        )
    except OSError as error:
        return KvmReport(Kvm.UNUSABLE, f"{device} cannot be opened: {error.strerror}")
    return KvmReport(Kvm.UNTRIED, f"{device} can be opened")


def remembered(layout: Layout, version: str) -> KvmReport:
    """Return what is known without a trial.

    :param version: QEMU's.
    """
    report = glance()
    if report.state is not Kvm.UNTRIED:
        return report
    with contextlib.suppress(OSError, ValueError):
        state, _, detail = _memory(layout, version).read_text().strip().partition("\n")
        return KvmReport(Kvm(state), detail, _hint(Kvm(state)))
    return report


def examine(layout: Layout, parts: Parts, deadline: Deadline) -> KvmReport:
    """Return what KVM is here, booting a kernel under it the first time (15 s at most).

    The answer holds for this QEMU, host kernel and CPU.
    """
    version = qemu_version(layout, parts.tools)
    known = remembered(layout, version)
    if known.state is not Kvm.UNTRIED:
        return known
    report = _trial(parts, deadline.within(TRIAL_SECONDS))
    if not deadline.expired:  # a trial that was cut short proves nothing
        memory = _memory(layout, version)
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_name(f".{memory.name}.{os.getpid()}")
        temporary.write_text(f"{report.state}\n{report.detail}\n")
        temporary.replace(memory)
    return report


def choose(choice: AcceleratorChoice, layout: Layout, parts: Parts, deadline: Deadline) -> Accelerator:
    """Return the accelerator to use.

    :raises SetupError: KVM was asked for by name and does not work here.
    """
    if choice == "tcg":
        return "tcg"
    report = examine(layout, parts, deadline)
    if report.state is Kvm.WORKS:
        return "kvm"
    if choice == "kvm":
        hint = report.hint or "leave --accel away: the lab then uses emulation"
        raise SetupError(f"KVM cannot be used here, {report.state}: {report.detail}", hint)
    return "tcg"


def host_cpu() -> str:
    """Return the host's CPU: model, and a hash of its flags."""
    text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    wanted = [
        line for line in text.split("\n\n")[0].splitlines() if line.startswith(("model name", "flags", "microcode"))
    ]
    return hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:16]


def _memory(layout: Layout, version: str) -> Path:
    identity = f"{version} {platform.release()} {platform.version()} {host_cpu()}"
    return layout.cache / "facts" / f"kvm-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _hint(state: Kvm) -> str:
    if state is Kvm.UNUSABLE:
        return "leave --accel away: the lab then uses emulation"
    return ""


def _trial(parts: Parts, deadline: Deadline) -> KvmReport:
    with tempfile.TemporaryDirectory(prefix="kmlab-trial-") as scratch:
        folder = Path(scratch)
        console = folder / "console.log"
        arguments = trial_arguments(parts.vmlinuz, parts.initramfs, str(console))
        command = parts.tools.command("qemu-system-x86_64", *arguments)
        process = spawn(command, folder, environment=parts.tools.environment)
        try:
            return _watch(process, console, deadline)
        finally:
            end(process)


def _watch(process: subprocess.Popen[bytes], console: Path, deadline: Deadline) -> KvmReport:
    while not deadline.expired:
        ended = process.poll() is not None
        text = console.read_text("utf-8", "replace") if console.exists() else ""
        if TRIAL_MARKER in text:
            return KvmReport(Kvm.WORKS, "a kernel booted under it")
        said = (console.parent / "qemu.log").read_text("utf-8", "replace")
        if "KVM internal error" in said or ended:
            words = said.strip().splitlines()
            detail = f"a kernel died under it: {words[0] if words else 'without a word'}"
            return KvmReport(Kvm.UNUSABLE, detail, _hint(Kvm.UNUSABLE))
        time.sleep(0.02)
    detail = f"a kernel did not come up under it within {deadline.total:.0f} s"
    return KvmReport(Kvm.UNUSABLE, detail, _hint(Kvm.UNUSABLE))
