"""What the analysis of the channel lab makes of a recorded run (6.1, Go 1.27.3, short options), and of changed ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from bpf.trace import EventKind
from go_labs.evidence import Segment
from reports import charts
from reports.analysis import PhaseData, RunData
from tests.go_labs.recorded import analyse, figures, judge, read_record

FULL = "send, full buffer"


@pytest.fixture
def run(tmp_path: Path) -> RunData:
    return read_record("channel", tmp_path / "run")


def with_phase(run: RunData, phase: PhaseData) -> RunData:
    return dataclasses.replace(run, phases={**run.phases, phase.name: phase})


def traced_as(run: RunData, section: str, scene: str | None = None, **counters: int) -> RunData:
    """The run with other counters, and the workload expecting them, in the segments of a section or of one scene."""
    phase = run.phase("traced")
    assert phase.trace is not None
    assert phase.workload is not None
    chosen = {s.id for s in (phase.segments(section, scene=scene) if scene else phase.segments(section))}
    counted = {
        number: found | counters if number in chosen else found for number, found in phase.trace.counters.items()
    }
    segments = [expecting(s, counters) if s.id in chosen else s for s in phase.workload.segments]
    phase = dataclasses.replace(
        phase,
        trace=msgspec.structs.replace(phase.trace, counters=counted),
        workload=msgspec.structs.replace(phase.workload, segments=segments),
    )
    return with_phase(run, phase)


def expecting(segment: Segment, counters: dict[str, int]) -> Segment:
    expected = {name: counters.get(name, count) for name, count in segment.expected.items()}
    return msgspec.structs.replace(segment, expected=expected)


def table(run: RunData, name: str) -> charts.Table:
    found = next(chart for chart in analyse(run).charts if chart.id == name)
    assert isinstance(found, charts.Table)
    return found


def test_the_recorded_run_has_a_verdict_on_each_claim(run: RunData) -> None:
    outcomes = {claim: verdict.outcome for claim, verdict in judge(run).items()}

    assert outcomes == {"2.2-a": "refuted", "2.2-b": "refuted", "2.2-c": "refuted", "2.2-e": "confirmed"}


def test_every_forced_count_of_the_recorded_run_is_equal(run: RunData) -> None:
    found = figures(run)

    # Ten scenes and four in turn, in two sizes, of 23 counters each; seven of the control, four of the pipeline, three
    # of each of four kinds of free use; one of the self-test.
    assert found["forced.checked"].value == 2 * 14 * 23 + 7 + 4 + 4 * 3 + 1
    assert found["forced.mismatches"].value == 0
    assert found["losses.total"].value == 0
    assert found["profile.mismatches"].value == 0


def test_waits_that_slept_for_the_lock_confirm_contention(run: RunData) -> None:
    slept = run
    for scene in (FULL, "receive, empty buffer"):
        slept = traced_as(slept, "forced", scene, chan_lock_sleep=4)

    assert judge(slept)["2.2-a"].outcome == "confirmed"


def test_a_few_of_them_decide_nothing(run: RunData) -> None:
    once = traced_as(run, "forced", FULL, chan_lock_sleep=1)

    assert judge(once)["2.2-a"].outcome == "undecided"


def test_probes_that_see_no_contention_where_there_is_some_refute_nothing(run: RunData) -> None:
    blind = traced_as(run, "contended", chan_lock_sleep=0)

    assert figures(blind)["control.lock_sleeps"].value == 0
    assert judge(blind)["2.2-a"].outcome == "undecided"
    assert judge(blind)["2.2-e"].outcome == "confirmed"


def test_a_control_in_which_goroutines_waited_is_none(run: RunData) -> None:
    waited = traced_as(run, "contended", **{"park:chan send": 1})

    assert judge(waited)["2.2-a"].outcome == "undecided"


def test_a_block_profile_that_counts_otherwise_leaves_the_claims_undecided(run: RunData) -> None:
    phase = run.phase("profiled")
    assert phase.workload is not None
    segments = [
        msgspec.structs.replace(s, counts={**s.counts, "block_chan_send": s.counts["block_chan_send"] + 1})
        if s.parameters.get("scene") == FULL
        else s
        for s in phase.workload.segments
    ]
    workload = msgspec.structs.replace(phase.workload, segments=segments)
    other = with_phase(run, dataclasses.replace(phase, workload=workload))

    # Two sizes, together and in turn.
    assert figures(other)["profile.mismatches"].value == 4
    assert {judge(other)[claim].outcome for claim in ("2.2-a", "2.2-e")} == {"undecided"}


def test_a_trace_that_counts_otherwise_is_not_believed(run: RunData) -> None:
    phase = run.phase("traced")
    assert phase.trace is not None
    segment = phase.segments("forced", scene=FULL)[0].id
    counters = {**phase.trace.counters, segment: phase.trace.counters[segment] | {"handoff_recv": 0}}
    other = with_phase(run, dataclasses.replace(phase, trace=msgspec.structs.replace(phase.trace, counters=counters)))

    assert figures(other)["forced.mismatches"].value == 1
    assert {judge(other)[claim].outcome for claim in ("2.2-a", "2.2-c", "2.2-e")} == {"undecided"}
    assert judge(other)["2.2-b"].outcome == "refuted"


def test_a_channel_in_rdi_confirms_and_one_that_is_not_in_rax_decides_nothing(run: RunData) -> None:
    phase = run.phase("traced")
    both, neither = run, run
    for segment in phase.segments("forced"):
        scene, calls = segment.parameters["scene"], segment.counts["operations"]
        if segment.parameters["goroutines"] == "4":
            both = traced_as(both, "forced", scene, chan_in_di=calls)
            neither = traced_as(neither, "forced", scene, chan_in_ax=0)

    assert judge(run)["2.2-c"].outcome == "refuted"
    assert judge(both)["2.2-c"].outcome == "confirmed"
    assert judge(neither)["2.2-c"].outcome == "undecided"


@pytest.mark.parametrize("counter", ["chan_park_held", "chan_park_last"])
def test_a_park_outside_the_lock_or_the_queue_refutes(run: RunData, counter: str) -> None:
    outside = traced_as(run, "forced", "close", **{counter: 0})

    assert judge(outside)["2.2-e"].outcome == "refuted"


def test_a_lock_that_always_reads_as_held_confirms_nothing(run: RunData) -> None:
    stuck = traced_as(run, "forced", "close", chan_entry_held=4)

    assert judge(stuck)["2.2-e"].outcome == "undecided"


def test_a_kprobe_that_attaches_confirms_only_with_all_the_others(run: RunData) -> None:
    def attached(*names: str) -> str:
        there = {name: msgspec.structs.replace(run.attempts[name], done=True) for name in names}
        return judge(dataclasses.replace(run, attempts={**run.attempts, **there}))["2.2-b"].outcome

    kprobes = ("kprobe_chansend", "kprobe_chanrecv", "kprobe_chanpark")
    assert attached(*kprobes, "chanpark") == "confirmed"
    assert attached(*kprobes[:2]) == "refuted"


def test_the_kernels_words_stand_beside_the_verdict(run: RunData) -> None:
    assert "Invalid probed address or symbol" in judge(run)["2.2-b"].sentence


def test_the_scenes_have_their_numbers(run: RunData) -> None:
    rows = {(row[0], row[1]): row[2:] for row in table(run, "scenes").rows}

    # One goroutine and four: operations, waits, waits without end, given, taken, lock taken, slept.
    assert rows[FULL, "1, together"] == [20, 5, 0, 0, 5, 20, 0]
    assert rows["receive, empty buffer", "2, in turn"] == [10, 5, 0, 5, 0, 10, 0]
    assert rows["select, none ready", "1, together"] == [10, 5, 0, 5, 0, 25, 0]
    assert rows["buffer with room", "1, together"] == [10, 0, 0, 0, 0, 10, 0]
    assert rows["nil channel", "1, together"] == [10, 0, 15, 0, 0, 0, 0]


def test_waits_are_told_apart_by_channel(run: RunData) -> None:
    rows = {row[0]: row[1:] for row in table(run, "channels").rows}
    parks = run.phase("traced").events_of(run.phase("traced").segments("pipeline"))

    assert set(rows) == {"jobs", "results", "quit", "jobs or quit"}
    # Workers receive jobs by select alone, and nobody sends on quit.
    assert rows["jobs"][2] == 0
    assert rows["quit"][1:4] == [0, 0, 0]
    counted = [cell for row in rows.values() for cell in row[1:4]]
    assert sum(cell for cell in counted if isinstance(cell, int)) == len(parks) > 0


def test_waits_on_nil_channels_never_ended(run: RunData) -> None:
    phase = run.phase("traced")
    gone = with_phase(run, dataclasses.replace(phase, events=phase.events[phase.events["kind"] != EventKind.WAITING]))

    assert figures(run)["forever.missing"].value == 0
    assert figures(gone)["forever.missing"].value == 15


def test_sleeps_for_a_lock_are_recorded_with_their_channel_and_stack(run: RunData) -> None:
    phase = run.phase("traced")
    (segment,) = phase.segments("contended")
    sleeps = phase.events_of([segment], EventKind.LOCK_SLEEP)

    assert len(sleeps) == phase.counters(segment)["chan_lock_sleep"] > 0
    assert set(sleeps["address"].tolist()) == {segment.addresses["channel"]}
    assert all(any("runtime.chan" in frame for frame in phase.frames(int(stack))) for stack in sleeps["stack"])


def test_a_run_whose_phases_failed_has_figures_that_say_why(run: RunData) -> None:
    failed = dataclasses.replace(run, phases={})

    for metric in analyse(failed).metrics:
        assert metric.value is None
        assert "did not run" in metric.absent
    assert judge(failed)["2.2-a"].outcome == "not_testable"
