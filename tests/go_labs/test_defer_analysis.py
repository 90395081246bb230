"""What the analysis of the defer lab makes of a recorded run (6.1, Go 1.27.3, short options), and of changed ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from reports import charts
from reports.analysis import CompilerNote, PhaseData, RunData
from tests.go_labs.recorded import analyse, figures, judge, read_record


@pytest.fixture
def run(tmp_path: Path) -> RunData:
    return read_record("defer", tmp_path / "run")


def traced_as(run: RunData, kind: str, **counters: int) -> RunData:
    """The run with other counters in the segments of one kind."""
    phase = run.phase("traced")
    assert phase.trace is not None
    changed = dict(phase.trace.counters)
    for segment in phase.segments("forced", kind=kind):
        changed[segment.id] = changed[segment.id] | counters
    trace = msgspec.structs.replace(phase.trace, counters=changed)
    return with_phase(run, dataclasses.replace(phase, trace=trace))


def with_phase(run: RunData, phase: PhaseData) -> RunData:
    return dataclasses.replace(run, phases={**run.phases, phase.name: phase})


def test_the_recorded_run_has_a_verdict_on_each_claim(run: RunData) -> None:
    outcomes = {claim: verdict.outcome for claim, verdict in judge(run).items()}

    assert outcomes == {"4.4-a": "refuted", "4.4-b": "refuted", "4.4-c": "confirmed", "4.4-d": "refuted"}


def test_every_forced_count_of_the_recorded_run_is_equal(run: RunData) -> None:
    found = figures(run)

    assert found["forced.checked"].value == 2 * 8 * 6 + 1
    assert found["forced.mismatches"].value == 0
    assert found["losses.total"].value == 0


def test_the_kernels_words_stand_beside_the_verdict(run: RunData) -> None:
    assert "invalid attach/detach type" in judge(run)["4.4-b"].sentence


def test_an_open_coded_defer_that_reached_the_runtime_leaves_the_claim_undecided_with_its_count(run: RunData) -> None:
    changed = traced_as(run, "open-8", defer_return=1)

    # The forced count no longer equals, so the trace is not believed, whatever the criterion says.
    assert figures(changed)["open.runtime_calls"].value == 2
    assert judge(changed)["4.4-a"].outcome == "undecided"


def test_probes_that_see_nothing_at_all_refute_nothing(run: RunData) -> None:
    blind = traced_as(run, "stack-9", deferproc_stack=0)
    blind = traced_as(blind, "loop", deferproc=0)

    assert figures(blind)["control.runtime_calls"].value == 0
    assert judge(blind)["4.4-a"].outcome == "undecided"


def test_a_compiler_that_decided_otherwise_leaves_the_claims_undecided(run: RunData) -> None:
    notes = [note for note in run.compiler if note.file != "open.go"]
    notes += [CompilerNote(file="open.go", line=5, words="heap-allocated defer")]
    changed = dataclasses.replace(run, compiler=notes)

    assert figures(changed)["compiler.mismatches"].value == 1
    assert judge(changed)["4.4-a"].outcome == "undecided"
    assert judge(changed)["4.4-d"].outcome == "undecided"


def test_records_that_are_allocated_each_time_confirm(run: RunData) -> None:
    phase = run.phase("timed")
    assert phase.workload is not None
    segments = [
        msgspec.structs.replace(s, samples={**s.samples, "objects_per_defer": [1.0] * 6}) if s.section == "alloc" else s
        for s in phase.workload.segments
    ]
    workload = msgspec.structs.replace(phase.workload, segments=segments)

    changed = with_phase(run, dataclasses.replace(phase, workload=workload))

    assert judge(changed)["4.4-d"].outcome == "confirmed"


def test_a_function_without_a_defer_that_was_not_inlined_decides_nothing(run: RunData) -> None:
    there = msgspec.structs.replace(run.attempts["without_defer"], done=True)

    changed = dataclasses.replace(run, attempts={**run.attempts, "without_defer": there})

    assert judge(changed)["4.4-c"].outcome == "undecided"


def test_a_version_without_range_functions_says_so(run: RunData) -> None:
    phase = run.phase("timed")
    assert phase.workload is not None
    kept = [s for s in phase.workload.segments if s.parameters.get("kind") != "range"]
    older = with_phase(run, dataclasses.replace(phase, workload=msgspec.structs.replace(phase.workload, segments=kept)))
    older = dataclasses.replace(older, provenance=msgspec.structs.replace(run.provenance, go_version="go1.22.10"))

    found = figures(older)["cost.range_ns"]

    assert (found.value, "Go 1.23" in found.absent) == (None, True)
    assert "go1.22.10 has no range over functions" in analyse(older).notes[0]


def test_a_run_whose_phases_failed_has_figures_that_say_why(run: RunData) -> None:
    failed = dataclasses.replace(run, phases={})

    for metric in analyse(failed).metrics:
        if metric.value is None:
            assert "did not run" in metric.absent or "the compiler" in metric.absent


def test_the_table_has_the_counts_of_each_kind(run: RunData) -> None:
    found = next(chart for chart in analyse(run).charts if chart.id == "reached")

    assert isinstance(found, charts.Table)
    rows = {row[0]: row[1:] for row in found.rows}
    # One call and ten calls of each.
    assert rows["open-coded, 8"] == [11, 88, 0, 0, 0, 0, 0, 0]
    assert rows["on the stack, 9"] == [11, 99, 0, 99, 0, 11, 0, 0]
    assert rows["in a loop"] == [11, 110, 110, 0, 0, 11, 110, 0]
