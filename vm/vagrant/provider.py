"""The Vagrant provider: machines that ``vagrant up`` makes of the lab's own boxes.

A run's machine has a data folder and a domain of its own and is destroyed at the end. A person's machine is the one
that ``vagrant up lab-6.1`` makes in this checkout: either of the two commands starts it, and both work on it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from vm.boxes.grub import command_line
from vm.boxes.plans import FORMS
from vm.deadline import Deadline
from vm.errors import LabError, MachineError, MachineLockedError, SetupError, UsageError, VagrantError
from vm.machine import Accelerator, MachineFacts, MachineRequest
from vm.model import Kernel
from vm.paths import Layout
from vm.qemu import accel
from vm.qemu.parts import Parts
from vm.registered import CONSOLE
from vm.registry import Registration, Registry, orphaned
from vm.vagrant import domain, firstcopy, hostkey, remains
from vm.vagrant.domain import Placed, created, kernel_line, machine_id, machine_name, person_data
from vm.vagrant.machine import ASK_SECONDS, BY_DESTROYING, BY_SNAPSHOT, RUNNING, STATES, VagrantMachine
from vm.vagrant.versions import qemu_version, vagrant_version

SNAPSHOT = "kmlab-first-start"
"""Name of the snapshot that a person's machine is reset to."""

RESTORE_SECONDS = 90.0
"""Time that a snapshot gets; restoring one took 9 to 11 s on an emulated machine."""

Say = Callable[[str], None]
"""Takes one short sentence on what happens now."""


class Login(Protocol):
    """What of :class:`vm.vagrant.client.Login` is used here."""

    @property
    def host(self) -> str:
        """Address."""

    @property
    def port(self) -> int:
        """Of its sshd."""

    @property
    def user(self) -> str:
        """Who logs in."""

    @property
    def private_key(self) -> Path:
        """Path of the key."""


class Client(Protocol):
    """What of :class:`vm.vagrant.client.Vagrant` is used here."""

    def up(self, machine: str, deadline: Deadline) -> None:
        """Bring ``machine`` up, making it if there is none."""

    def destroy(self, machine: str, deadline: Deadline) -> None:
        """Destroy it; what is not there is fine."""

    def state(self, machine: str, deadline: Deadline) -> str:
        """Return Vagrant's word for what it does."""

    def login(self, machine: str, deadline: Deadline) -> Login:
        """Return where to log in; asked once until :meth:`forget`."""

    def forget(self, machine: str) -> None:
        """Ask anew for the login."""

    def snapshot_save(self, machine: str, name: str, deadline: Deadline) -> None:
        """Keep its state under ``name``."""

    def snapshot_restore(self, machine: str, name: str, deadline: Deadline) -> None:
        """Bring that state back."""


MakeClient = Callable[[Path, Path, Mapping[str, str]], Client]


def _real_client(data: Path, log: Path, variables: Mapping[str, str]) -> Client:
    from vm.vagrant.client import Vagrant

    return Vagrant(data, log, variables=variables)


def _say_nothing(_: str) -> None:
    return


