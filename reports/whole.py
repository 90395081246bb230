"""Charts of a traced program that is no lab: it has no segments, so everything is of the program as a whole. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from bpf.trace import EventKind
from reports import waits
from reports.analysis import Events, PhaseData
from reports.charts import AnyChart, StackList, Table
from reports.shorthand import table

REASONS = 5
"""Wait reasons that get a chart of stacks of their own, the most frequent ones."""

SITES = 20
"""Allocation sites that are listed, those with most bytes."""

MOMENTS: Mapping[EventKind, tuple[str, str, str]] = {
    EventKind.CREATE: ("created", "Where goroutines were created", "The function of each new goroutine, then where."),
    EventKind.PANIC: ("panics", "Where goroutines panicked", "Stacks of the goroutines that panicked."),
    EventKind.CLOSE: ("closes", "Where channels were closed", "Stacks of the goroutines that closed a channel."),
    EventKind.CANCEL: (
        "cancels",
        "Where contexts were cancelled",
        "Stacks of the goroutines that cancelled a context.",
    ),
    EventKind.WAITING: ("waiting", "Who waited to the end", "Stacks of goroutines that still waited at the end."),
}
"""Kinds of events that have a stack and no length: the chart's id, title and caption."""


def charts(phase: PhaseData) -> list[AnyChart]:
    """Return what there is to see of a traced program: counters, waits by reason, stacks by kind, allocations."""
    return [chart for chart in _all(phase) if chart is not None]


def _all(phase: PhaseData) -> Iterator[AnyChart | None]:
    parks = phase.events_of(None)
    groups = by_reason(phase, parks)
    yield counters(phase)
    yield waits.heat_map(phase, parks, name=f"{phase.name}-waits")
    yield waits.distribution(phase, groups, name=f"{phase.name}-distribution")
    yield _lengths(phase)
    for number, (label, events) in enumerate(list(groups.items())[:REASONS], 1):
        name, title = f"{phase.name}-stacks-{number}", f"Where they waited: {label}"
        yield waits.stacks(phase, events, limit=6, name=name, title=title)
    for kind, (name, title, caption) in MOMENTS.items():
        yield _moments(phase, kind, name, title, caption)
    yield allocations(phase)


def by_reason(phase: PhaseData, events: Events) -> dict[str, Events]:
    """Return ``events`` by their wait reason in the runtime's words, the most frequent reason first."""
    numbers, counts = np.unique(events["reason"], return_counts=True)
    frequent = sorted(zip(numbers.tolist(), counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    return {phase.reason(number): events[events["reason"] == number] for number, _ in frequent}


def counters(phase: PhaseData) -> Table | None:
    """Return the table of every counter of ``phase``, summed over all segments and what lies outside of them."""
    found: Counter[str] = Counter()
    for counts in {} if phase.trace is None else phase.trace.counters.values():
        found.update(counts)
    return table(
        f"{phase.name}-counters",
        "What was counted",
        "Events in the whole program, from its first instruction to its end; docs/architecture.md explains each.",
        phase.name,
        "happened",
        {"counter": "", "events": ""},
        [(name, count) for name, count in sorted(found.items())],
    )


def allocations(phase: PhaseData) -> Table | None:
    """Return the sites that allocated most bytes; a site is the innermost function outside of the allocator."""
    found: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for site in [] if phase.trace is None else phase.trace.sites:
        frames = [frame for frame in phase.frames(site.stack) if not frame.startswith("runtime.")]
        entry = found[frames[0] if frames else "in the runtime, or no stack"]
        entry[0] += site.count
        entry[1] += site.bytes
    heaviest = sorted(found.items(), key=lambda item: (-item[1][1], item[0]))
    return table(
        f"{phase.name}-allocations",
        "Where memory was allocated",
        f"The {min(SITES, len(heaviest))} of {len(heaviest)} sites with most bytes.",
        phase.name,
        "happened",
        {"site": "", "objects": "", "bytes": ""},
        [(name, count, size) for name, (count, size) in heaviest[:SITES]],
    )


def _lengths(phase: PhaseData) -> AnyChart | None:
    groups = {
        "a goroutine ran": phase.events_of(None, EventKind.RUN),
        "the world stood still": phase.events_of(None, EventKind.STW),
        "a goroutine lived": phase.events_of(None, EventKind.END),
    }
    made = waits.distribution(
        phase,
        groups,
        name=f"{phase.name}-lengths",
        title="How long things took",
        caption="Share of what was over within the time on the axis (logarithmic), where such events were recorded.",
    )
    return None if made is None else msgspec.structs.replace(made, x_title="time")


def _moments(phase: PhaseData, kind: EventKind, name: str, title: str, caption: str) -> StackList | None:
    events = phase.events_of(None, kind)
    made = waits.stacks(phase, events, limit=6, name=f"{phase.name}-{name}", title=title, caption=caption)
    if made is None:
        return None
    stacks = [msgspec.structs.replace(stack, wait_ns=None) for stack in made.stacks]
    return msgspec.structs.replace(made, stacks=stacks, timing=False)
