"""Folders of machines: what runs, whose it is, and clearing what dead processes left.

A machine's folder is ``layout.machines/NAME``; ``machine.json`` in it says who owns it. A run-owned machine whose owner
is dead is cleared at the next start; a person's machine stays until it is ended by name. When a machine ends, its
console log stays behind; the oldest such folders go when there are many. Whichever provider has started a machine, it
is registered, ended and swept here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from vm.errors import DiskFullError, LabError, MachineError, UsageError
from vm.machine import MachineFacts, ProviderName
from vm.paths import Layout
from vm.qemu.process import ProcessId, find
from vm.vagrant import domain, remains
from vm.vagrant.domain import Placed
from vm.vagrant.remains import MakeClient

REGISTRATION = "machine.json"
REGISTRATION_SCHEMA = 1
KEPT_LOGS = 20
"""Folders of ended machines that are kept for their logs."""
LOGS = ("console.log", "qemu.log", remains.LOG, REGISTRATION)
"""What stays of a machine that has ended."""
_UNREGISTERED_SECONDS = 60.0
"""A folder without a registration belongs to a process that is just writing it, or to one that died doing so."""


State = Literal["starting", "running", "dead", "halted", "destroyed"]
"""``dead`` ended by itself, and its logs are there; ``halted`` and ``destroyed`` are machines of Vagrant's alone."""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process that cannot be mistaken for another; see :class:`vm.qemu.process.ProcessId`."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the identity of a process that lives."""
        found = ProcessId.of(pid)
        return None if found is None else cls(pid=found.pid, started=found.started)

    @property
    def identity(self) -> ProcessId:
        """As :class:`~vm.qemu.process.ProcessId`."""
        return ProcessId(self.pid, self.started)


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What ``machine.json`` holds.

    :param owner: ``run``, ``person``, or ``ended`` when only the logs are left.
    :param owner_process: who it dies with, where a run owns it.
    :param provider: who started it. :param vagrant: where it is with Vagrant, if that one did.
    :param qemu: its process, once there is one.
    :param facts: what it is, once it runs. :param ready: whether it came up.
    :param console_offset: bytes of the console log that are of an earlier start.
    :param created: seconds since 1970.
    :param cpu_threads: threads of the host that run the guest's CPUs.
    """

    schema: int
    name: str
    owner: Literal["run", "person", "ended"]
    owner_process: Process
    created: float
    qemu: Process | None = None
    ready: bool = False
    port: int = 0
    host_key: str = ""
    facts: MachineFacts | None = None
    console_offset: int = 0
    cpu_threads: list[int] = []
    provider: ProviderName = "qemu"
    vagrant: Placed | None = None

    @property
    def state(self) -> State:
        """What is to be said of it; one of Vagrant's that Vagrant has no domain of any more was destroyed."""
        if self.vagrant is None:
            return "dead" if self.qemu is not None and not self.alive else "running" if self.ready else "starting"
        if not self.ready:
            return "starting"
        if self.alive:
            return "running"
        return "halted" if domain.machine_id(Path(self.vagrant.data), self.vagrant.machine) else "destroyed"

    @property
    def alive(self) -> bool:
        """Whether its QEMU runs; one of Vagrant's may be another process by now, which goes by its domain's UUID."""
        if self.qemu is not None and self.qemu.identity.alive:
            return True
        return self.vagrant is not None and domain.find(self.vagrant.uuid) is not None


