"""Writing cpio archives in the ``newc`` form, which is what the kernel unpacks as an initramfs.

Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst. Each member is a header of ``070701`` and
thirteen fields of eight hexadecimal digits, the name with a NUL, and the data. Header with name, and data, are padded
to four bytes. ``TRAILER!!!`` ends an archive. The kernel unpacks several archives that follow one another, each
starting on a multiple of four bytes.

Written here rather than by a program, so that the bytes depend on the members alone: owners are root, inode numbers
count up, times are the caller's, and device nodes need no privilege.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

MAGIC = b"070701"
TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Member:
    """One file, folder or device node.

    :param name: path without a leading slash.
    :param mode: type and permission bits, as in ``st_mode``.
    :param data: content of a regular file, target of a symbolic link.
    :param device: major and minor number of a device node.
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith("/") or "\0" in self.name:
            raise ValueError(f"not a name for a member of an archive: {self.name!r}")


def folder(name: str, permissions: int = 0o755) -> Member:
    """Return a folder."""
    return Member(name, stat.S_IFDIR | permissions)


def regular(name: str, data: bytes, permissions: int = 0o644) -> Member:
    """Return a regular file."""
    return Member(name, stat.S_IFREG | permissions, data)


def character_device(name: str, major: int, minor: int, permissions: int = 0o600) -> Member:
    """Return a character device node."""
    return Member(name, stat.S_IFCHR | permissions, device=(major, minor))


def archive(members: Iterable[Member], mtime: int = 0) -> bytes:
    """Return the archive of ``members`` in their order, ended by a trailer.

    A folder must come before what lies in it: the kernel makes no missing folders.

    :param mtime: seconds since 1970 that every member carries.
    """
    parts = [_member(member, inode, mtime) for inode, member in enumerate(members)]
    parts.append(_header(TRAILER, inode=0, mode=0, nlink=1, mtime=0, size=0, device=(0, 0)))
    return b"".join(parts)


def _member(member: Member, inode: int, mtime: int) -> bytes:
    nlink = 2 if stat.S_ISDIR(member.mode) else 1
    header = _header(member.name, inode, member.mode, nlink, mtime, len(member.data), member.device)
    return header + _padded(member.data)


def _header(name: str, inode: int, mode: int, nlink: int, mtime: int, size: int, device: tuple[int, int]) -> bytes:
    encoded = name.encode() + b"\0"
    owner = group = check = device_major = device_minor = 0
    fields = (
        *(inode, mode, owner, group, nlink, mtime, size),
        *(device_major, device_minor, *device, len(encoded), check),
    )
    return _padded(MAGIC + b"".join(b"%08X" % field for field in fields) + encoded)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
