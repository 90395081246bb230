"""The catalogue of a box: what Vagrant reads to find the file, its version and its checksum.

A catalogue names files of this host by their path, so it is written anew for each host and is part of no artefact.
The ``Vagrantfile`` names it as the box's address: ``vagrant up`` adds a box that is not there yet, and
``vagrant box update`` goes to the lock's version.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from vm.boxes.boxes import Box
from vm.download import disk
from vm.errors import DiskFullError
from vm.paths import Layout


def path(layout: Layout, line: str) -> Path:
    """Return where the catalogue of a kernel's boxes lies; the Vagrantfile looks there, too."""
    return layout.boxes / f"{line}.json"


def document(boxes: Sequence[Box]) -> dict[str, object]:
    """Return the catalogue of one kernel's boxes (Vagrant, docs/boxes/format, "Box Metadata")."""
    providers = [
        {"name": box.provider, "url": Path(box.path).as_uri(), "checksum_type": "sha256", "checksum": box.sha256}
        for box in boxes
    ]
    kernel = boxes[0].kernel
    return {
        "name": boxes[0].name,
        "description": f"Debian with the pinned kernel {kernel.release}, for checking claims about Go on it",
        "versions": [{"version": boxes[0].version, "providers": providers}],
    }


def write(layout: Layout, boxes: Sequence[Box]) -> Path:
    """Write the catalogue of one kernel's boxes, by rename, and return its path.

    :raises DiskFullError: it cannot be written.
    """
    target = path(layout, boxes[0].kernel.line)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with disk(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(document(boxes), indent=2) + "\n")
            temporary.replace(target)
    except OSError as error:
        raise DiskFullError(f"cannot write {target}: {error.strerror}", "set KMLAB_CACHE to another folder") from error
    return target