class VagrantProvider:
    """Starts machines through Vagrant. See :class:`vm.machine.Provider`.

    :param parts: gives the artefacts of a kernel, which the boxes are made of.
    :param kernel: gives the locked kernel of a line.
    :param box: sees to it that there is a box of a kernel for Vagrant to take, and returns its version.
    :param resume: sets clock and random state of a machine whose snapshot was restored, through SSH.
    :param make: makes the adapter for a data folder, a log and variables of the Vagrantfile.
    """

    def __init__(
        self,
        layout: Layout,
        parts: Callable[[Kernel], Parts],
        kernel: Callable[[str], Kernel],
        box: Callable[[Kernel], str],
        say: Say = _say_nothing,
        resume: Callable[[VagrantMachine, Deadline], None] = lambda _, __: None,
        make: MakeClient = _real_client,
    ) -> None:
        self.layout = layout
        self.registry = Registry(layout, make)
        self._parts = parts
        self._kernel = kernel
        self._box = box
        self._say = say
        self._resume = resume
        self._make = make
        self._clients: dict[str, Client] = {}

    # Starting.

    def start(self, request: MachineRequest, deadline: Deadline) -> VagrantMachine:
        """Start a machine; see :meth:`vm.machine.Provider.start`.

        A person's machine that Vagrant has made already is taken over, and brought up if it was halted.

        :raises UsageError: Vagrant has no such machine: of a kernel of one's own, with another clock, name or port.
        """
        machine = machine_name(request.kernel)
        _refuse_unfit(request, machine)
        for name in self.registry.sweep(self._say):
            self._say(f"cleared machine {name}, whose owner had died")
        if request.owner == "person":
            self._forget_destroyed(machine)
            if machine in created(person_data()):
                return self._take_over(machine, deadline)
        parts = self._parts(request.kernel)
        accelerator = accel.choose(request.accel, self.layout, parts, deadline)
        return self._start_new(request, machine, self._facts(request, parts, accelerator), deadline)

    def _forget_destroyed(self, name: str) -> None:
        """Make room for a person's machine whose predecessor was destroyed behind our back."""
        machine = self.find(name)
        if machine is None or not machine.registration.ready:
            return
        if not machine_id(Path(machine.placed.data), machine.placed.machine):
            self._say(f"machine {name} was destroyed outside of this lab: another one is made")
            self.registry.forget(name)

    def _start_new(
        self, request: MachineRequest, machine: str, facts: MachineFacts, deadline: Deadline
    ) -> VagrantMachine:
        registration = self.registry.create(request.name, request.owner, "vagrant")
        if request.owner == "person":
            placed = Placed(data=str(person_data()), machine=machine)
        else:
            data = self.registry.path(registration.name) / "vagrant"
            placed = Placed(data=str(data), machine=machine, prefix=f"kmlab-{registration.name}-")
        made = VagrantMachine(self, registration)
        try:
            made.update(facts=facts, vagrant=placed)
            self._bring_up(made, deadline)
            if request.owner == "person":
                self._save(made, deadline)
            made.update(ready=True)
        except BaseException as error:
            if request.owner == "person" and isinstance(error, MachineLockedError):
                self.registry.forget(made.name)  # another vagrant is making it: it is that one's
            else:
                made.stop()
            raise
        return made

    def _bring_up(self, machine: VagrantMachine, deadline: Deadline) -> None:
        """Let Vagrant bring a machine up that does not run, and learn what it is by then."""
        machine.console_path.unlink(missing_ok=True)
        machine.look_anew()
        self._clients.pop(machine.name, None)
        placed, kernel = machine.placed, machine.facts().kernel
        with contextlib.ExitStack() as stack:
            if not machine_id(Path(placed.data), placed.machine):
                box = self._box(kernel)
                stack.enter_context(firstcopy.turn(self.layout, kernel.line, box, deadline, self._say))
            self.client(machine).up(placed.machine, deadline)
        self._join(machine, deadline)

    def _join(self, machine: VagrantMachine, deadline: Deadline) -> None:
        """Register where a running machine is: its domain, process, login and host key.

        A domain keeps its host key: it is learned once for each UUID.

        :raises MachineError: it does not tell its host key.
        """
        placed = machine.placed
        uuid = machine_id(Path(placed.data), placed.machine)
        known = machine.registration.host_key if uuid and uuid == placed.uuid else ""
        snapshot = placed.snapshot if known else ""
        client = self.client(machine)
        client.forget(placed.machine)
        login = client.login(placed.machine, deadline)
        machine.place(
            uuid=uuid, snapshot=snapshot, host=login.host, user=login.user, private_key=str(login.private_key)
        )
        machine.update(qemu=None, port=login.port)
        machine.locate()
        self._describe(machine)
        key = known or hostkey.wait_on_console(machine.console_path, deadline)
        if not key:
            self._say(f"the console of {machine.name} is not kept: its host key is taken as it shows it now")
            key = hostkey.ask(login.host, login.port, deadline)
        machine.update(host_key=key)

    def _describe(self, machine: VagrantMachine) -> bool:
        """Correct the facts by the command line of the machine's QEMU: that is what was really started.

        :returns: whether that command line can be seen.
        """
        found = domain.find(machine.placed.uuid)
        seen = domain.seen(found.words) if found is not None else None
        box = domain.box_version(Path(machine.placed.data), machine.placed.machine)
        details = f"Vagrant {vagrant_version(self.layout)}, libvirt, box {box or 'of unknown version'}"
        machine.update(facts=msgspec.structs.replace(machine.facts(), provider_details=details))
        if seen is None:
            return False
        facts = msgspec.structs.replace(
            machine.facts(),
            qemu_version=qemu_version(self.layout, seen.program),
            accelerator=seen.accelerator,
            cpu_model=seen.cpu_model,
            machine_type=seen.machine_type,
            cpus=seen.cpus,
            memory_mib=seen.memory_mib,
            clock="kvm" if seen.accelerator == "kvm" else "emulated",
            cmdline=_command_line(seen.accelerator),
        )
        machine.update(facts=facts)
        return True

    def _facts(self, request: MachineRequest, parts: Parts, accelerator: Accelerator) -> MachineFacts:
        return MachineFacts(
            provider="vagrant",
            kernel=request.kernel,
            qemu_version=qemu_version(self.layout),
            accelerator=accelerator,
            cpu_model="host-passthrough" if accelerator == "kvm" else "Haswell-noTSX",
            machine_type="q35",
            cpus=request.cpus,
            memory_mib=request.memory_mib,
            clock="kvm" if accelerator == "kvm" else "emulated",
            cmdline=_command_line(accelerator),
            start="cold",
            lock_digest=parts.lock_digest,
            tools_sha256=parts.tools.sha256,
            base_sha256=parts.base_sha256,
            bundle_sha256=parts.bundle_sha256,
        )

    # Finding again.

    def find(self, name: str) -> VagrantMachine | None:
        """Return a registered machine by name, or None."""
        registration = self.registry.read(name)
        if registration is None or registration.owner == "ended" or registration.vagrant is None:
            return None
        return VagrantMachine(self, registration)

    def get(self, name: str) -> VagrantMachine:
        """Return a machine by name, as it is by now.

        One that was halted is brought up again, one that was made anew is taken as it is. One that runs costs nothing:
        Vagrant is not asked.

        :raises UsageError: there is none; one that was destroyed is registered as ended.
        """
        machine = self.find(name)
        if machine is not None and orphaned(machine.registration):
            self.registry.forget(name)  # who was starting it has died; what Vagrant made by then is taken as it is
            machine = None
        if machine is None:
            if name not in self.unregistered():
                raise UsageError(
                    f"no machine named {name} is with Vagrant",
                    "invoke vm.up --provider vagrant --kernel 6.1 starts one",
                )
            return self._take_over(name, Deadline.after(ASK_SECONDS * 10))
        if not machine.registration.ready:
            raise UsageError(f"machine {name} is being started", "invoke vm.status shows when it runs")
        uuid = machine_id(Path(machine.placed.data), machine.placed.machine)
        known = machine.registration.qemu
        if uuid and machine.owner == "person" and uuid != machine.placed.uuid:
            self._say(f"machine {name} was destroyed and made anew by others: it is taken as it is now")
            self.registry.forget(name)
            return self._take_over(name, Deadline.after(ASK_SECONDS * 10))
        # Another process is another start, which may have been told other CPUs, memory and address.
        if uuid and uuid == machine.placed.uuid and machine.alive() and machine.registration.qemu == known:
            return machine
        self._mend(machine, Deadline.after(ASK_SECONDS * 10))
        return machine

    def unregistered(self) -> list[str]:
        """Return the machines that ``vagrant up`` has made in this checkout and that are not registered."""
        registered = {registration.name for registration in self.registry.all()}
        return [name for name in created(person_data()) if name not in registered]

    def _take_over(self, name: str, deadline: Deadline) -> VagrantMachine:
        """Register a person's machine that Vagrant has made, or return the one that is registered."""
        machine = self.find(name)
        if machine is not None:
            if Path(machine.placed.data) != person_data():
                raise UsageError(
                    f"machine {name} is that of another checkout: {machine.placed.data}",
                    f"invoke vm.down --name {name} ends it",
                )
            if machine.registration.ready and machine.alive():
                raise UsageError(f"a machine named {name} is there already", f"invoke vm.down --name {name} ends it")
            return self.get(name)
        kernel = self._kernel(kernel_line(name))
        box, found = self._box(kernel), domain.box_version(person_data(), name)
        if found != box:
            raise UsageError(
                f"machine {name} was made of box {found or 'of no known version'}, and the lock's is {box}",
                f"vagrant destroy {name}, then invoke vm.up --provider vagrant --kernel {kernel.line}",
            )
        parts = self._parts(kernel)
        registration = self.registry.create(name, "person", "vagrant")
        machine = VagrantMachine(self, registration)
        try:
            facts = self._facts(MachineRequest(kernel), parts, "tcg")
            machine.update(facts=facts, vagrant=Placed(data=str(person_data()), machine=name, adopted=True))
            self._mend(machine, deadline)
            if not self._describe(machine):
                raise SetupError(
                    f"machine {name} runs, and its QEMU cannot be seen: what it is would be a guess",
                    f"this host hides the processes of others; vagrant destroy {name}, then let invoke vm.up make it",
                )
            machine.update(ready=True)
        except BaseException:
            self.registry.forget(name)  # what a person had made stays as it is
            raise
        return machine

    def _mend(self, machine: VagrantMachine, deadline: Deadline) -> None:
        """Make a machine that was changed behind our back usable again, and say what was done.

        :raises UsageError: it was destroyed. :raises VagrantError: Vagrant does not say what it does.
        """
        name, state = machine.name, machine.state()
        if state in RUNNING:
            self._join(machine, deadline)
            return
        if state == "not_created":
            self.registry.forget(name)
            command = f"invoke vm.up --provider vagrant --kernel {kernel_line(name) or '6.1'}"
            raise UsageError(f"machine {name} was destroyed outside of this lab", f"{command} starts another")
        if not state:
            raise VagrantError(f"Vagrant does not say what machine {name} does", f"see {machine.folder / remains.LOG}")
        self._say(f"machine {name} {STATES.get(state, f'is {state}')}: it is brought up again")
        self._bring_up(machine, deadline)

    # Resetting and ending.

    def reset(self, machine: VagrantMachine, deadline: Deadline) -> str:
        """Bring back the state of the first start; return how that was done, as a clause."""
        placed = machine.placed
        if placed.snapshot:
            try:
                with contextlib.suppress(OSError):
                    os.truncate(machine.console_path, 0)  # a panic from before is over
                soon = deadline.within(RESTORE_SECONDS)  # so that time is left for the other way
                self.client(machine).snapshot_restore(placed.machine, placed.snapshot, soon)
                machine.look_anew()
                machine.update(qemu=None)
                machine.locate()
                self._resume(machine, soon)
            except MachineError as error:
                deadline.check(f"resetting machine {machine.name}")
                self._say(f"the snapshot of {machine.name} is of no use ({error.message}): it is made anew")
            else:
                return BY_SNAPSHOT
        self.client(machine).destroy(placed.machine, deadline)
        machine.place(uuid="", snapshot="", adopted=False)
        machine.update(qemu=None, cpu_threads=[], host_key="")
        self._bring_up(machine, deadline)
        if machine.owner == "person":
            self._save(machine, deadline)
        return BY_DESTROYING

    def _save(self, machine: VagrantMachine, deadline: Deadline) -> None:
        """Keep the state that a reset goes back to; a machine is of use without it."""
        try:
            self.client(machine).snapshot_save(machine.placed.machine, SNAPSHOT, deadline)
        except MachineError as error:
            deadline.check(f"starting machine {machine.name}")
            self._say(f"no snapshot of {machine.name} ({error.message}): a reset destroys it and makes it anew")
        else:
            machine.place(snapshot=SNAPSHOT)

    def stop(self, machine: VagrantMachine) -> None:
        """Destroy a machine; where that fails it is told, and the next start tries again."""
        self._clients.pop(machine.name, None)
        try:
            self.registry.end(machine.name)
        except LabError as error:
            self._say(f"{error.message}; it is tried again at a later start. {error.hint}")

    def end_unregistered(self, name: str) -> None:
        """Destroy a machine that plain ``vagrant up`` has made.

        :raises LabError: Vagrant cannot.
        """
        log = self.layout.state / remains.LOG
        log.parent.mkdir(parents=True, exist_ok=True)
        self._make(person_data(), log, {}).destroy(name, Deadline.after(remains.DESTROY_SECONDS))

    def client(self, machine: VagrantMachine) -> Client:
        """Return the adapter for one machine, which remembers its login."""
        if machine.name not in self._clients:
            placed = machine.placed
            data, log = Path(placed.data), machine.folder / remains.LOG
            self._clients[machine.name] = self._make(data, log, variables(machine.registration, machine.folder))
        return self._clients[machine.name]


