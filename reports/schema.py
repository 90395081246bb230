"""``run.json``: the shape of a run record, validated when it is written and when it is read.

A record holds all that its report needs: no figure is computed from raw data again when a report is rendered. Structs
of other rooms are not embedded, except :class:`~go_labs.evidence.Provenance`, so that an old record stays readable when
``lab.toml`` grows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from go_labs.evidence import HostShare, Provenance
from reports.chart_checks import problems as chart_problems
from reports.charts import AnyChart, Timeline
from vm.errors import RecordError

SCHEMA = 1
"""Version of the shape below. A record of another version is refused, never guessed at."""

Kind = Literal["count", "time", "rate", "ratio", "share", "estimate"]
"""What a figure is. ``estimate`` is sampled by nature; ``time`` and ``rate`` depend on the machine's clock."""

Clock = Literal["kvm", "emulated", "virtual"]

Outcome = Literal["confirmed", "refuted", "undecided", "not_testable"]
"""Verdict on a claim; ``not_testable`` reads "not testable here"."""

OUTCOMES: tuple[Outcome, ...] = ("confirmed", "refuted", "undecided", "not_testable")
"""All verdicts, in the order in which they are told."""


class Interval(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Confidence interval; ``level`` is 0.95 for 95%, ``method`` names the formula."""

    low: float
    high: float
    level: float
    method: str


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A metric's value under one set of parameters; ``value`` None needs ``absent``."""

    parameters: dict[str, str]
    value: float | None
    absent: str = ""
    interval: Interval | None = None
    n: int | None = None


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One figure.

    :param name: dotted lower-case words, ``forced.mismatches``; criteria and gates of ``lab.toml`` name it.
    :param value: None where it could not be measured; ``absent`` then says why.
    :param n: values that it was computed from.
    :param phase: phase it was measured in, empty where it belongs to the whole run.
    :param clock: of the machine it was measured on; ``seal`` fills it in.
    :param timing: derived from times (a ratio of two durations, say); implied by kinds ``time`` and ``rate``.
    :param exact: computed from counters alone, so that a lost event record (not a lost count) leaves it whole.
    :param series: the same figure by parameters, for tables and charts.
    :param words: of whoever refused what it counts, where somebody did.
    :param meaning: one sentence: what it counts, and what it would be if nothing happened.
    """

    name: str
    title: str
    unit: str
    kind: Kind
    value: float | None = None
    absent: str = ""
    interval: Interval | None = None
    n: int | None = None
    phase: str = ""
    clock: Clock | None = None
    timing: bool = False
    exact: bool = False
    series: list[Point] = []
    words: str = ""
    meaning: str = ""

    @property
    def is_timing(self) -> bool:
        """Whether the figure depends on how long a second is in the machine."""
        return self.timing or self.kind in ("time", "rate")


class Loss(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a phase did not record, by reason; zero is stated, too."""

    phase: str
    name: str
    count: int
    meaning: str = ""


class Equality(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One exact count of the forced section, held against the trace.

    :param lost: counted losses of the phase; a difference within them is explained, yet not equal.
    """

    segment: int
    parameters: dict[str, str]
    counter: str
    expected: int
    traced: int | None
    lost: int

    @property
    def equal(self) -> bool:
        """Whether the traced count is the expected one."""
        return self.traced == self.expected


class PhaseNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A phase as it went: seconds of the host for all of it, of the machine for the workload; counters by segment."""

    name: str
    exit_status: int | None
    wall_seconds: float
    workload_seconds: float
    error: str = ""
    segments: int = 0
    counters: dict[str, dict[str, int]] = {}
    hits: dict[str, int] = {}
    missing: dict[str, str] = {}
    host: HostShare | None = None


class GateResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A gate's result; ``passed`` None where its metric is absent, which counts as failed."""

    name: str
    metric: str
    require: str
    passed: bool | None
    value: float | None
    reason: str
    claims: list[str]
    meaning: str


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A figure that a verdict used, as it was then."""

    metric: str
    title: str
    unit: str
    kind: Kind
    value: float | None
    absent: str = ""
    interval: Interval | None = None
    phase: str = ""
    timing: bool = False


class CriterionResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One criterion with what came of it; ``reason`` is one clause."""

    metric: str
    confirm: str
    refute: str
    meaning: str
    emulation: str
    outcome: Outcome
    reason: str
    figure: Figure


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What became of a claim, with everything a reader needs to doubt it."""

    claim: str
    text: str
    says: str
    why: str
    outcome: Outcome
    sentence: str
    criteria: list[CriterionResult]


class LabNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The lab as it described itself when the run was made; ``program``: it was a traced program and no lab."""

    name: str
    title: str
    section: str
    question: str
    primary: str
    oracle: str
    program: bool = False


class Artefact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file of the record; ``path`` is relative to its folder, ``size`` in bytes."""

    path: str
    role: str
    size: int
    sha256: str


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``run.json``."""

    schema: int
    id: str
    product_version: str
    lab: LabNote
    provenance: Provenance
    phases: list[PhaseNote]
    metrics: list[Metric]
    losses: list[Loss]
    equality: list[Equality]
    gates: list[GateResult]
    verdicts: list[Verdict]
    charts: list[AnyChart]
    notes: list[str]
    timings: dict[str, float]
    artefacts: list[Artefact]

    def metric(self, name: str) -> Metric | None:
        """Return the metric ``name``, or None."""
        return next((metric for metric in self.metrics if metric.name == name), None)


class _Version(msgspec.Struct):
    schema: int


def encode(record: Record) -> bytes:
    """Return ``record`` as indented JSON after checking it.

    :raises RecordError: see :func:`check`.
    """
    check(record)
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def decode(data: bytes, name: str = "run.json") -> Record:
    """Return the record that ``data`` holds; ``name`` is for messages.

    :raises RecordError: not JSON, of another schema, or not of the shape; the message has the field's path.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).schema
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{name} is no run record: {error}", "the record is broken; run the lab again") from error
    if version != SCHEMA:
        raise RecordError(
            f"{name} has schema {version}; this program reads schema {SCHEMA}",
            "use the version of the program that made the record, or run the lab again",
        )
    try:
        record = msgspec.json.decode(data, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{name} does not fit its schema: {error}", "run the lab again") from error
    check(record, name)
    return record


_METRIC_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check(record: Record, name: str = "run.json") -> None:
    """Check what types alone cannot say: names, unique ids, values or reasons, finite numbers, shapes of charts.

    :raises RecordError: with every problem found, up to five.
    """
    problems = list(_problems(record))
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise RecordError(f"{name} does not hold together: {'; '.join(problems[:5])}{more}", "see docs/reports.md")


def _problems(record: Record) -> Iterator[str]:
    if record.schema != SCHEMA:
        yield f"schema is {record.schema}"
    yield from _twice("metric", [metric.name for metric in record.metrics])
    yield from _twice("chart", [chart.id for chart in record.charts])
    yield from _twice("verdict", [verdict.claim for verdict in record.verdicts])
    yield from _twice("artefact", [artefact.path for artefact in record.artefacts])
    for metric in record.metrics:
        yield from _metric_problems(metric)
    for chart in record.charts:
        yield from chart_problems(chart)
        trace = chart.trace if isinstance(chart, Timeline) else ""
        if trace and trace not in {artefact.path for artefact in record.artefacts}:
            yield f"chart {chart.id} leads to {trace!r}, which the record does not have"
    for artefact in record.artefacts:
        if not _SHA256.fullmatch(artefact.sha256) or artefact.size < 0:
            yield f"artefact {artefact.path} has no SHA-256 or size"
        if artefact.path.startswith("/") or ".." in artefact.path.split("/"):
            yield f"artefact {artefact.path!r} lies outside the record"
    for loss in record.losses:
        if loss.count < 0:
            yield f"loss {loss.name} is negative"


def _twice(what: str, names: list[str]) -> Iterator[str]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{what} {name} is there twice"


def _metric_problems(metric: Metric) -> Iterator[str]:
    if not _METRIC_NAME.fullmatch(metric.name):
        yield f"metric {metric.name!r} is no dotted lower-case name"
    points: list[tuple[str, Metric | Point]] = [(metric.name, metric)]
    points += [(f"{metric.name}{point.parameters}", point) for point in metric.series]
    for where, point in points:
        if point.value is None and not point.absent:
            yield f"{where} has neither a value nor a reason for its absence"
        if point.value is not None and point.absent:
            yield f"{where} has both a value and a reason for its absence"
        if point.value is not None and not math.isfinite(point.value):
            yield f"{where} is not finite"
        interval = point.interval
        if interval is not None and not (0 < interval.level < 1 and interval.low <= interval.high):
            yield f"{where} has an interval that is none: {interval.low} to {interval.high} at {interval.level}"
