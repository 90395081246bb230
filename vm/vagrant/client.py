"""Vagrant behind one typed adapter, on python-vagrant.

python-vagrant knows Vagrant's commands and reads its answers; how they are run is replaced here, because it throws the
words of a failure away, waits for ever, and hands the terminal to its children. Its snapshot calls name no machine and
would address every one, and it translates libvirt's states to VirtualBox's: both are done here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

import vagrant

from vm.deadline import Deadline
from vm.errors import DiskFullError, HangError, VagrantError
from vm.paths import REPOSITORY
from vm.vagrant import trouble
from vm.vagrant.domain import URI

PROVIDER = "libvirt"

DROPPED = ("VAGRANT_LOG", "VAGRANT_VAGRANTFILE", "VAGRANT_FORCE_COLOR", "VAGRANT_PREFERRED_PROVIDERS")
"""A person's own wishes that would change what Vagrant says or does."""

FIXED = MappingProxyType(
    {
        "LC_ALL": "C.UTF-8",
        "VAGRANT_NO_COLOR": "1",
        "VAGRANT_DEFAULT_PROVIDER": PROVIDER,
        # Vagrant would ask the network whether it is up to date itself, and whether the box is.
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_BOX_UPDATE_CHECK_DISABLE": "1",
        # A box that is not added would be looked for in the public catalogue, where anyone may offer one of that name.
        "VAGRANT_SERVER_URL": "http://127.0.0.1:1",
        # vagrant-libvirt goes where a person's own one points, to qemu:///session, say; nothing else here does.
        "LIBVIRT_DEFAULT_URI": URI,
    }
)

MACHINE_READABLE = "--machine-readable"

_NO_SNAPSHOTS = ("No snapshots have been taken yet!", "VM not created. Moving on...")
_SKIPPED = "cannot save snapshots. Skipping..."
_PATIENCE = 5.0
"""Seconds that a call gets to end after each signal."""


@dataclass(frozen=True, slots=True)
class Login:
    """Where and as whom a machine can be logged in to."""

    host: str
    port: int
    user: str
    private_key: Path


@dataclass(frozen=True, slots=True)
class InstalledBox:
    """A box that was added."""

    name: str
    provider: str
    version: str


class _Program(vagrant.Vagrant):
    """python-vagrant for one call, with its three ways to run a command replaced by ours."""

    def __init__(self, client: Vagrant, deadline: Deadline) -> None:
        super().__init__(root=str(client.checkout))  # type: ignore[no-untyped-call]
        self._client = client
        self._deadline = deadline

    def _call_vagrant_command(self, args: Sequence[str | None]) -> None:
        self._client.run([word for word in args if word is not None], self._deadline)

    def _run_vagrant_command(self, args: Sequence[str | None]) -> str:
        return self._client.run([word for word in args if word is not None], self._deadline)

    def _stream_vagrant_command(self, args: Sequence[str | None]) -> Iterator[str]:
        yield from self._run_vagrant_command(args).splitlines(keepends=True)

    def _normalize_status(self, status: str, provider: str) -> str:  # noqa: ARG002 - its signature
        return status


