"""The schedule that a traced phase recorded, as a timeline: what ran on which P and thread, and what happened between.

Needs a probe set that records runs (``EventKind.RUN``); creations, parks, steals, panics and ends are added where the
set has them. Pure.
"""

from __future__ import annotations

import numpy as np

from bpf.trace import EventKind, Ran
from reports.analysis import Events, PhaseData
from reports.flame import functions_only
from reports.timeline import FullTimeline, Instants, Ints, Runs

REASONS = 256
"""Values of an event's field ``reason``, one byte."""

_RAN = {ran.value: ran.name.lower() for ran in Ran}

KINDS: dict[str, tuple[EventKind, bool]] = {
    "created": (EventKind.CREATE, False),
    "parked": (EventKind.PARK, True),
    "parked, never resumed": (EventKind.WAITING, True),
    "stolen": (EventKind.STEAL, False),
    "panicked": (EventKind.PANIC, False),
    "ended": (EventKind.END, False),
}
"""Instants by what they are called; True where ``reason`` is a wait reason. All are at the event's start."""

READY = "made ready"
"""Instant that a run tells of: it began so many nanoseconds after."""


def full(phase: PhaseData, name: str = "timeline") -> FullTimeline | None:
    """Return the whole schedule of ``phase``, or None where no run was recorded.

    Goroutines are grouped by the function that they began with, where their creation was recorded.
    """
    recorded = phase.events_of(None, EventKind.RUN)
    if recorded.size == 0:
        return None
    start = _signed(recorded, "start_ns")
    words = [_RAN.get(number) or phase.reason(number) for number in range(REASONS)]
    runs = Runs(
        start_ns=start,
        end_ns=start + _signed(recorded, "duration_ns"),
        goid=_signed(recorded, "goid"),
        tid=_signed(recorded, "tid"),
        proc=_signed(recorded, "value"),
        reason=_signed(recorded, "reason"),
        reasons=words,
    )
    return FullTimeline(name, runs, _instants(phase, recorded, words), groups(phase))


def groups(phase: PhaseData) -> dict[int, str]:
    """Return goroutine id → function that it began with, of those whose creation was recorded with a stack."""
    found: dict[int, str] = {}
    names: dict[int, str] = {}
    for goid, stack in phase.events_of(None, EventKind.CREATE)[["goid", "stack"]].tolist():
        if stack not in names:
            names[stack] = "".join(functions_only(phase.frames(stack)[:1]))
        if names[stack]:
            found[goid] = names[stack]
    return found


def _instants(phase: PhaseData, recorded: Events, words: list[str]) -> Instants:
    columns: list[tuple[Ints, Ints, int, Ints]] = []
    kinds = [*KINDS, READY]
    for number, (kind, waits) in enumerate(KINDS.values()):
        events = phase.events_of(None, kind)
        detail = _signed(events, "reason") if waits else np.full(events.size, -1, dtype=np.int64)
        columns.append((_signed(events, "start_ns"), _signed(events, "goid"), number, detail))
    readied = recorded[recorded["object"] > 0]
    none = np.full(readied.size, -1, dtype=np.int64)
    ready = _signed(readied, "start_ns") - _signed(readied, "object")
    columns.append((ready, _signed(readied, "goid"), len(KINDS), none))
    return Instants(
        time_ns=np.concatenate([column[0] for column in columns]),
        goid=np.concatenate([column[1] for column in columns]),
        kind=np.concatenate([np.full(column[0].size, column[2], dtype=np.int64) for column in columns]),
        detail=np.concatenate([column[3] for column in columns]),
        kinds=kinds,
        details=words,
    )


def _signed(events: Events, name: str) -> Ints:
    return events[name].astype(np.int64)
