"""What the analysis of the gmp lab makes of a recorded run (6.1, Go 1.27.3, short options), and of changed ones."""

from __future__ import annotations

import dataclasses
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bpf.trace import EventKind
from go_labs import spec
from reports import analysis, charts, oracle, staging
from reports.analysis import PhaseData, RunData
from tests.go_labs.recorded import figures, judge

RECORDED = Path(__file__).parent / "fixtures" / "gmp.tar.xz"
"""What the run left; an archive, because its events are thousands of small records."""

TOOLS = ("bpftrace/sched_switch", "bcc/sched_switch")


@pytest.fixture
def run(tmp_path: Path) -> RunData:
    with tarfile.open(RECORDED) as archive:
        archive.extractall(tmp_path)  # noqa: S202 - of this repository
    return staging.read(tmp_path / "gmp", spec.find("gmp").lab)[1]


def with_phase(run: RunData, phase: PhaseData) -> RunData:
    return dataclasses.replace(run, phases={**run.phases, phase.name: phase})


def traced_as(run: RunData, section: str, scene: str, **counters: int) -> RunData:
    """The run with other counters in the segments of one scene."""
    phase = run.phase("traced")
    assert phase.trace is not None
    changed = dict(phase.trace.counters)
    for segment in phase.segments(section, scene=scene):
        changed[segment.id] = changed[segment.id] | counters
    trace = msgspec.structs.replace(phase.trace, counters=changed)
    return with_phase(run, dataclasses.replace(phase, trace=trace))


def counted_as(run: RunData, name: str, scene: str, **counts: int) -> RunData:
    """The run in which the workload of phase ``name`` counted something else in one scene."""
    phase = run.phase(name)
    assert phase.workload is not None
    segments = [
        msgspec.structs.replace(segment, counts=segment.counts | counts)
        if segment.parameters.get("scene") == scene
        else segment
        for segment in phase.workload.segments
    ]
    workload = msgspec.structs.replace(phase.workload, segments=segments)
    return with_phase(run, dataclasses.replace(phase, workload=workload))


def told_as(run: RunData, **fields: Any) -> RunData:
    """The run in which both tools said something else."""
    phase = run.phase("kernel")
    tools = {name: phase.tools[name] | fields for name in TOOLS}
    return with_phase(run, dataclasses.replace(phase, tools=tools))


def scenes(run: RunData, start: str) -> dict[str, tuple[int, int]]:
    """Id and number of waits of the kernel phase's scenes."""
    return {
        segment.parameters["scene"].removeprefix(start): (segment.id, segment.counts["parks"])
        for segment in run.phase("kernel").segments("kernel")
        if segment.parameters["scene"].startswith(start)
    }


def controls(run: RunData) -> list[list[int]]:
    """Rows of ``left`` of threads that block as often as they said."""
    found = scenes(run, "thread: ")
    return [[found["read"][0], 1, 0, found["read"][1]], [found["nanosleep"][0], 1, 35, found["nanosleep"][1]]]


def test_the_recorded_run_has_a_verdict_on_each_claim(run: RunData) -> None:
    assert {claim: verdict.outcome for claim, verdict in judge(run).items()} == {
        "2.1-a": "confirmed",
        "2.1-b": "confirmed",
        "2.1-c": "refuted",
        "2.1-d": "refuted",
        "2.1-e": "refuted",
    }


def test_every_forced_count_of_the_recorded_run_is_equal(run: RunData) -> None:
    found = figures(run)

    assert found["forced.checked"].value is not None
    assert found["forced.checked"].value > 100
    assert found["forced.mismatches"].value == 0
    assert found["losses.total"].value == 0


def test_gos_own_tracer_counted_the_same(run: RunData) -> None:
    compared = oracle.compare(run.phase("traced"), "oracle")

    assert {each.what for each in compared} >= {
        "created", "ended", "yield", "enter_syscall", "park:chan receive", "park:network", "park:sync", "park:sleep",
    }  # fmt: skip
    assert [each for each in compared if not each.equal] == []
    known = [each for each in compared if each.what == "park:select"]
    assert [each.known for each in known] == [16]


def test_a_tracer_that_disagrees_leaves_claims_undecided(run: RunData) -> None:
    other = traced_as(run, "oracle", "starts", created=17)

    assert figures(other)["oracle.mismatches"].value == 1
    assert judge(other)["2.1-b"].outcome == "undecided"
    assert judge(other)["2.1-e"].outcome == "refuted"


def test_a_park_too_many_leaves_claims_undecided(run: RunData) -> None:
    other = traced_as(run, "forced", "sleep", **{"park:sleep": 99})

    assert judge(other)["2.1-c"].outcome == "undecided"


def test_what_comes_from_the_local_queue_is_what_comes_from_nowhere_else(run: RunData) -> None:
    other = traced_as(
        run, "order", "local queue", execute=100, runnext=20, stolen=1, **{"yield": 7}, preempt=2, global_got=50
    )

    assert figures(other)["queue.local"].value == 70


