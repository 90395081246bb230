"""The page: one file that holds everything, made from ``run.json`` alone.

No script, no request, no font from elsewhere: a content security policy in the page forbids all of them. Every string
is escaped by Jinja, and before that rid of control characters (``reports.text.neutral``), whoever it came from.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from reports import flame_plot, plots, record, text, timeline_plot
from reports.charts import Absent, EcdfSeries, Place, Table
from reports.schema import OUTCOMES, Equality, Metric, Outcome, Point, Record
from vm.errors import DiskFullError, RecordError

TEMPLATES = Path(__file__).resolve().parent / "templates"

MAXIMUM_ROWS = 400
"""Rows of one table that the page shows; the rest is counted there and is in ``run.json``."""

GENERIC = ("probe.", "losses.", "events.", "host.", "guest.")
"""Prefixes of metrics that say how the run was observed, not what happened in it."""

CLOCK_TAGS = {"kvm": "", "emulated": "emulated", "virtual": "counted instructions"}
"""What stands beside each time and rate of a machine with that clock."""


@dataclass(frozen=True, slots=True)
class EqualityRow:
    """Exact counts of one segment, by counter, in the order of the table's columns."""

    segment: int
    parameters: str
    cells: tuple[Equality | None, ...]


@dataclass(frozen=True, slots=True)
class EqualityTable:
    """Exact counts: a row per segment, a column per counter; rows that differ come first."""

    counters: tuple[str, ...]
    rows: tuple[EqualityRow, ...]
    checked: int
    different: int
    untraced: int
    omitted: int


def equality_table(rows: Sequence[Equality]) -> EqualityTable:
    """Return the table of ``rows``; where it is cut, rows that differ are kept."""
    counters = tuple(dict.fromkeys(row.counter for row in rows))
    segments: dict[int, dict[str, Equality]] = {}
    for row in rows:
        segments.setdefault(row.segment, {})[row.counter] = row
    table = [
        EqualityRow(number, parameters(next(iter(cells.values())).parameters), tuple(cells.get(c) for c in counters))
        for number, cells in segments.items()
    ]
    table.sort(key=lambda row: all(cell is None or cell.equal for cell in row.cells))
    compared = [row for row in rows if row.traced is not None]
    return EqualityTable(
        counters=counters,
        rows=tuple(table[:MAXIMUM_ROWS]),
        checked=len(compared),
        different=sum(not row.equal for row in compared),
        untraced=len(rows) - len(compared),
        omitted=max(0, len(table) - MAXIMUM_ROWS),
    )


def parameters(values: dict[str, str]) -> str:
    """Return ``lock rwmutex, goroutines 16``."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def provenance_rows(found: Record) -> list[tuple[str, str]]:
    """Return where the run came from, for a reader: label and value."""
    p = found.provenance
    host = ", ".join(f"{name} {value}" for name, value in p.host.items())
    return [
        ("Kernel", f"{p.kernel_release}, package {p.kernel_version}, line {p.kernel_line}"),
        ("Kernel command line", p.cmdline),
        ("Clock", f"{p.clock}, clock source {p.clocksource or 'unknown'}"),
        ("Machine", f"{p.machine}, {p.accelerator}, {p.machine_type}, CPU {p.cpu_model}"),
        ("Size", f"{p.cpus} CPUs, {p.memory_mib} MiB"),
        ("Start", f"{p.start}"),
        ("Go", p.go_version),
        ("Options", ", ".join(f"{name}={value}" for name, value in p.options.items()) or "none"),
        ("Seed and order", f"{p.seed}, {p.order}"),
        ("Started, finished", f"{p.started}, {p.finished}"),
        ("Host", host or "not described"),
        ("Lock", p.lock_digest),
        ("Base image", p.base_sha256),
        ("Kernel bundle", p.bundle_sha256),
        ("Tools root", p.tools_sha256),
        ("Build", p.build),
        ("Lab folder", p.lab_sha256),
        ("Workload binary", p.binary_sha256),
        ("Loader", p.loader_sha256),
        ("BPF objects", p.objects_sha256),
        ("Program", f"kmlab {p.product_version}"),
    ]


def tally(found: Record) -> list[tuple[Outcome, int]]:
    """Return how many verdicts of each kind there are, in the order a reader wants them."""
    return [(outcome, sum(verdict.outcome == outcome for verdict in found.verdicts)) for outcome in OUTCOMES]


@cache
def environment() -> jinja2.Environment:
    """Return what renders the templates: every string is escaped, and what a template does not know is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": text.number,
        "duration": text.duration,
        "percent": text.percent,
        "parameters": parameters,
        "outcome": text.OUTCOME_WORDS.__getitem__,
        "bytes": _bytes,
    }
    made.globals |= {
        "quantity": text.quantity,
        "interval": text.interval,
        "heat_plot": plots.heat_plot,
        "line_plot": plots.line_plot,
        "ecdf_plot": plots.ecdf_plot,
        "box_plot": plots.box_plot,
        "timeline_plot": timeline_plot.timeline_plot,
        "flame_plot": flame_plot.flame_plot,
        "difference_rows": flame_plot.difference_rows,
        "amount": flame_plot.amount,
        "funnel_rows": plots.funnel_rows,
        "bar_rows": plots.bar_rows,
        "numeric": numeric,
        "is_absent": lambda cell: isinstance(cell, Absent),
        "percentile": percentile,
        "point_of": _point_of,
        "maximum_rows": MAXIMUM_ROWS,
    }
    return made


