"""Every error a person can meet, in one tree.

``LabError`` is the root. Each class carries the exit code that the command line returns for it; each
instance carries a message (what happened) and a hint (what to do next). Nothing else may leave the program::

    LabError                    70  a defect of the lab itself
    ├── UsageError              10  an argument, option or name that cannot be meant
    ├── ConfigError             11  kernels.toml, lab.toml or the lock does not hold together
    ├── SetupError              12  something the host must bring is missing
    ├── MirrorError             13  a package cannot be fetched
    ├── IntegrityError          14  a hash, size or signature does not match
    ├── BuildError              15  an artefact, workload or BPF object could not be built
    ├── DiskFullError           16  no space left
    ├── ReproducibilityError    17  a second build gave other bytes
    ├── MachineError            20  a machine could not be used (base of the next six)
    │   ├── QemuDiedError       21  QEMU ended by itself
    │   ├── KernelPanicError    22  the guest's kernel panicked
    │   ├── HangError           23  the guest did not answer before the deadline
    │   ├── SshError            24  SSH failed although the machine lives
    │   ├── PortError           25  a host port is taken
    │   └── VagrantError        26  Vagrant refused or failed
    ├── LabFailedError          30  the workload failed
    │   ├── ProbeError          31  a probe plan cannot be made, or the kernel refused a program
    │   └── OutputError         32  the workload's output is not what the protocol asks for
    ├── RecordError             40  a run record is missing, broken or of an unknown schema
    ├── ExpectationError        50  a verdict is not the expected one
    └── Interrupted            130  Ctrl-C or a signal

Exit code 1 stays with Invoke's own parser, 0 is success.
"""

from __future__ import annotations

from typing import ClassVar


class LabError(Exception):
    """Root of all errors that are shown to a person.

    :param message: what happened, one sentence, naming the thing it happened to.
    :param hint: what to do next; a command where one helps.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(LabError):
    """An argument, option or name that cannot be meant."""

    exit_code = 10


class ConfigError(LabError):
    """kernels.toml, lab.toml or the lock does not hold together."""

    exit_code = 11


class SetupError(LabError):
    """Something that the host must bring is missing."""

    exit_code = 12


class MirrorError(LabError):
    """A package cannot be fetched from any source."""

    exit_code = 13


class IntegrityError(LabError):
    """A hash, size or signature does not match what the lock or the keyring says."""

    exit_code = 14


class BuildError(LabError):
    """An artefact, a workload or a BPF object could not be built."""

    exit_code = 15


class DiskFullError(LabError):
    """No space is left where something must be written."""

    exit_code = 16


class ReproducibilityError(LabError):
    """A second build of the same inputs gave other bytes."""

    exit_code = 17


class MachineError(LabError):
    """A machine could not be used."""

    exit_code = 20


class QemuDiedError(MachineError):
    """QEMU ended by itself, without a panic of the guest's kernel."""

    exit_code = 21
    signal = 0
    """The signal that ended it; 0: none, or it is not known."""


class KernelPanicError(MachineError):
    """The guest's kernel panicked; the console log has its words."""

    exit_code = 22


class HangError(MachineError):
    """The guest did not answer before the deadline."""

    exit_code = 23


class SshError(MachineError):
    """SSH failed although the machine lives."""

    exit_code = 24


class PortError(MachineError):
    """A host port that is needed is taken."""

    exit_code = 25


class VagrantError(MachineError):
    """Vagrant refused or failed, for a reason that is neither the host's set-up nor the deadline."""

    exit_code = 26


class MachineLockedError(VagrantError):
    """Another Vagrant process is at work on the machine."""

    exit_code = 27


class LabFailedError(LabError):
    """The workload of a lab failed: it died, hung or reported an error."""

    exit_code = 30


class ProbeError(LabFailedError):
    """A probe plan cannot be made for a binary, or the kernel refused a BPF program."""

    exit_code = 31


class OutputError(LabFailedError):
    """A workload's output is not what the protocol asks for, or is too large."""

    exit_code = 32


class RecordError(LabError):
    """A run record is missing, broken or of an unknown schema."""

    exit_code = 40


class ExpectationError(LabError):
    """A verdict is not the one that was expected."""

    exit_code = 50


class Interrupted(LabError):
    """Ctrl-C, or a signal that asks the program to end."""

    exit_code = 130
