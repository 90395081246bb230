"""What the loader leaves: the structs of ``trace.json`` and the records of ``events.bin``.

``labtrace run`` writes both into its ``--out`` folder (``docs/architecture.md``, "The data between them"). They come
out of a machine that a workload shared, so reading them validates everything and believes nothing.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
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
        ("object", "<u8"),
        ("value", "<u8"),
        ("goid", "<u8"),
        ("stack", "<i4"),
        ("tid", "<u4"),
        ("segment", "<u2"),
        ("kind", "u1"),
        ("reason", "u1"),
        ("pad", "<u4"),
    ]
)
"""One record of ``events.bin``, 64 bytes.

``start_ns`` is CLOCK_MONOTONIC of the machine, ``duration_ns`` nanoseconds, ``address`` the object waited for (a
runtime address, 0 where there is none), ``stack`` an index into :attr:`Trace.stacks` or -1, ``kind`` an
:class:`EventKind`, ``reason`` the Go version's own number of the wait reason. What ``object``, ``value`` and
``reason`` hold otherwise, the kind says; what it does not name is 0.
"""


class EventKind(IntEnum):
    """What a record of ``events.bin`` tells (``enum kind`` of ``bpf/src/shared.h``)."""

    PARK = 1
    """A goroutine waited, from ``gopark`` to the ``execute`` that ran it again: ``address`` of the lock or channel,
    ``stack`` of the one who waited."""

    RUN = 2
    """A goroutine ran on thread ``tid``: ``value`` is its P, ``object`` nanoseconds from ready to running (0: not
    seen), ``reason`` how it ended: a wait reason, or a :class:`Ran`."""

    CREATE = 3
    """A goroutine was created: ``goid`` the new one, ``value`` its parent, ``stack`` its function and the go
    statement."""

    END = 4
    """A goroutine ended; ``duration_ns`` is its life, 0 where its creation was not seen."""

    PANIC = 5
    """A goroutine panicked, with its ``stack``."""

    CLOSE = 6
    """A channel was closed: its ``address``, the ``stack`` of the one who closed it. ``object`` is the context whose
    cancel closes it (0: none does), ``value`` the :class:`ContextState` that this context is in meanwhile."""

    CANCEL = 7
    """A context was cancelled: its ``address``, ``object`` its done channel (0: none was made), ``value`` its children,
    ``reason`` 1 where it is to be removed from its parent."""

    STW = 8
    """The world stood still, from the wish to stop it to its start; ``reason`` is the runtime's stwReason."""

    STEAL = 9
    """A P took a goroutine from another P's queue: ``goid`` is the first of them."""

    WAITING = 10
    """A wait that nothing had ended when the program ended; ``duration_ns`` is 0."""

    LOCK_SLEEP = 11
    """A thread had to sleep for the lock of a channel: ``address`` of the channel, the ``stack`` of the goroutine that
    it runs; ``duration_ns`` is 0."""


STW_REASONS = (
    "unknown", "GC mark termination", "GC sweep termination", "write heap dump", "goroutine profile",
    "goroutine profile cleanup", "all goroutines stack trace", "read mem stats", "AllThreadsSyscall", "GOMAXPROCS",
    "start trace", "stop trace",
)  # fmt: skip
"""Words of the ``reason`` of an :attr:`EventKind.STW` by number: stwReasonStrings of runtime/proc.go, the same from Go
1.21 to 1.27; those after it are the runtime's own tests."""

MARK_TERMINATION = 1

COLLECTION_STOPS = frozenset({MARK_TERMINATION, 2})
"""The two of them for which the collector stops the world."""


class Ran(IntEnum):
    """How a :attr:`EventKind.RUN` ended where no wait reason says it (``enum ran`` of ``bpf/src/shared.h``)."""

    EXITED = 200
    PREEMPTED = 201
    YIELDED = 202
    SUPERSEDED = 203
    """The thread ran another one without a park: a coroutine switch."""

    SYSCALL = 204
    """It entered a system call, with which it keeps the thread and may lose its P; its return begins another run."""


class ContextState(IntFlag):
    """How a context is while its done channel is closed (``enum context_state`` of ``bpf/src/shared.h``)."""

    LOCKED = 1
    """Its mutex is held."""

    MARKED = 2
    """Its ``err`` is set: whoever asks it is told that it is cancelled."""


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


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What one stack allocated in one segment: ``count`` objects of ``bytes`` together; ``stack`` is an index or -1.

    Where a program has segments, what it allocates outside of them is counted but has no site.
    """

    segment: int
    stack: int
    count: int
    bytes: int


class MemorySample(msgspec.Struct, frozen=True, kw_only=True):
    """Resident sets of tracer and target, KiB, ``seconds`` after the target was let go."""

    seconds: float
    tracer_kib: int
    target_kib: int


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """``trace.json``.

    :param exit_status: of the target; a negative number is the signal that ended it.
    :param complete: whether the target ended by itself; ``ended`` says what ended it otherwise (``timeout``, …).
    :param unfinished: waits that had begun and that nothing ended.
    :param target_seconds: from letting the target go to its end.
    :param load_bias: runtime address minus linked address; 0 where the binary is no PIE.
    :param threads: threads of the target from which at least one probe hit came.
    :param counters: counter name → count, by segment (:data:`OUTSIDE` for what lies in none); parks also by the
        runtime's words of the wait reason, ``park:chan receive``.
    :param losses: what was not recorded, by reason; all zero in a trace that is complete.
    :param hits: by probe id of the plan.
    :param programs: by program name of the plan; ``run_ns`` covers the program alone, not the trap that led to it.
    :param stacks: runtime addresses, innermost first.
    :param events: number of records in ``events.bin``.
    :param sites: what was allocated where, where allocations were probed.
    :param memory: of tracer and target over time, at least one pause apart.
    """

    schema: Literal[2]
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
    sites: list[Site] = []
    memory: list[MemorySample] = []
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
