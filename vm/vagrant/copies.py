"""libvirt's copies of boxes' disks, which machines boot from: who stands on one, and removing it.

vagrant-libvirt names a copy by the box's name and version alone, and makes none where one of that name is in the pool
(0.11, ``action/handle_box_image.rb``). So a box that is replaced by one of the same version boots the old disk for as
long as its copy is there; and a copy that a machine's disk is backed by must not go.
"""

from __future__ import annotations

from xml.etree import ElementTree

from vm.errors import SetupError
from vm.vagrant.firstcopy import POOL
from vm.vagrant.remains import Virsh, run_virsh

_ABSENT = "Storage volume not found"
_NO_POOL = "Storage pool not found"


def standing_on(volume: str, virsh: Virsh = run_virsh) -> list[str] | None:
    """Return the names of the volumes in the pool that ``volume`` backs; None where the pool has no ``volume``.

    :raises SetupError: libvirt does not say.
    """
    paths = _paths(virsh)
    if volume not in paths:
        return None
    return [name for name, path in paths.items() if _backing(path, virsh) == paths[volume]]


def remove(volume: str, virsh: Virsh = run_virsh) -> None:
    """Remove a copy that nothing stands on; the next ``vagrant up`` makes another one.

    :raises SetupError: libvirt does not.
    """
    done = virsh("vol-delete", volume, "--pool", POOL)
    if done.returncode != 0 and _ABSENT not in done.stderr:
        raise _silent(f"remove {volume}", done.stderr)


def _paths(virsh: Virsh) -> dict[str, str]:
    """Return the path of each volume of the pool, by name."""
    done = virsh("vol-list", POOL)
    if done.returncode != 0:
        if _NO_POOL in done.stderr:  # the first 'vagrant up' makes it
            return {}
        raise _silent("list its volumes", done.stderr)
    rows = [line.partition(" /") for line in done.stdout.splitlines() if " /" in line]
    return {name.strip(): f"/{path.rstrip()}" for name, _, path in rows}


def _backing(path: str, virsh: Virsh) -> str:
    """Return the path of what backs a volume; empty where nothing does, and where it has gone since it was listed."""
    done = virsh("vol-dumpxml", path)
    if done.returncode != 0:
        if _ABSENT in done.stderr:
            return ""
        raise _silent(f"describe {path}", done.stderr)
    return ElementTree.fromstring(done.stdout).findtext("backingStore/path", "")  # noqa: S314 - libvirt wrote it


def _silent(what: str, words: str) -> SetupError:
    said = " ".join(words.split())[:200] or "it said nothing"
    return SetupError(f"libvirt does not {what}: {said}", "invoke doctor says what is wrong with it")
