"""Vagrant as the provider sees it, played by this process: a machine is a `sleep` whose words have a domain's UUID."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.vm.qemu_parts import KERNEL
from vm.deadline import Deadline
from vm.errors import HangError, MachineLockedError, VagrantError
from vm.machine import MachineRequest
from vm.vagrant import domain
from vm.vagrant.machine import VagrantMachine
from vm.vagrant.provider import VagrantProvider

SECONDS = 30.0
BOX = "20261125.22231.1"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"


@dataclass(frozen=True, slots=True)
class FakeLogin:
    host: str
    port: int
    user: str
    private_key: Path


@dataclass
class FakeHost:
    """Everything that Vagrant has on a host: domains by UUID, and what was asked, in order.

    :param fails: command → what Vagrant says instead of doing it.
    :param console: what a machine that starts writes to its console.
    :param memory: MiB of the machines that start, and ``cpus``: whatever the variables say, as a Vagrantfile may.
    :param hangs: commands that are over only when their deadline is. :param waited: how long each got, in seconds.
    """

    asked: list[str] = field(default_factory=list)
    variables: list[dict[str, str]] = field(default_factory=list)
    fails: dict[str, str] = field(default_factory=dict)
    console: str = "[    0.1] Linux\r\nKMLAB-HOST-KEY {key}\r\n"
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    snapshots: dict[str, list[str]] = field(default_factory=dict)
    hangs: set[str] = field(default_factory=set)
    waited: list[float] = field(default_factory=list)
    memory: int = 1024
    cpus: int = 2
    made: int = 0

    def client(self, data: Path, log: Path, variables: Mapping[str, str]) -> FakeVagrant:
        self.variables.append(dict(variables))
        return FakeVagrant(self, data, log, dict(variables))

    def boot(self, identity: str) -> None:
        size = f"-m {self.memory} -smp {self.cpus},sockets={self.cpus}"
        words = f"-machine pc-q35-7.2,usb=off -accel tcg -cpu Haswell-noTSX,pcid=off {size} -uuid"
        self.running[identity] = subprocess.Popen(
            ["sh", "-c", "sleep 1000 & wait", "qemu", *words.split(), identity], start_new_session=True
        )
        while domain.find(identity) is None:
            time.sleep(0.005)

    def halt(self, identity: str) -> None:
        """End the domain, as `vagrant halt` from elsewhere, or the machine itself."""
        with contextlib.suppress(KeyError):
            child = self.running.pop(identity)
            subprocess.run(["pkill", "-KILL", "-s", str(child.pid)], check=False)
            child.wait()

    def end(self) -> None:
        for identity in list(self.running):
            self.halt(identity)


@dataclass
class FakeVagrant:
    host: FakeHost
    data: Path
    log: Path
    variables: dict[str, str]

    def _asked(self, command: str, machine: str) -> None:
        self.host.asked.append(f"{command} {machine}")
        with self.log.open("a") as log:
            log.write(f"vagrant {command} {machine}\n")
        if command in self.host.fails:
            kind = MachineLockedError if "another Vagrant process" in self.host.fails[command] else VagrantError
            raise kind(self.host.fails[command], f"see {self.log}")

    def _id(self, machine: str) -> Path:
        return self.data / "machines" / machine / "libvirt" / "id"

    def up(self, machine: str, deadline: Deadline) -> None:
        self._asked("up", machine)
        deadline.check("vagrant up")
        path = self._id(machine)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(uuid.uuid4()))
            meta = {"name": "kmlab/6.1", "version": BOX, "provider": "libvirt"}
            path.with_name("box_meta").write_text(json.dumps(meta))
            self.host.made += 1
        self.host.boot(path.read_text())
        if "LAB_CONSOLE" in self.variables:
            Path(self.variables["LAB_CONSOLE"]).write_text(self.host.console.format(key=f"{HOST_KEY}{self.host.made}"))

    def destroy(self, machine: str, deadline: Deadline) -> None:
        self._asked("destroy", machine)
        deadline.check("vagrant destroy")
        path = self._id(machine)
        if path.exists():
            self.host.halt(path.read_text())
            self.host.snapshots.pop(path.read_text(), None)
            path.unlink()

    def state(self, machine: str, deadline: Deadline) -> str:
        self._asked("state", machine)
        deadline.check("vagrant status")
        path = self._id(machine)
        if not path.exists():
            return "not_created"
        return "running" if path.read_text() in self.host.running else "shutoff"

    def login(self, machine: str, deadline: Deadline) -> FakeLogin:
        self._asked("login", machine)
        deadline.check("vagrant ssh-config")
        return FakeLogin("192.168.121.7", 22, "root", self.data / "private_key")

    def forget(self, machine: str) -> None:
        """Nothing is remembered here."""

    def snapshot_save(self, machine: str, name: str, deadline: Deadline) -> None:
        self._asked("snapshot_save", machine)
        deadline.check("vagrant snapshot save")
        self.host.snapshots.setdefault(self._id(machine).read_text(), []).append(name)

    def snapshot_restore(self, machine: str, name: str, deadline: Deadline) -> None:
        self._asked("snapshot_restore", machine)
        if "snapshot_restore" in self.host.hangs:
            self.host.waited.append(deadline.remaining)
            raise HangError("vagrant snapshot restore was not over")
        deadline.check("vagrant snapshot restore")
        if name not in self.host.snapshots.get(self._id(machine).read_text(), []):
            raise VagrantError(f"there is no snapshot {name}")


@dataclass
class Bench:
    """A provider, the Vagrant that it talks to, and what it said and resumed."""

    provider: VagrantProvider
    host: FakeHost
    data: Path
    said: list[str]
    resumed: list[str]

    def start(self, **wishes: object) -> VagrantMachine:
        request = MachineRequest(KERNEL, accel="tcg", **wishes)  # type: ignore[arg-type]
        return self.provider.start(request, Deadline.after(SECONDS))

    def person(self) -> VagrantMachine:
        return self.start(owner="person", name="lab-6.1")

    def plain_up(self, memory: int = 1024, cpus: int = 2) -> str:
        """Do what a person does with `LAB_MEMORY=… LAB_CPUS=… vagrant up lab-6.1`; return the domain's UUID."""
        self.host.memory, self.host.cpus = memory, cpus
        log = self.data.parent / "plain.log"
        self.host.client(self.data, log, {}).up("lab-6.1", Deadline.after(SECONDS))
        return domain.machine_id(self.data, "lab-6.1")

    def plain_destroy(self) -> None:
        self.host.client(self.data, self.data.parent / "plain.log", {}).destroy("lab-6.1", Deadline.after(SECONDS))

    def commands(self) -> list[str]:
        """Return what was asked since the last time, without questions."""
        asked, self.host.asked = self.host.asked, []
        return [words for words in asked if not words.startswith(("state", "login"))]
