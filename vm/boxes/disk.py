"""The disk of a box: a boot record with its table, GRUB, and three partitions.

sector 0          boot record and partition table
sector 1          GRUB, in one piece
1 MiB             1: vmlinuz, initramfs.cpio, box.cpio, grub.cfg
on the next MiB   2: the base image, byte for byte
on the next MiB   3: the kernel bundle, byte for byte
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vm.errors import BuildError

SECTOR = 512
ALIGNMENT = 1 << 20
LINUX = 0x83
"""Type of a partition with a Linux file system."""
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Partition:
    """Where a partition lies.

    :param start: bytes from the disk's beginning. :param size: bytes.
    """

    start: int
    size: int


def layout(sizes: Sequence[int]) -> list[Partition]:
    """Return where partitions of these sizes lie: one after the other, each on a multiple of 1 MiB."""
    found: list[Partition] = []
    start = ALIGNMENT
    for size in sizes:
        found.append(Partition(start, size))
        start += -(-size // ALIGNMENT) * ALIGNMENT
    return found


def boot_sector(code: bytes, partitions: Sequence[Partition], name: str) -> bytes:
    """Return the first sector: code, the disk's signature (from its name), up to four partitions, the mark 55 AA.

    Sectors count from 0 (LBA); the fields for cylinders, heads and sectors are full, which says that they do not reach.
    """
    signature = hashlib.sha256(name.encode()).digest()[:4]
    table = b""
    for index, partition in enumerate(partitions):
        flags = 0x80 if index == 0 else 0
        first, count = partition.start // SECTOR, partition.size // SECTOR
        table += struct.pack("<B3sB3sII", flags, b"\xfe\xff\xff", LINUX, b"\xfe\xff\xff", first, count)
    return code + signature + b"\0\0" + table.ljust(64, b"\0") + b"\x55\xaa"


def write(target: Path, code: bytes, core: bytes, contents: Sequence[Path], name: str) -> None:
    """Write a raw disk; holes of what it is made of stay holes.

    :param contents: a file for each partition.
    :raises BuildError: GRUB does not fit before the first partition.
    """
    if SECTOR + len(core) > ALIGNMENT:
        raise BuildError(f"GRUB has {len(core)} bytes and does not fit before the first partition")
    partitions = layout([path.stat().st_size for path in contents])
    with target.open("wb") as disk:
        disk.write(boot_sector(code, partitions, name))
        disk.write(core)
        for path, partition in zip(contents, partitions, strict=True):
            _copy(path, disk.fileno(), partition.start)
        end = partitions[-1].start + partitions[-1].size
        disk.truncate(-(-end // ALIGNMENT) * ALIGNMENT)


def _copy(source: Path, target: int, offset: int) -> None:
    """Copy a file's data to ``offset`` of a descriptor, leaving out its holes."""
    with source.open("rb") as stream:
        file = stream.fileno()
        position = 0
        while True:
            try:
                begin = os.lseek(file, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole is left
                    return
                raise
            position = os.lseek(file, begin, os.SEEK_HOLE)
            at = begin
            while at < position:
                block = os.pread(file, min(_BLOCK, position - at), at)
                if not block:
                    return
                os.pwrite(target, block, offset + at)
                at += len(block)
