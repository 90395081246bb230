"""File trees as data: read from packages and tars, written as one canonical tar or below a folder.

A tree is a list of :class:`Entry`. Its order, owners, modes and times are decided here and not by the host, so that the
same packages give the same bytes on every host, as root and as a user. :class:`Manifest` is a tree's fingerprint: a
line per entry, a digest per part.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import io
import lzma
import os
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from debian import arfile

from vm.errors import BuildError, IntegrityError

BLOCK = 1 << 20
"""Bytes read at once when copying."""


class Kind(enum.Enum):
    """What an entry is; the value is its letter in a manifest."""

    FILE = "f"
    FOLDER = "d"
    SYMLINK = "l"
    HARDLINK = "h"
    CHARACTER = "c"
    BLOCK = "b"
    FIFO = "p"


_TAR_TYPES: Mapping[Kind, bytes] = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.FOLDER: tarfile.DIRTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.HARDLINK: tarfile.LNKTYPE,
    Kind.CHARACTER: tarfile.CHRTYPE,
    Kind.BLOCK: tarfile.BLKTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
}
_KINDS: Mapping[bytes, Kind] = {value: key for key, value in _TAR_TYPES.items()} | {tarfile.AREGTYPE: Kind.FILE}


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes of a file on disk, so that large trees need not lie in memory."""

    path: Path
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a tree.

    :param path: relative to the tree's root, without a leading slash or dot.
    :param link: target of a symbolic link as written, or the path of the entry that a hard link shares.
    :param content: bytes of a file, or where they lie.
    :param device: major and minor number of a device node.
    :param mtime: seconds since 1970; ``None`` for something that has no time of its own.
    """

    path: str
    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    link: str = ""
    content: bytes | Slice = b""
    device: tuple[int, int] = (0, 0)
    mtime: int | None = None

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self.content.size if isinstance(self.content, Slice) else len(self.content)

    def blocks(self) -> Iterator[bytes]:
        """Give the content in pieces."""
        if isinstance(self.content, bytes):
            yield self.content
            return
        with self.content.path.open("rb") as source:
            source.seek(self.content.offset)
            left = self.content.size
            while left:
                block = source.read(min(BLOCK, left))
                if not block:
                    raise IntegrityError(f"{self.content.path} ended early, at {self.path}", "Run the build again.")
                left -= len(block)
                yield block

    def data(self) -> bytes:
        """Return the whole content."""
        return b"".join(self.blocks())


def file(path: str, content: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Entry:
    """Return a regular file."""
    return Entry(path, Kind.FILE, mode, uid, gid, content=content)


def folder(path: str, mode: int = 0o755) -> Entry:
    """Return a folder of root's."""
    return Entry(path, Kind.FOLDER, mode)


