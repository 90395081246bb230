"""Waiting for one's turn where a box is used for the first time on this host, and leaving no half of its disk behind.

``vagrant up`` adds a box that Vagrant does not have, makes libvirt's pool and Vagrant's network, and copies the box's
disk into the pool. Two that do so at once disturb each other. Whoever is ended while it copies leaves half a disk,
which Vagrant takes for a whole one ever after: all machines of that box would never come up.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import time
from collections.abc import Callable, Iterator
from typing import Literal

from vm.boxes import installed
from vm.deadline import Deadline
from vm.paths import Layout
from vm.vagrant.remains import Virsh, run_virsh

POOL = "default"
DISK = "box.img"
"""The disk of a box in Vagrant's home; vagrant-libvirt copies it into the pool byte for byte."""
GROWS_SECONDS = 2.0
"""Half a disk that has not grown for so long is one that nobody copies any more."""

Copy = Literal["none", "half", "whole"]


def copied(line: str, version: str, virsh: Virsh = run_virsh) -> tuple[Copy, int]:
    """Tell how much of a box's disk libvirt has, and in how many bytes."""
    described = virsh("vol-dumpxml", installed.volume(f"kmlab/{line}", version), "--pool", POOL)
    found = re.search(r"<physical unit='bytes'>(\d+)</physical>", described.stdout)
    if described.returncode != 0 or found is None:
        return "none", 0
    size = int(found[1])
    try:
        wanted = (installed.folder(f"kmlab/{line}", version, "libvirt") / DISK).stat().st_size
    except OSError:  # Vagrant has no such box, or not any more: there is nothing to compare with
        return "whole", size
    return ("whole" if size >= wanted else "half"), size


def is_there(line: str, version: str, virsh: Virsh = run_virsh) -> bool:
    """Tell whether Vagrant has the box and libvirt all of its disk, so that nothing is to be copied."""
    added = installed.folder(f"kmlab/{line}", version, "libvirt").is_dir()
    return added and copied(line, version, virsh)[0] == "whole"


@contextlib.contextmanager
def turn(
    layout: Layout, line: str, version: str, deadline: Deadline, say: Callable[[str], None], virsh: Virsh = run_virsh
) -> Iterator[None]:
    """Let one process at a time work where the box is not there yet, and all of them where it is.

    Half a disk is removed before, and afterwards where the work did not end well.

    :raises HangError: another one is not done before the deadline.
    """
    if is_there(line, version, virsh):
        yield
        return
    # One for all boxes: the pool and the network, which the first one makes, are the same for all.
    path = layout.state / "vagrant-first-copy.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        told = False
        while not _taken(lock.fileno()):
            if not told:
                say("another machine is the first one of its box: waiting until its disk is copied")
                told = True
            deadline.check(f"waiting for box kmlab/{line}")
            time.sleep(0.1)
        if is_there(line, version, virsh):
            fcntl.flock(lock, fcntl.LOCK_UN)
        else:
            _remove_half(line, version, deadline, say, virsh)
        try:
            yield
        except BaseException:
            if copied(line, version, virsh)[0] == "half":
                _delete(line, version, virsh)
            raise


def _remove_half(line: str, version: str, deadline: Deadline, say: Callable[[str], None], virsh: Virsh) -> None:
    """Remove half a disk, unless a plain ``vagrant up`` is just copying it: that one is waited for."""
    found, size = copied(line, version, virsh)
    while found == "half":
        deadline.check(f"waiting for the disk of box kmlab/{line}")
        time.sleep(min(GROWS_SECONDS, deadline.remaining))
        before = size
        found, size = copied(line, version, virsh)
        if found == "half" and size == before:
            say(f"half the disk of box kmlab/{line} is there, whose copying was ended: it is copied again")
            _delete(line, version, virsh)
            return


def _delete(line: str, version: str, virsh: Virsh) -> None:
    virsh("vol-delete", installed.volume(f"kmlab/{line}", version), "--pool", POOL)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
