"""Data of the charts in a record: small, binned, and enough to draw them again years later.

A lab's ``analysis.py`` makes these; ``reports.plots``, ``reports.timeline_plot`` and ``reports.flame_plot`` draw them.
Nothing here grows with the run: a heat map holds counts by cell, a distribution at most a few hundred points, a
timeline one window of a few thousand slices; ``reports.chart_checks`` holds them to these bounds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Place = Literal["happened", "known", "time", "stacks", "fairness"]
"""Section of the page: what happened, how do we know, over time, stacks of the waiters, fairness."""


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """What all charts share.

    :param id: unique in a record, lower-case letters, digits and ``-``.
    :param caption: what it shows and how to read it, one or two sentences.
    :param phase: phase that the data come from.
    :param timing: the data are times or rates, so that under emulation the chart is marked.
    """

    id: str
    title: str
    caption: str
    place: Place = "happened"
    phase: str
    timing: bool = False


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a funnel.

    :param count: None where it could not be counted; ``note`` then says why.
    """

    label: str
    count: int | None
    note: str = ""


class Funnel(Chart, frozen=True, kw_only=True, tag="funnel"):
    """Counts that narrow from step to step; drawn on a logarithmic scale, each with its share of the first."""

    steps: list[Step]


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A labelled position on the horizontal axis, in the axis's own unit."""

    x: float
    label: str


class HeatMap(Chart, frozen=True, kw_only=True, tag="heatmap"):
    """Counts by cell of a horizontal axis (time) and a logarithmic vertical one (a duration).

    :param x_edges: ascending, one more than columns, in ``x_unit``.
    :param y_edges: ascending, one more than rows, in nanoseconds, equally spaced in the logarithm.
    :param counts: rows of columns, lowest row first.
    :param beyond: events that lie outside the edges; stated, never dropped in silence.
    :param what: what is counted, as a plural.
    """

    what: str = "waits"
    x_title: str
    x_unit: str = "s"
    x_edges: list[float]
    y_title: str
    y_edges: list[float]
    counts: list[list[int]]
    marks: list[Mark] = []
    beyond: int = 0


class LinePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A point of a line with its interval, where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line; told from the others by its dash and marker as well as by its colour."""

    name: str
    points: list[LinePoint]


class Lines(Chart, frozen=True, kw_only=True, tag="lines"):
    """Lines with intervals over a common axis."""

    x_title: str
    y_title: str
    y_unit: str = ""
    y_log: bool = False
    x_log: bool = False
    lines: list[Line]


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A bar; ``value`` None is drawn as "not measured"."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


class Bars(Chart, frozen=True, kw_only=True, tag="bars"):
    """Bars from zero."""

    unit: str
    bars: list[Bar]
    maximum: float | None = None


class EcdfSeries(msgspec.Struct, frozen=True, kw_only=True):
    """Share ``p`` of the ``n`` values that are at most ``x``; both ascending (``statistics.ecdf`` makes them)."""

    name: str
    n: int
    x: list[float]
    p: list[float]


class Ecdf(Chart, frozen=True, kw_only=True, tag="ecdf"):
    """Cumulative distributions on a logarithmic axis of ``x_unit`` (``ns`` is labelled µs, ms, s).

    :param what: what is distributed, as a plural.
    """

    what: str = "waits"
    x_title: str
    x_unit: str = "ns"
    series: list[EcdfSeries]


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Five quantiles of the ``n`` values of one group (``statistics.quantiles`` makes them).

    :param p5: None where there are too few values to speak of one in twenty, as is ``p95``; ``p25`` and ``p75``
        likewise for one in four, and ``p50`` where there is no value at all.
    :param absent: why there is no value.
    """

    label: str
    n: int
    p5: float | None = None
    p25: float | None = None
    p50: float | None = None
    p75: float | None = None
    p95: float | None = None
    absent: str = ""


class QuantileBoxes(Chart, frozen=True, kw_only=True, tag="quantiles"):
    """A distribution by group (cost by kind, delay by depth): box of the middle half, line from 5% to 95%.

    :param what: what is distributed, as a plural.
    :param log: logarithmic axis, where every value is positive; else from zero.
    """

    what: str
    unit: str
    log: bool = False
    groups: list[Quantiles]


class Absent(msgspec.Struct, frozen=True, kw_only=True):
    """A cell that has no figure, and why."""

    why: str


