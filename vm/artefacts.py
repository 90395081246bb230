"""The artefact cache: built under a temporary name, hashed, compared with the lock, renamed.

A folder that bears an artefact's name is whole. ``seal.json`` in it says what it is and which files it had when it was
sealed; a glance at sizes, times and inodes tells on each use whether they are still the same, :func:`check` reads all
bytes. Who builds holds a lock on ``.NAME.lock``; a temporary folder whose lock nobody holds belongs to a process that
died.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vm.errors import BuildError, DiskFullError, IntegrityError
from vm.model import ArtefactHash
from vm.progress import Reporter
from vm.tree import BLOCK, Manifest, from_folder

SEAL = "seal.json"
SEAL_SCHEMA = 1
MANIFEST = "manifest"
"""The file that lists what the artefact's tree holds, a line per entry."""
TREE = "root"
"""A folder of an artefact whose content the manifest vouches for, file by file."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``seal.json`` holds.

    :param kind: ``tools``, ``base``, ``kernel``, ``boxes`` or ``box``.
    :param name: the folder's name.
    :param inputs: SHA-256 over all that the build was made from.
    :param files: SHA-256 by file name, the manifest among them.
    :param stamps: per file (and folder of a tree) ``size mtime_ns inode``.
    :param built: seconds since 1970.
    :param seconds: how long the build took.
    """

    schema: int
    kind: str
    name: str
    inputs: str
    artefact: ArtefactHash
    files: dict[str, str]
    stamps: dict[str, str]
    built: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Artefact:
    """A sealed artefact on disk."""

    path: Path
    seal: Seal

    @property
    def hash(self) -> ArtefactHash:
        """What the lock records of it."""
        return self.seal.artefact

    def manifest(self) -> Manifest:
        """Read the list of what its tree holds."""
        return Manifest.parse((self.path / MANIFEST).read_text("utf-8"))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be built.

    :param kind: ``tools``, ``base``, ``kernel``, ``boxes`` (what boxes are made with) or ``box``.
    :param label: the folder's name before the hash: the kind, of a box its provider, and a kernel's release.
    :param inputs: SHA-256 over all that shapes the artefact; see :func:`inputs_hash`.
    :param expected: what the lock says the build gives; ``None`` if it does not say yet.
    """

    kind: str
    label: str
    inputs: str
    expected: ArtefactHash | None = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"{self.label}-{self.inputs[:16]}"


def inputs_hash(*inputs: object) -> str:
    """Return the SHA-256 over the canonical JSON of ``inputs``."""
    return hashlib.sha256(msgspec.json.encode(inputs, order="sorted")).hexdigest()


class Store:
    """The folder of artefacts.

    :param folder: ``Layout.artefacts``.
    :param progress: where it says what it finds broken.
    :param thorough: read every byte of what is found there, instead of glancing at it.
    """

    def __init__(self, folder: Path, progress: Reporter, *, thorough: bool = False) -> None:
        self.folder = folder
        self.look = check if thorough else glance
        self.progress = progress
        self._said: set[str] = set()

    def find(self, plan: Plan) -> Artefact | None:
        """Return the artefact if it is there, unchanged and what the lock says; if it is not, say so."""
        path = self.folder / plan.name
        if not path.is_dir():
            return None
        try:
            artefact = read(path)
            self.look(artefact)
            if plan.expected is not None and plan.expected.sha256 != artefact.hash.sha256:
                raise IntegrityError(f"{plan.name} is not what the lock says", _rebuild(plan.label))
        except IntegrityError as error:
            if error.message not in self._said:
                self._said.add(error.message)
                self.progress.note(f"{error.message}: building it again")
            return None
        return artefact

    def obtain(self, plan: Plan, build: Callable[[Path], Manifest]) -> Artefact:
        """Return the artefact, building it if it is not there or broken.

        ``build`` fills an empty folder and returns the manifest of the tree that it packed. Nothing is kept of a build
        that the lock disagrees with.

        :raises BuildError: the bytes are not those of the lock; names the parts that differ.
        :raises DiskFullError: no space is left.
        """
        found = self.find(plan)
        if found is not None:
            return found
        with disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with _alone(self.folder, plan.name, self.progress):
                self.sweep()
                return self.find(plan) or self._build(plan, build)

    def _build(self, plan: Plan, build: Callable[[Path], Manifest]) -> Artefact:
        temporary = _temporary(self.folder, plan.name)
        _remove(temporary)
        temporary.mkdir()
        start = time.monotonic()
        try:
            manifest = build(temporary)
            (temporary / MANIFEST).write_text(manifest.text(), "utf-8")
            seal = make_seal(plan, temporary, manifest, time.monotonic() - start)
            compare(plan, seal.artefact)
            (temporary / SEAL).write_bytes(msgspec.json.format(msgspec.json.encode(seal)) + b"\n")
            final = self.folder / plan.name
            _remove(final)
            temporary.rename(final)
        finally:
            _remove(temporary)
        return Artefact(final, seal)

    def sweep(self) -> list[str]:
        """Remove temporary folders of builds that died; return their names."""
        removed: list[str] = []
        if not self.folder.is_dir():
            return removed
        for path in sorted(self.folder.glob(".*.tmp")):
            name = path.name[1:-4]
            with contextlib.suppress(BlockingIOError), _lock(self.folder / f".{name}.lock", wait=False):
                _remove(path)
                removed.append(name)
        return removed

    def all(self) -> list[Artefact]:
        """Return every artefact whose seal can be read, by name."""
        found: list[Artefact] = []
        if self.folder.is_dir():
            for path in sorted(self.folder.iterdir()):
                if path.is_dir() and not path.name.startswith("."):
                    with contextlib.suppress(IntegrityError):
                        found.append(read(path))
        return found

    def remove(self, name: str) -> int:
        """Remove an artefact of that name; return the bytes on disk that this freed."""
        with _lock(self.folder / f".{name}.lock", wait=True):
            size = disk_usage(self.folder / name)
            _remove(self.folder / name)
        (self.folder / f".{name}.lock").unlink(missing_ok=True)
        return size


def read(path: Path) -> Artefact:
    """Read a sealed artefact's seal.

    :raises IntegrityError: it has none, or one that cannot be read.
    """
    try:
        seal = msgspec.json.decode((path / SEAL).read_bytes(), type=Seal)
    except (OSError, msgspec.MsgspecError) as error:
        raise IntegrityError(f"{path.name} has no seal that can be read ({error})", _rebuild(path.name)) from error
    if seal.schema != SEAL_SCHEMA or seal.name != path.name:
        raise IntegrityError(f"{path.name} has the seal of another artefact", _rebuild(path.name))
    return Artefact(path, seal)


_BOX = re.compile(r"box-(?P<provider>[a-z]+)-(?P<release>.+?)(-[0-9a-f]{16})?")


def command(name: str) -> str:
    """Return the command that builds an artefact, by its label or name: it begins with the kind.

    A box is named whole, because only some are built where nobody chose.
    """
    box = _BOX.fullmatch(name)
    if box:
        return f"invoke boxes.build --kernel {box['release']} --provider {box['provider']}"
    return "invoke boxes.build" if name.startswith("boxes") else "invoke images.build"


def _rebuild(name: str) -> str:
    return f"Build it again: {command(name)}"


def glance(artefact: Artefact) -> None:
    """Compare sizes, times and inodes with those at the time of sealing; read nothing.

    :raises IntegrityError: a file was changed, replaced, added or removed.
    """
    stamps = stamps_of(artefact.path)
    for name in sorted(stamps.keys() | artefact.seal.stamps.keys()):
        if stamps.get(name) != artefact.seal.stamps.get(name):
            raise IntegrityError(
                f"{artefact.path.name} was changed after it was built ({name})", _rebuild(artefact.path.name)
            )


def check(artefact: Artefact) -> None:
    """Read every byte of an artefact and compare it with the seal.

    :raises IntegrityError: naming the first paths that differ.
    """
    glance(artefact)
    for name, sha256 in sorted(artefact.seal.files.items()):
        if sha256_file(artefact.path / name) != sha256:
            raise IntegrityError(f"{artefact.path.name} is corrupt ({name})", _rebuild(artefact.path.name))
    if (artefact.path / TREE).is_dir():
        differ = artefact.manifest().differences(Manifest.of(from_folder(artefact.path / TREE)))
        if differ:
            more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
            raise IntegrityError(
                f"{artefact.path.name} is corrupt ({', '.join(differ[:3])}{more})", _rebuild(artefact.path.name)
            )


def make_seal(plan: Plan, folder: Path, manifest: Manifest, seconds: float) -> Seal:
    """Hash what a build left in ``folder``."""
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.is_file()}
    listing = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(files.items()))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    parts = files | {f"tree:{part}": digest for part, digest in manifest.parts.items()}
    return Seal(
        schema=SEAL_SCHEMA,
        kind=plan.kind,
        name=plan.name,
        inputs=plan.inputs,
        artefact=ArtefactHash(
            sha256=hashlib.sha256(listing.encode()).hexdigest(), size=size, parts=dict(sorted(parts.items()))
        ),
        files=files,
        stamps=stamps_of(folder),
        built=time.time(),
        seconds=round(seconds, 3),
    )


def compare(plan: Plan, got: ArtefactHash) -> None:
    """Compare what a build gave with what the lock says.

    :raises BuildError: they differ; names the parts.
    """
    if plan.expected is None or plan.expected.sha256 == got.sha256:
        return
    parts = differing_parts(plan.expected.parts, got.parts)
    raise BuildError(
        f"{plan.label} does not come out as the lock says; differing: {', '.join(parts) or 'its size only'}",
        f"If the recipe was changed on purpose, record the new hashes: {command(plan.label)} --record; otherwise "
        "report the differing parts together with the host's release and its mmdebstrap version.",
    )


def differing_parts(expected: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    """Return the names of parts that are not the same; parts of the tree first, as they say more than an image does."""
    names = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
    return [name for name in names if name.startswith("tree:")] + [n for n in names if not n.startswith("tree:")]


def stamps_of(folder: Path) -> dict[str, str]:
    """Return ``size mtime_ns inode`` of each file; for a tree of each folder in it, and of its large files.

    A folder's time changes when a name in it comes or goes. Of a tree's files only the large ones (programs,
    libraries, firmware) are looked at one by one: a glance must stay a few milliseconds.
    """
    stamps: dict[str, str] = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name == SEAL:
            continue
        if entry.is_dir(follow_symlinks=False):
            _tree_stamps(entry.path, entry.name, stamps)
        else:
            stamps[entry.name] = _stamp(entry.stat(follow_symlinks=False))
    return stamps


_LARGE = 65536


def _tree_stamps(path: str, name: str, stamps: dict[str, str]) -> None:
    stamps[name] = _stamp(os.lstat(path))
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            _tree_stamps(entry.path, f"{name}/{entry.name}", stamps)
        elif not entry.is_symlink():
            stat = entry.stat(follow_symlinks=False)
            if stat.st_size >= _LARGE:
                stamps[f"{name}/{entry.name}"] = _stamp(stat)


def _stamp(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file.

    :raises IntegrityError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as source:
            while block := source.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error.strerror})", _rebuild(path.parent.name)) from error
    return digest.hexdigest()


def disk_usage(path: Path) -> int:
    """Return the bytes that a file or folder takes on disk; holes take none."""
    paths: Iterable[Path] = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(each.lstat().st_blocks * 512 for each in paths if each.is_symlink() or each.exists())


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Tell a full disk from other errors.

    :raises DiskFullError: for ENOSPC and EDQUOT.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(
            f"no space is left in {folder}", "Free some, run invoke images.clean, or set KMLAB_CACHE to another disk."
        ) from error


def _temporary(folder: Path, name: str) -> Path:
    return folder / f".{name}.tmp"


@contextlib.contextmanager
def _alone(folder: Path, name: str, progress: Reporter) -> Iterator[None]:
    """Hold the right to build ``name``; wait for another process that does."""
    path = folder / f".{name}.lock"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_lock(path, wait=False))
        except BlockingIOError:
            progress.note(f"another process builds {name}: waiting for it")
            stack.enter_context(_lock(path, wait=True))
        yield


@contextlib.contextmanager
def _lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold an advisory lock; the kernel lets go of it when the process ends, whatever ends it.

    :raises BlockingIOError: another process holds it, and ``wait`` is false.
    """
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
