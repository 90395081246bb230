"""Saved machine states: their key, their files, checking them.

A state is a folder below ``layout.warm`` that is whole if it exists: it is written under a temporary name and renamed.
It holds::

    ram             memory and devices (QEMU's mapped-ram form, sparse)
    disk.qcow2      what the guest had written since it booted
    template.qcow2  an empty overlay, copied for each restored machine
    initrd          the bundle's initramfs and the identity that the guest has taken over
    id_ed25519      the key that logs in; host_key.pub: what the guest shows
    state.json      what it was made from, and checksums

Machines that are restored from one state share its keys, so the folder is 0700 and never travels.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import xxhash

from vm.errors import IntegrityError
from vm.qemu.command import Channels, Files, Hardware, machine_arguments
from vm.qemu.parts import Parts

STATE_SCHEMA = 2
STATE = "state.json"
RAM = "ram"
DISK = "disk.qcow2"
TEMPLATE = "template.qcow2"
INITRD = "initrd"
HOST_KEY = "host_key.pub"
KEPT_STATES = 4
"""States of one kernel release that are kept; each is over 100 MiB, and a changed image leaves the old one behind."""
_CHUNK = 4 * 1024 * 1024


class Extent(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of a sparse file that holds data, in bytes."""

    start: int
    end: int


class FileSum(msgspec.Struct, frozen=True, kw_only=True):
    """Checksum of one file of a state.

    :param extents: where data was when the state was saved; what lies between is a hole and never read.
    :param xxh3: XXH3-128 over size, extents and data. It tells damage, not an attack: who can write here can do worse.
    """

    size: int
    extents: list[Extent]
    xxh3: str


class StateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What ``state.json`` holds.

    :param key: hash of all that shapes the state. :param seconds: how long boot and saving took.
    :param saved: seconds since 1970.
    """

    schema: int
    key: str
    release: str
    qemu_version: str
    accelerator: str
    saved: float
    seconds: float
    files: dict[str, FileSum]


@dataclass(frozen=True, slots=True)
class WarmState:
    """A saved state on disk."""

    folder: Path
    record: StateRecord

    def path(self, name: str) -> Path:
        """Return the path of one of its files."""
        return self.folder / name

    @property
    def host_key(self) -> str:
        """``ssh-ed25519 AAAA…``, which every machine restored from it shows."""
        return self.path(HOST_KEY).read_text().strip()

    @property
    def disk_usage(self) -> int:
        """Bytes that it takes on disk."""
        return sum(path.stat().st_blocks * 512 for path in self.folder.iterdir())

    def verify(self) -> None:
        """Read everything and compare.

        :raises IntegrityError: something is not as it was saved.
        """
        for name, expected in self.record.files.items():
            path = self.path(name)
            try:
                size = path.stat().st_size
                found = checksum(path, size, expected.extents) if size == expected.size else ""
            except OSError as error:
                raise IntegrityError(f"the saved state of {self.record.release} cannot be read: {error}") from error
            if found != expected.xxh3:
                raise IntegrityError(
                    f"the saved state of {self.record.release} is damaged: {name} is not as it was saved"
                )


def state_key(parts: Parts, hardware: Hardware, qemu_version: str, host: str = "") -> str:
    """Return the hash of all that shapes a saved state.

    QEMU's own arguments are part of it, with made-up paths in place of this host's.

    :param host: what of the host shapes it: under KVM the CPU, otherwise nothing.
    """
    placeholders = Files(Path("vmlinuz"), Path("initrd"), Path("base"), Path("bundle"), "overlay")
    arguments = machine_arguments(hardware, placeholders, Channels(qmp=0, control=0), name="")
    inputs = [
        STATE_SCHEMA,
        qemu_version,
        parts.tools.system_qemu,
        arguments,
        parts.bundle_sha256,
        parts.base_sha256,
        host,
    ]
    return hashlib.sha256(msgspec.json.encode(inputs)).hexdigest()


def extents(path: Path) -> list[Extent]:
    """Return where a file holds data (SEEK_DATA, lseek(2)); one extent where the file system does not tell."""
    found = []
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        position = 0
        while position < size:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                break
            position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.append(Extent(start, position))
    return found


def checksum(path: Path, size: int, where: list[Extent]) -> str:
    """Return the XXH3-128 over a file's size, extents and the data in them."""
    digest = xxhash.xxh3_128(msgspec.json.encode([size, where]))
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        for extent in where:
            position = extent.start
            while position < extent.end:
                room = buffer[: min(_CHUNK, extent.end - position)]
                read = os.preadv(file.fileno(), [room], position)
                if read == 0:
                    return ""
                digest.update(room[:read])
                position += read
    return digest.hexdigest()


class WarmStore:
    """The folder of saved states."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, release: str, key: str) -> Path:
        """Return where the state of a key lies, or will."""
        return self.folder / f"{release}-{key[:16]}"

    def find(self, release: str, key: str) -> WarmState | None:
        """Return the state of ``key`` if there is one; its data is not read."""
        folder = self.path(release, key)
        try:
            record = msgspec.json.decode((folder / STATE).read_bytes(), type=StateRecord)
        except (OSError, msgspec.MsgspecError):
            return None
        if record.schema != STATE_SCHEMA or record.key != key:
            return None
        with contextlib.suppress(OSError):
            os.utime(folder / STATE)  # the least recently used one goes first
        return WarmState(folder, record)

    def states(self) -> list[WarmState]:
        """Return all states."""
        found = []
        for folder in sorted(self.folder.glob("*-*")) if self.folder.is_dir() else []:
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                record = msgspec.json.decode((folder / STATE).read_bytes(), type=StateRecord)
                found.append(WarmState(folder, record))
        return found

    def discard(self, state: WarmState) -> None:
        """Remove a state. Machines that run from it keep the files that they have open."""
        trash = state.folder.with_name(f".trash-{os.getpid()}-{state.folder.name}")
        with contextlib.suppress(FileNotFoundError):
            state.folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    @contextlib.contextmanager
    def building(self, release: str, key: str) -> Iterator[Path]:
        """Hold the lock on a key and give a temporary folder to build in; both end with the block.

        Two processes that want the same state wait for each other: look for it again inside.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        final = self.path(release, key)
        with (self.folder / f".lock-{final.name}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for stale in self.folder.glob(f".new-*-{final.name}"):  # whoever made it held this lock, and is dead
                shutil.rmtree(stale, ignore_errors=True)
            temporary = self.folder / f".new-{os.getpid()}-{final.name}"
            temporary.mkdir(mode=0o700)
            try:
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def seal(self, temporary: Path, release: str, record: StateRecord) -> WarmState:
        """Take the checksums of what lies in ``temporary`` and give it its name.

        :param record: without its files.
        """
        files = {}
        for path in sorted(temporary.iterdir()):
            size, where = path.stat().st_size, extents(path)
            files[path.name] = FileSum(size=size, extents=where, xxh3=checksum(path, size, where))
        record = msgspec.structs.replace(record, files=files, saved=time.time())
        (temporary / STATE).write_bytes(msgspec.json.encode(record))
        final = self.path(release, record.key)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        self._prune(release)
        return WarmState(final, record)

    def _prune(self, release: str) -> None:
        """Remove the states of a release that were not used for longest."""
        states = [state for state in self.states() if state.record.release == release]
        states.sort(key=lambda state: state.path(STATE).stat().st_mtime, reverse=True)
        for state in states[KEPT_STATES:]:
            self.discard(state)
