"""What Go's own tracer saw: ``go-trace.json``, which ``bpf/gotrace/`` makes of recordings of runtime/trace.

A workload records with ``labkit``'s ``Run.Trace``; segments are marked in the trace, and all counts here are cut to
them: from the mark at the entry to the mark at the exit, which lie just within the marks that the probes see. Traces
come out of a machine that a workload shared, so reading validates and bounds everything.

Times are nanoseconds of the machine's CLOCK_MONOTONIC, as those of the probes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vm.errors import OutputError

SCHEMA: Literal[1] = 1

MAXIMUM_BYTES = 64 * 2**20
"""Bytes of ``go-trace.json``; the limits of ``bpf/gotrace/summary.go`` keep it well below."""

MAXIMUM_LIST = 20_000
"""Goroutines, stretches, pauses or waits of one document; what is left out is counted."""

GoroutineClass = Literal["user", "runtime", "tracer", "unknown"]
"""To whom a goroutine belongs, by the function it starts with.

``tracer``: what runtime/trace itself needs, created before a recording's first segment; it runs and blocks within it.
``unknown``: there before the recording, and no stack of it was recorded.
"""

Count = Annotated[int, Meta(ge=0)]
Text = Annotated[str, Meta(max_length=500)]
Clock = Literal["snapshot", "mark", ""]
"""What times were set by: the trace's own readings of CLOCK_MONOTONIC (Go 1.25 and newer), or the tightest of labkit's
marks before the first segment, so that times are early by what lay between reading the clock and marking: about a
microsecond; under emulation, beside probes, 35 µs were seen."""


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """One file ``go-N.trace``.

    :param format: of the trace, as the Go version that introduced it: ``1.23`` for Go 1.23 and 1.24.
    :param whole: nothing is missing, and all of it was read.
    :param unsupported: why this format cannot be read at all; ``error``: why the file was not read to its end.
    """

    name: Text
    bytes: Count
    format: Text
    events: Count
    whole: bool
    clock: Clock
    segments: list[int]
    unsupported: Text = ""
    error: Text = ""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Changes of state of goroutines in one segment.

    :param blocked: running → waiting, by the trace's own reason; Go 1.21 has one word, ``sync``, for all of sync.
    :param unblocked: waiting → runnable, counted where the goroutine that was woken belongs.
    :param running: runnable → running; a return from a system call that kept its P is none.
    :param stopped: running → runnable, by reason: ``preempted``, ``runtime.Gosched``.
    :param syscalls_blocked: returns from a system call whose P had been taken away.
    """

    created: Count = 0
    ended: Count = 0
    blocked: dict[Text, Count] = {}
    unblocked: Count = 0
    running: Count = 0
    stopped: dict[Text, Count] = {}
    syscalls: Count = 0
    syscalls_blocked: Count = 0


class Procs(msgspec.Struct, frozen=True, kw_only=True):
    """Ps that were started, stopped, and taken away from a thread in a system call."""

    started: Count
    stopped: Count
    taken: Count


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """One stop of the world that began in the segment; ``duration_ns`` is -1 where its end is not in the trace."""

    kind: Text
    start_ns: int
    duration_ns: int


class Goroutine(msgspec.Struct, frozen=True, kw_only=True):
    """A goroutine that was created in the segment.

    :param parent: id of its creator; 0 where the runtime made it on no goroutine.
    :param start: function that it starts with; ``site``: ``function file:line`` of the ``go`` statement.
    :param ended_ns: 0 where its end is not in the recording.
    :param state: at the last exit from the segment, with the wait ``reason`` where it is ``waiting``.
    """

    id: int
    parent: int
    goroutine_class: GoroutineClass = msgspec.field(name="class")
    start: Text
    site: Text
    created_ns: int
    ended_ns: int
    state: Literal["ended", "runnable", "running", "waiting", "syscall", "unknown"]
    reason: Text


class Stretch(msgspec.Struct, frozen=True, array_like=True):
    """One run of a goroutine on P ``proc`` and thread ``thread`` (-1: not known), cut to the segment.

    A system call ends it. Traces before Go 1.22 number threads by the runtime's own count, newer ones by the kernel's
    id.
    """

    goroutine: int
    proc: int
    thread: int
    start_ns: int
    end_ns: int


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """One wait of a goroutine of at least a millisecond, from blocking to running again, within the segment.

    :param woken_ns: when it became runnable; it then waited for a processor.
    """

    goroutine: int
    reason: Text
    start_ns: int
    woken_ns: int
    end_ns: int

    @property
    def duration_ns(self) -> int:
        """Length of the wait, as the probes take it: from ``gopark`` to ``execute`` of the goroutine again."""
        return self.end_ns - self.start_ns


