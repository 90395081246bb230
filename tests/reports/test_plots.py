from __future__ import annotations

import re
from typing import Any

import pytest

from reports import plots, statistics
from reports.charts import (
    Bar,
    Bars,
    Ecdf,
    EcdfSeries,
    Funnel,
    HeatMap,
    Line,
    LinePoint,
    Lines,
    Mark,
    QuantileBoxes,
    Step,
)


def heat(counts: list[list[int]], **more: Any) -> HeatMap:
    return HeatMap(
        id="h", title="", caption="", phase="traced", x_title="", y_title="",
        x_edges=[float(x) for x in range(len(counts[0]) + 1)],
        y_edges=[10.0 ** (3 + y) for y in range(len(counts) + 1)],
        counts=counts, **more,
    )  # fmt: skip


def cells(plot: plots.HeatPlot) -> int:
    return sum(len(re.findall("M", layer.path)) for layer in plot.layers)


def test_a_heat_map_draws_each_cell_that_counts_and_no_other() -> None:
    plot = plots.heat_plot(heat([[0, 1, 0], [5, 0, 200]]))
    assert cells(plot) == 3
    assert plot.rows == (("1\u00a0µs to 10\u00a0µs", 1), ("10\u00a0µs to 100\u00a0µs", 205))
    assert "206 waits" in plot.summary
    # 200 in the upper right cell: the darkest step, from two thirds across, at the top.
    assert plot.layers[-1].path.startswith("M666.7 0.0h333.3v500.0")


@pytest.mark.parametrize("highest", [1, 2, 7, 8, 9, 100, 10**6])
def test_steps_of_colour_hold_every_count_once(highest: int) -> None:
    bounds = plots._step_bounds(highest)
    assert bounds == sorted(set(bounds))
    assert bounds[-1] >= highest
    assert len(bounds) <= plots.STEPS


def test_an_empty_heat_map_is_drawn_empty() -> None:
    assert cells(plots.heat_plot(heat([[0, 0]]))) == 0


def test_marks_outside_the_axis_are_left_out() -> None:
    plot = plots.heat_plot(heat([[1, 1]], marks=[Mark(x=1.0, label="in"), Mark(x=9.0, label="out")]))
    assert [(mark.at, mark.label) for mark in plot.marks] == [(50.0, "in")]


def lines(points: list[LinePoint], **more: Any) -> Lines:
    line = Line(name="mutex", points=points)
    return Lines(id="l", title="", caption="", phase="timed", x_title="", y_title="", lines=[line], **more)


def test_a_linear_axis_starts_at_zero_and_holds_every_interval() -> None:
    plot = plots.line_plot(lines([LinePoint(x=0, y=90, low=80, high=97), LinePoint(x=100, y=150)]))
    assert (plot.y.low, plot.y.at(0)) == (0, 0)
    assert plot.y.high >= 150
    assert [tick.label for tick in plot.x.ticks] == ["0", "20", "40", "60", "80", "100"]
    assert plot.curves[0].path == "M0 400L1000 0"
    assert plot.curves[0].whiskers == "M0 353L0 467"
    assert plot.curves[0].band == ""


def test_few_values_on_a_logarithmic_axis_have_a_tick_each() -> None:
    points = [LinePoint(x=float(x), y=1.0) for x in (1, 4, 16)]
    plot = plots.line_plot(lines(points, x_log=True))
    assert [(tick.at, tick.label) for tick in plot.x.ticks] == [(0, "1"), (50, "4"), (100, "16")]


@pytest.mark.parametrize("points", [[], [LinePoint(x=3, y=0)], [LinePoint(x=3, y=5)], [LinePoint(x=0, y=1)]])
@pytest.mark.parametrize("log", [False, True])
def test_lines_without_an_extent_are_drawn_too(points: list[LinePoint], log: bool) -> None:
    plot = plots.line_plot(lines(points, x_log=log, y_log=log))
    assert plot.x.high > plot.x.low
    assert plot.y.high > plot.y.low


def test_a_distribution_climbs_to_one() -> None:
    series = EcdfSeries(name="all", n=2, x=[1000.0, 10_000.0], p=[0.5, 1.0])
    plot = plots.ecdf_plot(Ecdf(id="e", title="", caption="", phase="traced", x_title="", series=[series]))
    assert plot.curves[0].path == "M0 1000V500L1000 500V0H1000"
    assert plot.curves[0].name == "all (2)"


def test_a_funnel_says_what_was_not_counted_instead_of_zero() -> None:
    steps = [
        Step(label="a", count=1000),
        Step(label="b", count=10),
        Step(label="c", count=0),
        Step(label="d", count=None, note="why"),
    ]
    rows = plots.funnel_rows(Funnel(id="f", title="", caption="", phase="traced", steps=steps))
    assert [row.width for row in rows] == [100.0, pytest.approx(34.7, abs=0.1), 0.0, None]
    assert [row.note for row in rows] == ["", "1% of the first step", "0% of the first step", "why"]


def test_bars_are_scaled_to_the_largest_interval() -> None:
    bars = [Bar(label="a", value=50, low=40, high=100), Bar(label="b", value=None)]
    rows = plots.bar_rows(Bars(id="b", title="", caption="", phase="timed", unit="ns", bars=bars))
    assert (rows[0].width, rows[0].low, rows[0].high, rows[0].value) == (50, 40, 100, "50\u00a0ns")
    assert rows[1].width is None


def boxes(**more: Any) -> plots.BoxPlot:
    groups = [
        statistics.quantiles("many", [float(value) for value in range(1, 102)]),
        statistics.quantiles("six", [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]),
        statistics.quantiles("two", [10.0, 20.0]),
        statistics.quantiles("none", [], absent="this Go has none"),
    ]
    chart = QuantileBoxes(id="q", title="", caption="", phase="timed", what="rounds", unit="ns", groups=groups, **more)
    return plots.box_plot(chart)


def test_a_box_has_the_quantiles_that_its_number_of_values_can_bear() -> None:
    many, six, two, none = boxes().rows
    assert many.places == (6.0, 26.0, 51.0, 76.0, 96.0)
    assert many.values == tuple(f"{value}\u00a0ns" for value in (6, 26, 51, 76, 96))
    assert (six.places[0], six.places[2], six.places[4]) == (None, 35.0, None)
    assert two.places == (None, None, 15.0, None, None)
    assert (none.places, none.absent, none.n) == ((None,) * 5, "this Go has none", 0)


def test_boxes_on_a_logarithmic_axis_stand_within_it() -> None:
    plot = boxes(log=True)
    assert [tick.label for tick in plot.x.ticks] == ["1\u00a0ns", "10\u00a0ns", "100\u00a0ns"]
    assert plot.rows[2].places[2] == pytest.approx(58.8, abs=0.1)


def test_what_is_counted_may_be_something_else_than_waits() -> None:
    assert plots.heat_plot(heat([[3]], what="requests")).summary.startswith("3 requests; most, 3,")
