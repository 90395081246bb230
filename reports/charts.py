"""Data of the charts in a record: small, binned, and enough to draw them again years later.

A lab's ``analysis.py`` makes these; ``reports.svg`` draws them. Nothing here is an event: a heat map holds counts by
cell, a distribution at most a few hundred points.
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
    """

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
    """Cumulative distributions on a logarithmic axis of ``x_unit`` (``ns`` is labelled µs, ms, s)."""

    x_title: str
    x_unit: str = "ns"
    series: list[EcdfSeries]


Cell = str | int | float | None


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column; ``timing`` marks its figures under emulation; None in a cell is shown as "not measured"."""

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
    """The heaviest stacks; ``total`` events were seen, ``without`` of them had no stack."""

    stacks: list[Stack]
    total: int
    without: int = 0


AnyChart = Funnel | HeatMap | Lines | Bars | Ecdf | Table | StackList
