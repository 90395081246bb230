"""Geometry of charts: from their data to paths, ticks and rows that the templates print. Pure.

Plots are drawn in a square of 1000 by 1000 that the page stretches to its width; ticks are positions in percent with
a label, set as text of the page, so that letters keep their size on a phone. Colours are classes, so that light and
dark are the style sheet's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reports.chart_checks import five
from reports.charts import Bars, Ecdf, Funnel, HeatMap, Line, Lines, QuantileBoxes
from reports.text import duration, number, quantity

SIDE = 1000
"""Length of the square's sides."""

STEPS = 7
"""Steps of a heat map's colour."""


SCALED = ("ns", "s")
"""Units that stand beside each tick; others stand once, in the axis's title."""


BAND = 12
"""Intervals from which on a line has a band; fewer would claim to know what lies between."""

APART = 2.4
"""Percent of the width that numbers over marks keep from each other."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A position on an axis in percent from its start, and what is written there."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to 0…1; ``ticks`` are where a reader wants them."""

    low: float
    high: float
    log: bool
    ticks: tuple[Tick, ...]

    def at(self, value: float) -> float:
        """Return the position of ``value``, 0 to 1, clamped."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        where = math.log10(max(value, self.low)) if self.log else value
        return min(1.0, max(0.0, (where - low) / (high - low)))


def linear_axis(low: float, high: float, unit: str = "", wanted: int = 5) -> Axis:
    """Return an axis whose ticks are 1, 2 or 5 times a power of ten apart."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    low, high = first * step, last * step
    shown = unit if unit in SCALED else ""
    values = [round(index * step, 12) for index in range(first, last + 1)]
    ticks = tuple(Tick(round((value - low) / (high - low) * 100, 2), quantity(value, shown)) for value in values)
    return Axis(low, high, log=False, ticks=ticks)


def log_axis(low: float, high: float, unit: str = "", wanted: int = 7, *, exact: bool = False) -> Axis:
    """Return a logarithmic axis with ticks at powers of ten.

    :param exact: keep ``low`` and ``high`` as ends, else they move out to powers of ten.
    """
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    if first == last:
        last += 1
    if not exact:
        low, high = 10.0**first, 10.0**last
    every = max(1, math.ceil((last - first) / wanted))
    span = math.log10(high) - math.log10(low)
    ticks = []
    for exponent in range(first, last + 1, every):
        at = (exponent - math.log10(low)) / span
        if -1e-9 <= at <= 1 + 1e-9:
            ticks.append(Tick(round(at * 100, 2), quantity(10.0**exponent, unit if unit in SCALED else "")))
    return Axis(low, high, log=True, ticks=tuple(ticks))


def _point(x: float, y: float) -> str:
    return f"{x * SIDE:.0f} {(1 - y) * SIDE:.0f}"


@dataclass(frozen=True, slots=True)
class Layer:
    """All cells of a heat map with one step of colour, as one path; ``label`` is the range of counts it stands for."""

    step: int
    path: str
    label: str


@dataclass(frozen=True, slots=True)
class HeatPlot:
    """A heat map, drawn; ``numbers`` name its marks, ``rows`` are totals by duration, for those who cannot see it."""

    x: Axis
    y: Axis
    layers: tuple[Layer, ...]
    marks: tuple[Tick, ...]
    numbers: tuple[Tick, ...]
    summary: str
    rows: tuple[tuple[str, int], ...]


def heat_plot(chart: HeatMap) -> HeatPlot:
    """Return the drawing of ``chart``: colour by the logarithm of the count."""
    highest = max((cell for row in chart.counts for cell in row), default=0)
    bounds = _step_bounds(highest)
    x = linear_axis_within(chart.x_edges[0], chart.x_edges[-1], chart.x_unit)
    y = log_axis(chart.y_edges[0], chart.y_edges[-1], "ns", exact=True)
    ys = [(1 - y.at(edge)) * SIDE for edge in chart.y_edges]
    xs = [x.at(edge) * SIDE for edge in chart.x_edges]
    paths: list[list[str]] = [[] for _ in bounds]
    for row, counts in enumerate(chart.counts):
        for column, count in enumerate(counts):
            if count:
                step = sum(count > bound for bound in bounds)
                width, height = xs[column + 1] - xs[column], ys[row] - ys[row + 1]
                paths[step].append(f"M{xs[column]:.1f} {ys[row + 1]:.1f}h{width:.1f}v{height:.1f}h{-width:.1f}z")
    layers, low = [], 1
    for step, (bound, path) in enumerate(zip(bounds, paths, strict=True)):
        label = number(low) if bound <= low else f"{number(low)} to {number(bound)}"
        layers.append(Layer(STEPS - len(bounds) + step + 1, "".join(path), label))
        low = bound + 1
    total = sum(map(sum, chart.counts))
    sums = [sum(row) for row in chart.counts]
    busiest = max(range(len(sums)), key=sums.__getitem__)
    summary = (
        f"{number(total)} {chart.what}; most, {number(sums[busiest])}, lasted {duration(chart.y_edges[busiest])} "
        f"to {duration(chart.y_edges[busiest + 1])}; at most {number(highest)} in one cell"
    )
    rows = tuple(
        (f"{duration(chart.y_edges[row])} to {duration(chart.y_edges[row + 1])}", count)
        for row, count in enumerate(sums)
        if count
    )
    inside = [mark for mark in chart.marks if x.low <= mark.x <= x.high]
    marks = tuple(sorted((Tick(round(x.at(mark.x) * 100, 2), mark.label) for mark in inside), key=lambda t: t.at))
    return HeatPlot(x, y, tuple(layers), marks, mark_numbers(marks), summary, rows)


