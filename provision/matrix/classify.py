"""From errors, phases and the judge's word to the outcome of an attempt (``go_labs.matrix.Outcome``). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from go_labs.evidence import PhaseEvidence
from go_labs.matrix import Judged, Outcome
from vm.errors import (
    ConfigError,
    HangError,
    KernelPanicError,
    LabError,
    LabFailedError,
    MachineError,
    ProbeError,
    RecordError,
)

OF_THE_RUN: tuple[type[LabError], ...] = (MachineError, LabFailedError, RecordError, ConfigError)
"""Errors that say something of a run. All others (a full disk, what cannot be built) are the host's, and end the
matrix."""


def outcome(
    error: LabError | None, phases: Sequence[PhaseEvidence] = (), judged: Judged | None = None
) -> tuple[Outcome, str]:
    """Return the outcome of an attempt and why, in a clause; the gravest where there are several, from the machine
    upwards.

    :param error: that ended the run early, or that it could not begin with.
    :param judged: None where there is no record.
    """
    failed = [phase for phase in phases if phase.error]
    first = f"phase {failed[0].name}: {failed[0].error}" if failed else ""
    words = error.message if error is not None else first
    if isinstance(error, KernelPanicError):
        return "kernel_panic", words
    if judged is not None and judged.splats:
        return "kernel_splat", judged.splats[0]
    if isinstance(error, HangError) or any(phase.timed_out for phase in failed):
        return "timed_out", words
    if isinstance(error, MachineError):
        return "machine_lost", words
    if any(phase.refused for phase in failed):
        return "load_refused", next(f"phase {phase.name}: {phase.error}" for phase in failed if phase.refused)
    if isinstance(error, ProbeError) and not phases:
        return "load_refused", words
    if error is not None or failed:
        return "lab_failed", words
    if judged is not None and judged.gates:
        return "gate_failed", judged.words
    return "passed", ""
