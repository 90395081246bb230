"""What every task starts from: the lock, the artefacts of a kernel, and the machines of this person.

It joins the parts of ``vm`` and decides which machine a person means; nothing here prints on stdout.
"""

from __future__ import annotations

import secrets
import sys
import time
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
from vm.errors import LabError, MachineError, UsageError
from vm.images import Built, Images, Removed
from vm.kernels import Listed as KernelRow
from vm.machine import AcceleratorChoice, ClockChoice, Machine, MachineRequest, Provider, ProviderName
from vm.model import Kernel, Lock
from vm.paths import Layout
from vm.qemu.control import ENTROPY_BYTES
from vm.qemu.provider import QemuMachine, QemuProvider
from vm.registry import Registration, Registry
from vm.vagrant import domain
from vm.vagrant.machine import VagrantMachine
from vm.vagrant.provider import VagrantProvider

START_SECONDS = 300.0
"""Time that a machine gets to come up: a first, emulated start on a loaded host saves its state, too."""

VAGRANT_SECONDS = 600.0
"""The same for one of Vagrant's: the first one of a box copies the box's disk into libvirt's pool, too."""

CONTROL = "/run/kmlab/control"
"""Program in a machine of Vagrant's that sets clock and random state (``vm/guest/control.h``)."""

SESSION_SECONDS = 7 * 86400.0
"""How long a session in a machine may last."""


