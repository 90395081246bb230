"""ext4 images from trees, byte for byte: the tools root's mke2fs, fed a canonical tar.

A tar rather than a folder: from a folder mke2fs takes owners, inode order and times of the host (e2fsprogs 1.47.2), and
a user cannot make device nodes or files of other owners.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from vm import tree
from vm.process import run
from vm.tools import ToolsRoot
from vm.tree import Entry

_NAMESPACE = uuid.UUID("6d6c6162-0000-4000-8000-6b6d6c616221")
_FEATURES = ",".join(
    (
        "none,dir_index,ext_attr,extent,filetype,flex_bg,huge_file,large_file,sparse_super,extra_isize,64bit",
        # 5.10 neither knows orphan_file (5.15) nor metadata_csum_seed in full; a journal only costs in a disk
        # whose writes are thrown away.
    )
)
_MEBI = 1 << 20


def make(tools: ToolsRoot, image: Path, entries: Sequence[Entry], *, name: str, size: int, epoch: int) -> None:
    """Write ``image``, a sparse file.

    :param entries: a canonical tree.
    :param name: the volume's label, from which its UUIDs follow; at most 16 bytes.
    :param size: bytes of the file system, a multiple of 1 MiB.
    :raises BuildError: mke2fs failed. :raises DiskFullError: no space is left.
    """
    extended = [
        "root_owner=0:0",
        f"hash_seed={uuid.uuid5(_NAMESPACE, 'hash ' + name)}",
        # The file starts as a hole: its inode tables are zero already, and the guest need not make them so.
        "lazy_itable_init=0",
        "assume_storage_prezeroed=1",
        "nodiscard",
    ]
    options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-O", _FEATURES]
    options += ["-U", str(uuid.uuid5(_NAMESPACE, name)), "-L", name, "-N", str(inodes(entries))]
    command = tools.command("mke2fs", *options, "-E", ",".join(extended), "-d", "-", image, f"{size // _MEBI}M")
    image.unlink(missing_ok=True)
    variables = {**tools.environment, "SOURCE_DATE_EPOCH": str(epoch)}
    run(command, environment=variables, feed=lambda stream: tree.write_tar(entries, stream, epoch))


def inodes(entries: Sequence[Entry]) -> int:
    """Return how many inodes an image of ``entries`` gets: as many again, for what is written later."""
    return 2 * len(entries) + 4096


def fitting_size(entries: Sequence[Entry], slack: float = 0.06) -> int:
    """Return the bytes of a file system that just holds ``entries``, a multiple of 1 MiB.

    Each file and folder takes whole blocks of 4 KiB; inodes take 256 bytes; ``slack`` is for bitmaps, group descriptors
    and extent blocks.
    """
    blocks = sum(-(-entry.size // 4096) or 1 for entry in entries) + inodes(entries) // 16
    return -(-int(blocks * 4096 * (1 + slack) + 4 * _MEBI) // _MEBI) * _MEBI
