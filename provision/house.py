"""What every task starts from: the lock, the artefacts of a kernel, and the machines of this person.

It joins the parts of ``vm`` and decides which machine a person means; nothing here prints on stdout.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import msgspec

from provision import payload
from provision.ssh import connect
from provision.transfer import push_whole
from vm import images, kernels, progress
from vm import lock as locks
from vm.deadline import Deadline
from vm.errors import LabError, UsageError
from vm.images import Built, Images, Removed
from vm.kernels import Listed as KernelRow
from vm.machine import AcceleratorChoice, ClockChoice, Machine, MachineRequest
from vm.model import Kernel, Lock
from vm.paths import Layout
from vm.qemu.provider import QemuMachine, QemuProvider
from vm.registry import Registration

START_SECONDS = 300.0
"""Time that a machine gets to come up: a first, emulated start on a loaded host saves its state, too."""

SESSION_SECONDS = 7 * 86400.0
"""How long a session in a machine may last."""


class MachineRow(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``invoke vm.status``.

    :param state: ``running``, ``starting`` or ``dead`` (ended by itself; its logs are there).
    :param created: seconds since 1970.
    """

    name: str
    owner: str
    state: str
    release: str
    accelerator: str
    clock: str
    port: int
    created: float


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``invoke images.list``.

    :param kind: ``tools``, ``base``, ``kernel`` or ``warm state``.
    :param size: bytes on disk.
    :param in_lock: whether the lock as it is would use it; None for saved states, which have keys of their own.
    :param state: ``whole``, or what is wrong at a glance.
    """

    kind: str
    name: str
    size: int
    sha256: str
    in_lock: bool | None
    state: str


def say(text: str) -> None:
    """Tell a person what happens now, on stderr."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class House:
    """The lab on this host.

    :param system_qemu: use the host's QEMU instead of the locked one.
    """

    layout: Layout
    system_qemu: bool = False
    say: Callable[[str], None] = say
    _found: dict[str, Images] = field(default_factory=dict)
    _own: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def open(cls, *, runs: str = "", system_qemu: bool = False) -> House:
        """Return the lab as this process's environment has it.

        :param runs: folder for records; empty: the layout's.
        :raises UsageError: ``runs`` is no folder.
        """
        layout = Layout.from_environment()
        if runs:
            folder = Path(runs).expanduser().absolute()
            if folder.exists() and not folder.is_dir():
                raise UsageError(f"--runs {runs} is no folder", "give a folder; it is made if it is not there")
            layout = replace(layout, runs=folder)
        return cls(layout, system_qemu)

    @cached_property
    def lock(self) -> Lock:
        """The lock, read once."""
        return locks.read()

    # Kernels.

    def kernel(self, text: str) -> Kernel:
        """Return the kernel that ``text`` means: a line, a release, a name of kernels.toml, or a path.

        :raises UsageError: none is meant. :raises ConfigError: it is one's own, and not whole.
        """
        from vm import owned_kernel

        path = owned_kernel.find(text, kernels.read_configuration())
        if path is None:
            return kernels.resolve(text, self.lock)
        own = owned_kernel.load(path, self.layout, "" if "/" in text or text.endswith(".deb") else text)
        for limit in own.limits:
            self.say(f"kernel {own.kernel.release}: {limit}")
        self._own.update(own.files)
        return own.kernel

    def kernels(self, text: str, machine: str = "") -> list[Kernel]:
        """Return the kernels of a comma-separated list; where it is empty, that of the person's machine ``machine``.

        :raises UsageError: neither is given, or a name is not known or given twice.
        """
        if machine:
            self.choose("", machine)
        if not text and machine:
            return [self.provider().get(machine).facts().kernel]
        if not text:
            names = ", ".join(kernels.defaults(self.lock.kernels))
            raise UsageError("which kernel?", f"add --kernel, for example --kernel 6.1; the default lines are {names}")
        found = [self.kernel(part.strip()) for part in text.split(",")]
        releases = [kernel.release for kernel in found]
        if len(set(releases)) < len(releases):
            raise UsageError(f"--kernel {text} names one kernel twice", f"it means {', '.join(releases)}")
        return found

    def default_kernels(self) -> list[Kernel]:
        """Return the kernels that are built where nobody chose."""
        return [self.lock.kernels[line] for line in kernels.defaults(self.lock.kernels)]

    def kernel_rows(self) -> list[KernelRow]:
        """Return a row per locked kernel, with what is built and warm."""
        warm = {state.record.release for state in self.provider().warm.states()}
        return kernels.listing(
            self.lock,
            lambda kernel: images.is_built(self.lock, self.layout, kernel),
            lambda kernel: kernel.release in warm,
        )

    # Artefacts.

    def builder(self, *, renew: bool = False, thorough: bool = False) -> images.Builder:
        """Return what builds artefacts, with progress on stderr; with ``renew`` whatever the lock says of them."""
        say = progress.to_stderr()
        return images.Builder(self.lock, self.layout, say, self._own, renew=renew, thorough=thorough)

    def images(self, kernel: Kernel) -> Images:
        """Return what a machine of ``kernel`` needs, building what is not there; asked once per kernel."""
        if kernel.release not in self._found:
            self._found[kernel.release] = self.builder().images(kernel, system_qemu=self.system_qemu)
        return self._found[kernel.release]

    def build(self, wanted: Sequence[Kernel], *, record: bool) -> list[Built]:
        """Build what ``wanted`` need and is not there, or is corrupt: every byte is read.

        :param record: write the hashes of what comes out into the lock, also where it has others.
        """
        built = self.builder(renew=record, thorough=True).build(wanted)
        if record:
            renewed = images.with_hashes(self.lock, built, renew=True)
            if renewed != self.lock:
                locks.write(renewed)
        return built

    def stored(self) -> list[Stored]:
        """Return what lies in the cache: artefacts and saved states."""
        rows = [
            Stored(kind=row.kind, name=row.name, size=row.size, sha256=row.sha256, in_lock=row.in_lock, state=row.state)
            for row in images.listing(self.lock, self.layout)
        ]
        for state in self.provider().warm.states():
            name, size = state.folder.name, state.disk_usage
            rows.append(Stored(kind="warm state", name=name, size=size, sha256="", in_lock=None, state="not read"))
        return rows

    def clean(self, *, everything: bool) -> list[Removed]:
        """Remove what the lock no longer names, or everything.

        A machine that runs keeps the files that it has open; a reset makes its saved state again.
        """
        return images.clean(self.lock, self.layout, everything=everything)

    # Machines.

    def provider(self) -> QemuProvider:
        """Return what starts machines."""
        return QemuProvider(self.layout, lambda kernel: self.images(kernel).parts, self.say, self._warm_up)

    def start_person(
        self, text: str, name: str, accel: AcceleratorChoice, clock: ClockChoice = "host", *, cold: bool
    ) -> QemuMachine:
        """Start a machine that lives on until it is ended by name, by default that of the kernel's line."""
        kernel = self.kernel(text)
        request = MachineRequest(
            kernel=kernel,
            accel=accel,
            clock=clock,
            start="cold" if cold else "warm",
            name=name or kernel.line,
            owner="person",
        )
        return self.provider().start(request, Deadline.after(START_SECONDS))

    def machines(self) -> list[MachineRow]:
        """Return every machine of this person, those of running labs among them."""
        return [_row(registration) for registration in self.provider().registry.all()]

    def reset(self, text: str, name: str) -> QemuMachine:
        """Start a person's machine afresh; see :meth:`choose` for which."""
        machine = self.provider().get(self.choose(text, name))
        machine.reset(Deadline.after(START_SECONDS))
        return machine

    def end(self, text: str, name: str, *, everything: bool) -> list[str]:
        """End a person's machine, or all of them; return their names."""
        registry = self.provider().registry
        names = [row.name for row in self._persons()] if everything else [self.choose(text, name)]
        for each in names:
            registry.end(each)
        return names

    def choose(self, text: str, name: str) -> str:
        """Return the name of the person's machine that is meant: by ``name``, by kernel, or the only one there is.

        :raises UsageError: there is none, or it could be several.
        """
        persons = self._persons()
        if name:
            if name not in [row.name for row in persons]:
                raise UsageError(f"there is no machine {name!r} of yours", _listed(persons))
            return name
        release = self.kernel(text).release if text else ""
        fitting = [row.name for row in persons if not release or row.release == release]
        if not fitting:
            which = f"of kernel {text}" if text else "of yours"
            raise UsageError(f"there is no machine {which}", _listed(persons))
        if len(fitting) > 1:
            raise UsageError("several machines could be meant", f"add --name: {', '.join(fitting)}")
        return fitting[0]

    def login(self, text: str, name: str, command: str, accel: AcceleratorChoice) -> int:
        """Log in to the machine that is meant, or to one that lives as long as the session; return the remote status.

        :raises UsageError: no machine is meant, or there is no terminal for an interactive login.
        """
        from provision import session

        if not command and not sys.stdin.isatty():
            raise UsageError("an interactive login needs a terminal", "give --command 'COMMAND' to run one command")
        with self._session_machine(text, name, accel) as machine:
            deadline = Deadline.after(SESSION_SECONDS)
            with connect(machine.ssh, deadline.within(START_SECONDS), machine.check) as shell:
                if command:
                    return session.passthrough(shell, command, deadline, machine.check)
                return session.interactive(shell)

    @contextmanager
    def _session_machine(self, text: str, name: str, accel: AcceleratorChoice) -> Iterator[Machine]:
        provider = self.provider()
        if not name and text:
            release = self.kernel(text).release
            if not any(row.release == release for row in self._persons()):
                request = MachineRequest(kernel=self.kernel(text), accel=accel)
                with provider.start(request, Deadline.after(START_SECONDS)) as machine:
                    yield machine
                return
        yield provider.get(self.choose(text, name))

    def _warm_up(self, machine: QemuMachine, deadline: Deadline) -> None:
        """Use a machine before its state is saved: what sshd and a shell read from disk then lies in memory.

        The kit that every lab needs is left there, too. A machine is of use without it, so that a kit which cannot be
        built is told and no more.
        """
        with connect(machine.ssh, deadline, machine.check) as shell:
            try:
                kit = payload.kit(self.layout, self.images(machine.facts().kernel).tools)
            except LabError as error:
                self.say(f"the saved state gets no tracer: {error}")
            else:
                push_whole(shell, kit.files, kit.folder, deadline)
            shell.run("uname -r", deadline).check()

    def _persons(self) -> Sequence[MachineRow]:
        return [row for row in self.machines() if row.owner == "person"]


def _row(registration: Registration) -> MachineRow:
    facts = registration.facts
    alive = registration.qemu is not None and registration.qemu.identity.alive
    return MachineRow(
        name=registration.name,
        owner=registration.owner,
        state="dead"
        if registration.qemu is not None and not alive
        else "running"
        if registration.ready
        else "starting",
        release=facts.kernel.release if facts else "",
        accelerator=facts.accelerator if facts else "",
        clock=facts.clock if facts else "",
        port=registration.port,
        created=registration.created,
    )


def _listed(rows: Sequence[MachineRow]) -> str:
    names = ", ".join(f"{row.name} ({row.release})" for row in rows)
    return f"yours are: {names}" if names else "start one: invoke vm.up --kernel 6.1"
