"""A run's place in a machine: a connection, and a folder with what was pushed. It can be renewed.

What a workload that was ended leaves behind is not known: a full disk, exhausted memory, threads in odd states. So
the next phase gets another place. A machine of the run's own is reset to the state it was restored from. On a person's
machine, whose state is theirs, all processes of the workload are ended and the run's folder is removed.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from go_labs.evidence import PhaseEvidence
from go_labs.spec import Phase
from provision import payload, phases
from provision.payload import Payload
from provision.phases import Workload
from provision.ssh import Shell, connect
from provision.transfer import push, push_whole
from vm.deadline import Deadline
from vm.errors import HangError, LabError, OutputError, SshError
from vm.machine import Clock, Machine

GUEST_FOLDER = "/lab"
"""Where runs lie in a machine, a folder each."""

RESET_SECONDS = 300.0
"""Time that a machine gets to come up again, as at its start on a loaded host."""

LEAVING_SECONDS = 30.0
"""Time to end what runs in a person's machine and to remove the folder there."""

Progress = Callable[[str], None]
"""Takes one short sentence on what happens now."""


@dataclass(slots=True)
class Workplace:
    """Where the phases of a run take place; a context manager that connects, pushes, and leaves nothing running.

    :param arguments: of the workload; ``seed``: of everything random in it.
    :param owned: the machine is this run's own, so that it may be reset.
    :param clock: of the machine.
    :param timings: gets ``connect_seconds`` and ``push_seconds`` of the first time.
    """

    machine: Machine
    payload: Payload
    arguments: tuple[str, ...]
    seed: int
    deadline: Deadline
    progress: Progress
    owned: bool = True
    timings: dict[str, float] = field(default_factory=dict)
    clock: Clock = "emulated"
    _shell: Shell | None = None
    _workload: Workload | None = None
    _answers: bool = True

    @property
    def shell(self) -> Shell:
        """The connection as it is now; another one after a workload was ended."""
        if self._shell is None:
            raise SshError("there is no connection to the machine", "its console log may say why")
        return self._shell

    @property
    def folder(self) -> str:
        """Where the run's files lie in the machine; another one after a workload was ended."""
        return self._placed().folder

    def __enter__(self) -> Self:
        try:
            self._settle()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self.owned:
                # Whatever came before, nothing of this run stays in a machine that lives on.
                with contextlib.suppress(LabError):
                    self._clear()
        finally:
            self._close()

    def change(self, loaded: Payload, arguments: tuple[str, ...]) -> None:
        """Put another workload into the machine instead of the one that is there."""
        self._clear()
        self.payload, self.arguments = loaded, arguments
        self._push()

    def run(self, phase: Phase, staging: Path) -> PhaseEvidence:
        """Run ``phase`` and return its evidence; afterwards the place is fit for the next one.

        A machine that no longer answers (``HangError``, ``SshError``) is the workload's doing, and is told as such.

        :raises MachineError: the machine is lost: QEMU died, its kernel panicked, or it cannot be made fit again.
        """
        began = time.monotonic()
        workload = self._placed()
        try:
            ran = phases.run(
                self.shell, workload, phase, self.seed, staging, self.deadline, self.machine.check, self.clock
            )
            evidence, disturbed = ran.evidence, ran.disturbed
        except (HangError, SshError, OutputError) as error:
            self.machine.check()
            self._answers = isinstance(error, OutputError)
            evidence, disturbed = phases.lost(phase, error, staging, time.monotonic() - began), True
        if not disturbed:
            return evidence
        remark = self._renew(staging)
        return msgspec.structs.replace(evidence, remarks=[*evidence.remarks, remark])

    def keep_kernel_log(self, staging: Path) -> None:
        """Add the kernel's log to ``kernel.log``.

        :raises LabError: the machine does not answer.
        """
        with (staging / "kernel.log").open("ab") as log:
            self.shell.run("dmesg --time-format=raw 2>/dev/null || dmesg", self._short(), stdout=log)

    def _renew(self, staging: Path) -> str:
        """Make the place fit again; return what was done, as a sentence for the reader."""
        if self.owned:
            self.progress("the workload was ended: the machine is reset")
            if self._answers:
                with contextlib.suppress(LabError):
                    self.keep_kernel_log(staging)  # A reset throws it away.
            self._close()
            self.machine.reset(self.deadline.within(RESET_SECONDS))
            self._settle()
            return "the workload was ended, and the machine was reset before anything else ran in it"
        name = self.machine.name
        self.progress(f"the workload was ended: what it left in machine {name} is ended and its folder removed")
        if not self._answers:
            self._close()
            self._connect()
        self._clear()
        self._push()
        return f"all that was left of it in machine {name} was ended and removed; the machine itself was not reset"

    def _placed(self) -> Workload:
        if self._workload is None:
            raise SshError("nothing was pushed to the machine", "its console log may say why")
        return self._workload

    def _settle(self) -> None:
        began = time.monotonic()
        self._connect()
        self.timings.setdefault("connect_seconds", time.monotonic() - began)
        began = time.monotonic()
        self._push()
        self.timings.setdefault("push_seconds", time.monotonic() - began)

    def _connect(self) -> None:
        self._shell = connect(self.machine.ssh, self.deadline, self.machine.check)
        self._answers = True

    def _push(self) -> None:
        kit, shell = self.payload.kit, self.shell
        there = shell.run(f"ls {payload.KITS} 2>/dev/null", self.deadline).text().split()
        if Path(kit.folder).name not in there:
            push_whole(shell, kit.files, kit.folder, self.deadline)
        workload = Workload(f"{GUEST_FOLDER}/{secrets.token_hex(4)}", self.payload.program, self.arguments)
        self._workload = workload
        push(shell, self.payload.files, workload.folder, self.deadline)
        shell.run(f"ln -s {kit.folder}/* {workload.folder}/", self.deadline).check()

    def _clear(self) -> None:
        """End what still runs of the workload and remove its folder."""
        if self._workload is None:
            return
        command = phases.end_command(self._workload)
        try:
            self.shell.run(command, self._short())
        except (HangError, SshError):
            # The connection may have been what broke; the machine gets one more chance.
            self._close()
            self._shell = connect(self.machine.ssh, self._short(), self.machine.check)
            self.shell.run(command, self._short())
        self._workload = None

    def _short(self) -> Deadline:
        """Return a deadline of its own: what is left behind is cleared also where the run's time is over."""
        return Deadline.after(LEAVING_SECONDS)

    def _close(self) -> None:
        if self._shell is not None:
            self._shell.close()
            self._shell = None