def symlink(path: str, target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(path, Kind.SYMLINK, 0o777, link=target)


def normal(path: str) -> str:
    """Return ``path`` relative to the root, without ``.`` parts; refuse one that leaves the tree.

    :raises IntegrityError: for a ``..`` part.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise IntegrityError(f"an archive names a path outside its tree: {path!r}", "Fetch the package again.")
    return "/".join(parts)


def from_tar(archive: tarfile.TarFile, source: Path | None = None) -> Iterator[Entry]:
    """Read the entries of an open tar.

    :param source: the uncompressed tar's own path: contents are then left there as slices instead of read.
    :raises BuildError: for an entry of a kind that no tree here has.
    """
    for info in archive:
        path = normal(info.name)
        if not path:
            continue
        kind = _KINDS.get(info.type)
        if kind is None:
            raise BuildError(f"{path}: a tar entry of type {info.type!r} is not supported")
        content: bytes | Slice = b""
        if kind is Kind.FILE and info.size:
            content = Slice(source, info.offset_data, info.size) if source else _member(archive, info)
        link = normal(info.linkname) if kind is Kind.HARDLINK else info.linkname
        device = (info.devmajor, info.devminor) if kind in (Kind.CHARACTER, Kind.BLOCK) else (0, 0)
        # Folders change whenever something in them does: their times tell of the build, not of a package.
        mtime = int(info.mtime) if kind is not Kind.FOLDER else None
        yield Entry(path, kind, info.mode & 0o7777, info.uid, info.gid, link, content, device, mtime)


def _member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    reader = archive.extractfile(info)
    return reader.read() if reader is not None else b""


def from_deb(path: Path) -> Iterator[Entry]:
    """Read the files of a Debian package.

    The data member is decompressed as a whole, once: seeking inside a compressed tar costs a multiple.

    :raises IntegrityError: if it is no package, or compressed in a way that no Debian suite here uses.
    """
    try:
        with path.open("rb") as stream:
            members = {member.name: member for member in arfile.ArFile(fileobj=stream).getmembers()}
            name = next(name for name in members if name.startswith("data.tar"))
            packed = members[name].read()
        data = lzma.decompress(packed) if name.endswith(".xz") else packed
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*" if name.endswith((".gz", ".bz2")) else "r:") as archive:
            yield from from_tar(archive)
    except (StopIteration, lzma.LZMAError, tarfile.TarError, arfile.ArError) as error:
        raise IntegrityError(f"{path.name} is not a package that can be read: {error}", "Fetch it again.") from error


def from_folder(root: Path, prefix: str = "") -> Iterator[Entry]:
    """Read a folder on disk; owners become root, modes 0755 or 0644, so that umask and user leave no trace."""
    for base, names, files in os.walk(root):
        names.sort()
        for name in sorted([*names, *files]):
            path = Path(base, name)
            relative = posixpath.join(prefix, path.relative_to(root).as_posix()).lstrip("/")
            if path.is_symlink():
                yield symlink(relative, str(path.readlink()))
            elif path.is_dir():
                yield folder(relative)
            else:
                stat = path.stat()
                mode = 0o755 if stat.st_mode & 0o100 else 0o644
                yield Entry(relative, Kind.FILE, mode, content=Slice(path, 0, stat.st_size))


def canonical(entries: Iterable[Entry]) -> list[Entry]:
    """Sort a tree, let later entries of one path win, add missing folders, and let links follow their file.

    Of several names of one file the first in order carries the content, the others link to it.
    """
    by_path: dict[str, Entry] = {}
    for entry in entries:
        known = by_path.get(entry.path)
        if known is not None and known.kind is Kind.SYMLINK and entry.kind is Kind.FOLDER:
            continue  # a package's folder where another made a link: the link (merged /usr) stays
        by_path[entry.path] = entry
    for path in list(by_path):
        parent = posixpath.dirname(path)
        while parent and parent not in by_path:
            by_path[parent] = folder(parent)
            parent = posixpath.dirname(parent)
    groups: dict[str, list[str]] = {}
    for path, entry in by_path.items():
        if entry.kind is Kind.HARDLINK:
            groups.setdefault(entry.link, []).append(path)
    for target, paths in groups.items():
        first, *others = sorted([target, *paths])
        if target not in by_path:
            raise IntegrityError(f"{paths[0]} links to {target}, which is not there", "Fetch the package again.")
        by_path[first] = replace(by_path[target], path=first)
        for path in others:
            by_path[path] = replace(by_path[target], path=path, kind=Kind.HARDLINK, link=first, content=b"")
    return [by_path[path] for path in sorted(by_path)]


def write_tar(entries: Iterable[Entry], stream: IO[bytes], epoch: int) -> None:
    """Write a canonical tree as a GNU tar; no time in it is later than ``epoch``."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT, bufsize=BLOCK) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.path)
            info.type = _TAR_TYPES[entry.kind]
            info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.uid, entry.gid, clamped(entry, epoch)
            info.linkname, (info.devmajor, info.devminor) = entry.link, entry.device
            if entry.kind is Kind.FILE:
                info.size = entry.size
                with _reader(entry) as reader:
                    archive.addfile(info, reader)
            else:
                archive.addfile(info)


def clamped(entry: Entry, epoch: int) -> int:
    """Return the time that an entry gets: its own unless that is later than ``epoch``."""
    return epoch if entry.mtime is None else min(entry.mtime, epoch)


@contextlib.contextmanager
def _reader(entry: Entry) -> Iterator[IO[bytes]]:
    if isinstance(entry.content, bytes):
        yield io.BytesIO(entry.content)
        return
    with entry.content.path.open("rb") as source:
        source.seek(entry.content.offset)
        yield source


def write_folder(entries: Iterable[Entry], root: Path, epoch: int) -> None:
    """Write a :func:`plain` tree below ``root`` (which exists), owned by this process, with times up to ``epoch``."""
    folders: list[Path] = []
    for entry in entries:
        path = root / entry.path
        if entry.kind is Kind.FOLDER:
            path.mkdir()
            folders.append(path)
        elif entry.kind is Kind.SYMLINK:
            path.symlink_to(entry.link)
        else:
            with path.open("wb") as target:
                for block in entry.blocks():
                    target.write(block)
            path.chmod(entry.mode)
            os.utime(path, (epoch, clamped(entry, epoch)))
    for path in reversed(folders):
        path.chmod(0o755)
        os.utime(path, (epoch, epoch))


def plain(entries: Iterable[Entry]) -> list[Entry]:
    """Return a canonical tree as any user can lay it on a disk and read it back.

    Modes become 0755 or 0644, owners root, further names of a file copies of it; device nodes go, because a user cannot
    make them and nothing runs from such a tree that needs one.
    """
    kept: dict[str, Entry] = {}
    for entry in entries:
        match entry.kind:
            case Kind.FOLDER | Kind.SYMLINK:
                kept[entry.path] = replace(entry, mode=0o755 if entry.kind is Kind.FOLDER else 0o777, uid=0, gid=0)
            case Kind.FILE:
                kept[entry.path] = replace(entry, mode=0o755 if entry.mode & 0o111 else 0o644, uid=0, gid=0)
            case Kind.HARDLINK:
                kept[entry.path] = replace(kept[entry.link], path=entry.path)
            case _:
                continue
    return list(kept.values())


@dataclass(frozen=True, slots=True)
class Manifest:
    """A tree's fingerprint: what each path holds.

    :param lines: path to ``kind mode uid gid`` and hash, target or device, of each entry.
    """

    lines: Mapping[str, str]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Manifest:
        """Read every content of a tree once."""
        lines: dict[str, str] = {}
        for entry in entries:
            match entry.kind:
                case Kind.FILE:
                    what = _sha256(entry)
                case Kind.CHARACTER | Kind.BLOCK:
                    what = f"{entry.device[0]}:{entry.device[1]}"
                case _:
                    what = _escape(entry.link) or "-"
            mode = 0o777 if entry.kind is Kind.SYMLINK else entry.mode
            lines[entry.path] = f"{entry.kind.value} {mode:04o} {entry.uid} {entry.gid} {what}"
        return cls(lines)

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """Read what :meth:`text` wrote."""
        pairs = (line.partition("\t") for line in text.splitlines())
        return cls({path.encode().decode("unicode_escape"): what for what, _, path in pairs})

    def text(self) -> str:
        """Return a line per entry: what it is, a tab, its path."""
        return "".join(f"{what}\t{_escape(path)}\n" for path, what in sorted(self.lines.items()))

    @property
    def parts(self) -> dict[str, str]:
        """SHA-256 per part of the tree; see :func:`part_of`."""
        grouped: dict[str, list[str]] = {}
        for path, what in sorted(self.lines.items()):
            grouped.setdefault(part_of(path), []).append(f"{what}\t{path}\n")
        return {part: hashlib.sha256("".join(lines).encode()).hexdigest() for part, lines in grouped.items()}

    def differences(self, other: Manifest) -> list[str]:
        """Return the paths whose entries differ, sorted."""
        paths = self.lines.keys() | other.lines.keys()
        return sorted(path for path in paths if self.lines.get(path) != other.lines.get(path))


def part_of(path: str) -> str:
    """Return the part that a path belongs to: its second-level folder, or the first for what lies directly in it."""
    return "/".join(path.split("/")[:-1][:2]) or "/"


def _escape(path: str) -> str:
    return path.encode("unicode_escape").decode()


def _sha256(entry: Entry) -> str:
    digest = hashlib.sha256()
    for block in entry.blocks():
        digest.update(block)
    return digest.hexdigest()
