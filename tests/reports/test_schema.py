from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reports import schema
from reports.charts import Category, Flame, FlameNode, HeatMap, Lane, QuantileBoxes, Quantiles, Slice, Timeline
from reports.schema import Interval, Metric, Record
from vm.errors import RecordError


def changed(found: Record, **changes: Any) -> Record:
    return msgspec.structs.replace(found, **changes)


def test_a_record_comes_back_as_it_was_written(found: Record) -> None:
    assert schema.decode(schema.encode(found)) == found


@pytest.mark.parametrize("number", [0, 2, 99])
def test_another_schema_is_refused_with_both_numbers(found: Record, number: int) -> None:
    data = schema.encode(found).replace(b'"schema": 1', b'"schema": %d' % number, 1)
    with pytest.raises(RecordError, match=f"schema {number}; this program reads schema 1"):
        schema.decode(data)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"schema": "1"}', b"\xff\xfe", b'{"schema": 1}'])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(RecordError):
        schema.decode(data)


def test_an_unknown_field_is_refused_with_its_path(found: Record) -> None:
    data = schema.encode(found).replace(b'"lab": {', b'"lab": {"surprise": 1,', 1)
    with pytest.raises(RecordError, match=r"surprise.*\$\.lab"):
        schema.decode(data)


def test_a_verdict_that_is_no_verdict_is_refused(found: Record) -> None:
    data = schema.encode(found).replace(b'"outcome": "confirmed"', b'"outcome": "probably"', 1)
    with pytest.raises(RecordError, match="probably"):
        schema.decode(data)


@pytest.mark.parametrize(
    ("metric", "problem"),
    [
        (Metric(name="a.b", title="", unit="", kind="count"), "neither a value nor a reason"),
        (Metric(name="a.b", title="", unit="", kind="count", value=1.0, absent="why"), "both a value and a reason"),
        (Metric(name="a.b", title="", unit="", kind="count", value=float("nan")), "not finite"),
        (Metric(name="A B", title="", unit="", kind="count", value=1.0), "no dotted lower-case name"),
        (
            Metric(
                name="a.b", title="", unit="", kind="count", value=1.0,
                interval=Interval(low=2.0, high=1.0, level=0.95, method=""),
            ),
            "an interval that is none",
        ),
    ],
)  # fmt: skip
def test_a_figure_is_true_or_absent(found: Record, metric: Metric, problem: str) -> None:
    with pytest.raises(RecordError, match=problem):
        schema.encode(changed(found, metrics=[metric]))


def test_names_are_unique(found: Record) -> None:
    with pytest.raises(RecordError, match="is there twice"):
        schema.encode(changed(found, metrics=[*found.metrics, found.metrics[0]]))


def test_a_heat_map_must_fit_its_edges(found: Record) -> None:
    heat = next(chart for chart in found.charts if isinstance(chart, HeatMap))
    short = msgspec.structs.replace(heat, counts=heat.counts[1:])
    with pytest.raises(RecordError, match="do not fit its edges"):
        schema.encode(changed(found, charts=[short]))


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/run.json", "a/../../b"])
def test_an_artefact_outside_the_record_is_refused(found: Record, path: str) -> None:
    artefact = msgspec.structs.replace(found.artefacts[0], path=path)
    with pytest.raises(RecordError, match="outside the record"):
        schema.encode(changed(found, artefacts=[artefact]))


LINE = Timeline(
    id="t", title="", caption="", phase="traced", seconds=1.0, origin="", categories=[Category(name="G 1")], lanes=[]
)
SHAPE: dict[str, Any] = {"id": "x", "title": "", "caption": "", "phase": "traced"}


def lane(*slices: Slice) -> list[Lane]:
    return [Lane(label="P 0", group="Ps", slices=list(slices))]


@pytest.mark.parametrize(
    ("chart", "problem"),
    [
        (msgspec.structs.replace(LINE, seconds=0.0), "has an axis of 0.0 s"),
        (msgspec.structs.replace(LINE, lanes=lane(Slice(0.5, 0.1, 0), Slice(0.4, 0.1, 0))), "out of order"),
        (msgspec.structs.replace(LINE, lanes=lane(Slice(0.5, 0.6, 0))), "beyond the axis"),
        (msgspec.structs.replace(LINE, lanes=lane(Slice(float("nan"), 0.6, 0))), "out of order or beyond"),
        (msgspec.structs.replace(LINE, lanes=lane(Slice(0.5, 0.1, 1))), "category 1, which it does not name"),
        (msgspec.structs.replace(LINE, lanes=lane(*[Slice(0.5, 0.0, 0)] * 6001)), "has 6001 slices"),
        (msgspec.structs.replace(LINE, lanes=lane() * 65), "has 65 lanes"),
        (msgspec.structs.replace(LINE, categories=[Category(name="")] * 9), "more than 8 categories"),
        (msgspec.structs.replace(LINE, omitted=-1), "fewer than no slices"),
        (
            msgspec.structs.replace(LINE, trace="gone.perfetto-trace"),
            "'gone.perfetto-trace', which the record does not",
        ),
        (Flame(**SHAPE, unit="ns", total=0.0, nodes=[], functions=[]), "weighs nothing"),
        (Flame(**SHAPE, unit="ns", total=1.0, nodes=[FlameNode("a", 0, 1.0)], functions=[]), "without its caller"),
        (
            Flame(**SHAPE, unit="ns", total=3.0, nodes=[FlameNode("a", -1, 1.0), FlameNode("b", 0, 2.0)], functions=[]),
            "weighs less than what it calls",
        ),
        (Flame(**SHAPE, unit="ns", total=1.0, nodes=[FlameNode("a", -1, 2.0)], functions=[]), "weighs less than"),
        (
            Flame(**SHAPE, unit="ns", total=1.0, nodes=[FlameNode("a", n - 1, 1.0) for n in range(65)], functions=[]),
            "more than 64 calls deep",
        ),
        (
            Flame(**SHAPE, unit="ns", total=1.0, nodes=[FlameNode("a", -1, 0.0)] * 601, functions=[]),
            "has 601 nodes; fold it to 600",
        ),
        (
            QuantileBoxes(**SHAPE, what="", unit="", groups=[Quantiles(label="a", n=4, p25=2.0, p50=1.0, p75=3.0)]),
            "do not ascend",
        ),
        (QuantileBoxes(**SHAPE, what="", unit="", groups=[Quantiles(label="a", n=0)]), "nor a reason"),
        (QuantileBoxes(**SHAPE, what="", unit="", groups=[Quantiles(label="a", n=4, p50=1.0, p75=2.0)]), "one side"),
    ],
)
def test_a_chart_that_does_not_hold_together_is_refused(found: Record, chart: Any, problem: str) -> None:
    with pytest.raises(RecordError, match=problem):
        schema.encode(changed(found, charts=[chart]))