def mark_numbers(marks: Sequence[Tick]) -> tuple[Tick, ...]:
    """Return where the number of each mark is written: above it, or as far to the right as its neighbour asks."""
    placed: list[Tick] = []
    for number_of, mark in enumerate(marks, 1):
        free = placed[-1].at + APART if placed else 0.0
        placed.append(Tick(round(max(mark.at, free), 2), str(number_of)))
    return tuple(placed)


def linear_axis_within(low: float, high: float, unit: str) -> Axis:
    """Return a linear axis from ``low`` to ``high`` exactly, with the round ticks that lie between."""
    if high <= low:
        high = low + 1.0
    wide = linear_axis(low, high, unit)
    step = (wide.high - wide.low) / (len(wide.ticks) - 1)
    ticks = []
    for index in range(len(wide.ticks)):
        value = wide.low + index * step
        if low - step * 1e-6 <= value <= high + step * 1e-6:
            ticks.append(Tick(round((value - low) / (high - low) * 100, 2), wide.ticks[index].label))
    return Axis(low, high, log=False, ticks=tuple(ticks))


def _step_bounds(highest: int) -> list[int]:
    """Return the highest count of each step of colour, ascending, at most :data:`STEPS`."""
    if highest <= STEPS:
        return list(range(1, max(1, highest) + 1))
    return [max(step + 1, math.floor(highest ** ((step + 1) / STEPS) + 1e-9)) for step in range(STEPS)]


@dataclass(frozen=True, slots=True)
class Curve:
    """A line: its path, a dot for each value, whiskers or a band of its intervals."""

    name: str
    index: int
    path: str
    dots: str
    band: str
    whiskers: str


@dataclass(frozen=True, slots=True)
class LinePlot:
    """Lines over common axes."""

    x: Axis
    y: Axis
    curves: tuple[Curve, ...]


def line_plot(chart: Lines) -> LinePlot:
    """Return the drawing of ``chart``; a linear vertical axis starts at zero."""
    points = [point for line in chart.lines for point in line.points]
    xs = [point.x for point in points] or [0.0, 1.0]
    ys = [value for point in points for value in (point.y, point.low, point.high) if value is not None] or [0.0, 1.0]
    x_log, y_log = chart.x_log and min(xs) > 0, chart.y_log and min(ys) > 0
    x = _category_log_axis(xs) if x_log else linear_axis_within(min(xs), max(xs), "")
    y = log_axis(min(ys), max(ys), chart.y_unit) if y_log else linear_axis(min(0.0, *ys), max(ys), chart.y_unit)
    return LinePlot(x, y, tuple(_curve(line, index, x, y) for index, line in enumerate(chart.lines)))


def _category_log_axis(xs: Sequence[float]) -> Axis:
    """Return a logarithmic axis with a tick at each value where they are few (1, 2, 4, 8, 16 goroutines)."""
    values = sorted(set(xs))
    low, high = values[0], values[-1] if values[-1] > values[0] else values[0] * 2
    if len(values) > 8:
        return log_axis(low, high, exact=True)
    span = math.log10(high / low)
    ticks = tuple(Tick(round(math.log10(value / low) / span * 100, 2), number(value)) for value in values)
    return Axis(low, high, log=True, ticks=ticks)