class Vagrant:
    """Vagrant for one data folder. Calls may be made from several threads; Vagrant itself takes one per machine.

    Every call but :meth:`forget` and :meth:`interrupt` raises :class:`~vm.errors.SetupError` for what the host must
    bring, :class:`~vm.errors.DiskFullError`, :class:`~vm.errors.HangError` when the deadline passes (Vagrant and all
    that it started are ended then), and :class:`~vm.errors.VagrantError` for all else that Vagrant refuses.

    :param data: VAGRANT_DOTFILE_PATH, where Vagrant remembers its machines.
    :param log: every command, its output and its status are appended to this file.
    :param variables: ``LAB_…``, for the Vagrantfile.
    :param checkout: the folder of the Vagrantfile.
    """

    def __init__(
        self,
        data: Path,
        log: Path,
        *,
        variables: Mapping[str, str] = MappingProxyType({}),
        checkout: Path = REPOSITORY,
    ) -> None:
        self.data = data
        self.log = log
        self.variables = dict(variables)
        self.checkout = checkout
        self._lock = threading.Lock()
        self._logins: dict[str, Login] = {}
        self._children: set[subprocess.Popen[bytes]] = set()

    def up(self, machine: str, deadline: Deadline) -> None:
        """Create and start a machine, or start it if it is halted. Nothing is provisioned."""
        self.forget(machine)
        self._at(deadline).up(vm_name=machine, no_provision=True, provider=PROVIDER)  # type: ignore[no-untyped-call]

    def halt(self, machine: str, deadline: Deadline) -> None:
        """Shut a machine down. One that is not there is left alone."""
        self.forget(machine)
        self._at(deadline).halt(vm_name=machine)  # type: ignore[no-untyped-call]

    def destroy(self, machine: str, deadline: Deadline) -> None:
        """Remove a machine and its disks; to destroy what is not there is fine."""
        self.forget(machine)
        self._at(deadline).destroy(vm_name=machine)  # type: ignore[no-untyped-call]

    def state(self, machine: str, deadline: Deadline) -> str:
        """Return a machine's state in Vagrant's own word: ``running``, ``shutoff``, ``paused``, ``not_created``, …

        ``inaccessible`` is one that runs and has no address (yet); Vagrant takes some 10 s to say so.
        """
        found = self._states(machine, deadline)
        if machine not in found:
            words = f"vagrant status {machine} names no state"
            raise VagrantError(words, f"All that it said: {self.log}")
        return found[machine]

    def states(self, deadline: Deadline) -> dict[str, str]:
        """Return the state of every machine of the Vagrantfile, in its order."""
        return self._states(None, deadline)

    def login(self, machine: str, deadline: Deadline) -> Login:
        """Return how to log in to a machine. Asked once, until :meth:`forget` or a call that may change it."""
        with self._lock:
            known = self._logins.get(machine)
        if known is not None:
            return known
        found: dict[str, str] = self._at(deadline).conf(vm_name=machine)  # type: ignore[no-untyped-call]
        try:
            login = Login(found["HostName"], int(found["Port"]), found["User"], Path(found["IdentityFile"]))
        except (KeyError, ValueError) as error:
            message = f"vagrant ssh-config {machine} does not say where to log in: {error}"
            raise VagrantError(message, f"All that it said: {self.log}") from error
        with self._lock:
            self._logins[machine] = login
        return login

    def forget(self, machine: str) -> None:
        """Let the next :meth:`login` ask Vagrant again."""
        with self._lock:
            self._logins.pop(machine, None)

    def snapshots(self, machine: str, deadline: Deadline) -> list[str]:
        """Return the names of a machine's snapshots; none of one that is not created."""
        said = self.run(["snapshot", "list", machine], deadline)
        if any(words in said for words in _NO_SNAPSHOTS):
            return []
        lines = [line.strip() for line in said.splitlines()]
        return [line for line in lines if line and not line.startswith("==>")]

    def snapshot_save(self, machine: str, name: str, deadline: Deadline) -> None:
        """Take a snapshot of one machine, memory included where it runs."""
        said = self.run(["snapshot", "save", machine, name], deadline)
        if _SKIPPED in said:  # with exit status 0
            raise VagrantError(f"no snapshot was taken: {machine} is not created", f"vagrant up {machine}")

    def snapshot_restore(self, machine: str, name: str, deadline: Deadline) -> None:
        """Bring one machine back to a snapshot. Nothing is provisioned."""
        self.forget(machine)
        said = self.run(["snapshot", "restore", machine, name, "--no-provision"], deadline)
        if _NO_SNAPSHOTS[1] in said:  # with exit status 0
            raise VagrantError(f"nothing was restored: {machine} is not created", f"vagrant up {machine}")

    def boxes(self, deadline: Deadline) -> list[InstalledBox]:
        """Return the boxes that are added."""
        found = self._at(deadline).box_list()  # type: ignore[no-untyped-call]
        return [InstalledBox(box.name, box.provider, box.version) for box in found]

    def box_add(self, metadata: Path, provider: str, deadline: Deadline, *, force: bool) -> None:
        """Add the newest box that a metadata file names.

        :param force: also where that version is there already, which is an error otherwise.
        """
        add = self._at(deadline).box_add
        add(None, str(metadata), provider=provider, force=force)  # type: ignore[no-untyped-call]

    def box_remove(self, name: str, provider: str, version: str, deadline: Deadline) -> None:
        """Remove one version of a box. Its copy in libvirt's pool stays; Vagrant never removes that one."""
        self.run(["box", "remove", name, "--provider", provider, "--box-version", version, "--force"], deadline)

    def interrupt(self) -> None:
        """End the calls that are under way in other threads: Ctrl-C reaches only the main one."""
        with self._lock:
            children = list(self._children)
        for child in children:
            _end(child)

    def run(self, arguments: Sequence[str], deadline: Deadline) -> str:
        """Run Vagrant with ``arguments`` and return its standard output. Raises what all calls raise."""
        program = shutil.which("vagrant")
        if program is None:
            raise trouble.not_installed()
        what = trouble.name(arguments)
        deadline.check(what, f"What was run before: {self.log}")
        began = time.monotonic()
        self._write(f"{what}: begins, {deadline.remaining:.0f} s are left")
        # With --no-tty no bar of progress is drawn and nothing is asked; it would undo --machine-readable.
        quiet = [] if MACHINE_READABLE in arguments else ["--no-tty"]
        child = self._start([program, *quiet, *arguments])
        try:
            said, words = child.communicate(timeout=deadline.remaining)
        except BaseException as error:
            _end(child)
            text = _rest(child)
            late = isinstance(error, subprocess.TimeoutExpired)
            self._write(f"{what}: {'not over in time' if late else 'interrupted'}, ended", began, text)
            if not late:
                raise
            last = trouble.last_words(trouble.plain(text))
            message = f"{what} was not over within {deadline.total:.0f} s" + (f"; it said last: {last}" if last else "")
            hint = f"A loaded host, or a guest that does not come up. All that Vagrant said: {self.log}"
            raise HangError(message, hint) from None
        finally:
            with self._lock:
                self._children.discard(child)
        text = _decode(said) + _decode(words)
        self._write(f"{what}: status {child.returncode}", began, text)
        if child.returncode != 0:
            raise trouble.error(arguments, child.returncode, text, self.log)
        return _decode(said)

    def environment(self) -> dict[str, str]:
        """Return the variables that Vagrant runs with."""
        kept = {name: value for name, value in os.environ.items() if name not in DROPPED}
        folders = {"VAGRANT_CWD": str(self.checkout), "VAGRANT_DOTFILE_PATH": str(self.data)}
        return kept | FIXED | folders | self.variables

    def _at(self, deadline: Deadline) -> _Program:
        return _Program(self, deadline)

    def _states(self, machine: str | None, deadline: Deadline) -> dict[str, str]:
        rows = self._at(deadline).status(vm_name=machine)  # type: ignore[no-untyped-call]
        return {row.name: row.state for row in rows if row.name and row.state}

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        # It must not go on for minutes if we are killed; the signal comes when the thread ends that waits for it.
        guard = shutil.which("setpriv")
        words = [guard, "--pdeathsig", "TERM", "--", *command] if guard else list(command)
        with self._lock:
            child = subprocess.Popen(
                words,
                cwd=self.checkout,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._children.add(child)
        return child

    def _write(self, what: str, began: float | None = None, text: str = "") -> None:
        """Append to the log, in one piece: other threads and processes may write to it, too."""
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        took = "" if began is None else f" after {time.monotonic() - began:.1f} s"
        end = "" if not text or text.endswith("\n") else "\n"
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as file:
                file.write(f"[{now}] {what}{took}\n{text}{end}".encode())
        except OSError as error:
            message = f"Vagrant's log {self.log} cannot be written: {error.strerror}"
            raise DiskFullError(message, "free some space, or mend the folder's permissions") from error


def _decode(said: bytes | None) -> str:
    return (said or b"").decode("utf-8", "replace")


def _rest(child: subprocess.Popen[bytes]) -> str:
    """Return what a child said that was ended; a grandchild that left the session may hold its pipes open still."""
    try:
        said, words = child.communicate(timeout=1.0)
    except subprocess.TimeoutExpired as error:
        return _decode(error.stdout) + _decode(error.stderr)
    return _decode(said) + _decode(words)


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a call and all that it started in its session: a moment to clean up, then by force.

    As long as one of them lives, the kernel gives the group's number to nobody else.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal(child, number)
        over = Deadline.after(_PATIENCE)
        while not over.expired:
            child.poll()
            if not _lives(child.pid):
                return
            time.sleep(0.02)


def _lives(group: int) -> bool:
    """Tell whether a process of this group lives; a zombie does not (proc(5): state, pgrp)."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] not in "ZX" and int(fields[2]) == group:
                    return True
    return False
