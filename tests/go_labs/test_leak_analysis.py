"""What the analysis of the leak lab makes of a recorded run (6.1, Go 1.27.3, short options), and of changed ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from bpf.trace import EventKind
from go_labs.evidence import Segment
from reports import charts
from reports.analysis import CompilerNote, Events, PhaseData, RunData
from tests.go_labs.recorded import analyse, figures, judge, read_record

CLAIMS = ("1-b", "1-c", "2.3-a", "2.3-b", "2.3-c", "2.3-d")


@pytest.fixture
def run(tmp_path: Path) -> RunData:
    return read_record("leak", tmp_path / "run")


def outcome(run: RunData, claim: str) -> str:
    return judge(run)[claim].outcome


def value(run: RunData, metric: str) -> float | None:
    return figures(run)[metric].value


def with_phase(run: RunData, phase: PhaseData) -> RunData:
    return dataclasses.replace(run, phases={**run.phases, phase.name: phase})


def with_events(run: RunData, change: Callable[[Events], Events]) -> RunData:
    """The run with other records in its traced phase."""
    phase = run.phase("traced")
    assert phase.trace is not None
    events = change(phase.events.copy())
    trace = msgspec.structs.replace(phase.trace, events=len(events))
    return with_phase(run, dataclasses.replace(phase, events=events, trace=trace))


def with_segments(run: RunData, section: str, change: Callable[[Segment], Segment]) -> RunData:
    """The run with other words of its workload on one section of the traced phase."""
    phase = run.phase("traced")
    assert phase.workload is not None
    segments = [change(s) if s.section == section else s for s in phase.workload.segments]
    return with_phase(
        run, dataclasses.replace(phase, workload=msgspec.structs.replace(phase.workload, segments=segments))
    )


def counted(section: Segment, **counts: int) -> Segment:
    return msgspec.structs.replace(section, counts={**section.counts, **counts})


def tables(run: RunData) -> dict[str, list[list[charts.Cell]]]:
    return {chart.id: chart.rows for chart in analyse(run).charts if isinstance(chart, charts.Table)}


def test_the_recorded_run_has_a_verdict_on_each_claim(run: RunData) -> None:
    assert {claim: outcome(run, claim) for claim in CLAIMS} == {
        "1-b": "refuted", "1-c": "confirmed", "2.3-a": "refuted", "2.3-b": "confirmed", "2.3-c": "refuted",
        "2.3-d": "refuted",
    }  # fmt: skip


def test_exactly_the_planted_are_found_and_explained(run: RunData) -> None:
    # Ten kinds, three rounds of one each and three of two.
    planted = 10 * 3 * (1 + 2)

    assert [value(run, f"leak.{name}") for name in ("planted", "found", "explained")] == [planted] * 3
    assert [value(run, f"leak.{name}") for name in ("missed", "false_alarms", "differences")] == [0, 0, 0]
    assert value(run, "leak.kinds") == 10
    assert value(run, "forced.mismatches") == value(run, "losses.total") == 0


def test_each_has_its_place_its_reason_and_where_it_waits(run: RunData) -> None:
    rows = {row[0]: row[1:] for row in tables(run)["found"]}

    assert len(rows) == 10
    assert rows["lost-receiver"][0] == 9
    assert str(rows["lost-receiver"][1]).startswith("main.fetch kmlab/leak/kinds.go:")
    assert {kind: row[2] for kind, row in rows.items()} == {
        "nil-receive": "chan receive (nil chan)", "nil-send": "chan send (nil chan)", "lost-receiver": "chan send",
        "lost-sender": "chan receive", "ticker": "chan receive", "polling": "sleep", "no-cancel": "select",
        "waitgroup": "sync.WaitGroup.Wait", "mutex": "sync.Mutex.Lock", "cond": "sync.Cond.Wait",
    }  # fmt: skip
    assert all(str(row[3]).startswith("main.") for row in rows.values())


def test_the_methods_differ_in_loops_and_in_what_may_live(run: RunData) -> None:
    rows = {row[0]: row[1:] for row in tables(run)["methods"]}

    # Planted, growth by probes and by runtime/trace, idle, goroutine profile, leak profile.
    assert rows["nil-send"] == [9, 9, 9, 9, 9, 9]
    assert rows["ticker"] == rows["polling"] == [9, 9, 9, 0, 9, 0]
    assert rows["no-cancel"] == [9, 9, 9, 9, 9, 0]
    assert rows["may live, called leaked"] == ["", 0, 0, value(run, "naive.false_alarms"), 0, 0]


def test_the_rule_of_seconds_is_misled_by_a_server_and_by_loops(run: RunData) -> None:
    rows = tables(run)["naive"]

    assert {row[3] for row in rows if row[0] == "a leak, missed"} == {
        "main.tickerLoop.func1", "main.pollingLoop.func1"
    }  # fmt: skip
    alarms = {str(row[3]): row[4] for row in rows if row[0] == "may live, called leaked"}
    assert alarms["main.(*service).start.func1"] == "IO wait"
    assert "main.(*service).janitor" not in " ".join(alarms)


def test_a_leak_whose_end_is_recorded_is_missed_and_decides_nothing(run: RunData) -> None:
    leaked = run.phase("traced").segments("forced")[0].goroutines["cond"][0]

    def ended(events: Events) -> Events:
        at = events["kind"] == EventKind.WAITING
        row = (events["goid"] == leaked) & at
        events["kind"][row] = EventKind.END
        return events

    changed = with_events(run, ended)

    assert value(changed, "oracle.trace_differences") == 1
    # One of a round is gone, so that its place no longer leaves some in each: all of it are missed.
    assert value(changed, "leak.missed") == 9
    assert (outcome(changed, "2.3-c"), outcome(changed, "1-c")) == ("undecided", "undecided")


def test_one_that_may_live_and_was_planted_nowhere_is_a_false_alarm(run: RunData) -> None:
    def untold(s: Segment) -> Segment:
        return msgspec.structs.replace(s, goroutines={k: v for k, v in s.goroutines.items() if k != "mutex"})

    changed = with_segments(run, "forced", untold)

    assert value(changed, "leak.false_alarms") == 9
    assert outcome(changed, "2.3-c") == "undecided"
    assert ["not planted", 9] in [row[:2] for row in tables(changed)["found"]]


def test_a_peak_that_every_look_saw_confirms(run: RunData) -> None:
    changed = with_segments(run, "peak", lambda s: counted(s, looks=1, seen=12))

    assert value(changed, "peak.missed") == 0
    assert outcome(changed, "1-b") == "confirmed"


def test_looks_that_see_more_than_there_was_decide_nothing(run: RunData) -> None:
    changed = with_segments(run, "peak", lambda s: counted(s, looks=1, seen=13))

    assert value(changed, "peak.looks_wrong") == 6
    assert outcome(changed, "1-b") == "undecided"


def test_a_profile_that_counts_otherwise_decides_nothing(run: RunData) -> None:
    changed = with_segments(run, "settle", lambda s: counted(s, **{"alive:main.fetch.func1": 8}))

    assert value(changed, "oracle.profile_differences") == 1
    assert outcome(changed, "1-b") == "undecided"


def test_a_defer_that_changes_no_life_refutes(run: RunData) -> None:
    phase = run.phase("traced")
    assert phase.workload is not None
    one, other = phase.segments("lives", defer="with")
    rest = [s for s in phase.workload.segments if s.section != "lives"]
    twin = msgspec.structs.replace(other, parameters=other.parameters | {"defer": "without"})
    workload = msgspec.structs.replace(phase.workload, segments=[*rest, one, twin])

    changed = with_phase(run, dataclasses.replace(phase, workload=workload))

    assert value(changed, "lives.longer_in_trace") == 0
    assert outcome(changed, "1-c") == "refuted"


def test_a_tracer_that_saw_no_difference_where_probes_did_decides_nothing(run: RunData) -> None:
    phase = run.phase("traced")
    assert phase.go_trace is not None
    with_defer = [s.id for s in phase.segments("lives", defer="with")]
    without = {s.id: twin for s, twin in zip(phase.segments("lives", defer="without"), with_defer, strict=True)}
    segments = {n: phase.go_trace.segments[without.get(n, n)] for n in phase.go_trace.segments}
    changed = with_phase(
        run, dataclasses.replace(phase, go_trace=msgspec.structs.replace(phase.go_trace, segments=segments))
    )

    assert value(changed, "lives.longer_in_trace") == 0
    assert outcome(changed, "1-c") == "undecided"


def test_vet_that_complains_of_a_ticker_confirms(run: RunData) -> None:
    note = CompilerNote(file="static.go", line=15, words="leak: this goroutine never ends")
    changed = dataclasses.replace(run, vet=[*(run.vet or ()), note])

    assert outcome(changed, "2.3-a") == "confirmed"


def test_vet_that_finds_nothing_at_all_refutes_nothing(run: RunData) -> None:
    assert outcome(dataclasses.replace(run, vet=[]), "2.3-a") == "undecided"
    assert outcome(dataclasses.replace(run, vet=None), "2.3-a") == "not_testable"


def test_sides_that_see_nothing_of_their_own_refute(run: RunData) -> None:
    phase = run.phase("kernel")
    said = phase.tools["bpftrace/threads"]

    def of(**changes: object) -> RunData:
        return with_phase(run, dataclasses.replace(phase, tools={"bpftrace/threads": said | changes}))

    assert outcome(of(states={"1": 9}), "2.3-b") == "refuted"
    assert outcome(of(seen={str(n): 1 for n in range(30)}), "2.3-b") == "refuted"
    assert outcome(of(seen={}), "2.3-b") == "undecided"
    assert outcome(of(error="no such tracepoint"), "2.3-b") == "not_testable"


def test_a_field_that_is_there_confirms(run: RunData) -> None:
    there = msgspec.structs.replace(run.attempts["next_state"], done=True)

    assert outcome(dataclasses.replace(run, attempts={**run.attempts, "next_state": there}), "2.3-d") == "confirmed"
    assert "prev_state" in judge(run)["2.3-d"].sentence


def test_a_version_without_a_leak_profile_says_so(run: RunData) -> None:
    older = with_segments(run, "collector", lambda s: msgspec.structs.replace(s, counts={"absent": 1}))
    older = dataclasses.replace(older, provenance=msgspec.structs.replace(run.provenance, go_version="go1.26.6"))

    cell = tables(older)["methods"][0][-1]

    assert cell == charts.Absent(why="go1.26.6 has no goroutineleak profile")
    assert "GOEXPERIMENT" in analyse(older).notes[-1]


def test_a_run_whose_phases_failed_has_figures_that_say_why(run: RunData) -> None:
    failed = dataclasses.replace(run, phases={}, vet=None)

    for metric in analyse(failed).metrics:
        assert metric.value is None
        assert "did not run" in metric.absent or "go vet" in metric.absent