def _finalize(value: Any) -> Any:  # noqa: ANN401  (Jinja hands over whatever a template prints)
    if isinstance(value, str) and not isinstance(value, Markup):
        return text.neutral(value, limit=2**31)
    return value


def percentile(series: EcdfSeries, share: float) -> float:
    """Return the smallest kept value that ``share`` of all are at most; ``statistics.ecdf`` keeps 50, 90 and 99%."""
    return next((x for x, p in zip(series.x, series.p, strict=True) if p >= share - 1e-12), series.x[-1])


def numeric(table: Table, column: int) -> bool:
    """Whether a column holds figures, which are set to the right."""
    return column > 0 and any(isinstance(row[column], int | float) for row in table.rows)


def _point_of(metric: Metric, point: Point) -> Metric:
    """Return ``point`` as a metric of its own, so that one macro prints both."""
    return msgspec.structs.replace(metric, value=point.value, absent=point.absent, interval=point.interval, n=point.n)


def _bytes(size: int) -> str:
    for unit, factor in (("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f}\u00a0{unit}"
    return f"{size}\u00a0B"


def page(found: Record) -> str:
    """Return the page of ``found``."""
    places: dict[Place, list[Any]] = {"happened": [], "known": [], "time": [], "stacks": [], "fairness": []}
    for chart in found.charts:
        places[chart.place].append(chart)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            record=found,
            provenance=found.provenance,
            clock=found.provenance.clock,
            tag=CLOCK_TAGS[found.provenance.clock],
            tally=tally(found),
            places=places,
            equality=equality_table(found.equality),
            timings={metric.name for metric in found.metrics if metric.is_timing},
            provenance_rows=provenance_rows(found),
            generic=[metric for metric in found.metrics if metric.name.startswith(GENERIC)],
            own=[metric for metric in found.metrics if not metric.name.startswith(GENERIC)],
        )
    )


def render(record_path: Path, out: Path | None = None) -> Path:
    """Write the page of the record in folder ``record_path`` and return its path, ``report.html`` there by default.

    The whole record is checked first. No analysis is run and no machine is needed.

    :raises RecordError: the record is missing, broken, of another schema or changed, or ``out`` cannot be written.
    :raises DiskFullError: no space is left.
    """
    target = record_path / record.REPORT if out is None else out
    write(target, page(record.read(record_path)))
    return target


def write(target: Path, content: str) -> None:
    """Write a page to a temporary name, then rename.

    :raises RecordError: ``target`` cannot be written. :raises DiskFullError: no space is left.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(content, "utf-8")
        temporary.replace(target)
    except OSError as error:
        if record.is_full(error):
            raise DiskFullError(f"no space left for {target}", "free some space, then make the page again") from error
        raise RecordError(f"{target} cannot be written: {error.strerror}", "name another file with --out") from error
    finally:
        temporary.unlink(missing_ok=True)
