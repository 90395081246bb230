"""Charts of recorded waits that any lab can use: heat map, distributions, stacks. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reports import statistics
from reports.analysis import Events, PhaseData
from reports.charts import AnyChart, Ecdf, EcdfSeries, HeatMap, Mark, Stack, StackList

COLUMNS = 96
"""Columns of a heat map: as many as a phone can show apart."""


def heat_map(
    phase: PhaseData,
    events: Events,
    *,
    name: str = "waits-over-time",
    title: str = "Waits over time",
    caption: str = "Each cell counts waits that began in that moment (across) and lasted that long (up, logarithmic).",
    marks: Mapping[str, int] | None = None,
) -> HeatMap | None:
    """Return the heat map of ``events``: start against duration; None where there are none.

    :param marks: label → CLOCK_MONOTONIC nanoseconds, drawn as lines.
    """
    lasting = events[events["duration_ns"] > 0]
    if lasting.size == 0:
        return None
    starts = lasting["start_ns"].astype(np.float64)
    origin = float(starts.min())
    span = max(float(starts.max()) - origin, 1.0) / 1e9
    x_edges = [float(edge) for edge in np.linspace(0.0, span, COLUMNS + 1)]
    durations = lasting["duration_ns"].astype(np.float64)
    y_edges = statistics.log_edges(float(durations.min()), float(durations.max()))
    counts, beyond = statistics.heat((starts - origin) / 1e9, durations, x_edges, y_edges)
    return HeatMap(
        id=name,
        title=title,
        caption=caption,
        place="time",
        phase=phase.name,
        timing=True,
        x_title="time since the first wait",
        x_unit="s",
        x_edges=x_edges,
        y_title="wait",
        y_edges=y_edges,
        counts=counts,
        beyond=beyond + int(events.size - lasting.size),
        marks=[Mark(x=(at - origin) / 1e9, label=label) for label, at in (marks or {}).items()],
    )


def distribution(
    phase: PhaseData,
    groups: Mapping[str, Events],
    *,
    name: str = "wait-distribution",
    title: str = "How long they waited",
    caption: str = "Share of waits that were over within the time on the axis (logarithmic).",
) -> Ecdf | None:
    """Return the cumulative distributions of the durations of ``groups``; None where all are empty."""
    series = []
    for label, events in groups.items():
        durations = events["duration_ns"][events["duration_ns"] > 0]
        if durations.size:
            x, p = statistics.ecdf(durations)
            series.append(EcdfSeries(name=label, n=int(durations.size), x=x, p=p))
    if not series:
        return None
    return Ecdf(
        id=name,
        title=title,
        caption=caption,
        place="time",
        phase=phase.name,
        timing=True,
        x_title="wait",
        series=series,
    )


def stacks(
    phase: PhaseData,
    events: Events,
    *,
    limit: int = 12,
    name: str = "stacks",
    title: str = "Where they waited",
    caption: str = "Stacks of the goroutines that waited, the most frequent first; innermost function on top.",
    what: str = "waits",
) -> StackList | None:
    """Return the ``limit`` stacks with most waits, equal frames put together; None where nothing waited.

    :param what: what the events are, as a plural; where they are no waits, their durations are not told.
    """
    lasting = what == "waits"
    if events.size == 0:
        return None
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    numbers, inverse = np.unique(events["stack"], return_inverse=True)
    counts = np.bincount(inverse)
    waits = np.bincount(inverse, weights=events["duration_ns"].astype(np.float64))
    without = 0
    for number, count, wait in zip(numbers, counts, waits, strict=True):
        frames = tuple(phase.frames(int(number)))
        if not frames:
            without += int(count)
            continue
        before = found.get(frames, (0, 0))
        found[frames] = (before[0] + int(count), before[1] + int(wait))
    heaviest = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))[:limit]
    return StackList(
        id=name,
        title=title,
        caption=caption,
        place="stacks",
        phase=phase.name,
        timing=lasting,
        what=what,
        stacks=[
            Stack(frames=list(frames[:64]), count=count, wait_ns=wait if lasting else None)
            for frames, (count, wait) in heaviest
        ],
        total=int(events.size),
        without=without,
    )


def generic(phase: PhaseData) -> list[AnyChart]:
    """Return the charts of a phase whose lab has no analysis of its own."""
    groups = {section: phase.events_of(phase.segments(section)) for section in _sections(phase)}
    waits = phase.events_of(None)
    charts: list[AnyChart | None] = [
        heat_map(phase, waits, name=f"{phase.name}-waits"),
        distribution(phase, groups, name=f"{phase.name}-distribution"),
        stacks(phase, waits, name=f"{phase.name}-stacks"),
    ]
    return [chart for chart in charts if chart is not None]


def _sections(phase: PhaseData) -> list[str]:
    return list(dict.fromkeys(segment.section for segment in phase.segments()))
