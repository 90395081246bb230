"""Boxes for Vagrant: built, verified, and given to Vagrant."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from provision import cli
from provision.house import House
from vm import lock as locks
from vm.artefacts import disk_usage
from vm.boxes import boxes as made
from vm.boxes import catalog, installed
from vm.boxes.boxes import Box, Boxes
from vm.boxes.plans import ProviderName
from vm.deadline import Deadline
from vm.model import Kernel
from vm.verify import UMASK, ZONE, Account, Verification

ADD_SECONDS = 300.0
"""Time that Vagrant gets to unpack a box; 2 to 8 s where a disk is not busy."""


class BoxRow(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``invoke boxes.build`` and ``boxes.add``.

    :param state: ``built`` or ``there``; of a box that was given to Vagrant ``added``, ``replaced`` or ``there``.
    :param size: bytes on disk. :param sha256: of the box's file.
    """

    name: str
    provider: str
    version: str
    state: str
    size: int
    sha256: str
    path: str


def build(house: House, kernels: Sequence[Kernel], providers: Sequence[ProviderName], *, record: bool) -> list[BoxRow]:
    """Build what is not there and write the catalogues that the Vagrantfile names.

    :param record: write the hashes of what comes out into the lock.
    """
    boxes = Boxes(house.builder(renew=record, thorough=True))
    found = boxes.obtain(kernels, providers)
    if record:
        renewed = made.with_hashes(house.lock, found, boxes.grub_hash())
        if renewed != house.lock:
            locks.write(renewed)
    for kernel in kernels:
        catalog.write(house.layout, boxes.of(kernel))
    return [_row(box, "built" if box.fresh else "there") for box in found]


def verify(house: House, kernels: Sequence[Kernel], providers: Sequence[ProviderName]) -> Verification:
    """Build boxes again elsewhere and compare bytes."""
    boxes = Boxes(house.builder())
    done = [boxes.verify(kernel, provider) for kernel in kernels for provider in providers]
    conditions = [f"umask {UMASK:03o}", f"TZ={ZONE}", "another folder, another time"]
    return Verification(done, Account("the same user", os.getuid(), os.getgid()), conditions)


def add(house: House, kernels: Sequence[Kernel], providers: Sequence[ProviderName]) -> list[BoxRow]:
    """Give boxes to Vagrant; what it has is left alone where it was made of the same."""
    from vm.vagrant.client import Vagrant

    boxes = Boxes(house.builder())
    found = boxes.obtain(kernels, providers)
    vagrant = Vagrant(house.layout.cache / "vagrant", house.layout.logs / "vagrant.log")
    there = {(box.name, box.provider, box.version) for box in vagrant.boxes(Deadline.after(ADD_SECONDS))}
    rows = []
    for box in found:
        catalogue = catalog.write(house.layout, boxes.of(box.kernel))
        known = (box.name, box.provider, box.version) in there
        if known and installed.disk_installed(box) == installed.disk_of(box):
            rows.append(_row(box, "there"))
            continue
        house.say(f"{box.name} {box.version} ({box.provider}): giving it to Vagrant")
        vagrant.box_add(catalogue, box.provider, Deadline.after(ADD_SECONDS), force=known)
        rows.append(_row(box, "replaced" if known else "added"))
        if known and box.provider == "libvirt":
            volume = installed.volume(box.name, box.version)
            house.say(
                f"libvirt may have the old disk still: virsh -c qemu:///system vol-delete {volume} --pool default"
            )
    return rows


def show(rows: Sequence[BoxRow]) -> None:
    """Print a table of boxes."""
    cells = [(r.name, r.provider, r.version, r.state, cli.human_size(r.size), r.sha256[:16], r.path) for r in rows]
    cli.print_table(("box", "for", "version", "state", "on disk", "sha256", "file"), cells)


def _row(box: Box, state: str) -> BoxRow:
    return BoxRow(
        name=box.name,
        provider=box.provider,
        version=box.version,
        state=state,
        size=disk_usage(box.artefact.path),
        sha256=box.sha256,
        path=box.path,
    )
