"""The lives of goroutines up to a moment, from the events that the probe set ``goroutine`` records. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bpf.trace import EventKind
from go_labs.evidence import Segment
from reports.analysis import Events, PhaseData
from reports.charts import Stack, StackList

LIBRARY = ("runtime.", "sync.", "time.", "internal/")
"""How the names of functions begin in which a goroutine waits, but not for the program's own reasons."""


@dataclass(frozen=True, slots=True)
class Life:
    """One goroutine whose creation was recorded, as it was at the moment.

    :param segment: number of the one in which it was created.
    :param start: function that it began with, ``function file:line``; ``site``: the go statement, likewise.
    :param ended_ns: 0 where it was alive; times are CLOCK_MONOTONIC.
    :param rested_ns: when its last wait began, 0 where none was recorded; ``reason`` and ``stack`` (frames, innermost
        first) of that wait.
    :param waiting: that wait was not over.
    """

    goid: int
    parent: int
    segment: int
    start: str
    site: str
    created_ns: int
    ended_ns: int
    rested_ns: int
    reason: str
    stack: Sequence[str]
    waiting: bool

    @property
    def function(self) -> str:
        """Name of the function that it began with."""
        return self.start.partition(" ")[0]

    @property
    def waits_at(self) -> str:
        """Where the program waits: the innermost frame of the last wait that is not of :data:`LIBRARY`."""
        return next(
            (frame for frame in self.stack if not frame.startswith(LIBRARY)), self.stack[0] if self.stack else ""
        )

    @property
    def alive(self) -> bool:
        """Whether it had not ended."""
        return not self.ended_ns

    @property
    def system(self) -> bool:
        """Whether it is one of the runtime's own, which Go's dumps and profiles leave out (``isSystemGoroutine``)."""
        return self.function.startswith("runtime.") and self.function != "runtime.main"


def lives(phase: PhaseData, moment_ns: int) -> dict[int, Life]:
    """Return the goroutines that ``phase`` saw created until ``moment_ns``, by id; ids are never used again."""

    def before(kind: EventKind) -> Events:
        events = phase.events_of(None, kind)
        return events[events["start_ns"].astype(np.int64) <= moment_ns]

    ended = dict(before(EventKind.END)[["goid", "start_ns"]].tolist())
    waits = _last(np.concatenate([before(EventKind.PARK), before(EventKind.WAITING)]))
    places: dict[int, tuple[str, str]] = {}
    stacks: dict[int, Sequence[str]] = {-1: ()}
    found: dict[int, Life] = {}
    for goid, parent, segment, stack, at in before(EventKind.CREATE)[
        ["goid", "value", "segment", "stack", "start_ns"]
    ].tolist():
        if stack not in places:
            places[stack] = creation(phase, stack)
        kind, rested, lasted, reason, where = waits.get(goid, (0, 0, 0, -1, -1))
        if where not in stacks:
            stacks[where] = tuple(phase.frames(where))
        found[goid] = Life(
            goid=goid,
            parent=parent,
            segment=segment,
            start=places[stack][0],
            site=places[stack][1],
            created_ns=at,
            ended_ns=ended.get(goid, 0),
            rested_ns=rested,
            reason=phase.reason(reason) if reason >= 0 else "",
            stack=stacks[where],
            waiting=kind == EventKind.WAITING or rested + lasted > moment_ns,
        )
    return found


def creation(phase: PhaseData, stack: int) -> tuple[str, str]:
    """Return the function that a goroutine begins with and its go statement, of the ``stack`` of its creation.

    A go statement in a function that was inlined is that function's: its frame is the innermost at its address.
    """
    if phase.trace is None or not 0 <= stack < len(phase.trace.stacks):
        return "", ""
    bias = phase.trace.load_bias
    names = []
    for address in phase.trace.stacks[stack][:2]:
        frames = phase.symbols.get(address) or phase.symbols.get(address - bias) or [f"{address:#x}"]
        names.append(frames[0])
    return names[0], names[1] if len(names) > 1 else ""


def most_alive(phase: PhaseData, segment: Segment) -> int:
    """Return how many of the goroutines created in ``segment`` were alive at once, by the order of what happened."""
    created = phase.events_of([segment], EventKind.CREATE)
    ended = phase.events_of([segment], EventKind.END)
    ended = ended[np.isin(ended["goid"], created["goid"])]
    at = np.concatenate([created["start_ns"], ended["start_ns"]])
    steps = np.concatenate([np.ones(created.size, np.int64), -np.ones(ended.size, np.int64)])
    return int(np.cumsum(steps[np.argsort(at, kind="stable")]).max(initial=0))


def stacks(found: Sequence[Life], name: str, title: str, caption: str, *, limit: int = 16) -> StackList | None:
    """Return the stacks of the last waits of ``found``, the ``limit`` most frequent; None where ``found`` is empty."""
    if not found:
        return None
    counts = Counter(tuple(life.stack) for life in found)
    without = counts.pop((), 0)
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]
    return StackList(
        id=name,
        title=title,
        caption=caption,
        place="stacks",
        phase="traced",
        what="goroutines",
        stacks=[Stack(frames=list(frames), count=count) for frames, count in most],
        total=len(found),
        without=without,
    )


def _last(events: Events) -> dict[int, tuple[int, int, int, int, int]]:
    """Return kind, start, length, reason and stack of the last wait of each goroutine."""
    found: dict[int, tuple[int, int, int, int, int]] = {}
    for goid, *wait in events[["goid", "kind", "start_ns", "duration_ns", "reason", "stack"]].tolist():
        if goid not in found or found[goid][1] < wait[1]:
            found[goid] = (wait[0], wait[1], wait[2], wait[3], wait[4])
    return found
