"""The command line of QEMU and of the guest's kernel. Pure: the same hardware gives the same words.

Both are part of the key of a saved state: a state fits only the machine that it was saved from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vm.machine import Accelerator, Clock

MACHINE_TYPE = "q35"
"""``microvm`` starts sooner but hung 6.1, 6.12 and 7.3 under QEMU 10.0; q35 booted 5.10 to 7.3."""

EMULATED_CPU = "Haswell-v2,-pcid,-tsc-deadline,-invpcid"
"""A named model with a version does not change with QEMU's release, as ``max`` does. v2 is the one without TSX; what is
taken away are the three features that emulation does not have and would warn of. Haswell has AVX2, BMI and AES, which
Go and OpenSSL look for."""

VIRTUAL_CLOCK = "shift=1,sleep=off"
"""Two nanoseconds for each instruction (2 to the power of ``shift``), and idle time is skipped."""

TRIAL_MARKER = "KMLAB-TRIAL-OK"
"""What the guest's init prints when ``lab.trial`` is on the kernel's command line."""

_COMMON_OPTIONS = (
    "console=ttyS0",
    # Boot messages through an emulated serial port cost a third of a second; warnings and worse still appear.
    "quiet",
    # On a panic reboot at once, which -no-reboot turns into QEMU's end: the host sees it without waiting.
    "panic=-1",
    # Mitigations slow system calls by an amount that depends on the CPU model; a throw-away machine holds no secret.
    "mitigations=off",
)
_EMULATED_OPTIONS = (
    # Under emulation the kernel finds the TSC unstable and falls back to HPET: then each time.Now() leaves the vDSO,
    # and a channel benchmark takes 54 ms instead of 30.
    "tsc=reliable",
    "clocksource=tsc",
    # On a busy host the emulated timer's interrupts come late: 5.10 then paniced with "IO-APIC + timer doesn't work!".
    # The kernel itself leaves the check out under KVM (arch/x86/kernel/kvm.c).
    "no_timer_check",
)


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the guest sees.

    :param counted: guest time is a count of instructions; only where the machine is emulated.
    """

    cpus: int
    memory_mib: int
    accelerator: Accelerator
    counted: bool = False

    @property
    def cpu_model(self) -> str:
        """QEMU's name of the CPU model."""
        return "host" if self.accelerator == "kvm" else EMULATED_CPU

    @property
    def clock(self) -> Clock:
        """Where guest time comes from."""
        if self.counted:
            return "virtual"
        return "kvm" if self.accelerator == "kvm" else "emulated"


@dataclass(frozen=True, slots=True)
class Files:
    """What QEMU opens. ``overlay`` is written to; all others are only read.

    :param saved_disk: disk of the saved state that lies between overlay and base image.
    """

    vmlinuz: Path
    initrd: Path
    base_image: Path
    bundle_image: Path
    overlay: str
    saved_disk: Path | None = None


@dataclass(frozen=True, slots=True)
class Channels:
    """Descriptors of listening sockets that QEMU inherits, and the console's log.

    The sockets exist before QEMU does: a client connects at once and never polls for a path.
    """

    qmp: int
    control: int
    console_log: str = "console.log"


def kernel_command_line(accelerator: Accelerator) -> str:
    """Return the guest kernel's command line."""
    return " ".join(_COMMON_OPTIONS + (_EMULATED_OPTIONS if accelerator == "tcg" else ()))


def accelerator_arguments(hardware: Hardware) -> tuple[str, ...]:
    """Return ``-accel``, and what makes time a count of instructions where that is wanted."""
    if hardware.counted:
        # One thread runs all CPUs in turn: instructions of several threads have no order that could be counted.
        return ("-accel", "tcg,thread=single", "-icount", VIRTUAL_CLOCK)
    return ("-accel", "kvm" if hardware.accelerator == "kvm" else "tcg,thread=multi")


def machine_arguments(
    hardware: Hardware, files: Files, channels: Channels, *, name: str, port: int = 0, incoming: bool = False
) -> list[str]:
    """Return QEMU's arguments, without the program itself. QEMU is run with the machine's folder as current folder.

    :param name: the machine's name; the sweep finds it again in the process's command line.
    :param port: loopback port that leads to the guest's port 22; 0 lets the host's kernel choose a free one, which
        cannot be lost to another program as a number picked beforehand can.
    :param incoming: wait for a saved state instead of booting.
    """
    return [
        *("-name", f"kmlab-{name}"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", MACHINE_TYPE, *accelerator_arguments(hardware)),
        *("-cpu", hardware.cpu_model, "-smp", str(hardware.cpus), "-m", str(hardware.memory_mib)),
        *("-kernel", str(files.vmlinuz), "-initrd", str(files.initrd)),
        *("-append", kernel_command_line(hardware.accelerator)),
        *_disk_arguments(files),
        # restrict: the guest reaches nothing, only the forwarded port leads in. What a lab measures then cannot
        # depend on the world outside.
        *("-netdev", f"user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"file,id=console,path={channels.console_log},append=on", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=control,fd={channels.control},server=on,wait=off", "-serial", "chardev:control"),
        *("-chardev", f"socket,id=qmp,fd={channels.qmp},server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
        *(("-incoming", "defer") if incoming else ()),
    ]


def _disk_arguments(files: Files) -> list[str]:
    """Return the two disks: vda, written through an overlay, and vdb, the bundle.

    The chain below the overlay is given here and not left to the path in its header, so that a prepared overlay can be
    copied anywhere.
    """
    backing = _raw(files.base_image)
    if files.saved_disk is not None:
        saved = {"driver": "file", "filename": str(files.saved_disk), "locking": "off"}
        backing = {"driver": "qcow2", "read-only": True, "file": saved, "backing": backing}
    overlay = {"driver": "file", "filename": files.overlay}
    root = {"driver": "qcow2", "node-name": "root", "file": overlay, "backing": backing}
    bundle = {**_raw(files.bundle_image), "node-name": "bundle"}
    return [
        *("-blockdev", _json(root), "-device", "virtio-blk-pci,drive=root"),
        *("-blockdev", _json(bundle), "-device", "virtio-blk-pci,drive=bundle"),
    ]


def _raw(path: Path) -> dict[str, object]:
    # Images are shared and never written: locking them would only make machines trip over each other.
    return {
        "driver": "raw",
        "read-only": True,
        "file": {"driver": "file", "filename": str(path), "locking": "off", "read-only": True},
    }


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))


def trial_arguments(vmlinuz: Path, initramfs: Path, console_log: str) -> list[str]:
    """Return arguments that boot a kernel under KVM to a marker on the console and power off; no disk, no network."""
    return [
        *("-name", "kmlab-trial", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", MACHINE_TYPE, "-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", "256"),
        *("-kernel", str(vmlinuz), "-initrd", str(initramfs), "-append", f"{kernel_command_line('kvm')} lab.trial"),
        *("-chardev", f"file,id=console,path={console_log}", "-serial", "chardev:console"),
    ]