class MachineRow(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``invoke vm.status``.

    :param state: ``running``, ``starting``, ``dead`` (ended by itself; its logs are there), ``halted`` (one of
        Vagrant's that does not run and will be brought up again where it is used) or ``destroyed`` (one of Vagrant's
        that ``vagrant destroy`` removed; ``vm.up`` makes another).
    :param host: where its sshd is.
    :param created: seconds since 1970; 0 where it is not known.
    :param registered: False: plain ``vagrant up`` made it, and only ``--provider vagrant`` means it.
    """

    name: str
    provider: str
    owner: str
    state: str
    release: str
    accelerator: str
    clock: str
    port: int
    created: float
    host: str = "127.0.0.1"
    registered: bool = True


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
    :param kind: provider of the machines that are meant; empty: of any that are there, and QEMU for new ones.
    """

    layout: Layout
    system_qemu: bool = False
    say: Callable[[str], None] = say
    kind: ProviderName | None = None
    _found: dict[str, Images] = field(default_factory=dict)
    _own: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def open(cls, *, runs: str = "", system_qemu: bool = False, provider: ProviderName | None = None) -> House:
        """Return the lab as this process's environment has it.

        :param runs: folder for records; empty: the layout's. :param provider: see ``kind``.
        :raises UsageError: ``runs`` is no folder.
        """
        layout = Layout.from_environment()
        if runs:
            folder = Path(runs).expanduser().absolute()
            if folder.exists() and not folder.is_dir():
                raise UsageError(f"--runs {runs} is no folder", "give a folder; it is made if it is not there")
            layout = replace(layout, runs=folder)
        return cls(layout, system_qemu, kind=provider)

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
            return [self.machine(machine).facts().kernel]
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
        """Return what starts machines under QEMU."""
        return QemuProvider(self.layout, lambda kernel: self.images(kernel).parts, self.say, self._warm_up)

    def vagrant(self) -> VagrantProvider:
        """Return what starts machines through Vagrant."""
        return VagrantProvider(
            self.layout, lambda kernel: self.images(kernel).parts, self.kernel, self._box, self.say, self._resume
        )

    def _box(self, kernel: Kernel) -> str:
        """Let there be a box of ``kernel`` that Vagrant can take, and return its version.

        :raises UsageError: Vagrant has another one of the same name and version, which it would take instead.
        """
        from vm.boxes import catalog, installed
        from vm.boxes.boxes import Boxes

        builder = Boxes(self.builder())
        (box,) = builder.obtain([kernel], ["libvirt"])
        catalog.write(self.layout, builder.of(kernel))
        disk = installed.disk_installed(box)
        if disk and disk != installed.disk_of(box):
            raise UsageError(
                f"Vagrant has another box {box.name} {box.version} than the lock's",
                f"invoke boxes.add --kernel {kernel.line}",
            )
        return box.version

    def starter(self) -> Provider:
        """Return what starts new machines: the provider that was asked for, else QEMU's."""
        return self.vagrant() if self.kind == "vagrant" else self.provider()

    def start_deadline(self) -> Deadline:
        """Return the time that a new machine gets to come up."""
        return Deadline.after(VAGRANT_SECONDS if self.kind == "vagrant" else START_SECONDS)

    def check_kernels(self, wanted: Sequence[Kernel]) -> None:
        """Refuse, before anything is built, kernels that the provider cannot start.

        :raises UsageError: there is one.
        """
        if self.kind == "vagrant":
            for kernel in wanted:
                domain.machine_name(kernel)

    def machine(self, name: str) -> Machine:
        """Return a machine by name, from whichever provider has it.

        :raises UsageError: none has it, or another one than was asked for.
        """
        registration = Registry(self.layout).read(name)
        there = registration is not None and registration.owner != "ended"
        kind = registration.provider if registration is not None and there else self.kind
        if self.kind is not None and kind != self.kind:
            raise UsageError(
                f"machine {name} is one of {kind}, not of {self.kind}",
                "leave --provider away, or choose another machine",
            )
        return self.vagrant().get(name) if kind == "vagrant" else self.provider().get(name)

    def start_person(
        self, text: str, name: str, accel: AcceleratorChoice, clock: ClockChoice = "host", *, cold: bool
    ) -> Machine:
        """Start a machine that lives on until it is ended by name, by default that of the kernel's line."""
        kernel = self.kernel(text)
        usual = domain.machine_name(kernel) if self.kind == "vagrant" else kernel.line
        request = MachineRequest(
            kernel=kernel,
            accel=accel,
            clock=clock,
            start="cold" if cold else "warm",
            name=name or usual,
            owner="person",
        )
        return self.starter().start(request, self.start_deadline())

    def machines(self) -> list[MachineRow]:
        """Return every machine of this person, those of running labs and of plain ``vagrant up`` among them.

        Vagrant itself is not asked, which would take seconds: what runs is seen by its process.
        """
        rows = [_row(registration) for registration in Registry(self.layout).all()]
        taken = {row.name for row in rows}
        rows += [self._plain_row(name) for name in domain.created(domain.person_data()) if name not in taken]
        return [row for row in rows if self.kind in (None, row.provider)]

    def _plain_row(self, name: str) -> MachineRow:
        found = domain.find(domain.machine_id(domain.person_data(), name))
        seen = domain.seen(found.words) if found is not None else None
        kernel = self.lock.kernels.get(domain.kernel_line(name))
        return MachineRow(
            name=name,
            provider="vagrant",
            owner="person",
            state="halted" if found is None else "running",
            release=kernel.release if kernel else "",
            accelerator=seen.accelerator if seen else "",
            clock=("kvm" if seen.accelerator == "kvm" else "emulated") if seen else "",
            port=0,
            created=0.0,
            host="",
            registered=False,
        )

    def reset(self, text: str, name: str) -> tuple[Machine, str]:
        """Start a person's machine afresh; see :meth:`choose` for which.

        :returns: the machine, and how it was done where that depends on the provider.
        """
        machine = self.machine(self.choose(text, name))
        if isinstance(machine, VagrantMachine):
            machine.reset(Deadline.after(VAGRANT_SECONDS))
            return machine, machine.how_reset
        machine.reset(Deadline.after(START_SECONDS))
        return machine, ""

    def end(self, text: str, name: str, *, everything: bool) -> list[str]:
        """End a person's machine, or all of them; return their names.

        Machines of plain ``vagrant up`` are among them where Vagrant's are asked for by ``kind``.
        """
        registry = Registry(self.layout)
        persons = {row.name: row for row in self._persons()}
        names = list(persons) if everything else [self.choose(text, name)]
        for each in names:
            if persons[each].registered:
                registry.end(each)
            else:
                self.vagrant().end_unregistered(each)
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
        if not name and text:
            release = self.kernel(text).release
            if not any(row.release == release for row in self._persons()):
                request = MachineRequest(kernel=self.kernel(text), accel=accel)
                with self.starter().start(request, self.start_deadline()) as machine:
                    yield machine
                return
        yield self.machine(self.choose(text, name))

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

    def _resume(self, machine: VagrantMachine, deadline: Deadline) -> None:
        """Set clock and random state of a machine whose snapshot was restored; the first command waits for its sshd.

        :raises MachineError: the guest could not.
        """
        with connect(machine.ssh, deadline, machine.check) as shell:
            shell.run("true", deadline).check()
            line = f"resume {time.time_ns()} {secrets.token_hex(ENTROPY_BYTES)}\n"
            said = shell.run(CONTROL, deadline, stdin=line.encode()).text()
        if "OK" not in said.split():
            raise MachineError(f"setting the restored machine's clock and random state: the guest answered {said!r}")

    def _persons(self) -> Sequence[MachineRow]:
        """Return the machines that a person may mean; those of plain ``vagrant up`` where Vagrant's are asked for."""
        return [row for row in self.machines() if row.owner == "person" and (row.registered or self.kind == "vagrant")]


def _row(registration: Registration) -> MachineRow:
    facts = registration.facts
    placed = registration.vagrant
    return MachineRow(
        name=registration.name,
        provider=registration.provider,
        owner=registration.owner,
        state=registration.state,
        host=placed.host if placed is not None else "127.0.0.1",
        release=facts.kernel.release if facts else "",
        accelerator=facts.accelerator if facts else "",
        clock=facts.clock if facts else "",
        port=registration.port,
        created=registration.created,
    )


def _listed(rows: Sequence[MachineRow]) -> str:
    names = ", ".join(f"{row.name} ({row.release})" for row in rows)
    return f"yours are: {names}" if names else "start one: invoke vm.up --kernel 6.1"