def variables(registration: Registration, folder: Path) -> dict[str, str]:
    """Return what the Vagrantfile is to be told of a machine."""
    placed = registration.vagrant
    if placed is None or placed.adopted:  # whoever made it has told the Vagrantfile, or left it at its defaults
        return {}
    found = remains.prefix(placed)
    if os.geteuid() == 0:  # libvirt's logger makes the file anew, and only root may read what it makes
        found["LAB_CONSOLE"] = str(folder / CONSOLE)
    if registration.facts is not None:
        found |= {
            "LAB_MEMORY": str(registration.facts.memory_mib),
            "LAB_CPUS": str(registration.facts.cpus),
            "LAB_ACCEL": registration.facts.accelerator,
        }
    return found


def _command_line(accelerator: Accelerator) -> str:
    return command_line(accelerator, FORMS["libvirt"].device)


def _refuse_unfit(request: MachineRequest, machine: str) -> None:
    """Refuse what machines of Vagrant do not have.

    :raises UsageError: the request asks for it.
    """
    if request.clock == "virtual":
        raise UsageError(
            "a machine of Vagrant's has the host's clock: libvirt counts no instructions",
            "leave --clock away, or --provider vagrant",
        )
    if request.owner == "person" and request.name != machine:
        raise UsageError(
            f"a machine of Vagrant's is called as in the Vagrantfile: {machine}, not {request.name}",
            "leave --name away; the QEMU provider takes any name",
        )
    if request.port:
        raise UsageError("a machine of Vagrant's has an address of its own and no port of this host", "leave it away")