class SegmentTrace(msgspec.Struct, frozen=True, kw_only=True):
    """What happened between the marks of one segment, all entries and recordings together.

    Counts are exact where ``whole``. Lists are bounded, and how many entries were left out is counted.

    :param entered: entries that were recorded; ``left``: exits.
    :param ranges: by name, how often begun: ``GC concurrent mark phase``, ``GC incremental sweep``, ``GC mark assist``.
    """

    entered: Count
    left: Count
    whole: bool
    clock: Clock
    start_ns: int
    end_ns: int
    counts: dict[GoroutineClass, Counts]
    procs: Procs
    ranges: dict[Text, Count]
    pauses: Annotated[list[Pause], Meta(max_length=MAXIMUM_LIST)]
    pauses_left_out: Count
    goroutines: Annotated[list[Goroutine], Meta(max_length=MAXIMUM_LIST)]
    goroutines_left_out: Count
    stretches: Annotated[list[Stretch], Meta(max_length=MAXIMUM_LIST)]
    stretches_left_out: Count
    waits: Annotated[list[Wait], Meta(max_length=MAXIMUM_LIST)] = []
    waits_left_out: Count = 0

    def _chosen(self, classes: tuple[GoroutineClass, ...]) -> Iterator[Counts]:
        return (counts for name, counts in self.counts.items() if not classes or name in classes)

    def created(self, *classes: GoroutineClass) -> int:
        """Return how many goroutines of ``classes`` (none given: all) were created."""
        return sum(counts.created for counts in self._chosen(classes))

    def ended(self, *classes: GoroutineClass) -> int:
        """Return how many goroutines of ``classes`` ended."""
        return sum(counts.ended for counts in self._chosen(classes))

    def running(self, *classes: GoroutineClass) -> int:
        """Return how often goroutines of ``classes`` were started from a run queue."""
        return sum(counts.running for counts in self._chosen(classes))

    def syscalls(self, *classes: GoroutineClass) -> int:
        """Return how many system calls goroutines of ``classes`` made that the scheduler saw."""
        return sum(counts.syscalls for counts in self._chosen(classes))

    def blocked(self, *classes: GoroutineClass) -> dict[str, int]:
        """Return how often goroutines of ``classes`` blocked, by reason."""
        return _summed(counts.blocked for counts in self._chosen(classes))

    def stopped(self, *classes: GoroutineClass) -> dict[str, int]:
        """Return how often goroutines of ``classes`` gave up the processor without blocking, by reason."""
        return _summed(counts.stopped for counts in self._chosen(classes))


class GoTrace(msgspec.Struct, frozen=True, kw_only=True):
    """``go-trace.json``: the recordings of one phase, and what they have of each segment, by its id."""

    schema: Literal[1]
    traces: list[Recording]
    segments: dict[int, SegmentTrace]

    @property
    def problems(self) -> list[str]:
        """What keeps the recordings from being whole, a sentence for each; empty where all are."""
        return [f"{each.name}: {each.error or 'it is not whole'}" for each in self.traces if not each.whole]


def _summed(parts: Iterator[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for reason, count in part.items():
            total[reason] = total.get(reason, 0) + count
    return total


def decode(data: bytes) -> GoTrace:
    """Read the document.

    :raises OutputError: it is too large, is not JSON, or does not fit; the message has the field's path.
    """
    hint = "the recording, or the machine that it came from, is broken"
    if len(data) > MAXIMUM_BYTES:
        raise OutputError(f"the summary of Go's traces has {len(data)} bytes, more than {MAXIMUM_BYTES}", hint)
    try:
        found = msgspec.json.decode(data, type=GoTrace)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise OutputError(f"this is no summary of Go's traces: {error}", hint) from error
    if any(not 1 <= number <= 511 for number in found.segments):
        raise OutputError("the summary of Go's traces names a segment that cannot be", hint)
    for segment in found.segments.values():
        if any(stretch.end_ns < stretch.start_ns for stretch in segment.stretches):
            raise OutputError("the summary of Go's traces has a stretch that ends before it starts", hint)
        if any(not wait.start_ns <= wait.woken_ns <= wait.end_ns for wait in segment.waits):
            raise OutputError("the summary of Go's traces has a wait that ends before it starts", hint)
    return found


def read(path: Path) -> GoTrace:
    """Read ``go-trace.json``.

    :raises OutputError: it is missing, or as :func:`decode` says.
    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAXIMUM_BYTES else b" " * (MAXIMUM_BYTES + 1)
    except OSError as error:
        raise OutputError(f"{path.name} cannot be read: {error}", "the recording is missing") from error
    return decode(data)