class Registry:
    """All machines of one person on this host.

    :param make: makes what destroys a machine of Vagrant's; the real adapter where none is given.
    """

    def __init__(self, layout: Layout, make: MakeClient | None = None) -> None:
        self.folder = layout.machines
        self._make = make

    def path(self, name: str) -> Path:
        """Return a machine's folder."""
        return self.folder / name

    def create(self, name: str, owner: Literal["run", "person"], provider: ProviderName = "qemu") -> Registration:
        """Make a machine's folder, readable by its owner only, and register it.

        :param name: empty: one is made up.
        :raises UsageError: a machine of that name is there already.
        """
        given = bool(name)
        name = name or f"run-{os.getpid()}-{secrets.token_hex(3)}"
        me = Process.of(os.getpid())
        if me is None:
            raise MachineError("/proc is not mounted: processes cannot be told apart", "mount /proc")
        registration = Registration(
            schema=REGISTRATION_SCHEMA,
            name=name,
            owner=owner,
            owner_process=me,
            created=time.time(),
            provider=provider,
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if given:
                self._clear_if_ended(name)
            self.path(name).mkdir(mode=0o700)
            self.write(registration)
        except FileExistsError as error:
            raise UsageError(
                f"a machine named {name} is there already", f"invoke vm.down --name {name}, or choose another --name"
            ) from error
        except OSError as error:
            raise DiskFullError(f"cannot make the machine's folder: {error}", "free some space") from error
        return registration

    def write(self, registration: Registration) -> None:
        """Write a registration whole: to a temporary name, then renamed."""
        target = self.path(registration.name) / REGISTRATION
        temporary = target.with_name(f".{REGISTRATION}.{os.getpid()}")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(registration), indent=1))
        temporary.replace(target)

    def read(self, name: str) -> Registration | None:
        """Return a machine's registration, or ``None`` where there is none that can be read."""
        try:
            found = msgspec.json.decode((self.path(name) / REGISTRATION).read_bytes(), type=Registration)
        except (OSError, msgspec.MsgspecError):
            return None
        return found if found.schema == REGISTRATION_SCHEMA else None

    def all(self) -> list[Registration]:
        """Return every machine that has not ended, by name."""
        names = sorted(path.name for path in self._folders())
        found = [registration for name in names if (registration := self.read(name)) is not None]
        return [registration for registration in found if registration.owner != "ended"]

    def end(self, name: str) -> None:
        """End a machine if it still runs and remove its folder but for the logs.

        :raises LabError: neither Vagrant nor libvirt could remove one of Vagrant's; it stays registered.
        """
        folder = self.path(name)
        registration = self.read(name)
        if registration is not None and registration.vagrant is not None:
            if registration.owner != "ended":
                remains.remove(registration.vagrant, folder, self._make)
        elif registration is not None:
            qemu = registration.qemu.identity if registration.qemu is not None else find(folder)
            if qemu is not None:
                qemu.kill(folder)
        self.forget(name)

    def forget(self, name: str) -> None:
        """Register a machine as ended, without ending it, and remove its folder but for the logs."""
        folder = self.path(name)
        registration = self.read(name)
        if registration is not None and registration.owner != "ended":
            with contextlib.suppress(OSError):
                self.write(msgspec.structs.replace(registration, owner="ended", qemu=None, ready=False))
        for path in list(folder.iterdir()) if folder.is_dir() else []:
            if path.name in LOGS:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def sweep(self, say: Callable[[str], None] = lambda _: None) -> list[str]:
        """Clear machines whose owner is dead and the oldest logs; return the names of the machines cleared.

        :param say: is told what takes long, and what could not be cleared.
        """
        cleared = []
        ended = []
        for folder in self._folders():
            registration = self.read(folder.name)
            if registration is None:
                self._sweep_unregistered(folder)
            elif registration.owner == "ended":
                ended.append((registration.created, folder))
            elif orphaned(registration) and self._clear(registration, say):
                cleared.append(folder.name)
        for _, folder in sorted(ended)[:-KEPT_LOGS]:
            shutil.rmtree(folder, ignore_errors=True)
        return cleared

    def _clear(self, registration: Registration, say: Callable[[str], None]) -> bool:
        """End what nobody will end; return whether it was done."""
        name, placed = registration.name, registration.vagrant
        if placed is None:
            self.end(name)
            return True
        with _turn(self.path(name)) as mine:
            if not mine:  # another process is at it
                return False
            if registration.owner == "person":  # whoever started it has died: what Vagrant made of it by then stays,
                self.forget(name)  # because it may be what the person made, or went on with, by plain Vagrant
                say(f"machine {name} was being started when that was ended: what Vagrant has of it stays")
                return True
            say(f"machine {name} has lost its owner: Vagrant destroys it, which takes some seconds")
            try:
                self.end(name)
            except LabError as error:
                say(f"{error.message}; it is tried again at the next start")
                return False
        return True

    def _folders(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if path.is_dir()]
        except OSError:
            return []

    @staticmethod
    def _sweep_unregistered(folder: Path) -> None:
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _UNREGISTERED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    def _clear_if_ended(self, name: str) -> None:
        """Make room for a machine whose predecessor of the same name has ended or lost its owner."""
        registration = self.read(name)
        if registration is None:
            return
        # One of Vagrant's that does not run was halted, and can be brought up again.
        dead = registration.ready and registration.vagrant is None and not registration.alive
        if registration.owner == "person" and registration.vagrant is not None and orphaned(registration):
            self.forget(name)  # what Vagrant has of it stays, as in _clear
            shutil.rmtree(self.path(name), ignore_errors=True)
        elif registration.owner == "ended" or dead or orphaned(registration):
            self.end(name)
            shutil.rmtree(self.path(name), ignore_errors=True)


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[bool]:
    """Tell whether this process is the one that clears ``folder``."""
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context((folder / ".clearing").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def orphaned(registration: Registration) -> bool:
    """Tell whether nobody is left who would end a machine, or finish starting it."""
    unfinished = registration.owner == "run" or not registration.ready
    return unfinished and not registration.owner_process.identity.alive
