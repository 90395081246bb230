"""Boxes as Vagrant has them: where they lie in its home, their disk, and what libvirt calls its copy of it."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

from vm.boxes.boxes import Box
from vm.boxes.build import INFO


def folder(name: str, version: str, provider: str) -> Path:
    """Return where Vagrant keeps a box (``Vagrant::BoxCollection``)."""
    home = Path(os.environ.get("VAGRANT_HOME") or Path.home() / ".vagrant.d")
    return home / "boxes" / _escaped(name) / version / provider


def volume(name: str, version: str) -> str:
    """Return what vagrant-libvirt calls the copy of a box's disk in libvirt's pool."""
    return f"{_escaped(name)}_vagrant_box_image_{version}_box.img"


def disk_of(box: Box) -> str:
    """Return the hash of a box's disk, as the box says it."""
    with tarfile.open(box.path, "r:") as members:
        found = members.extractfile(INFO)
        return str(json.load(found)["disk_sha256"]) if found else ""


def disk_installed(box: Box) -> str:
    """Return the hash of the disk that Vagrant has of this name and version; "" where that cannot be told."""
    try:
        said = json.loads((folder(box.name, box.version, box.provider) / INFO).read_bytes())
    except (OSError, ValueError):
        return ""
    return str(said.get("disk_sha256", "")) if isinstance(said, dict) else ""


def _escaped(name: str) -> str:
    return name.replace("/", "-VAGRANTSLASH-")
