"""Waiting for one's turn where a box is used for the first time on this host.

``vagrant up`` adds a box that Vagrant does not have, and copies its disk into libvirt's pool. Two that do so at once
disturb each other: the second one finds a box half added, or takes half a disk for a whole one.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator

from vm.boxes import installed
from vm.deadline import Deadline
from vm.paths import Layout
from vm.vagrant.remains import Virsh, run_virsh

POOL = "default"


def is_there(line: str, version: str, virsh: Virsh = run_virsh) -> bool:
    """Tell whether Vagrant has the box and libvirt its disk, so that nothing is to be copied."""
    name = f"kmlab/{line}"
    added = installed.folder(name, version, "libvirt").is_dir()
    return added and virsh("vol-info", installed.volume(name, version), "--pool", POOL).returncode == 0


@contextlib.contextmanager
def turn(
    layout: Layout, line: str, version: str, deadline: Deadline, say: Callable[[str], None], virsh: Virsh = run_virsh
) -> Iterator[None]:
    """Let one process at a time work where the box is not there yet, and all of them where it is.

    :raises HangError: another one is not done before the deadline.
    """
    path = layout.state / f"vagrant-box-{line}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        told = False
        while not _taken(lock.fileno()):
            if not told:
                say(f"another machine is the first one of box kmlab/{line}: waiting until its disk is copied")
                told = True
            deadline.check(f"waiting for box kmlab/{line}")
            time.sleep(0.1)
        if is_there(line, version, virsh):
            fcntl.flock(lock, fcntl.LOCK_UN)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
