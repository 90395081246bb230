"""``invoke history``: a lab on a kernel over many matrices and single runs, by lock and by Go version.

A series has one clock and one host: a value is never held against one of another clock or host. Within a series the
lock, Go, the lab's options and its code may change, and where they do it is marked. A ratio to the baseline is that of
its own matrix, so that it can be compared over time where values drift.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports import matrices, statistics
from reports.comparison import Change, LabComparison, Value
from reports.html import CLOCK_TAGS
from reports.ledger import Broken, line_key
from reports.matrices import Found, Matrix
from reports.samples import Sample
from reports.schema import Clock, Interval, Kind
from reports.text import neutral, number, quantity

SHORT = 12
"""Digits of a hash that are shown."""

SINGLE = "run"
"""What stands in the place of a matrix's name for runs of their own."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A matrix, or a single run, in a series.

    :param at: when it began, UTC. :param source: id of the matrix or record; ``path``: its folder.
    :param matrix: whether it is a matrix. :param lock: digest, short. :param lab: hash of the lab's folder, short.
    :param n: runs; ``median`` of their values with its ``interval``, None below 6.
    :param ratio: to ``baseline``, paired in this matrix; None on the baseline itself and for a single run.
    :param changed: what is other than at the point before: ``lock``, ``Go``, ``options``, ``lab``, ``kernel``.
    """

    at: str
    source: str
    path: str
    matrix: bool
    release: str
    lock: str
    go_version: str
    options: dict[str, str]
    lab: str
    n: int
    median: float
    interval: Interval | None
    baseline: str = ""
    ratio: float | None = None
    ratio_interval: Interval | None = None
    change: Change | None = None
    changed: list[str] = []


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Points that may be compared: of one lab, metric, kernel line, clock, host and build; in order of time."""

    lab: str
    metric: str
    title: str
    unit: str
    kind: Kind
    timing: bool
    kernel: str
    clock: Clock
    host: str
    build: str
    points: list[Point]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """All series, by lab, kernel, clock and host.

    :param matrices: that were read; ``runs``: single ones. :param broken: what could not be read, and why.
    """

    series: list[Series]
    matrices: int
    runs: int
    broken: list[Broken]


def collect(paths: Iterable[Path], labs: Sequence[str] = (), kernels: Sequence[str] = ()) -> History:
    """Return the history of what lies at ``paths``: matrices, records, or folders of these.

    :param labs: names of labs, and ``kernels``: lines or releases that are wanted; all where none is named.
    :raises UsageError: a path is no folder.
    """
    return make(matrices.find(paths), labs, kernels)


def make(found: Found, labs: Sequence[str] = (), kernels: Sequence[str] = ()) -> History:
    """Return the history of what was found. Pure."""
    groups: dict[tuple[str, ...], tuple[Series, list[Point]]] = {}
    for one, point in [*_of_matrices(found.matrices), *_of_runs(found.runs)]:
        if labs and one.lab not in labs:
            continue
        if kernels and one.kernel not in kernels and point.release not in kernels:
            continue
        key = (one.lab, one.metric, one.unit, one.kernel, one.clock, one.host, one.build)
        groups.setdefault(key, (one, []))[1].append(point)
    series = [
        msgspec.structs.replace(one, points=_marked(sorted(points, key=lambda p: (p.at, p.source))))
        for one, points in groups.values()
    ]
    series.sort(key=lambda s: (s.lab, line_key(s.kernel), s.metric, s.clock, s.host, s.build))
    return History(series=series, matrices=len(found.matrices), runs=len(found.runs), broken=found.broken)


def _marked(points: Sequence[Point]) -> list[Point]:
    """Return ``points``, each with what is other than at the one before."""
    marked: list[Point] = []
    for point in points:
        before = marked[-1] if marked else point
        pairs = {
            "lock": (before.lock, point.lock),
            "Go": (before.go_version, point.go_version),
            "options": (before.options, point.options),
            "lab": (before.lab, point.lab),
            "kernel": (before.release, point.release),
        }
        changed = [name for name, (old, new) in pairs.items() if old != new]
        marked.append(msgspec.structs.replace(point, changed=changed))
    return marked


# ---- from matrices ----


def _of_matrices(found: Iterable[Matrix]) -> list[tuple[Series, Point]]:
    return [
        each
        for one in found
        for lab in one.comparison.labs
        for kernel in one.comparison.kernels
        if (each := _of_matrix(one, lab, kernel.line, kernel.release)) is not None
    ]


def _of_matrix(one: Matrix, lab: LabComparison, line: str, release: str) -> tuple[Series, Point] | None:
    compared, comparison, plan = lab.primary, one.comparison, one.plan
    values = compared.values.get(line, []) if compared else []
    if compared is None or not values:
        return None
    effect = next((each for each in compared.effects if each.kernel == line and not each.control), None)
    middle = _middle(values)
    planned = plan.lab(lab.lab)
    series = Series(
        lab=lab.lab, metric=compared.metric, title=compared.title, unit=compared.unit, kind=compared.kind,
        timing=compared.timing, kernel=line, clock=comparison.clock, host=one.host, build=plan.build, points=[],
    )  # fmt: skip
    point = Point(
        at=_utc(plan.created), source=plan.id, path=str(one.folder), matrix=True, release=release,
        lock=plan.lock_digest[:SHORT], go_version=_go(comparison.provenance.get("Go", plan.go_version)),
        options=dict(sorted(planned.options.items())), lab=planned.sha256[:SHORT], n=middle.n, median=middle.value,
        interval=middle.interval, baseline=comparison.baseline, ratio=effect.ratio if effect else None,
        ratio_interval=effect.interval if effect else None, change=effect.change if effect else None,
    )  # fmt: skip
    return series, point


