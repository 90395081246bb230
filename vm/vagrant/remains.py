"""Removing a machine from Vagrant, whatever became of the process that had started it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from vm.deadline import Deadline
from vm.errors import LabError, MachineError
from vm.vagrant.domain import URI, Placed, machine_id

DESTROY_SECONDS = 120.0
VIRSH_SECONDS = 30.0
LOG = "vagrant.log"
"""Name of the log with all that Vagrant was asked and said, in a machine's folder."""


class Destroys(Protocol):
    """What of :class:`vm.vagrant.client.Vagrant` is used here."""

    def destroy(self, machine: str, deadline: Deadline) -> None:
        """Destroy ``machine``; what is not there is fine."""


MakeClient = Callable[[Path, Path, Mapping[str, str]], Destroys]
Virsh = Callable[..., "subprocess.CompletedProcess[str]"]


def prefix(placed: Placed) -> dict[str, str]:
    """Return the variable with which the Vagrantfile names the domain as at its start."""
    return {"LAB_PREFIX": placed.prefix} if placed.prefix else {}


def remove(placed: Placed, folder: Path, make: MakeClient | None = None, virsh: Virsh | None = None) -> None:
    """Destroy a machine with its disks and snapshots: by Vagrant, and by virsh where Vagrant cannot.

    :param folder: of the machine, for the log.
    :raises LabError: neither can; that of Vagrant.
    """
    data = Path(placed.data)
    if placed.prefix and not data.exists():  # it was given up before Vagrant was asked for anything
        return
    uuid = machine_id(data, placed.machine) or placed.uuid
    if not uuid:  # Vagrant knows of no machine: there is nothing that it could destroy
        if placed.prefix:  # a run that was killed while Vagrant made the domain has left one all the same
            _remove_domain(placed, "", virsh or run_virsh)
        return
    try:
        client = (make or _vagrant)(data, folder / LOG, prefix(placed))
        client.destroy(placed.machine, Deadline.after(DESTROY_SECONDS))
    except LabError as error:
        # Of a person's machine more may be wrong than the machine: they are told, and decide.
        if not placed.prefix or not _remove_domain(placed, uuid, virsh or run_virsh):
            raise MachineError(
                f"machine {placed.machine} cannot be destroyed: {error.message}",
                error.hint or f"virsh -c {URI} list --all; {folder / LOG} has what Vagrant said",
            ) from error


def _remove_domain(placed: Placed, uuid: str, virsh: Virsh) -> bool:
    """Remove the domain and its volume; return whether neither is there any more."""
    name = f"{placed.prefix}{placed.machine}"
    for domain in filter(None, (uuid, name)):
        virsh("destroy", domain)
        virsh("undefine", domain, "--managed-save", "--snapshots-metadata", "--nvram", "--remove-all-storage")
    virsh("vol-delete", f"{name}.img", "--pool", "default")
    listed = virsh("list", "--all", "--uuid", "--name")
    words = listed.stdout.split()
    return listed.returncode == 0 and name not in words and (not uuid or uuid not in words)


def run_virsh(*words: str) -> subprocess.CompletedProcess[str]:
    """Run virsh on the domains of vagrant-libvirt, in C's locale; status 127 where it cannot be run."""
    command = ["virsh", "-q", "-c", URI, *words]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=VIRSH_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def _vagrant(data: Path, log: Path, variables: Mapping[str, str]) -> Destroys:
    from vm.vagrant.client import Vagrant

    return Vagrant(data, log, variables=variables)
