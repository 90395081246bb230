"""Geometry of timelines: for each lane one path for each category. Pure.

A lane is drawn in a square of 1000 by 100 that the page stretches. Categories differ in form as well as in colour: each
fills another part of the row's height, which survives stretching and is seen in the thinnest slice.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from reports.charts import Lane, Slice, Timeline
from reports.plots import SIDE, Axis, Tick, linear_axis_within, mark_numbers
from reports.text import duration, number, percent

FORMS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((0, 100),),
    ((0, 50),),
    ((50, 50),),
    ((0, 24), (76, 24)),
    ((34, 32),),
    ((0, 18), (41, 18), (82, 18)),
    ((0, 24),),
    ((76, 24),),
)
"""Stretches of the row's height (from the top, how far) that each category fills; as many as may have a form."""

REST = ((45, 10),)
"""Form of what has no category of its own: a thin line."""

THINNEST = 0.5
"""Width below which a slice is drawn this wide: half a pixel on a wide page."""

ROOM = 2.0
"""Percent of the width from which on a slice has a label; the page shows it where its window leaves room."""

LABELS = 200
"""Labels in a timeline."""

LONGEST = 25
"""Slices in the table of the longest."""


@dataclass(frozen=True, slots=True)
class Paint:
    """A path with the number of its colour, None for what is drawn without emphasis."""

    colour: int | None
    path: str


@dataclass(frozen=True, slots=True)
class Key:
    """A category in the legend."""

    name: str
    paint: Paint


@dataclass(frozen=True, slots=True)
class Label:
    """Text in a slice, at ``left`` and as wide as ``width`` percent."""

    left: float
    width: float
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A lane, drawn; ``group`` is its group's name where it is the first of it, ``words`` say what ran how long."""

    label: str
    group: str
    paints: tuple[Paint, ...]
    labels: tuple[Label, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Sum:
    """What a lane did, for those who cannot see it; ``cells`` has time and number for each category, or None."""

    label: str
    slices: int
    busy: str
    share: str
    cells: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Long:
    """A long slice: where, when it began, how long it took."""

    lane: str
    what: str
    start: str
    took: str


@dataclass(frozen=True, slots=True)
class TimelinePlot:
    """A timeline, drawn."""

    x: Axis
    keys: tuple[Key, ...]
    rows: tuple[Row, ...]
    marks: tuple[Tick, ...]
    numbers: tuple[Tick, ...]
    sums: tuple[Sum, ...]
    longest: tuple[Long, ...]
    slices: int


def timeline_plot(chart: Timeline) -> TimelinePlot:
    """Return the drawing of ``chart``."""
    x = _axis(chart.seconds)
    colours = _colours(chart)
    rows, sums, group, room = [], [], "", LABELS
    for lane in chart.lanes:
        labels = _labels(lane, chart.seconds)[:room]
        room -= len(labels)
        total = _sum(chart, lane)
        words = f"{lane.label}: {number(total.slices)} slices, busy {total.share}"
        paints = _paints(lane, chart, colours)
        rows.append(Row(lane.label, lane.group if lane.group != group else "", paints, labels, words))
        sums.append(total)
        group = lane.group
    inside = sorted((mark for mark in chart.marks if 0 <= mark.x <= chart.seconds), key=lambda mark: mark.x)
    marks = tuple(Tick(round(mark.x / chart.seconds * 100, 2), mark.label) for mark in inside)
    keys = tuple(
        Key(category.name, Paint(colours[index], _rectangles([(0.0, float(SIDE))], form(chart, index))))
        for index, category in enumerate(chart.categories)
    )
    slices = sum(len(lane.slices) for lane in chart.lanes)
    return TimelinePlot(x, keys, tuple(rows), marks, mark_numbers(marks), tuple(sums), _longest(chart), slices)


def _axis(seconds: float) -> Axis:
    """Return the time axis, with ticks in the unit that fits."""
    axis = linear_axis_within(0.0, seconds * 1e9, "ns")
    return Axis(0.0, seconds, log=False, ticks=axis.ticks)


def _colours(chart: Timeline) -> list[int | None]:
    numbers = iter(range(len(chart.categories)))
    return [None if category.rest else next(numbers) % 6 for category in chart.categories]


def form(chart: Timeline, index: int) -> tuple[tuple[int, int], ...]:
    """Return the form of category ``index``."""
    if chart.categories[index].rest:
        return REST
    return FORMS[sum(not category.rest for category in chart.categories[:index]) % len(FORMS)]


def _paints(lane: Lane, chart: Timeline, colours: list[int | None]) -> tuple[Paint, ...]:
    spans: dict[int, list[tuple[float, float]]] = defaultdict(list)
    scale = SIDE / chart.seconds
    for item in lane.slices:
        left, width = item.start * scale, max(THINNEST, item.duration * scale)
        mine = spans[item.category]
        if mine and left <= mine[-1][0] + mine[-1][1]:  # touching ones are one stretch, so that a page stays small
            mine[-1] = (mine[-1][0], max(mine[-1][1], left + width - mine[-1][0]))
        else:
            mine.append((left, width))
    return tuple(Paint(colours[index], _rectangles(mine, form(chart, index))) for index, mine in sorted(spans.items()))


def _rectangles(spans: list[tuple[float, float]], bands: tuple[tuple[int, int], ...]) -> str:
    return "".join(
        f"M{left:.1f} {top}h{width:.1f}v{height}h-{width:.1f}z" for top, height in bands for left, width in spans
    )


def _labels(lane: Lane, seconds: float) -> tuple[Label, ...]:
    return tuple(
        Label(round(item.start / seconds * 100, 2), round(item.duration / seconds * 100, 2), item.label)
        for item in lane.slices
        if item.label and item.duration / seconds * 100 >= ROOM
    )


def _sum(chart: Timeline, lane: Lane) -> Sum:
    seconds = [0.0] * len(chart.categories)
    counts = [0] * len(chart.categories)
    for item in lane.slices:
        seconds[item.category] += item.duration
        counts[item.category] += 1
    busy = sum(seconds)
    cells = tuple(
        f"{duration(taken * 1e9)} in {number(count)}" if count else None
        for taken, count in zip(seconds, counts, strict=True)
    )
    share = percent(min(1.0, busy / chart.seconds))
    return Sum(lane.label, len(lane.slices), duration(busy * 1e9), share, cells)


def _longest(chart: Timeline) -> tuple[Long, ...]:
    found: list[tuple[float, str, Slice]] = [
        (item.duration, lane.label, item) for lane in chart.lanes for item in lane.slices
    ]
    found.sort(key=lambda entry: (-entry[0], entry[2].start, entry[1]))
    return tuple(
        Long(
            lane,
            item.label or chart.categories[item.category].name,
            duration(item.start * 1e9),
            duration(item.duration * 1e9),
        )
        for _, lane, item in found[:LONGEST]
    )