Cell = str | int | float | Absent | None


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column; ``timing`` marks its figures under emulation; a cell of None is shown as "not measured"."""

    title: str
    unit: str = ""
    timing: bool = False


class Table(Chart, frozen=True, kw_only=True, tag="table"):
    """A table of text and figures; the first column heads each row."""

    columns: list[Column]
    rows: list[list[Cell]]


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """A stack that waited.

    :param frames: ``function`` or ``function file:line``, innermost first.
    :param count: parks with this stack.
    :param wait_ns: nanoseconds waited in all of them, None where unknown.
    """

    frames: list[str]
    count: int
    wait_ns: int | None = None


class StackList(Chart, frozen=True, kw_only=True, tag="stacks"):
    """The heaviest stacks; ``total`` events (``what``, a plural) were seen, ``without`` of them had no stack."""

    what: str = "waits"
    stacks: list[Stack]
    total: int
    without: int = 0


class Category(msgspec.Struct, frozen=True, kw_only=True):
    """What a slice of a timeline is, told by a form of its own as well as by colour.

    :param rest: all that has no category of its own; it is drawn without emphasis.
    """

    name: str
    rest: bool = False


class Slice(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of a lane.

    :param start: seconds since the timeline's own zero.
    :param duration: seconds.
    :param category: index into :attr:`Timeline.categories`.
    :param label: written into the slice where it is wide enough.
    """

    start: float
    duration: float
    category: int
    label: str = ""


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a timeline, ``P 0`` or ``M 4711``; slices ascend by start.

    :param group: rows of one group stand together below its name, "Ps" or "Ms (threads)".
    """

    label: str
    group: str
    slices: list[Slice]


class Timeline(Chart, frozen=True, kw_only=True, tag="timeline"):
    """What ran where over time: rows of slices over a common axis (``reports.timeline`` makes it from arrays).

    :param seconds: length of the axis, which starts at 0.
    :param origin: what 0 is, in words.
    :param joined: slices that were put together with a neighbour of the same category.
    :param outside: slices that lie before or after the window.
    :param omitted: slices in the window that belong to no lane drawn, or found no room.
    :param overlapping: slices that ended after the next one of their lane began, and were cut there; other than 0 says
        that the data are not what they claim to be.
    :param trace: path in the record of the same timeline in full, for a trace viewer.
    """

    seconds: float
    origin: str
    lanes: list[Lane]
    categories: list[Category]
    marks: list[Mark] = []
    joined: int = 0
    outside: int = 0
    omitted: int = 0
    overlapping: int = 0
    trace: str = ""


class FlameNode(msgspec.Struct, frozen=True, array_like=True):
    """A function as called by its parent.

    :param parent: index of the caller's node, which comes before this one; -1 for an outermost function.
    :param value: of all stacks that pass through here, in the chart's unit.
    :param folded: nodes that this one stands for, 0 where it is a function itself.
    """

    frame: str
    parent: int
    value: float
    folded: int = 0


class FunctionShare(msgspec.Struct, frozen=True, kw_only=True):
    """A function's weight.

    :param self_value: of stacks that end in it.
    :param total: of stacks that pass through it, each counted once even where it calls itself.
    """

    name: str
    self_value: float
    total: float


class Flame(Chart, frozen=True, kw_only=True, tag="flame"):
    """Stacks as a tree, callers above what they call, width by weight (``reports.flame`` makes it).

    :param unit: ``bytes``, ``objects``, ``ns``, ``samples`` or another word for what is weighed.
    :param total: of all stacks; ``without`` of it belongs to stacks that could not be read.
    :param functions: the heaviest by their own weight, from the whole tree; ``functions_omitted`` others are left out.
    """

    unit: str
    total: float
    without: float = 0.0
    nodes: list[FlameNode]
    functions: list[FunctionShare]
    functions_omitted: int = 0


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a comparison: what took it, its unit, and the sum of its weights."""

    name: str
    unit: str
    total: float


class FunctionDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A function's share (0 to 1) in two profiles, of stacks that end in it and of those that pass through it."""

    name: str
    left_self: float
    right_self: float
    left_total: float
    right_total: float


class FlameDifference(Chart, frozen=True, kw_only=True, tag="flame-difference"):
    """Two profiles of the same work, function by function, as shares, so that their units may differ.

    :param distance: half the sum of the differences of all functions' own shares: 0 where both agree, 1 where they have
        nothing in common (total variation distance); None where a profile is empty.
    :param functions: those that differ or weigh most; ``functions_omitted`` others are left out.
    """

    left: Profile
    right: Profile
    distance: float | None
    functions: list[FunctionDifference]
    functions_omitted: int = 0


AnyChart = (
    Funnel | HeatMap | Lines | Bars | Ecdf | Table | StackList | QuantileBoxes | Timeline | Flame | FlameDifference
)
