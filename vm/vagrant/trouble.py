"""From Vagrant's words to the error that a person needs. Pure.

The words are those of Vagrant 2.3.4 with vagrant-libvirt 0.11.2 and libvirt 9.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vm.errors import DiskFullError, LabError, MachineLockedError, SetupError, VagrantError

INSTALL = "./setup.sh --with-vagrant"
START_LIBVIRTD = "sudo systemctl start libvirtd; without systemd, as root: virtlogd -d && libvirtd -d"
JOIN_GROUP = "sudo usermod -aG libvirt $USER, then log in again"
START_NETWORK = "virsh -c qemu:///system net-start default"
OTHER_ADDRESSES = (
    "where that is refused, another network of this host has its addresses: "
    "virsh -c qemu:///system net-edit default gives it others"
)
NO_KVM = "set LAB_ACCEL=tcg (--accel tcg): machines are then emulated"

_WORDS = 12
"""Lines of Vagrant's last words that an error shows."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that goes wrong, by how Vagrant tells it.

    :param pattern: what its words contain; they may be broken into lines anywhere.
    :param message: for a person; ``{1}`` and so on are groups of the pattern. :param hint: the way out.
    """

    pattern: str
    kind: Callable[[str, str], LabError]
    message: str
    hint: str


KNOWN: tuple[Trouble, ...] = (
    Trouble(
        r"No space left on device|Disk quota exceeded|Failure writing output to destination",
        DiskFullError,
        "Vagrant found no space left on the disk",
        "Free some: 'vagrant box prune', 'virsh -c qemu:///system vol-list default', invoke images.clean.",
    ),
    Trouble(
        r"another process is already executing an action on the machine|"
        r"Vagrant can't use the requested machine because it is locked",
        MachineLockedError,
        "another Vagrant process is at work on the machine",
        "Wait until it has finished, then try again.",
    ),
    Trouble(
        r"The provider 'libvirt' could not be found|Unknown configuration section 'libvirt'",
        SetupError,
        "Vagrant's plugin vagrant-libvirt is not installed",
        INSTALL,
    ),
    Trouble(
        r"Failed to connect socket to '([^']*)': Permission denied|authentication unavailable: no polkit agent|"
        r"authentication failed: access denied by policy",
        SetupError,
        "libvirtd may not be used by you",
        JOIN_GROUP,
    ),
    Trouble(
        r"Failed to connect socket to '([^']*)': (?:No such file or directory|Connection refused)",
        SetupError,
        "libvirtd does not run: nobody answers at {1}",
        START_LIBVIRTD,
    ),
    Trouble(
        r"network '?(\S+?)'? is not active|Network not found: no network with matching name '([^']*)'|"
        r"Network (\S+) is not available|Error while activating network",
        SetupError,
        "libvirt's network default does not run",
        f"{START_NETWORK}; {OTHER_ADDRESSES}",
    ),
    Trouble(
        r"The box '([^']*)' could not be found",
        SetupError,
        "the box {1} is not added",
        "invoke boxes.build, then invoke boxes.add",
    ),
    Trouble(
        r"does not support virt type 'kvm'|Could not access KVM kernel module|failed to initialize kvm|"
        r"KVM internal error",
        SetupError,
        "KVM was refused",
        NO_KVM,
    ),
    Trouble(
        r"The box you're attempting to add already exists",
        VagrantError,
        "that version of the box is added already",
        "invoke boxes.add replaces it.",
    ),
    Trouble(
        r"is not yet ready for SSH",
        VagrantError,
        "the machine is not created, does not run, or has no address",
        "vagrant status",
    ),
    Trouble(
        r"The snapshot name `([^`]*)` was not found",
        VagrantError,
        "there is no snapshot {1}",
        "vagrant snapshot list",
    ),
    Trouble(
        # Vagrant falls over its own feet here, with a traceback of Ruby's.
        r"restore\.rb.*undefined method `include\?' for nil",
        VagrantError,
        "the machine is not created, so there are no snapshots of it",
        "vagrant status",
    ),
    Trouble(
        r"You must include the `--force` option to replace an existing snapshot",
        VagrantError,
        "a snapshot of that name is there already",
        "Take another name, or: vagrant snapshot delete.",
    ),
    Trouble(
        r"Run `vagrant init` to create a new Vagrant environment",
        VagrantError,
        "there is no Vagrantfile where it was looked for",
        "git checkout Vagrantfile",
    ),
)
"""In the order in which they are looked for: the first one that fits is told."""


def error(arguments: Sequence[str], status: int, text: str, log: Path) -> LabError:
    """Return the error of a call that failed.

    :param arguments: Vagrant's. :param status: its exit status, negative where a signal ended it.
    :param text: all that it said. :param log: where all of it can be read.
    """
    said = plain(text)
    joined = " ".join(said.split())
    for trouble in KNOWN:
        if match := re.search(trouble.pattern, joined):
            groups = [group for group in match.groups() if group]
            message = trouble.message.replace("{1}", groups[0] if groups else "")
            return trouble.kind(f"{name(arguments)}: {message}", f"{trouble.hint} (Vagrant's own words: {log})")
    ended = f"was ended by signal {-status}" if status < 0 else f"failed with status {status}"
    words = last_words(said)
    return VagrantError(f"{name(arguments)} {ended}: {words or 'it said nothing'}", f"All that it said: {log}")


def not_installed() -> SetupError:
    """Return the error of a host without Vagrant."""
    return SetupError("Vagrant is not installed", INSTALL)


def name(arguments: Sequence[str]) -> str:
    """Return how a call is named to a person: ``vagrant up lab-6.1``."""
    return " ".join(["vagrant", *(word for word in arguments if not word.startswith("-"))])


def plain(text: str) -> str:
    """Return what Vagrant said as a person would have read it: machine-readable lines are undone, each said once."""
    lines: list[str] = []
    for line in text.splitlines():
        match = re.match(r"\d+,[^,]*,(?:ui,\w+|error-exit,[\w:]+),(.*)$", line)
        if match:
            lines += match[1].replace("%!(VAGRANT_COMMA)", ",").replace("\\r", "").replace("\\n", "\n").splitlines()
        elif not re.match(r"\d+,[^,]*,", line):
            lines.append(line.rpartition("\r")[2])
    return "\n".join(dict.fromkeys(line for line in lines if line.strip()))


def last_words(text: str) -> str:
    """Return the last lines that Vagrant said, without the settings that it lists for each machine."""
    lines = [line for line in text.splitlines() if not re.match(r"==> \S+:  -- ", line)]
    return "\n".join(lines[-_WORDS:])
