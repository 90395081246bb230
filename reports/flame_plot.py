"""Geometry of flame graphs and comparisons of profiles: boxes and bars in percent, which the templates print. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from reports.charts import Flame, FlameDifference
from reports.text import number, percent, quantity

NARROW = 1.5
"""Percent of the width below which a box has no label; above, the page shows it where its window leaves room."""

SHADES = (0.05, 0.5)
"""Share of a function's weight that is its own, from which on its box is of the second and of the third shade."""


@dataclass(frozen=True, slots=True)
class Box:
    """A function as called by the box above it; ``left`` and ``width`` in percent, ``row`` from the top.

    :param label: empty where the box is too narrow for one.
    :param words: function, weight and share, for who points at it.
    :param shade: 1 to 3 by the share that is its own, 0 for what was folded.
    """

    left: float
    width: float
    row: int
    label: str
    words: str
    shade: int


@dataclass(frozen=True, slots=True)
class FlamePlot:
    """A flame graph; ``summary`` says in words what it shows, ``folded`` how many calls have no box of their own."""

    boxes: tuple[Box, ...]
    rows: int
    summary: str
    folded: int


def amount(value: float, unit: str) -> str:
    """Return a weight with its unit; bytes are scaled by 1024, nanoseconds as everywhere."""
    if unit == "bytes":
        for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if value >= size:
                return f"{number(float(f'{value / size:.3g}'))}\u00a0{name}"
    return quantity(value, unit)


def flame_plot(chart: Flame, tag: str = "") -> FlamePlot:
    """Return the drawing of ``chart``.

    :param tag: mark of the machine's clock, said with each weight where the chart is a timing.
    """
    scale = 100 / chart.total if chart.total else 0.0
    below: dict[int, float] = defaultdict(float)
    for node in chart.nodes:
        below[node.parent] += node.value
    # What is folded stands at the right of its siblings, so that the eye finds functions first.
    order = sorted(range(len(chart.nodes)), key=lambda index: (chart.nodes[index].folded > 0, index))
    children: dict[int, list[int]] = defaultdict(list)
    for index in order:
        children[chart.nodes[index].parent].append(index)
    boxes: list[Box] = []
    open_nodes = [(-1, 0.0, 0)]
    while open_nodes:
        parent, start, row = open_nodes.pop()
        for index in children[parent]:
            node = chart.nodes[index]
            width = node.value * scale
            own = max(0.0, node.value - below[index]) / node.value if node.value else 0.0
            name = f"{number(node.folded)} others, folded" if node.folded else node.frame
            marked = f" ({tag})" if tag and chart.timing else ""
            words = f"{name}: {amount(node.value, chart.unit)}{marked}, {percent(node.value / chart.total)}"
            shade = 0 if node.folded else 1 + sum(own >= bound for bound in SHADES)
            boxes.append(Box(round(start, 3), round(width, 3), row, name if width >= NARROW else "", words, shade))
            open_nodes.append((index, start, row + 1))
            start += width
    rows = 1 + max((box.row for box in boxes), default=0)
    folded = sum(node.folded for node in chart.nodes)
    first = chart.functions[0] if chart.functions else None
    heaviest = f"; most of its own has {first.name}, {percent(first.self_value / chart.total)}" if first else ""
    summary = f"{rows} rows, {len(boxes)} boxes{heaviest}"
    return FlamePlot(tuple(boxes), rows, summary, folded)


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """A function in both profiles; bars in percent of the largest share, ``points`` right minus left in points."""

    name: str
    left: float
    right: float
    left_self: str
    right_self: str
    points: str
    left_total: str
    right_total: str


def difference_rows(chart: FlameDifference) -> list[DifferenceRow]:
    """Return the rows of a comparison, bars scaled to the largest own share in either profile."""
    most = max((max(row.left_self, row.right_self) for row in chart.functions), default=0.0) or 1.0
    return [
        DifferenceRow(
            name=row.name,
            left=round(row.left_self / most * 100, 2),
            right=round(row.right_self / most * 100, 2),
            left_self=percent(row.left_self),
            right_self=percent(row.right_self),
            points=_points(row.right_self - row.left_self),
            left_total=percent(row.left_total),
            right_total=percent(row.right_total),
        )
        for row in chart.functions
    ]


def _points(difference: float) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    points = round(difference * 100, 2)
    return f"{'+' if points > 0 else '−' if points < 0 else '±'}{abs(points):.2f}"
