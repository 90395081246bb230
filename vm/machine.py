"""A machine as the rest of the lab sees it: where to log in, what it is, reset, stop. Providers give machines.

Labs cannot tell which provider a machine comes from. Everything here is an interface; ``vm.qemu`` is the default
implementation, ``vm.vagrant`` the other one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import msgspec

from vm.deadline import Deadline
from vm.errors import UsageError
from vm.model import Kernel

Accelerator = Literal["kvm", "tcg"]
AcceleratorChoice = Literal["auto", "kvm", "tcg"]
Start = Literal["warm", "cold"]
ProviderName = Literal["qemu", "vagrant"]
Clock = Literal["kvm", "emulated", "virtual"]
ClockChoice = Literal["host", "virtual"]

DEFAULT_CPUS = 2
DEFAULT_MEMORY_MIB = 1024

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,47}")


@dataclass(frozen=True, slots=True)
class MachineRequest:
    """What machine is wanted.

    :param clock: ``host``: a second in the machine is one of the host; ``virtual``: the machine is emulated, and its
        time is a count of instructions.
    :param start: ``warm`` restores a saved state (and makes it if there is none yet), ``cold`` boots.
    :param name: how a person finds it again; empty: one is made up.
    :param owner: ``run``: dies with this process, whatever kills it; ``person``: lives on until it is ended by name.
    :param port: loopback port that leads to its sshd; 0: any free one.
    """

    kernel: Kernel
    cpus: int = DEFAULT_CPUS
    memory_mib: int = DEFAULT_MEMORY_MIB
    accel: AcceleratorChoice = "auto"
    clock: ClockChoice = "host"
    start: Start = "warm"
    name: str = ""
    owner: Literal["run", "person"] = "run"
    port: int = 0

    def __post_init__(self) -> None:
        if self.name and not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} cannot be a machine's name",
                "up to 48 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit",
            )
        if self.clock == "virtual" and self.accel == "kvm":
            raise UsageError(
                "a virtual clock counts the instructions of an emulated CPU, which KVM does not have",
                "leave --accel away or choose tcg; or leave --clock away",
            )
        if not 1 <= self.cpus <= 64:
            raise UsageError(f"a machine has 1 to 64 CPUs, not {self.cpus}")
        if not 256 <= self.memory_mib <= 65536:
            raise UsageError(f"a machine has 256 to 65536 MiB of memory, not {self.memory_mib}")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"{self.port} is not a port", "1 to 65535, or 0 for any free one")


@dataclass(frozen=True, slots=True)
class SshTarget:
    """Where a machine's sshd is and how to be sure that it is the right one.

    :param private_key: path of the key to log in with, OpenSSH form, mode 0600.
    :param host_key: ``ssh-ed25519 AAAA…``, the only key that the machine may show.
    :param keepalive: seconds between packets that show whether the machine still knows the connection; 0: none.
    """

    host: str
    port: int
    user: str
    private_key: Path
    host_key: str
    keepalive: int = 0


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is: provenance of every figure that was taken on it.

    :param clock: ``kvm``: the host's clock; ``emulated``: the host's clock, read by an emulated CPU; ``virtual``: a
        count of instructions.
    :param cmdline: the kernel's command line.
    :param provider_details: what else there is to say of the provider: version, and what it starts machines with.
    """

    provider: str
    kernel: Kernel
    qemu_version: str
    accelerator: Accelerator
    cpu_model: str
    machine_type: str
    cpus: int
    memory_mib: int
    clock: Clock
    cmdline: str
    start: Start
    lock_digest: str
    tools_sha256: str
    base_sha256: str
    bundle_sha256: str
    provider_details: str = ""


class Machine(Protocol):
    """One running machine. As a context manager it stops itself at the end."""

    @property
    def name(self) -> str:
        """How a person finds it again."""

    @property
    def ssh(self) -> SshTarget:
        """Where to log in. A :meth:`reset` may change it: a port was taken meanwhile, or the machine has new keys."""

    @property
    def pid(self) -> int:
        """The process of this host that runs it; 0 where none can be told."""

    @property
    def cpu_threads(self) -> tuple[int, ...]:
        """The threads of this host that run the guest's CPUs; none where they cannot be told."""

    @property
    def console_path(self) -> Path:
        """The log of the kernel's console; it outlives the machine."""

    def facts(self) -> MachineFacts:
        """Return what the machine is."""

    def alive(self) -> bool:
        """Return whether it still runs."""

    def check(self) -> None:
        """Return if all is well.

        :raises vm.errors.KernelPanicError: the console shows a panic.
        :raises vm.errors.QemuDiedError: the machine ended by itself, without one.
        :raises vm.errors.VagrantError: likewise, or somebody ended it.
        """

    def reset(self, deadline: Deadline) -> None:
        """Throw away everything that happened in the machine and start it again as it was started first."""

    def stop(self) -> None:
        """End it and remove what it used; its console log stays. Ending what has ended is fine."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Provider(Protocol):
    """Something that can start machines."""

    def start(self, request: MachineRequest, deadline: Deadline) -> Machine:
        """Start a machine and return it when its sshd listens, its clock is right and its random state is its own.

        :raises vm.errors.MachineError: it did not come up; the class says how.
        :raises vm.errors.SetupError: the host cannot do what was asked (an accelerator that does not work).
        """

    def get(self, name: str) -> Machine:
        """Return a machine by name.

        :raises vm.errors.UsageError: there is none that runs.
        """
