"""Timelines from arrays: which goroutine ran on which P and M, and when. Pure.

A lab hands over what its probes (or Go's own tracer) saw as arrays; :func:`chart` shows the busiest window of it in the
report, and a :class:`FullTimeline` in ``Analysis.timelines`` puts all of it into the record for a trace viewer
(``reports.perfetto``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from reports.chart_checks import CATEGORIES, LANES, SLICES
from reports.charts import Category, Lane, Mark, Place, Slice, Timeline
from reports.text import duration, neutral

Ints = npt.NDArray[np.int64]

WANTED = 300
"""Slices that begin in a window that nobody chose: as many as can be told apart on a wide page."""

JOINED = 1 / 2000
"""Share of the window below which a gap between slices of one goroutine cannot be seen."""

LABELLED = 0.02
"""Share of the window from which on a slice has room for a label."""

PROCESSORS, THREADS = "Ps", "Ms (threads)"
"""Groups of lanes, in the order in which they are shown."""

LONGEST = 60
"""Characters of a goroutine's name that are kept."""

SUFFIX = ".perfetto-trace"
"""Ending of the file that holds a full timeline."""


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Stretches in which a goroutine ran, one element each; all arrays have one length and no order.

    :param start_ns: CLOCK_MONOTONIC of the machine, as is ``end_ns``.
    :param proc: number of the P, below 0 where it is not known.
    :param reason: why it ended, an index into ``reasons``; below 0 where it is not known.
    :raises ValueError: lengths differ, a stretch ends before it starts, or a reason has no name.
    """

    start_ns: Ints
    end_ns: Ints
    goid: Ints
    tid: Ints
    proc: Ints
    reason: Ints
    reasons: Sequence[str] = ()

    def __post_init__(self) -> None:
        arrays = (self.start_ns, self.end_ns, self.goid, self.tid, self.proc, self.reason)
        if len({array.shape for array in arrays}) > 1 or self.start_ns.ndim != 1:
            raise ValueError("runs are arrays of one length")
        if (self.end_ns.astype(np.int64) < self.start_ns.astype(np.int64)).any():
            raise ValueError("a run ends before it starts")
        if self.reason.size and int(self.reason.max()) >= len(self.reasons):
            raise ValueError("a run has a reason without a name")


@dataclass(frozen=True, slots=True, eq=False)
class Instants:
    """What happened to goroutines at one moment (created, parked, made ready, stolen), one element each.

    :param kind: index into ``kinds``.
    :param detail: index into ``details`` (a wait reason, say), below 0 for none.
    :raises ValueError: lengths differ, or a kind or detail has no name.
    """

    time_ns: Ints
    goid: Ints
    kind: Ints
    detail: Ints
    kinds: Sequence[str]
    details: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len({array.shape for array in (self.time_ns, self.goid, self.kind, self.detail)}) > 1:
            raise ValueError("instants are arrays of one length")
        for numbers, names in ((self.kind, self.kinds), (self.detail, self.details)):
            if numbers.size and int(numbers.max()) >= len(names):
                raise ValueError("an instant has a kind or detail without a name")
        if self.kind.size and int(self.kind.min()) < 0:
            raise ValueError("an instant has no kind")


@dataclass(frozen=True, slots=True, eq=False)
class FullTimeline:
    """Everything that was seen, for a trace viewer; ``record.seal`` writes it beside ``run.json``.

    :param name: of the file, lower-case letters, digits and ``-``; unique in a record.
    :param groups: goroutine id → group, such as the place that created it; others are in the group ``goroutines``.
    """

    name: str
    runs: Runs
    instants: Instants | None = None
    groups: Mapping[int, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Path of the file in the record."""
        return self.name + SUFFIX


def cut(start: Ints, end: Ints) -> tuple[Ints, int]:
    """Return ``end`` with each stretch ending where the next begins at the latest, and how many were cut.

    One P runs one goroutine at a time, so that a stretch that lasts beyond the next one's start is a fault of the data.

    :param start: ascending.
    """
    if end.size < 2:
        return end, 0
    late = end[:-1] > start[1:]
    shorter = end.copy()
    shorter[:-1] = np.where(late, start[1:], end[:-1])
    return shorter, int(late.sum())


def busiest(start_ns: Ints, end_ns: Ints, wanted: int = WANTED) -> tuple[int, int]:
    """Return start and end of the shortest window in which ``wanted`` slices begin, the earliest of equals.

    Where there are no more than that, the window holds all of them.

    :raises ValueError: there are no slices.
    """
    if start_ns.size == 0:
        raise ValueError("there is no window of nothing")
    starts = np.sort(start_ns)
    if starts.size <= wanted:
        return int(starts[0]), max(int(end_ns.max()), int(starts[0]) + 1)
    spans = starts[wanted:] - starts[:-wanted]
    first = int(np.argmin(spans))
    return int(starts[first]), max(int(starts[first + wanted]), int(starts[first]) + 1)


