"""Programs that are no labs: no document, no segments, and everything that was counted all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from go_labs import spec
from go_labs.spec import LabFolder
from reports import html, record, selfcheck, whole
from reports import staging as stagings
from reports.analysis import PhaseData
from reports.charts import Ecdf, HeatMap, StackList, Table
from tests.reports import made


@pytest.fixture
def program(tmp_path: Path) -> tuple[Path, LabFolder]:
    """A staging folder as a traced program leaves it: nothing lies in a segment."""
    root = made.staging(tmp_path / "staging")
    binary = tmp_path / "queue"
    binary.write_bytes(b"\x7fELF")

    def no_document(evidence: dict[str, Any]) -> None:
        evidence["phases"] = evidence["phases"][:2]
        for phase in evidence["phases"]:
            phase["protocol"] = "none"
            phase["files"]["stdout"] = phase["files"].pop("workload")
        evidence["phases"][0]["remarks"] = ["2 processes that outlived the workload were ended"]

    made.change(root / "evidence.json", no_document)
    made.change(root / "traced/trace.json", lambda trace: trace.update(counters={"0": {"slow": 12, "park_mutex": 7}}))
    return root, spec.traced_program(binary, ["mutex"], 30.0)


def traced(program: tuple[Path, LabFolder]) -> PhaseData:
    return stagings.read(program[0], program[1].lab)[1].phase("traced")


def test_output_that_is_no_document_is_no_error(program: tuple[Path, LabFolder]) -> None:
    phase = traced(program)
    assert (phase.error, phase.workload, phase.segments()) == ("", None, [])
    assert phase.events.size > 0


def test_counters_of_no_segment_are_shown(program: tuple[Path, LabFolder]) -> None:
    table = whole.counters(traced(program))
    assert table is not None
    assert table.rows == [["park_mutex", 7], ["slow", 12]]


def test_waits_are_told_apart_by_reason(program: tuple[Path, LabFolder]) -> None:
    charts = whole.charts(traced(program))
    assert [type(chart) for chart in charts] == [Table, HeatMap, Ecdf, StackList]
    assert [series.name for chart in charts if isinstance(chart, Ecdf) for series in chart.series] == ["#22"]


def test_its_record_has_no_claims_and_its_page_names_the_program(
    program: tuple[Path, LabFolder], tmp_path: Path
) -> None:
    path = record.seal(*program, tmp_path / "runs")
    found = record.read(path)
    assert (found.verdicts, found.lab.name) == ([], "queue")
    assert found.notes == ["Phase timed: 2 processes that outlived the workload were ended."]
    assert (path / "lab" / "lab.json").is_file()
    page = html.page(found)
    assert "Program <b>queue</b>" in page
    assert "of the book</p>" not in page


def test_a_record_of_before_builds_were_named_is_of_a_plain_one(tmp_path: Path) -> None:
    root = made.staging(tmp_path / "staging")
    made.change(root / "evidence.json", lambda evidence: evidence["provenance"].pop("build"))
    assert record.read(record.seal(root, made.folder(), tmp_path / "runs")).provenance.build == "plain"


@pytest.mark.parametrize(
    ("edit", "exact", "differences"),
    [
        (lambda _: None, True, 0),
        (lambda trace: trace["counters"]["1"].update(slow=3), False, 1),
        (lambda trace: trace["losses"].update(map_full=1), False, 0),
        (lambda trace: trace["losses"].update(ring_full=1), True, 0),
        (lambda trace: trace["self_test"].update(goids=[18, 19, 21]), False, 0),
    ],
)
def test_the_self_test_sees_what_is_not_exact(
    tmp_path: Path, edit: Callable[[dict[str, Any]], None], exact: bool, differences: int
) -> None:
    root = made.staging(tmp_path / "staging")
    made.change(root / "traced/trace.json", edit)
    found = selfcheck.check(root, made.folder().lab)
    assert (found.exact, len(found.differences), found.checked) == (exact, differences, 9)