def _middle(values: Sequence[Value]) -> statistics.Estimate:
    return statistics.median([value.value for value in values])


def _go(version: str) -> str:
    """Return a version of Go as Go writes it: plans have ``1.27.3``, records ``go1.27.3``."""
    return version if version.startswith("go") else f"go{version}"


def _utc(at: str) -> str:
    """Return a time as UTC, so that times sort; as it is where it is none."""
    try:
        found = datetime.fromisoformat(at)
    except ValueError:
        return at
    return found.astimezone(UTC).isoformat() if found.tzinfo else at


# ---- from single runs ----


def _of_runs(found: Iterable[Sample]) -> list[tuple[Series, Point]]:
    return [each for sample in found if (each := _of_run(sample)) is not None]


def _of_run(sample: Sample) -> tuple[Series, Point] | None:
    metric = sample.metrics.get(sample.brief.lab.primary)
    if metric is None or metric.value is None or any(gate.passed is not True for gate in sample.brief.gates):
        return None
    origin = sample.brief.provenance
    series = Series(
        lab=sample.lab, metric=metric.name, title=metric.title, unit=metric.unit, kind=metric.kind,
        timing=metric.timing or metric.kind in {"time", "rate"}, kernel=sample.line, clock=origin.clock,
        host=matrices.host_name(origin.host), build=origin.build, points=[],
    )  # fmt: skip
    point = Point(
        at=_utc(origin.started), source=sample.brief.id, path=str(sample.path), matrix=False,
        release=origin.kernel_release, lock=origin.lock_digest[:SHORT], go_version=_go(origin.go_version),
        options=dict(sorted(origin.options.items())), lab=origin.lab_sha256[:SHORT], n=1, median=metric.value,
        interval=None,
    )  # fmt: skip
    return series, point


# ---- shown ----


def document(history: History) -> dict[str, Any]:
    """Return the history for machines: ``schema`` (1) and what :class:`History` has."""
    return {"schema": 1, **msgspec.to_builtins(history)}


def print_history(history: History, file: IO[str], width: int) -> None:
    """Print a table for each series.

    :param width: columns of the terminal; where a table has no room, each point has two lines instead.
    """
    colour = file.isatty() and not os.environ.get("NO_COLOR")
    console = Console(file=file, no_color=not colour, highlight=False, width=width)
    for series in history.series:
        console.print(Text(_heading(series), style="bold"), soft_wrap=True)
        table = _table(series)
        if console.measure(table, options=console.options.update(max_width=1000)).maximum <= width:
            console.print(table)
        else:
            for point in series.points:
                console.print(_lines(point, series), soft_wrap=True)
        console.print()
    if not history.series:
        console.print("nothing of this is there; `invoke matrix` makes a matrix", markup=False)


def _heading(series: Series) -> str:
    tag = CLOCK_TAGS[series.clock] if series.timing else ""
    told = f" ({tag})" if tag not in {"", series.clock} else ""
    build = f", build {series.build}" if series.build != "plain" else ""
    words = f"{series.lab} on {series.kernel}, {series.metric}: {series.title}; clock {series.clock}"
    return neutral(f"{words}{told}, host {series.host}{build}")


def _table(series: Series) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, right in (
        ("date", False), ("matrix", False), ("lock", False), ("Go", False), ("n", True), ("median", True),
        ("interval", False), ("to baseline", True), ("verdict", False), ("changed", False),
    ):  # fmt: skip
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for point in series.points:
        table.add_row(*(Text(neutral(cell)) for cell in _cells(point, series)))
    return table


def _cells(point: Point, series: Series) -> tuple[str, ...]:
    return (
        point.at[:16].replace("T", " "),
        point.source if point.matrix else SINGLE,
        point.lock,
        point.go_version.removeprefix("go"),
        str(point.n),
        quantity(point.median, series.unit, series.kind),
        _bounds(point.interval, series),
        _ratio(point),
        point.change or "",
        ", ".join(point.changed),
    )


def _lines(point: Point, series: Series) -> Text:
    at, source, lock, go_version, n, median, interval, ratio, change, changed = _cells(point, series)
    value = " ".join(word for word in (median, interval) if word)
    words = [f"n {n}", value, f"{ratio} {change}".strip(), f"changed: {changed}" if changed else ""]
    told = f"{at}  {source}, lock {lock}, Go {go_version}\n  {', '.join(word for word in words if word)}"
    return Text(neutral(told, keep="\n"))


def _ratio(point: Point) -> str:
    if point.ratio is None:
        return ""
    bounds = point.ratio_interval
    shown = f" [{number(bounds.low)}, {number(bounds.high)}]" if bounds else ""
    return f"{number(point.ratio)}{shown} × {point.baseline}"


def _bounds(interval: Interval | None, series: Series) -> str:
    if interval is None:
        return ""
    low, high = (quantity(bound, series.unit, series.kind) for bound in (interval.low, interval.high))
    return f"[{low}, {high}]"
