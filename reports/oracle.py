"""What Go's own tracer counted, held against probes and against what a workload knows, quantity by quantity. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bpf.gotrace import SegmentTrace
from go_labs.evidence import Segment
from reports.analysis import PhaseData

KNOWN = "known:"
"""How the names of a workload's own numbers begin, where they stand among a segment's counts under a counter's name."""

PARK = "park:"

OWN_YIELD = "yield of the program's own"
"""Yields of the workload's goroutines alone, which it knows; the probes count those of the runtime's, too."""

SYNC = "sync"
"""The trace's word for every lock, WaitGroup and semaphore; up to Go 1.21 also for a condition."""

WORDS = {
    "IO wait": "network",
    "sync.Cond.Wait": "sync.(*Cond).Wait",
    "sync.Mutex.Lock": SYNC,
    "sync.RWMutex.RLock": SYNC,
    "sync.RWMutex.Lock": SYNC,
    "sync.WaitGroup.Wait": SYNC,
    "semacquire": SYNC,
}
"""The runtime's wait reason → the trace's own (``traceBlockReason`` of runtime/trace.go), where they differ."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity of one segment, as three saw it.

    :param what: the counter's name; parks by the trace's word.
    :param traced: by Go's tracer; ``probes``: by the probes; ``known``: to the workload. None where they do not say.
    """

    segment: Segment
    what: str
    traced: int
    probes: int | None = None
    known: int | None = None

    @property
    def equal(self) -> bool:
        """Whether all who say a number say the same."""
        return all(number in (None, self.traced) for number in (self.probes, self.known))


def compare(phase: PhaseData, section: str) -> list[Comparison]:
    """Return what can be compared in the segments of ``section`` of which a whole recording is there.

    Creations, ends, yields and system calls of all goroutines are held against the probes; waits of the program's own
    goroutines against what the workload knows, because those of the tracer may fall anywhere.
    """
    found = []
    for segment in phase.segments(section):
        seen = phase.go_traced(segment)
        if seen is not None and seen.whole:
            found += [*_counted(phase, segment, seen), *_known(segment, seen)]
    return found


def _counted(phase: PhaseData, segment: Segment, seen: SegmentTrace) -> Iterator[Comparison]:
    if phase.trace is None:
        return
    counters = phase.counters(segment)
    for name, traced in (
        ("created", seen.created()),
        ("ended", seen.ended()),
        ("yield", seen.stopped().get("runtime.Gosched", 0)),
        ("enter_syscall", seen.syscalls()),
    ):
        known = segment.counts.get(KNOWN + name)
        if name == "yield":
            # The runtime's own goroutines yield, too: up to Go 1.21 the background sweeper does, at any time.
            yield Comparison(segment, name, traced, counters.get(name, 0))
            if known is not None:
                yield Comparison(segment, OWN_YIELD, seen.stopped("user").get("runtime.Gosched", 0), known=known)
            continue
        yield Comparison(segment, name, traced, counters.get(name, 0), known)


def _known(segment: Segment, seen: SegmentTrace) -> Iterator[Comparison]:
    blocked = seen.blocked("user")
    for word, known in trace_words(segment.counts, blocked).items():
        yield Comparison(segment, PARK + word, blocked.get(word, 0), known=known)


def trace_words(counts: Mapping[str, int], blocked: Mapping[str, int]) -> dict[str, int]:
    """Return the known waits of a segment by the trace's word; where it has none of its own, that for all of sync."""
    found: dict[str, int] = {}
    for name, known in counts.items():
        if not name.startswith(KNOWN + PARK) or not known:
            continue
        reason = name.removeprefix(KNOWN + PARK)
        word = WORDS.get(reason, reason)
        if word not in blocked and word.startswith(SYNC):
            word = SYNC
        found[word] = found.get(word, 0) + known
    return found
