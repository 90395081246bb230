"""What the loader leaves: the structs of ``trace.json`` and the records of ``events.bin``.

``labtrace run`` writes both into its ``--out`` folder (``docs/architecture.md``, "The data between them"). They come
out of a machine that a workload shared, so reading them validates everything and believes nothing.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from vm.errors import OutputError

OUTSIDE = 0
"""Segment number of everything that happened outside a segment."""

SELF_TEST = 511
"""Segment number of the goid self-test; the highest that the BPF programs keep counters for."""

EVENT = np.dtype(
    [
        ("start_ns", "<u8"),
        ("duration_ns", "<u8"),
        ("address", "<u8"),
        ("goid", "<u8"),
        ("stack", "<i4"),
        ("tid", "<u4"),
        ("segment", "<u2"),
        ("kind", "u1"),
        ("reason", "u1"),
        ("pad", "<u4"),
    ]
)
"""One record of ``events.bin``, 48 bytes.

``start_ns`` is CLOCK_MONOTONIC of the machine, ``duration_ns`` nanoseconds, ``address`` the object waited for (a
runtime address, 0 where there is none), ``stack`` an index into :attr:`Trace.stacks` or -1, ``kind`` an
:class:`EventKind`, ``reason`` the Go version's own number of the wait reason.
"""


class EventKind(IntEnum):
    """What a record of ``events.bin`` tells."""

    PARK = 1
    """A goroutine waited, from ``gopark`` to the ``execute`` that ran it again."""


class ProgramCost(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel's own BPF statistics say of one program: ``run_ns`` nanoseconds in ``run_count`` runs.

    :param missed: runs that the kernel left out because the program was already running on that CPU.
    """

    run_ns: int
    run_count: int
    missed: int = 0


class ProbeCost(msgspec.Struct, frozen=True, kw_only=True):
    """Calibration on this machine: nanoseconds that one hit adds, from ``calls`` calls of a function that does nothing.

    :param ret_ns: cost of a probe on a RET, where it was measured.
    :param bare_ns: of the call itself, without a probe; already taken off the others.
    """

    pp_ns: float
    entry_ns: float
    calls: int
    ret_ns: float | None = None
    bare_ns: float | None = None


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """Goroutine ids that the probe read in segment :data:`SELF_TEST`; compared with what the goroutines said."""

    goids: list[int]


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """``trace.json``.

    :param exit_status: of the target; a negative number is the signal that ended it.
    :param complete: whether the target ended by itself; ``ended`` says what ended it otherwise (``timeout``, …).
    :param unfinished: waits that had begun and that nothing ended.
    :param target_seconds: from letting the target go to its end.
    :param load_bias: runtime address minus linked address; 0 where the binary is no PIE.
    :param threads: threads of the target from which at least one probe hit came.
    :param counters: counter name → count, by segment (:data:`OUTSIDE` for what lies in none).
    :param losses: what was not recorded, by reason; all zero in a trace that is complete.
    :param hits: by probe id of the plan.
    :param programs: by program name of the plan; ``run_ns`` covers the program alone, not the trap that led to it.
    :param stacks: runtime addresses, innermost first.
    :param events: number of records in ``events.bin``.
    """

    schema: Literal[1]
    pid: int
    exit_status: int
    load_bias: int
    threads: int
    counters: dict[int, dict[str, int]]
    losses: dict[str, int]
    hits: dict[str, int]
    programs: dict[str, ProgramCost]
    cost: ProbeCost
    self_test: SelfTest
    stacks: list[list[int]]
    load_seconds: float
    attach_seconds: float
    calibrate_seconds: float
    events: int
    complete: bool = True
    ended: str = ""
    unfinished: int = 0
    target_seconds: float | None = None

    @property
    def lost(self) -> int:
        """Sum of all counted losses."""
        return sum(self.losses.values())


def read(path: Path) -> Trace:
    """Read ``trace.json``.

    :raises OutputError: it is missing, is not JSON, or does not fit; the message has the field's path.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Trace)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise OutputError(
            f"{path.name} is no trace of the loader: {error}", "the loader's stderr may say why"
        ) from error


def read_events(path: Path, trace: Trace) -> npt.NDArray[np.void]:
    """Read ``events.bin`` as an array of :data:`EVENT`, shape ``(trace.events,)``.

    :raises OutputError: its size, a stack index or a kind does not fit ``trace``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OutputError(f"{path.name} cannot be read: {error}", "the loader's stderr may say why") from error
    if len(data) != trace.events * EVENT.itemsize:
        raise OutputError(
            f"{path.name} has {len(data)} bytes where {trace.events} events need {trace.events * EVENT.itemsize}",
            "the loader did not end by itself, or its disk was full",
        )
    events = np.frombuffer(data, dtype=EVENT)
    if events.size and (events["stack"].max() >= len(trace.stacks) or events["stack"].min() < -1):
        raise OutputError(f"{path.name} names a stack that trace.json does not have", "both must be of one run")
    known = [kind.value for kind in EventKind]
    if not np.isin(events["kind"], known).all():
        raise OutputError(f"{path.name} has an event of an unknown kind", "the loader is newer than this program")
    return events
