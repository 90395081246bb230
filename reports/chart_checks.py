"""What types alone cannot say of a chart: ids, shapes that fit each other, and the bounds that keep a page small."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from reports.charts import AnyChart, Flame, FlameDifference, Funnel, HeatMap, QuantileBoxes, Quantiles, Table, Timeline

CELLS = 20_000
"""Cells of a heat map."""

SLICES = 6_000
"""Slices of a timeline, in all its lanes."""

LANES = 64
"""Lanes of a timeline."""

CATEGORIES = 8
"""Categories of a timeline, the rest not counted: as many forms as an eye tells apart in a narrow row."""

NODES = 600
"""Nodes of a flame graph."""

DEPTH = 64
"""Rows of a flame graph."""

FUNCTIONS = 60
"""Functions in a table of them."""

GROUPS = 200
"""Groups of a chart of quantiles."""

_ID = re.compile(r"[a-z][a-z0-9-]*")


def problems(chart: AnyChart) -> Iterator[str]:
    """Yield what does not hold together in ``chart``, one clause each."""
    if not _ID.fullmatch(chart.id):
        yield f"chart {chart.id!r} is no plain id"
    found: Iterable[str] = ()
    match chart:
        case HeatMap():
            found = _heat(chart)
        case Table():
            found = ["has a row that does not fit its columns"] * any(
                len(row) != len(chart.columns) for row in chart.rows
            )
        case Funnel():
            found = [] if chart.steps else ["has no steps"]
        case QuantileBoxes():
            found = _quantiles(chart)
        case Timeline():
            found = _timeline(chart)
        case Flame():
            found = _flame(chart)
        case FlameDifference():
            found = _difference(chart)
    for problem in found:
        yield f"chart {chart.id} {problem}"


def _heat(chart: HeatMap) -> Iterator[str]:
    rows, columns = len(chart.y_edges) - 1, len(chart.x_edges) - 1
    if rows < 1 or columns < 1 or chart.y_edges[0] <= 0:
        yield "has no cells"
    elif len(chart.counts) != rows or any(len(row) != columns for row in chart.counts):
        yield "has counts that do not fit its edges"
    elif rows * columns > CELLS:
        yield f"has {rows * columns} cells; bin it to {CELLS} at most"


def five(group: Quantiles) -> list[float]:
    """Return the quantiles that ``group`` has, ascending by share."""
    return [q for q in (group.p5, group.p25, group.p50, group.p75, group.p95) if q is not None]


def _quantiles(chart: QuantileBoxes) -> Iterator[str]:
    if len(chart.groups) > GROUPS:
        yield f"has {len(chart.groups)} groups; {GROUPS} at most"
    for group in chart.groups:
        values = five(group)
        if not all(map(math.isfinite, values)) or values != sorted(values):
            yield f"has quantiles of {group.label!r} that do not ascend"
        if (group.p50 is None) != bool(group.absent) or (group.n < 1) != (group.p50 is None):
            yield f"has neither a median of {group.label!r} with its number of values nor a reason, or both"
        if (group.p5 is None) != (group.p95 is None) or (group.p25 is None) != (group.p75 is None):
            yield f"has one side of {group.label!r} only"


def _timeline(chart: Timeline) -> Iterator[str]:
    slices = sum(len(lane.slices) for lane in chart.lanes)
    if slices > SLICES:
        yield f"has {slices} slices; show a shorter window, of {SLICES} at most"
    if len(chart.lanes) > LANES:
        yield f"has {len(chart.lanes)} lanes; {LANES} at most"
    if sum(not category.rest for category in chart.categories) > CATEGORIES:
        yield f"has more than {CATEGORIES} categories; put the others together as one with `rest`"
    if not (math.isfinite(chart.seconds) and chart.seconds > 0):
        yield f"has an axis of {chart.seconds} s"
        return
    if min(chart.joined, chart.outside, chart.omitted, chart.overlapping) < 0:
        yield "left out fewer than no slices"
    slack = chart.seconds * 1e-6
    for lane in chart.lanes:
        last = 0.0
        for item in lane.slices:
            # Written so that a value that is no number fails, too.
            if not (item.duration >= 0 and last <= item.start and item.start + item.duration <= chart.seconds + slack):
                yield f"has a slice at {item.start} s in lane {lane.label!r} that is out of order or beyond the axis"
                break
            if not 0 <= item.category < len(chart.categories):
                yield f"has a slice of category {item.category}, which it does not name"
                break
            last = item.start


def _flame(chart: Flame) -> Iterator[str]:
    if len(chart.nodes) > NODES:
        yield f"has {len(chart.nodes)} nodes; fold it to {NODES} at most"
    if len(chart.functions) > FUNCTIONS:
        yield f"has a table of {len(chart.functions)} functions; {FUNCTIONS} at most"
    if not (math.isfinite(chart.total) and chart.total > 0):
        yield "weighs nothing"
        return
    left = [node.value for node in chart.nodes]
    depths: list[int] = []
    whole = chart.total
    for index, node in enumerate(chart.nodes):
        if not (-1 <= node.parent < index and math.isfinite(node.value) and node.value >= 0):
            yield f"has a node {node.frame!r} without its caller before it, or without a weight"
            return
        depths.append(0 if node.parent < 0 else depths[node.parent] + 1)
        if node.parent < 0:
            whole -= node.value
        else:
            left[node.parent] -= node.value
    if min([whole, *left]) < -1e-6 * max(chart.total, 1.0):
        yield "has a node that weighs less than what it calls"
    if depths and max(depths) >= DEPTH:
        yield f"is more than {DEPTH} calls deep"


def _difference(chart: FlameDifference) -> Iterator[str]:
    if len(chart.functions) > FUNCTIONS:
        yield f"has a table of {len(chart.functions)} functions; {FUNCTIONS} at most"
    for row in chart.functions:
        shares = (row.left_self, row.right_self, row.left_total, row.right_total)
        if not all(0 <= share <= 1 + 1e-9 for share in shares):
            yield f"has a share of {row.name!r} that is none"
    if chart.distance is not None and not 0 <= chart.distance <= 1 + 1e-9:
        yield f"has a distance of {chart.distance}"