def test_without_steals_the_three_queues_are_not_there(run: RunData) -> None:
    assert judge(traced_as(run, "order", "stealing", stolen=0))["2.1-b"].outcome == "refuted"


def test_a_p_that_stays_would_refute_that_it_moves(run: RunData) -> None:
    assert judge(counted_as(run, "timed", "P moves", moved=0))["2.1-a"].outcome == "refuted"


def test_a_thread_switch_for_each_park_would_confirm_what_the_article_says(run: RunData) -> None:
    assert judge(traced_as(run, "switch", "one P", sched_switch=400))["2.1-c"].outcome == "confirmed"


def test_a_control_without_thread_switches_proves_nothing(run: RunData) -> None:
    blind = traced_as(run, "switch", "one P, locked to threads", sched_switch=1)

    assert judge(blind)["2.1-c"].outcome == "undecided"


def test_both_tools_saw_the_same_switches(run: RunData) -> None:
    first, second = (run.phase("kernel").tools[name] for name in TOOLS)

    assert first["left"] == second["left"]
    assert first["idle"] == second["idle"]


def test_reasons_with_a_state_and_call_of_their_own_would_confirm_what_the_article_says(run: RunData) -> None:
    left = controls(run)
    for start in ("burst: ", "alone: "):
        for number, (segment, waits) in enumerate(scenes(run, start).values()):
            left.append([segment, 1, 400 + number, waits])

    told = told_as(run, left=left)

    assert figures(told)["kernel.reasons_told"].value == 4
    assert figures(told)["kernel.burst_share"].value == 1
    assert judge(told)["2.1-d"].outcome == "confirmed"


def test_two_reasons_that_look_alike_are_not_told_apart(run: RunData) -> None:
    left = controls(run)
    for name, (segment, waits) in scenes(run, "alone: ").items():
        left.append([segment, 1, 202 if name in ("chan receive", "sync.Mutex.Lock") else 281, waits])

    assert figures(told_as(run, left=left))["kernel.reasons_told"].value == 0


def test_threads_that_run_on_do_not_sleep(run: RunData) -> None:
    preempted = [[segment, 256, -1, waits] for segment, waits in scenes(run, "burst: ").values()]

    assert figures(told_as(run, left=preempted + controls(run)))["kernel.burst_share"].value == 0


def test_a_tool_that_does_not_see_the_controls_proves_nothing(run: RunData) -> None:
    assert judge(told_as(run, left=[]))["2.1-d"].outcome == "undecided"


def test_a_tool_that_lost_something_proves_nothing(run: RunData) -> None:
    assert judge(told_as(run, losses={"other": 1}))["2.1-e"].outcome == "undecided"


def test_threads_that_did_not_run_beside_prev_pid_0_would_confirm_what_the_article_says(run: RunData) -> None:
    assert judge(told_as(run, idle={"1": 100}, ran={"1": 3}))["2.1-e"].outcome == "confirmed"


def test_without_such_switches_nothing_is_known(run: RunData) -> None:
    assert judge(told_as(run, idle={"1": 5}, ran={"1": 5}))["2.1-e"].outcome == "undecided"


def test_a_tool_that_could_not_attach_says_why(run: RunData) -> None:
    phase = run.phase("kernel")
    refused = dataclasses.replace(phase, tools={"bcc/sched_switch": {"schema": 1, "error": "no such tracepoint"}})

    verdict = judge(with_phase(run, refused))["2.1-e"]

    assert verdict.outcome == "not_testable"
    assert "no such tracepoint" in verdict.sentence


def test_the_page_shows_reasons_queues_and_timelines(run: RunData) -> None:
    path = spec.find("gmp").analysis
    assert path is not None
    found = analysis.load(path)(run)
    drawn = {chart.id: chart for chart in found.charts}

    assert {"funnel", "scenes", "queues", "kernel-side", "idle", "order", "oracle", "reasons", "latency"} <= set(drawn)
    moves = drawn["timeline-p-moves"]
    assert isinstance(moves, charts.Timeline)
    assert sum(lane.label.startswith("M ") for lane in moves.lanes) >= 2
    assert [lane.label for lane in moves.lanes if lane.label.startswith("P ")] == ["P 0"]
    reasons = drawn["reasons"]
    assert isinstance(reasons, charts.Table)
    waits = {row[0]: row[2:4] for row in reasons.rows}
    assert waits["IO wait"] == [7, 7]
    assert waits["GC worker (idle)"] == ["—", "—"]
    (full,) = found.timelines
    assert full.runs.start_ns.size == run.phase("traced").events_of(None, EventKind.RUN).size


def test_without_a_trace_figures_are_absent_with_their_reason(run: RunData) -> None:
    phases = {name: phase for name, phase in run.phases.items() if name != "traced"}

    found = figures(dataclasses.replace(run, phases=phases))

    for name in ("switch.per_park", "p.threads", "queue.stolen", "preempt.per_return", "oracle.mismatches"):
        assert found[name].value is None
        assert "phase traced did not run" in found[name].absent
