"""The QEMU provider: machines that run as child processes, and those of persons that run on."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from vm.deadline import Deadline
from vm.errors import IntegrityError, UsageError
from vm.keys import PRIVATE_KEY, make_identity
from vm.machine import MachineFacts, MachineRequest, SshTarget
from vm.model import Kernel
from vm.paths import Layout
from vm.qemu import accel
from vm.qemu.command import MACHINE_TYPE, Hardware, kernel_command_line
from vm.qemu.console import last_words
from vm.qemu.control import Control
from vm.qemu.launch import CONTROL, OVERLAY, QMP, Arrival, Launch, make_overlay, take_identity, write_identity
from vm.qemu.parts import Parts, qemu_version
from vm.qemu.process import died, end, short_path
from vm.qemu.qmp import Qmp
from vm.qemu.warm import (
    DISK,
    HOST_KEY,
    INITRD,
    RAM,
    STATE_SCHEMA,
    TEMPLATE,
    StateRecord,
    WarmState,
    WarmStore,
    state_key,
)
from vm.registered import CONSOLE, RegisteredMachine
from vm.registry import Process, Registration, Registry
from vm.watch import ConsoleWatch

ADDRESS = "127.0.0.1"

MAPPED_RAM_SINCE = 9
"""QEMU's major version from which on states can be saved; Debian 12 has 7.2, Ubuntu 24.04 has 8.2 (--system-qemu)."""

Say = Callable[[str], None]
"""Takes one short sentence on what happens now."""


def _say_nothing(_: str) -> None:
    return


def _leave_cold(_: QemuMachine, __: Deadline) -> None:
    return


