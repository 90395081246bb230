"""What boxes are called, which version they have, and what they are to be built from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vm import base, bundle, tools
from vm.artefacts import Plan, inputs_hash, sha256_file
from vm.errors import UsageError
from vm.initramfs import GUEST
from vm.model import Kernel, Lock

RECIPE = int((Path(__file__).resolve().parent / "recipe").read_text("ascii"))
"""Raised when this package builds something else from the same artefacts; the last part of a box's version."""
TEMPLATES = Path(__file__).resolve().parent / "templates"

ProviderName = Literal["libvirt", "virtualbox"]


@dataclass(frozen=True, slots=True)
class Form:
    """How a provider wants a box.

    :param device: the disk as the guest sees it.
    :param modules: kernel modules that the disk needs beyond those of the bundle's initramfs.
    :param screen: the machine has one, and nobody looks at a serial port.
    :param disk: the disk's name in the box.
    """

    device: str
    modules: tuple[str, ...]
    screen: bool
    disk: str


FORMS: Mapping[ProviderName, Form] = {
    "libvirt": Form("/dev/vda", (), screen=False, disk="box.img"),
    # Of the disks that VirtualBox has, the kernels from 5.10 on have a driver for this one alone.
    "virtualbox": Form("/dev/sda", ("ata_piix", "sd_mod"), screen=True, disk="box-disk001.vmdk"),
}


def box_file(provider: ProviderName, kernel: Kernel) -> str:
    """Return the name of the box in its artefact."""
    return f"kmlab-{kernel.line}-{provider}.box"


def box_name(kernel: Kernel) -> str:
    """Return what the box is called in a Vagrantfile."""
    return f"kmlab/{kernel.line}"


def version(lock: Lock) -> str:
    """Return the version of the boxes of a lock: date and time of its newest index, and the recipe.

    The Vagrantfile makes it of the lock and of the file ``recipe``, too.
    """
    digits = re.sub(r"\D", "", lock.newest_index)
    return f"{digits[:8]}.{int(digits[8:14])}.{RECIPE}"


def grub_plan(lock: Lock) -> Plan:
    """Return what the root with GRUB is to be built from."""
    inputs = inputs_hash("boxes", tools.RECIPE, lock.source_date_epoch, sorted(p.sha256 for p in lock.boxes.packages))
    return Plan("boxes", "boxes", inputs, lock.boxes.artefact)


def plan(lock: Lock, kernel: Kernel, provider: ProviderName) -> Plan:
    """Return what the box of a locked kernel is to be built from.

    :raises UsageError: the kernel is one's own.
    """
    if lock.kernels.get(kernel.line) != kernel:
        raise UsageError(
            f"there is no box of {kernel.release}: it is a kernel of one's own",
            "boxes are made of locked kernels (invoke kernels); without --provider it runs as it is",
        )
    here = Path(__file__).resolve().parent
    rooms = [*here.glob("*.py"), *TEMPLATES.iterdir(), *(GUEST / "box").iterdir()]
    sources = {f"{path.parent.name}/{path.name}": sha256_file(path) for path in sorted(rooms)}
    made_of = [each.inputs for each in (base.plan(lock), bundle.plan(lock, kernel), grub_plan(lock), tools.plan(lock))]
    inputs = inputs_hash("box", RECIPE, provider, version(lock), lock.source_date_epoch, made_of, sources)
    expected = lock.box_artefacts.get(f"{provider}:{kernel.line}")
    return Plan("box", f"box-{provider}-{kernel.release}", inputs, expected)
