"""One machine of Vagrant's: seen through its process, its console log and what is registered of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from vm.deadline import Deadline
from vm.errors import LabError, MachineError, VagrantError
from vm.machine import SshTarget
from vm.qemu.console import lockup
from vm.registered import RegisteredMachine
from vm.registry import Process, Registration
from vm.vagrant import domain, hostkey
from vm.vagrant.domain import Placed
from vm.vagrant.trouble import INSTALL
from vm.watch import ConsoleWatch

if TYPE_CHECKING:
    from vm.vagrant.provider import VagrantProvider

KEEPALIVE_SECONDS = 15
"""libvirt lets a machine that reboots start again: only a packet tells then that the old connection is gone."""
ASK_SECONDS = 60.0
"""Time for a question to Vagrant, which takes one or two seconds on an idle host."""
PAUSE_SECONDS = 5.0
"""How often Vagrant is asked, at most, whether a machine runs whose process cannot be seen."""

BY_SNAPSHOT = "its snapshot was restored"
BY_DESTROYING = "it was destroyed and brought up again"

RUNNING = ("running", "inaccessible")
"""Vagrant's words for a machine that runs; the second one has no address, or none yet."""

STATES = {
    "not_created": "was destroyed",
    "shutoff": "was halted, or turned itself off",
    "paused": "was paused",
    "saved": "was suspended",
    "crashed": "crashed",
}
"""Vagrant's words for a machine that does not run → what happened to it."""


class VagrantMachine(RegisteredMachine):
    """One machine under Vagrant. See :class:`vm.machine.Machine`."""

    def __init__(self, provider: VagrantProvider, registration: Registration) -> None:
        super().__init__(provider.registry, registration)
        self._provider = provider
        self._watch = ConsoleWatch(registration.name, self.console_path)
        self._begin: int | None = None
        self._asked = (0.0, "")
        self.how_reset = ""
        """What the last reset did, as a clause: its provider decides."""

    @property
    def placed(self) -> Placed:
        """Where it is with Vagrant."""
        if self._registration.vagrant is None:
            raise MachineError(f"machine {self.name} is none of Vagrant's")
        return self._registration.vagrant

    @property
    def ssh(self) -> SshTarget:
        """Where to log in."""
        placed, registration = self.placed, self._registration
        return SshTarget(
            placed.host,
            registration.port,
            placed.user,
            Path(placed.private_key),
            registration.host_key,
            KEEPALIVE_SECONDS,
        )

    def alive(self) -> bool:
        """Return whether it still runs: whether there is a process with its domain's UUID.

        Only where none was ever seen (processes of others are hidden on this host) Vagrant is asked, now and then.
        """
        qemu = self._registration.qemu
        if qemu is not None:
            return qemu.identity.alive or self.locate()
        return self.locate() or self.state(PAUSE_SECONDS) in RUNNING

    def check(self) -> None:
        """Raise if the kernel panicked or the machine does not run.

        :raises KernelPanicError: the console shows a panic.
        :raises VagrantError: it shows a CPU that is stuck; or the machine was halted or destroyed.
        """
        alive = self.alive()  # before the log is read: the kernel writes its panic, then ends
        self._check_console()
        if not alive:
            state = self.state()
            what = STATES.get(state, f"is {state}" if state else "does not run")
            raise VagrantError(
                f"machine {self.name} {what} while it was in use",
                f"{self.folder / 'vagrant.log'} has what Vagrant said",
            )

    def _check_console(self) -> None:
        """Look at what the console says since this object first looked: what was before is over.

        libvirt lets a machine start again that panicked or was rebooted. Its init then prints the host key once more.
        """
        if self._begin is None:
            self._begin = hostkey.last_boot(self.console_path)
        text = self._watch.grown(self._begin)
        if text is None:
            return
        self._watch.judge(text)
        stuck = lockup(text)
        if stuck:
            version = self.facts().qemu_version
            raise VagrantError(
                f"machine {self.name} is locked up: {stuck}",
                f"QEMU {version} of this host may do so where it emulates several CPUs (7.2 does, 10 was never seen "
                f"to): run it again, or install a newer one ({INSTALL} does on Debian 12)",
            )
        if hostkey.MARK in text:
            self.look_anew()
            raise VagrantError(f"machine {self.name} was restarted while it was in use", f"see {self.console_path}")

    def look_anew(self) -> None:
        """Forget what the console has said until now."""
        self._begin = None
        self._watch.forget()

    def state(self, not_older: float = 0.0) -> str:
        """Return Vagrant's word for what it does; empty where Vagrant cannot tell.

        :param not_older: seconds that an earlier answer is good for.
        """
        at, word = self._asked
        if word and time.monotonic() - at < not_older:
            return word
        try:
            word = self._provider.client(self).state(self.placed.machine, Deadline.after(ASK_SECONDS))
        except LabError:
            word = ""
        self._asked = (time.monotonic(), word)
        return word

    def locate(self) -> bool:
        """Look for the process of the domain and remember it; return whether there is one."""
        found = domain.find(self.placed.uuid)
        if found is None:
            return False
        qemu = Process(pid=found.process.pid, started=found.process.started)
        if qemu != self._registration.qemu:
            self.update(qemu=qemu, cpu_threads=list(domain.cpu_threads(qemu.pid)))
        return True

    def reset(self, deadline: Deadline) -> None:
        """Bring back the state of its first start: by the snapshot of then, else by destroying it and a new start.

        :raises MachineError: it did not come up.
        """
        self._asked = (0.0, "")
        self.how_reset = self._provider.reset(self, deadline)
        self.look_anew()

    def stop(self) -> None:
        """Destroy it and remove all but the logs. Where that fails, it is told and tried again at the next start."""
        self._provider.stop(self)
        self._registration = msgspec.structs.replace(self._registration, qemu=None, ready=False, owner="ended")

    def place(self, **changes: object) -> None:
        """Change where it is with Vagrant."""
        self.update(vagrant=msgspec.structs.replace(self.placed, **changes))