class QemuMachine(RegisteredMachine):
    """One machine under QEMU. See :class:`vm.machine.Machine`."""

    def __init__(self, provider: QemuProvider, registration: Registration, parts: Parts) -> None:
        super().__init__(provider.registry, registration)
        self._provider = provider
        self._parts = parts
        self._process: subprocess.Popen[bytes] | None = None
        self._watch = ConsoleWatch(registration.name, self.console_path)

    @property
    def ssh(self) -> SshTarget:
        """Where to log in."""
        registration = self._registration
        return SshTarget(ADDRESS, registration.port, "root", self.folder / PRIVATE_KEY, registration.host_key)

    def alive(self) -> bool:
        """Return whether QEMU still runs."""
        if self._process is not None and self._process.poll() is not None:
            return False
        qemu = self._registration.qemu
        return qemu is not None and qemu.identity.alive

    def check(self) -> None:
        """Raise if the kernel panicked or QEMU is gone.

        :raises KernelPanicError: the console shows a panic. :raises QemuDiedError: QEMU ended without one.
        """
        alive = self.alive()  # before the log is read: QEMU writes the panic, then ends
        self._watch.check(self._registration.console_offset)
        if not alive:
            raise died(self.folder, self._status())

    def _status(self) -> int | None:
        """Return how a child that has ended did so; what is not this process's child does not tell."""
        if self._process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=1.0)  # it may be ending just now
        return None

    def console_words(self) -> str:
        """Return the last lines of the console log in one, for messages."""
        with contextlib.suppress(OSError):
            return last_words(self.console_path.read_text("utf-8", "replace"))
        return ""

    def start_cold(self, deadline: Deadline) -> None:
        """Boot in a folder that has an identity."""
        self._ready(self._launch().cold(deadline), "cold")

    def start_warm(self, state: WarmState, deadline: Deadline) -> None:
        """Restore a saved state. The console log begins with the words of the boot that was saved."""
        take_identity(self.folder, state)
        if not self.console_path.exists():
            shutil.copyfile(state.path(CONSOLE), self.console_path)
        self._ready(self._launch().warm(state, deadline), "warm")

    def reset(self, deadline: Deadline) -> None:
        """Start it again as it was started first; it keeps its name, keys and port.

        :raises MachineError: it did not come up.
        """
        facts = self.facts()
        self.end_process()
        if facts.start == "cold":
            self.start_cold(deadline)
            return
        self._provider.start_warm(self, self._parts, deadline)

    def stop(self) -> None:
        """End QEMU and remove all but the logs."""
        self.end_process()
        self._provider.registry.end(self.name)
        self._registration = msgspec.structs.replace(self._registration, qemu=None, ready=False)

    def wait_ended(self, deadline: Deadline) -> None:
        """Wait until QEMU, which was told to quit or is about to end, has ended: only then are its files whole."""
        while self.alive():
            deadline.check("ending QEMU")
            time.sleep(0.005)

    def end_process(self) -> None:
        """Kill QEMU; the folder stays."""
        if self._process is not None:
            end(self._process)
            self._process = None
        elif self._registration.qemu is not None:
            self._registration.qemu.identity.kill(self.folder)

    @property
    def hardware(self) -> Hardware:
        """What the guest sees."""
        facts = self.facts()
        return Hardware(facts.cpus, facts.memory_mib, facts.accelerator, counted=facts.clock == "virtual")

    def _launch(self) -> Launch:
        size = self.console_path.stat().st_size if self.console_path.exists() else 0
        self._watch.forget()
        host_key = (self.folder / HOST_KEY).read_text().strip()
        self.update(ready=False, qemu=None, console_offset=size, host_key=host_key)
        detached = self._registration.owner == "person"
        return Launch(
            self.name,
            self.folder,
            self._parts,
            self.hardware,
            self._registration.port,
            detached,
            self._started,
            self.check,
        )

    def _started(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.update(qemu=Process.of(process.pid))

    def _ready(self, arrival: Arrival, start: str) -> None:
        facts = msgspec.structs.replace(self.facts(), start=start)
        self.update(ready=True, port=arrival.port, cpu_threads=arrival.cpu_threads, facts=facts)


class QemuProvider:
    """Starts machines under QEMU. See :class:`vm.machine.Provider`.

    :param parts: gives the artefacts of a kernel, building what is missing.
    :param say: is told what takes long or was found broken.
    :param warm_up: uses a machine that is about to be saved, by logging in, say: what it touches is in memory when the
        state is restored, and is not read from disk then. It must leave no connection.
    """

    def __init__(
        self,
        layout: Layout,
        parts: Callable[[Kernel], Parts],
        say: Say = _say_nothing,
        warm_up: Callable[[QemuMachine, Deadline], None] = _leave_cold,
    ) -> None:
        self.layout = layout
        self.registry = Registry(layout)
        self.warm = WarmStore(layout.warm)
        self._parts = parts
        self._say = say
        self._warm_up = warm_up

    def start(self, request: MachineRequest, deadline: Deadline) -> QemuMachine:
        """Start a machine; see :meth:`vm.machine.Provider.start`."""
        for name in self.registry.sweep(self._say):
            self._say(f"cleared machine {name}, whose owner had died")
        parts = self._parts(request.kernel)
        counted = request.clock == "virtual"
        accelerator = accel.choose("tcg" if counted else request.accel, self.layout, parts, deadline)
        hardware = Hardware(request.cpus, request.memory_mib, accelerator, counted=counted)
        version = qemu_version(self.layout, parts.tools)
        if request.start == "warm" and int(version.partition(".")[0]) < MAPPED_RAM_SINCE:
            self._say(f"QEMU {version} cannot save states (mapped-ram came with {MAPPED_RAM_SINCE}.0): starting cold")
            request = replace(request, start="cold")
        machine = self._create(request, parts, hardware)
        try:
            if request.start == "warm":
                self.start_warm(machine, parts, deadline)
            else:
                write_identity(machine.folder, parts, make_identity(_hostname(request.kernel)))
                machine.start_cold(deadline)
        except BaseException:
            machine.stop()
            raise
        return machine

    def start_warm(self, machine: QemuMachine, parts: Parts, deadline: Deadline) -> None:
        """Restore the state that fits; a damaged or unfit one is discarded and made again, once."""
        hardware = machine.hardware
        state = self.saved_state(parts, hardware, deadline)
        try:
            machine.start_warm(state, deadline)
        except IntegrityError as error:
            self._say(f"{error.message}; it is made again")
            machine.end_process()
            self.warm.discard(state)
            (machine.folder / PRIVATE_KEY).unlink(missing_ok=True)
            machine.start_warm(self.saved_state(parts, hardware, deadline), deadline)

    def find(self, name: str) -> QemuMachine | None:
        """Return a machine by name, started by whichever process, or ``None`` if there is none."""
        registration = self.registry.read(name)
        if registration is None or registration.owner == "ended" or registration.facts is None:
            return None
        if registration.provider != "qemu":
            return None
        return QemuMachine(self, registration, self._parts(registration.facts.kernel))

    def get(self, name: str) -> QemuMachine:
        """Return a machine by name.

        :raises UsageError: there is none that runs.
        """
        machine = self.find(name)
        if machine is None or not machine.alive():
            names = ", ".join(registration.name for registration in self.registry.all()) or "none"
            raise UsageError(f"no machine named {name} runs", f"running: {names}; invoke vm.up starts one")
        return machine

    def saved_state(self, parts: Parts, hardware: Hardware, deadline: Deadline) -> WarmState:
        """Return the saved state for this kernel and hardware, booting and saving one if there is none."""
        version = qemu_version(self.layout, parts.tools)
        host = accel.host_cpu() if hardware.accelerator == "kvm" else ""
        key = state_key(parts, hardware, version, host)
        release = parts.kernel.release
        state = self.warm.find(release, key)
        if state is not None:
            return state
        self._say(f"booting {release} to save its state")
        with self.warm.building(release, key) as temporary:
            state = self.warm.find(release, key)  # another process may have made it meanwhile
            if state is not None:
                return state
            began = time.monotonic()
            self._save(parts, hardware, temporary, deadline)
            record = StateRecord(
                schema=STATE_SCHEMA,
                key=key,
                release=release,
                qemu_version=version,
                accelerator=hardware.accelerator,
                saved=0.0,
                seconds=time.monotonic() - began,
                files={},
            )
            return self.warm.seal(temporary, release, record)

    def _save(self, parts: Parts, hardware: Hardware, folder: Path, deadline: Deadline) -> None:
        """Boot a machine of its own and leave its state in ``folder``."""
        request = MachineRequest(parts.kernel, hardware.cpus, hardware.memory_mib)
        with self._create(request, parts, hardware) as machine:
            write_identity(machine.folder, parts, make_identity(_hostname(parts.kernel)))
            machine.start_cold(deadline)
            self._warm_up(machine, deadline)
            with Control(machine.folder, CONTROL, machine.check) as control:
                control.settle(deadline)
            with short_path(machine.folder, QMP) as path, Qmp(path, deadline) as qmp:
                qmp.save(str(folder / RAM), deadline)
                qmp.execute("quit", deadline)
            machine.wait_ended(deadline)
            shutil.move(machine.folder / OVERLAY, folder / DISK)
            for name in (INITRD, PRIVATE_KEY, HOST_KEY, CONSOLE):
                shutil.move(machine.folder / name, folder / name)
            make_overlay(parts, folder / TEMPLATE)

    def _create(self, request: MachineRequest, parts: Parts, hardware: Hardware) -> QemuMachine:
        registration = self.registry.create(request.name, request.owner)
        facts = MachineFacts(
            provider="qemu",
            kernel=parts.kernel,
            qemu_version=qemu_version(self.layout, parts.tools),
            accelerator=hardware.accelerator,
            cpu_model=hardware.cpu_model,
            machine_type=MACHINE_TYPE,
            cpus=hardware.cpus,
            memory_mib=hardware.memory_mib,
            clock=hardware.clock,
            cmdline=kernel_command_line(hardware.accelerator),
            start=request.start,
            lock_digest=parts.lock_digest,
            tools_sha256=parts.tools.sha256,
            base_sha256=parts.base_sha256,
            bundle_sha256=parts.bundle_sha256,
        )
        registration = msgspec.structs.replace(registration, port=request.port, facts=facts)
        self.registry.write(registration)
        return QemuMachine(self, registration, parts)


def _hostname(kernel: Kernel) -> str:
    return f"lab-{kernel.line}".replace(".", "-")