def _curve(line: Line, index: int, x: Axis, y: Axis) -> Curve:
    points = sorted(line.points, key=lambda point: point.x)
    places = [_point(x.at(point.x), y.at(point.y)) for point in points]
    ranged = [point for point in points if point.low is not None and point.high is not None]
    upper = [_point(x.at(point.x), y.at(point.high or 0.0)) for point in ranged]
    lower = [_point(x.at(point.x), y.at(point.low or 0.0)) for point in ranged]
    return Curve(
        name=line.name,
        index=index % 6,
        path=("M" + "L".join(places)) if places else "",
        dots="".join(f"M{place}h0" for place in places),
        band=("M" + "L".join(upper + lower[::-1]) + "z") if len(ranged) >= BAND else "",
        whiskers="".join(f"M{high}L{low}" for high, low in zip(upper, lower, strict=True)),
    )


def ecdf_plot(chart: Ecdf) -> LinePlot:
    """Return the drawing of ``chart`` as steps; the vertical axis is a share."""
    values = [value for series in chart.series for value in series.x if value > 0] or [1.0, 10.0]
    x = log_axis(min(values), max(values), chart.x_unit, wanted=6)
    ticks = tuple(Tick(float(share), f"{share}%") for share in (0, 25, 50, 75, 100))
    y = Axis(0.0, 1.0, log=False, ticks=ticks)
    curves = []
    for index, series in enumerate(chart.series):
        path, before = "", 0.0
        for value, share in zip(series.x, series.p, strict=True):
            place = x.at(value) * SIDE
            path += f"{'L' if path else 'M'}{place:.0f} {(1 - before) * SIDE:.0f}V{(1 - share) * SIDE:.0f}"
            before = share
        name = f"{series.name} ({number(series.n)})"
        curves.append(Curve(name, index % 6, f"{path}H{SIDE}" if path else "", "", "", ""))
    return LinePlot(x, y, tuple(curves))


@dataclass(frozen=True, slots=True)
class Row:
    """A bar set as text and a width in percent; ``value`` is written at its end."""

    label: str
    value: str
    width: float | None
    low: float | None
    high: float | None
    note: str


def funnel_rows(chart: Funnel) -> list[Row]:
    """Return the steps of ``chart`` as bars by the logarithm of the count, each with its share of the first."""
    counted = [step.count for step in chart.steps if step.count is not None]
    highest = max(counted, default=0)
    first = counted[0] if counted else 0
    rows = []
    for step in chart.steps:
        if step.count is None:
            rows.append(Row(step.label, "not measured", None, None, None, step.note))
            continue
        width = 100 * math.log10(1 + step.count) / math.log10(1 + highest) if highest else 0.0
        part = f"{number(step.count / first * 100)}% of the first step" if first and step is not chart.steps[0] else ""
        rows.append(Row(step.label, number(step.count), round(width, 2), None, None, step.note or part))
    return rows


def bar_rows(chart: Bars) -> list[Row]:
    """Return the bars of ``chart``, scaled to its maximum or to the largest value or interval."""
    sizes = [size for bar in chart.bars for size in (bar.value, bar.high) if size is not None]
    maximum = chart.maximum or max(sizes, default=1.0) or 1.0

    def percent(value: float | None) -> float | None:
        return None if value is None else round(min(100.0, max(0.0, value / maximum * 100)), 2)

    return [
        Row(
            bar.label,
            quantity(bar.value, chart.unit),
            percent(bar.value),
            percent(bar.low),
            percent(bar.high),
            bar.note,
        )
        for bar in chart.bars
    ]


@dataclass(frozen=True, slots=True)
class BoxRow:
    """A group's quantiles in percent of the axis, None where there is none, and the same as text."""

    label: str
    n: int
    places: tuple[float | None, ...]
    values: tuple[str, ...]
    absent: str


@dataclass(frozen=True, slots=True)
class BoxPlot:
    """Quantiles by group over a common axis."""

    x: Axis
    rows: tuple[BoxRow, ...]


def box_plot(chart: QuantileBoxes) -> BoxPlot:
    """Return the drawing of ``chart``; a linear axis starts at zero."""
    values = [value for group in chart.groups for value in five(group)] or [0.0, 1.0]
    low, high = min(values), max(values)
    if chart.log and low > 0:
        x = log_axis(low, high, chart.unit, wanted=6)
    else:
        x = linear_axis(min(0.0, low), high, chart.unit)
    rows = []
    for group in chart.groups:
        five_values = (group.p5, group.p25, group.p50, group.p75, group.p95)
        rows.append(
            BoxRow(
                label=group.label,
                n=group.n,
                places=tuple(None if value is None else round(x.at(value) * 100, 2) for value in five_values),
                values=tuple("" if value is None else quantity(value, chart.unit) for value in five_values),
                absent=group.absent,
            )
        )
    return BoxPlot(x, tuple(rows))
