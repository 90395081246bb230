"""Boxes for Vagrant: built, verified, and given to Vagrant."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

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
from vm.errors import UsageError
from vm.model import Kernel
from vm.vagrant import copies
from vm.vagrant.domain import URI
from vm.vagrant.firstcopy import POOL
from vm.vagrant.remains import Virsh, run_virsh
from vm.verify import UMASK, ZONE, Account, Verification

if TYPE_CHECKING:
    from vm.vagrant.client import InstalledBox

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
    """Give boxes to Vagrant; what it has is left alone where it was made of the same.

    :raises UsageError: machines stand on a disk that would have to go.
    """
    from vm.vagrant.client import Vagrant

    boxes = Boxes(house.builder())
    found = boxes.obtain(kernels, providers)
    vagrant = Vagrant(house.layout.cache / "vagrant", house.layout.logs / "vagrant.log")
    return give(found, vagrant, lambda box: catalog.write(house.layout, boxes.of(box.kernel)), house.say)


class Takes(Protocol):
    """What of :class:`vm.vagrant.client.Vagrant` is used here."""

    def boxes(self, deadline: Deadline) -> Sequence[InstalledBox]:
        """Return the boxes that are added."""

    def box_add(self, metadata: Path, provider: str, deadline: Deadline, *, force: bool) -> None:
        """Add the newest box that a metadata file names."""


def give(
    found: Sequence[Box],
    vagrant: Takes,
    catalogue: Callable[[Box], Path],
    say: Callable[[str], None],
    virsh: Virsh = run_virsh,
) -> list[BoxRow]:
    """Give ``found`` to Vagrant, and take the old disk of one that is replaced out of libvirt's pool.

    :param catalogue: writes the catalogue of a box.
    :raises UsageError: machines stand on such a disk; nothing is changed then.
    :raises SetupError: libvirt does not say.
    """
    there = {(box.name, box.provider, box.version) for box in vagrant.boxes(Deadline.after(ADD_SECONDS))}
    known = {box.path for box in found if (box.name, box.provider, box.version) in there}
    same = {box.path for box in found if box.path in known and installed.disk_installed(box) == installed.disk_of(box)}
    replaced = [box for box in found if box.path in known - same and box.provider == "libvirt"]
    old = {box.path: volume for box in replaced if (volume := _old_disk(box, virsh))}
    rows = []
    for box in found:
        written = catalogue(box)
        if box.path in same:
            rows.append(_row(box, "there"))
            continue
        say(f"{box.name} {box.version} ({box.provider}): giving it to Vagrant")
        if box.path in old:  # before: a box that is not replaced then has its own disk copied again
            copies.remove(old[box.path], virsh)
        vagrant.box_add(written, box.provider, Deadline.after(ADD_SECONDS), force=box.path in known)
        rows.append(_row(box, "replaced" if box.path in known else "added"))
    return rows


def _old_disk(box: Box, virsh: Virsh) -> str:
    """Return the volume that has the disk of the box that ``box`` replaces; empty where there is none.

    :raises UsageError: machines stand on it.
    """
    volume = installed.volume(box.name, box.version)
    standing = copies.standing_on(volume, virsh)
    if standing:
        machines = ", ".join(name.removesuffix(".img") for name in standing)
        raise UsageError(
            f"{box.name} {box.version} is not replaced: machines stand on its old disk ({machines})",
            f"vagrant destroy lab-{box.kernel.line}, where each was made (kmlab-run-… goes when its lab ends), then "
            f"invoke boxes.add --kernel {box.kernel.line}; a disk that Vagrant forgot: virsh -c {URI} vol-delete "
            f"{standing[0]} --pool {POOL}",
        )
    return "" if standing is None else volume


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