def chart(
    runs: Runs,
    *,
    name: str,
    title: str,
    phase: str,
    caption: str = "What ran on each P and M in the busiest stretch; where a row is empty, nothing was seen to run.",
    origin: str = "",
    place: Place = "time",
    window_ns: tuple[int, int] | None = None,
    wanted: int = WANTED,
    names: Mapping[int, str] | None = None,
    marks: Mapping[str, int] | None = None,
    trace: str = "",
) -> Timeline | None:
    """Return the timeline of a window of ``runs``, per P and per M, or None where nothing ran in it.

    The goroutines that ran longest in the window have a category each; the others share one.

    :param window_ns: CLOCK_MONOTONIC; by default the shortest in which ``wanted`` slices begin.
    :param names: goroutine id → what to call it, else ``G 18``; goroutines of one name share a category.
    :param marks: label → CLOCK_MONOTONIC nanoseconds; those outside the window are left out.
    :param trace: :attr:`FullTimeline.path` of the same timeline, where ``Analysis.timelines`` has it.
    """
    if runs.start_ns.size == 0:
        return None
    start, end = runs.start_ns.astype(np.int64), runs.end_ns.astype(np.int64)
    low, high = window_ns or busiest(start, end, wanted)
    seen = (start < high) & ((end > low) | (start == low))
    if not seen.any() or high <= low:
        return None
    order = np.flatnonzero(seen)[np.argsort(start[seen], kind="stable")]
    window = _Window(low, high, [neutral((names or {}).get(int(g), f"G {g}"), LONGEST) for g in runs.goid[order]])
    window.categorise(np.minimum(end[order], high) - np.maximum(start[order], low))
    lanes: list[Lane] = []
    for group, letter, keys in ((PROCESSORS, "P", runs.proc[order]), (THREADS, "M", runs.tid[order])):
        lanes += window.lanes(group, letter, keys.astype(np.int64), start[order], end[order])
    lanes = window.fitted(lanes)
    first = int(start.min())
    return Timeline(
        id=name,
        title=title,
        caption=caption,
        place=place,
        phase=phase,
        timing=True,
        seconds=(high - low) / 1e9,
        origin=origin or f"{duration(low - first)} after the first slice" if low > first else "the first slice",
        lanes=lanes,
        categories=window.categories,
        marks=[Mark(x=(at - low) / 1e9, label=label) for label, at in (marks or {}).items() if low <= at <= high],
        joined=window.joined,
        outside=int(start.size - order.size),
        omitted=window.omitted,
        overlapping=window.overlapping,
        trace=trace,
    )


class _Window:
    """Builds the lanes of one window and counts what it leaves out."""

    def __init__(self, low: int, high: int, labels: list[str]) -> None:
        self.low, self.high, self.labels = low, high, labels
        self.categories: list[Category] = []
        self.numbers: dict[str, int] = {}
        self.joined = self.omitted = self.overlapping = 0

    def categorise(self, durations: Ints) -> None:
        """Give the labels that ran longest a category each, and the others one."""
        ran: dict[str, int] = {}
        for label, taken in zip(self.labels, durations.tolist(), strict=True):
            ran[label] = ran.get(label, 0) + taken
        ordered = sorted(ran, key=lambda label: (-ran[label], label))
        own = ordered if len(ordered) <= CATEGORIES else ordered[: CATEGORIES - 1]
        self.categories = [Category(name=label) for label in own]
        rest = len(ordered) - len(own)
        self.numbers = {label: min(index, len(own)) for index, label in enumerate(ordered)}
        if rest:
            self.categories.append(Category(name=f"{rest} other goroutines", rest=True))

    def lanes(self, group: str, letter: str, keys: Ints, start: Ints, end: Ints) -> list[Lane]:
        """Return a lane for each key, those that ran longest where there are too many, in order of their numbers."""
        known = [int(key) for key in np.unique(keys) if key >= 0]
        busy = {key: int((end - start)[keys == key].sum()) for key in known}
        shown = sorted(sorted(known, key=lambda key: (-busy[key], key))[: LANES // 2])
        self.omitted += int(keys.size - np.isin(keys, shown).sum())
        return [self._lane(group, f"{letter} {key}", np.flatnonzero(keys == key), start, end) for key in shown]

    def _lane(self, group: str, label: str, mine: npt.NDArray[np.intp], start: Ints, end: Ints) -> Lane:
        ends, late = cut(start[mine], end[mine])
        self.overlapping += late
        starts = np.maximum(start[mine], self.low)
        ends = np.maximum(np.minimum(ends, self.high), starts)
        gap = (self.high - self.low) * JOINED
        spans: list[tuple[int, int, str]] = []
        for index, begin, finish in zip(mine.tolist(), starts.tolist(), ends.tolist(), strict=True):
            if spans and spans[-1][2] == self.labels[index] and begin - spans[-1][1] <= gap:
                spans[-1] = (spans[-1][0], finish, spans[-1][2])
                self.joined += 1
            else:
                spans.append((begin, finish, self.labels[index]))
        return Lane(label=label, group=group, slices=[self._slice(*span) for span in spans])

    def _slice(self, begin: int, finish: int, label: str) -> Slice:
        wide = finish - begin >= (self.high - self.low) * LABELLED
        return Slice((begin - self.low) / 1e9, (finish - begin) / 1e9, self.numbers[label], label if wide else "")

    def fitted(self, lanes: list[Lane]) -> list[Lane]:
        """Return ``lanes`` without the shortest slices, where there are more than a timeline may have."""
        durations = sorted((item.duration for lane in lanes for item in lane.slices), reverse=True)
        if len(durations) <= SLICES:
            return lanes
        bound = durations[SLICES]
        kept = [
            Lane(label=lane.label, group=lane.group, slices=[item for item in lane.slices if item.duration > bound])
            for lane in lanes
        ]
        self.omitted += len(durations) - sum(len(lane.slices) for lane in kept)
        return kept
