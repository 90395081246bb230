"""Charts of stops of the world, from the probe set ``gc``: over time, their distribution, collections so far. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from bpf.trace import COLLECTION_STOPS, MARK_TERMINATION, EventKind
from go_labs.evidence import Segment
from reports import waits
from reports.analysis import Events, PhaseData
from reports.charts import Ecdf, HeatMap, Line, LinePoint, Lines

MOST = 2000
"""Points of a line of collections; one of more shows every so manieth."""


def of_collector(phase: PhaseData, segments: list[Segment]) -> Events:
    """Return the stops of ``segments`` that the collector asked for; each collection has two."""
    stops = phase.events_of(segments, EventKind.STW)
    found: Events = stops[np.isin(stops["reason"], sorted(COLLECTION_STOPS))]
    return found


def heat_map(phase: PhaseData, segments: list[Segment], marks: Mapping[str, int]) -> HeatMap | None:
    """Return when the world stood still for the collector and for how long; None where it never did."""
    drawn = waits.heat_map(
        phase,
        of_collector(phase, segments),
        name="pauses-over-time",
        title="Pauses for the collector over time",
        caption="Each cell counts stops of the world that began in that moment (across) and lasted that long (up, "
        "logarithmic), from the wish to stop it to its start.",
        marks=marks,
    )
    if drawn is None:
        return None
    return msgspec.structs.replace(drawn, what="stops", x_title="time since the first stop", y_title="stop")


def distribution(phase: PhaseData, groups: Mapping[str, list[Segment]]) -> Ecdf | None:
    """Return the distribution of the pauses of each group; None where there was none at all."""
    drawn = waits.distribution(
        phase,
        {name: of_collector(phase, segments) for name, segments in groups.items()},
        name="pause-distribution",
        title="How long the world stood still",
        caption="Share of stops for the collector that were over within the time on the axis (logarithmic).",
    )
    return None if drawn is None else msgspec.structs.replace(drawn, what="stops", x_title="stop")


def collections(phase: PhaseData, groups: Mapping[str, Segment], title: str) -> Lines | None:
    """Return how many collections had ended, over the time since each segment began; None without a segment.

    A collection ends with the stop for mark termination.
    """
    lines = [Line(name=name, points=_so_far(phase, segment)) for name, segment in groups.items()]
    if not lines or phase.trace is None:
        return None
    return Lines(
        id="collections-over-time",
        title=title,
        caption="How many collections had ended, from the beginning to the end of each.",
        place="time",
        phase=phase.name,
        timing=True,
        x_title="time since it began (s)",
        y_title="Collections so far",
        lines=lines,
    )


def _so_far(phase: PhaseData, segment: Segment) -> list[LinePoint]:
    stops = phase.events_of([segment], EventKind.STW)
    ends = np.sort(stops["start_ns"][stops["reason"] == MARK_TERMINATION]).astype(np.float64)
    step = max(1, -(-len(ends) // MOST))
    points = [LinePoint(x=0.0, y=0.0)]
    points += [
        LinePoint(x=max(0.0, (float(at) - segment.start_ns) / 1e9), y=float(i + 1))
        for i, at in enumerate(ends)
        if i % step == 0
    ]
    return [*points, LinePoint(x=(segment.end_ns - segment.start_ns) / 1e9, y=float(len(ends)))]
