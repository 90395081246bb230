"""Geometry of a comparison's charts: forest plots, distributions, latencies by kernel. Pure; see ``reports.plots``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from reports.charts import Ecdf, HeatMap
from reports.comparison import Effect
from reports.plots import SIDE, Axis, Curve, HeatPlot, LinePlot, Tick, ecdf_plot, heat_plot, linear_axis_within
from reports.text import NARROW, number

WIDEST = 6.0
"""An interval goes on beyond the axis where it is this many times farther out than the farthest estimate."""

TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000, 1_000_000)
"""Distances between ticks of a forest plot, in percent."""

MOST_TICKS = 8

SERIES = 6
"""Curves that a reader tells apart by form and colour."""


@dataclass(frozen=True, slots=True)
class ForestRow:
    """An effect on the axis, in thousandths of its width.

    :param at: None where there is no ratio. :param low: and ``high``: None where there is no interval.
    :param below: and ``above``: the interval goes on beyond the axis.
    """

    effect: Effect
    at: float | None
    low: float | None
    high: float | None
    below: bool
    above: bool


@dataclass(frozen=True, slots=True)
class Forest:
    """Effects of a metric with the band of equivalence; ``zero`` is where nothing differs."""

    ticks: tuple[Tick, ...]
    zero: float
    band: tuple[float, float]
    rows: tuple[ForestRow, ...]


def forest(effects: Sequence[Effect], delta: float) -> Forest:
    """Return the plot of ``effects``: the logarithm of the ratio, with ticks in percent, the control last."""
    margin = math.log1p(delta)
    logs = [math.log(effect.ratio) for effect in effects if effect.ratio is not None]
    ends = [math.log(end) for e in effects if e.interval is not None for end in (e.interval.low, e.interval.high)]
    farthest = max([2 * margin, *(abs(each) for each in logs)])
    reach = [min(max(end, -WIDEST * farthest), WIDEST * farthest) for end in ends]
    low, high = min([-2 * margin, *logs, *reach]), max([2 * margin, *logs, *reach])
    pad = (high - low) * 0.04
    low, high = low - pad, high + pad

    def at(value: float) -> float:
        return round(min(1.0, max(0.0, (value - low) / (high - low))) * SIDE, 1)

    rows = []
    for effect in sorted(effects, key=lambda e: e.control):
        bounds = effect.interval
        rows.append(
            ForestRow(
                effect=effect,
                at=None if effect.ratio is None else at(math.log(effect.ratio)),
                low=None if bounds is None else at(math.log(bounds.low)),
                high=None if bounds is None else at(math.log(bounds.high)),
                below=bounds is not None and math.log(bounds.low) < low,
                above=bounds is not None and math.log(bounds.high) > high,
            )
        )
    return Forest(_ticks(low, high), at(0.0), (at(-margin), at(margin)), tuple(rows))


def _ticks(low: float, high: float) -> tuple[Tick, ...]:
    """Return ticks at round percents, at most :data:`MOST_TICKS`, 0 among them."""
    first, last = math.expm1(low) * 100, math.expm1(high) * 100
    for step in TICKS:
        values = [step * index for index in range(math.ceil(first / step), math.floor(last / step) + 1)]
        if len(values) <= MOST_TICKS:
            break
    return tuple(
        Tick(round((math.log1p(value / 100) - low) / (high - low) * 100, 2), _percent(value))
        for value in values
        if value > -100
    )


def _percent(value: float) -> str:
    return f"{value:+,g}%".replace("-", "−").replace(",", NARROW) if value else "0%"


def distribution(chart: Ecdf) -> LinePlot:
    """Return the drawing of ``chart`` as steps: on a linear axis where the values lie within a factor of ten."""
    values = [value for series in chart.series for value in series.x]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low > 0 and high / low >= 10:
        return ecdf_plot(chart)
    pad = (high - low) * 0.03 or abs(high) * 0.01 or 1.0
    x = linear_axis_within(low - pad, high + pad, chart.x_unit)
    ticks = tuple(Tick(float(share), f"{share}%") for share in (0, 25, 50, 75, 100))
    y = Axis(0.0, 1.0, log=False, ticks=ticks)
    curves = []
    for index, series in enumerate(chart.series):
        path, before = f"M0 {SIDE}", 0.0
        for value, share in zip(series.x, series.p, strict=True):
            path += f"H{x.at(value) * SIDE:.0f}V{(1 - share) * SIDE:.0f}"
            before = share
        name = f"{series.name} ({number(series.n)})"
        curves.append(Curve(name, index % SERIES, f"{path}H{SIDE}" if before else "", "", "", ""))
    return LinePlot(x, y, tuple(curves))


def parts(chart: Ecdf, baseline: str) -> list[Ecdf]:
    """Return ``chart`` as charts of at most :data:`SERIES` curves, the baseline in each of them."""
    if len(chart.series) <= SERIES:
        return [chart]
    first = [series for series in chart.series if series.name == baseline]
    others = [series for series in chart.series if series.name != baseline]
    size = SERIES - len(first)
    return [
        msgspec.structs.replace(
            chart,
            id=f"{chart.id}-{part + 1}",
            title=f"{chart.title}, part {part + 1}",
            series=[*first, *others[start : start + size]],
        )
        for part, start in enumerate(range(0, len(others), size))
    ]


@dataclass(frozen=True, slots=True)
class Column:
    """A kernel's column of a heat map: where it ends and its middle, in percent."""

    label: str
    at: float
    end: float


@dataclass(frozen=True, slots=True)
class KernelHeat:
    """A heat map kernel × latency, drawn."""

    plot: HeatPlot
    columns: tuple[Column, ...]


def kernel_heat(chart: HeatMap) -> KernelHeat:
    """Return the drawing of ``chart``, whose marks are the middles of its columns."""
    plot = heat_plot(msgspec.structs.replace(chart, marks=[]))
    wide = chart.x_edges[-1] - chart.x_edges[0]
    columns = tuple(
        Column(mark.label, round(mark.x / wide * 100, 2), round((mark.x + 0.5) / wide * 100, 2)) for mark in chart.marks
    )
    return KernelHeat(dataclasses.replace(plot, x=Axis(plot.x.low, plot.x.high, log=False, ticks=())), columns)
