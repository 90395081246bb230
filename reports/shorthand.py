"""Short ways to make metrics and tables; labs' ``analysis.py`` use them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.analysis import PhaseData
from reports.charts import Cell, Column, Place, Table
from reports.schema import Kind, Metric, Point
from reports.statistics import Estimate, paired_log_ratio

TIMES = frozenset({"ns", "ns/op", "µs", "ms", "s"})
"""Units of a column whose figures are times."""


def metric(
    name: str,
    title: str,
    kind: Kind,
    phase: PhaseData,
    found: float | Estimate | None,
    lacking: str,
    meaning: str,
    *,
    unit: str = "",
    timing: bool = False,
    exact: bool = False,
    series: list[Point] | None = None,
) -> Metric:
    """Return the metric with the value ``found``, or one that is absent because of ``lacking`` and ``phase.error``.

    A number is taken as exact. An estimate that has no interval, because there are too few values for one, is no figure
    to judge by: it is absent.
    """
    if isinstance(found, Estimate) and found.interval is None:
        lacking, found = f"{found.n} values are too few for a 95% interval", None
    estimate = Estimate(found, None, 1) if isinstance(found, int | float) else found
    absent = f"{lacking} ({phase.error})" if phase.error else lacking
    return Metric(
        name=name,
        title=title,
        unit=unit,
        kind=kind,
        value=None if estimate is None else float(estimate.value),
        absent="" if estimate is not None else absent,
        interval=None if estimate is None else estimate.interval,
        n=None if estimate is None else estimate.n,
        phase=phase.name,
        timing=timing,
        exact=exact,
        series=series or [],
        meaning=meaning,
    )


def ratio(top: Sequence[float], bottom: Sequence[float]) -> Estimate | None:
    """Return ``top`` over ``bottom``, paired in their order as far as both go; None where there is no pair.

    :raises ValueError: a value is not positive.
    """
    n = min(len(top), len(bottom))
    return paired_log_ratio(top[:n], bottom[:n]) if n else None


def table(
    name: str,
    title: str,
    caption: str,
    phase: str,
    place: Place,
    columns: Mapping[str, str],
    rows: Sequence[Sequence[Cell]],
) -> Table | None:
    """Return a table, or None where there are no rows.

    :param columns: title → unit; a column whose unit is one of :data:`TIMES` is marked as a timing.
    """
    if not rows:
        return None
    heads = [Column(title=head, unit=unit, timing=unit in TIMES) for head, unit in columns.items()]
    return Table(
        id=name,
        title=title,
        caption=caption,
        phase=phase,
        place=place,
        timing=any(column.timing for column in heads),
        columns=heads,
        rows=[list(row) for row in rows],
    )
