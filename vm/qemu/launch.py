"""Bringing one QEMU up in a machine's folder, cold or from a saved state."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vm.deadline import Deadline
from vm.errors import DiskFullError, HangError, IntegrityError, LabError, MachineError, PortError, QemuDiedError
from vm.keys import PRIVATE_KEY, Identity, identity_initramfs, write_secret
from vm.qemu.command import Channels, Files, Hardware, machine_arguments
from vm.qemu.control import Control
from vm.qemu.parts import Parts
from vm.qemu.process import listening, short_path, spawn
from vm.qemu.qmp import Qmp
from vm.qemu.warm import DISK, HOST_KEY, INITRD, RAM, TEMPLATE, WarmState
from vm.registered import CONSOLE

OVERLAY = "overlay.qcow2"
QMP = "qmp"
CONTROL = "control"
_PORT_WORDS = "Could not set up host forwarding rule"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A machine that came up.

    :param port: loopback port that leads to its sshd. :param cpu_threads: threads of the host that run its CPUs.
    """

    port: int
    cpu_threads: list[int]


@dataclass(frozen=True, slots=True)
class Launch:
    """What is started where.

    :param name: of the machine, as it appears in QEMU's command line. :param folder: the machine's own.
    :param started: is told the child as soon as it lives. :param check: raises if the machine is gone.
    """

    name: str
    folder: Path
    parts: Parts
    hardware: Hardware
    port: int
    detached: bool
    started: Callable[[subprocess.Popen[bytes]], None]
    check: Callable[[], None]

    def cold(self, deadline: Deadline) -> Arrival:
        """Boot; return when sshd listens."""
        self._overlay(lambda overlay: make_overlay(self.parts, overlay))
        self._spawn(self._files(self.folder / INITRD, None), incoming=False)
        with self._qmp(deadline) as qmp, Control(self.folder, CONTROL, self.check) as control:
            arrival = Arrival(qmp.forwarded_port(deadline), qmp.cpu_threads(deadline))
            control.wait_ready(deadline)
        return arrival

    def warm(self, state: WarmState, deadline: Deadline) -> Arrival:
        """Restore a saved state; return when clock and random state are the machine's own.

        The state is read for checking while QEMU starts and reads it, too.

        :raises IntegrityError: the state is damaged; the machine has not run a single instruction.
        """
        self._overlay(lambda overlay: shutil.copyfile(state.path(TEMPLATE), overlay))
        self._spawn(self._files(state.path(INITRD), state.path(DISK)), incoming=True)
        with _Verification(state) as verification, self._qmp(deadline) as qmp:
            try:
                qmp.restore(str(state.path(RAM)), deadline)
            except HangError:
                raise
            except LabError as error:  # QEMU ends by itself if it cannot read a state
                verification.result()  # damage is the better explanation
                if isinstance(error, QemuDiedError):
                    self._check_killed()
                words = "; ".join(self._qemu_words())
                release = state.record.release
                raise IntegrityError(f"QEMU did not take the saved state of {release}: {words or error}") from error
            arrival = Arrival(qmp.forwarded_port(deadline), qmp.cpu_threads(deadline))
            verification.result()
            with Control(self.folder, CONTROL, self.check) as control:
                qmp.execute("cont", deadline)
                control.resume(deadline)
        return arrival

    def _files(self, initrd: Path, saved_disk: Path | None) -> Files:
        parts = self.parts
        return Files(parts.vmlinuz, initrd, parts.base_image, parts.bundle_image, OVERLAY, saved_disk)

    def _overlay(self, make: Callable[[Path], object]) -> None:
        overlay = self.folder / OVERLAY
        overlay.unlink(missing_ok=True)
        try:
            make(overlay)
        except OSError as error:
            raise DiskFullError(f"cannot write the machine's disk: {error}", "free some space") from error

    def _spawn(self, files: Files, *, incoming: bool) -> None:
        with listening(self.folder, (QMP, CONTROL)) as sockets:
            channels = Channels(sockets[QMP], sockets[CONTROL], CONSOLE)
            arguments = machine_arguments(
                self.hardware, files, channels, name=self.name, port=self.port, incoming=incoming
            )
            command = self.parts.tools.command("qemu-system-x86_64", *arguments)
            process = spawn(
                command,
                self.folder,
                environment=self.parts.tools.environment,
                descriptors=tuple(sockets.values()),
                detached=self.detached,
            )
            self.started(process)

    def _qemu_words(self) -> list[str]:
        """Return the last lines that QEMU said."""
        with contextlib.suppress(OSError):
            return (self.folder / "qemu.log").read_text("utf-8", "replace").strip().splitlines()[-3:]
        return []

    def _qmp(self, deadline: Deadline) -> Qmp:
        try:
            with short_path(self.folder, QMP) as path:
                return Qmp(path, deadline)
        except QemuDiedError as error:
            if any(_PORT_WORDS in words for words in self._qemu_words()):
                hint = "choose another port, or none: any free one is taken then"
                raise PortError(f"port {self.port} of the loopback is taken", hint) from error
            self._wait_end()
            raise

    def _wait_end(self) -> None:
        """Raise how QEMU ended: its end comes a moment after its socket's, and says more."""
        for _ in range(200):
            self.check()
            threading.Event().wait(0.01)

    def _check_killed(self) -> None:
        """Raise if QEMU did not end by itself: who ends it from outside (the kernel, for want of memory) says nothing
        against the state that it was reading.
        """
        try:
            self._wait_end()
        except QemuDiedError as error:
            if error.signal in (signal.SIGKILL, signal.SIGTERM):
                raise


class _Verification:
    """Checking a state in a thread of its own; hashing and reading let go of the interpreter."""

    def __init__(self, state: WarmState) -> None:
        self._state = state
        self._error: LabError | None = None
        self._thread = threading.Thread(target=self._work, name="kmlab-verify")

    def __enter__(self) -> _Verification:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _work(self) -> None:
        try:
            self._state.verify()
        except LabError as error:
            self._error = error
        except OSError as error:
            self._error = IntegrityError(f"the saved state cannot be read: {error}")

    def result(self) -> None:
        """Wait, and raise what was found."""
        self._thread.join()
        if self._error is not None:
            raise self._error


def make_overlay(parts: Parts, overlay: Path) -> None:
    """Make an empty qcow2 disk as large as the base image.

    Its header names no backing file: the command line gives the whole chain.

    :raises MachineError: qemu-img failed.
    """
    size = str(parts.base_image.stat().st_size)
    command = parts.tools.command("qemu-img", "create", "-q", "-f", "qcow2", str(overlay), size)
    environment = {"LC_ALL": "C", **parts.tools.environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        if "No space left" in done.stderr:
            raise DiskFullError("no space is left for the machine's disk", "free some space")
        raise MachineError(f"cannot make the machine's disk: {done.stderr.strip()}")


def write_identity(folder: Path, parts: Parts, identity: Identity) -> None:
    """Write what a cold start hands in, and the key that logs in, into a machine's folder."""
    write_secret(folder / INITRD, parts.initramfs.read_bytes() + identity_initramfs(identity))
    write_secret(folder / PRIVATE_KEY, identity.client.private)
    (folder / HOST_KEY).write_text(f"{identity.host.public}\n")


def take_identity(folder: Path, state: WarmState) -> None:
    """Copy the key and the host key of a saved state into a machine's folder."""
    if not (folder / PRIVATE_KEY).exists():
        write_secret(folder / PRIVATE_KEY, state.path(PRIVATE_KEY).read_bytes())
        shutil.copyfile(state.path(HOST_KEY), folder / HOST_KEY)
