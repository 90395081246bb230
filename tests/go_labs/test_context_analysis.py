"""What the analysis of the context lab makes of a recorded run (6.1, Go 1.27.3, short options), and of changed ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bpf.trace import ContextState, EventKind
from go_labs.evidence import Segment
from reports import charts
from reports.analysis import Events, PhaseData, RunData
from tests.go_labs.recorded import analyse, figures, judge, read_record

RECORDED = {"2.5-a": "refuted", "2.5-b": "refuted", "2.5-c": "confirmed", "2.5-d": "confirmed"}


@pytest.fixture
def run(tmp_path: Path) -> RunData:
    return read_record("context", tmp_path / "run")


def with_phase(run: RunData, **changes: object) -> RunData:
    """The run with other fields in its traced phase."""
    phase: PhaseData = dataclasses.replace(run.phase("traced"), **changes)  # type: ignore[arg-type]
    return dataclasses.replace(run, phases={**run.phases, "traced": phase})


def with_events(run: RunData, change: Callable[[Events], Events]) -> RunData:
    """The run with other events."""
    return with_phase(run, events=change(run.phase("traced").events.copy()))


def known(run: RunData, kind: EventKind, **parameters: str) -> list[int]:
    """Places of the events of ``kind`` on contexts or done channels of forced segments, in order of time."""
    phase = run.phase("traced")
    what = "context/" if kind == EventKind.CANCEL else "done/"
    found: list[int] = []
    for segment in phase.segments("forced", **parameters):
        there = [address for name, address in segment.addresses.items() if name.startswith(what)]
        mine = phase.events["segment"] == segment.id
        found += np.flatnonzero(
            mine & (phase.events["kind"] == kind) & np.isin(phase.events["address"], there)
        ).tolist()
    return sorted(found, key=lambda place: int(phase.events["start_ns"][place]))


def changed(field: str, places: list[int], value: int) -> Callable[[Events], Events]:
    def change(events: Events) -> Events:
        events[field][places] = value
        return events

    return change


def segment(run: RunData, **parameters: str) -> Segment:
    """The one forced segment with these parameters."""
    (found,) = run.phase("traced").segments("forced", **parameters)
    return found


def holds(run: RunData, claim: str, metric: str) -> str:
    """Outcome of one criterion."""
    (found,) = (result for result in judge(run)[claim].criteria if result.metric == metric)
    return found.outcome


def test_the_recorded_run_has_a_verdict_on_each_claim(run: RunData) -> None:
    assert {claim: verdict.outcome for claim, verdict in judge(run).items()} == RECORDED


def test_every_forced_count_of_the_recorded_run_is_equal(run: RunData) -> None:
    found = figures(run)

    # Depth 1 has a tree and a chain, depth 2 a star, too; each plain and mixed, asked in three ways; and five scenes.
    assert found["forced.checked"].value == 3 * ((2 + 3) * 6 + 2 * 5) + 1
    assert found["forced.mismatches"].value == 0
    assert found["losses.total"].value == 0


def test_only_one_criterion_of_the_order_is_refuted_and_the_sentence_says_what_holds(run: RunData) -> None:
    verdict = judge(run)["2.5-a"]

    assert [r.metric for r in verdict.criteria if r.outcome == "refuted"] == ["close.silent"]
    assert "What holds: “Done channels that closed more than once” is 0, “Closes without the context's lock” is 0" in (
        verdict.sentence
    )


def test_contexts_that_closed_nothing_are_those_without_a_done_channel(run: RunData) -> None:
    segments = [s for s in run.phase("traced").segments() if s.addresses]
    without = sum(
        name.startswith("context/") and name.replace("context/", "done/") not in s.addresses
        for s in segments
        for name in s.addresses
    )

    assert figures(run)["close.silent"].value == without > 0


def test_kallsyms_refutes_and_the_uprobe_holds(run: RunData) -> None:
    verdict = judge(run)["2.5-b"]

    assert [r.metric for r in verdict.criteria if r.outcome == "refuted"] == ["attempt.kallsyms_closechan"]
    assert "not among" in verdict.sentence


def test_kallsyms_without_its_control_decides_nothing(run: RunData) -> None:
    blind = msgspec.structs.replace(run.attempts["kallsyms_kernel"], done=False)

    found = dataclasses.replace(run, attempts={**run.attempts, "kallsyms_kernel": blind})

    assert holds(found, "2.5-b", "attempt.kallsyms_closechan") == "not_testable"


def test_a_close_without_the_lock_refutes(run: RunData) -> None:
    place = known(run, EventKind.CLOSE)[:1]

    found = with_events(run, changed("value", place, ContextState.MARKED))

    assert figures(found)["order.unlocked"].value == 1
    assert holds(found, "2.5-a", "order.unlocked") == "refuted"
    assert holds(found, "2.5-a", "order.unmarked") == "confirmed"


def test_a_close_before_the_mark_refutes(run: RunData) -> None:
    found = with_events(run, changed("value", known(run, EventKind.CLOSE)[:1], ContextState.LOCKED))

    assert holds(found, "2.5-a", "order.unmarked") == "refuted"
    assert holds(found, "2.5-a", "order.unlocked") == "confirmed"


def test_a_channel_that_closes_twice_refutes(run: RunData) -> None:
    place = known(run, EventKind.CLOSE)[0]

    found = with_events(run, lambda events: np.append(events, events[place]))

    assert figures(found)["close.repeated"].value == 1
    assert holds(found, "2.5-a", "close.repeated") == "refuted"


def test_a_child_that_is_cancelled_before_its_parent_closes_refutes(run: RunData) -> None:
    chain = {"scene": "cancel", "shape": "chain", "depth": "2", "layers": "plain", "done": "waiters"}
    closes, cancels = known(run, EventKind.CLOSE, **chain), known(run, EventKind.CANCEL, **chain)
    late = int(run.phase("traced").events["start_ns"][cancels[1]]) + 1

    found = with_events(run, changed("start_ns", closes[:1], late))

    assert figures(found)["order.children_first"].value == 1
    assert holds(found, "2.5-a", "order.children_first") == "refuted"


def test_a_waiter_that_runs_before_the_close_is_seen_refutes(run: RunData) -> None:
    places = known(run, EventKind.PARK, done="waiters")[:1]

    found = with_events(run, changed("duration_ns", places, 1))

    assert holds(found, "2.5-b", "order.woken_first") == "refuted"


def test_a_close_that_was_not_seen_refutes(run: RunData) -> None:
    place = known(run, EventKind.CLOSE)[0]

    found = with_events(run, lambda events: np.delete(events, place))

    assert figures(found)["close.unseen"].value == 1
    assert holds(found, "2.5-b", "close.unseen") == "refuted"


def test_a_close_that_is_taken_for_another_contexts_refutes(run: RunData) -> None:
    found = with_events(run, changed("object", known(run, EventKind.CLOSE)[:1], 0))

    assert holds(found, "2.5-b", "close.misassigned") == "refuted"


def test_a_number_of_children_that_is_wrong_refutes(run: RunData) -> None:
    found = with_events(run, changed("value", known(run, EventKind.CANCEL, scene="pruned")[-1:], 77))

    assert figures(found)["children.wrong"].value == 1
    assert judge(found)["2.5-c"].outcome == "refuted"


def test_trees_that_all_have_one_number_of_children_decide_nothing(run: RunData) -> None:
    workload = run.phase("traced").workload
    assert workload is not None
    segments = [
        msgspec.structs.replace(
            s, counts={name: 0 if name.startswith("children/") else n for name, n in s.counts.items()}
        )
        for s in workload.segments
    ]

    found = with_phase(run, workload=msgspec.structs.replace(workload, segments=segments))

    assert figures(found)["children.kinds"].value == 1
    assert judge(found)["2.5-c"].outcome == "undecided"


def test_a_done_channel_that_was_read_wrong_leaves_the_claims_undecided(run: RunData) -> None:
    found = with_events(run, changed("object", known(run, EventKind.CANCEL)[:1], 4096))

    assert figures(found)["done.wrong"].value == 1
    assert (judge(found)["2.5-a"].outcome, judge(found)["2.5-b"].outcome) == ("undecided", "undecided")


def test_a_cancellation_after_the_first_finds_the_map_gone_and_the_shared_channel(run: RunData) -> None:
    alone = {"scene": "repeated", "shape": "single"}
    events = run.phase("traced").events
    (first, *others) = [events[place] for place in known(run, EventKind.CANCEL, **alone)[:4]]
    segments = run.phase("traced").segments("forced", **alone)

    assert (first["object"], first["value"]) == (0, 0)
    assert [event["object"] for event in others] == [segments[0].addresses["closedchan"]] * 3


def test_a_stack_without_the_callers_refutes(run: RunData) -> None:
    found = with_events(run, changed("stack", known(run, EventKind.CLOSE)[:1], -1))

    assert figures(found)["stack.without_callers"].value == 1
    assert judge(found)["2.5-d"].outcome == "refuted"


def test_a_count_that_differs_leaves_every_claim_undecided(run: RunData) -> None:
    trace = run.phase("traced").trace
    assert trace is not None
    one = segment(run, scene="cancel", shape="chain", depth="1", layers="plain", done="nobody")
    counters = {**trace.counters, one.id: trace.counters[one.id] | {"close": 5}}

    found = with_phase(run, trace=msgspec.structs.replace(trace, counters=counters))

    assert figures(found)["forced.mismatches"].value == 1
    assert {verdict.outcome for verdict in judge(found).values()} == {"undecided"}


def test_lost_events_leave_what_they_decide_undecided(run: RunData) -> None:
    trace = run.phase("traced").trace
    assert trace is not None

    found = with_phase(run, trace=msgspec.structs.replace(trace, losses={**trace.losses, "ring_full": 3}))

    assert {claim: verdict.outcome for claim, verdict in judge(found).items()} == {
        "2.5-a": "undecided", "2.5-b": "refuted", "2.5-c": "undecided", "2.5-d": "undecided"
    }  # fmt: skip


def test_a_run_whose_phases_failed_has_figures_that_say_why(run: RunData) -> None:
    failed = dataclasses.replace(run, phases={})

    for metric in analyse(failed).metrics:
        assert metric.value is None
        assert "did not run" in metric.absent
    assert analyse(failed).charts == []


def test_delays_are_those_of_each_depth(run: RunData) -> None:
    found = {chart.id: chart for chart in analyse(run).charts}

    for name in ("closed-by-depth", "woken-by-depth", "woken-untraced"):
        boxes = found[name]
        assert isinstance(boxes, charts.QuantileBoxes)
        # Six rounds of a chain of depth 3, a tree of depth 4 and width 2, and a star of 16.
        assert [(group.label, group.n) for group in boxes.groups] == [
            *((f"chain, depth {d}", 6) for d in range(4)),
            *((f"tree, depth {d}", 6 * 2**d) for d in range(5)),
            ("star, depth 0", 6), ("star, depth 1", 96),
        ]  # fmt: skip


def test_a_context_closes_later_the_deeper_it_is(run: RunData) -> None:
    lines = next(chart for chart in analyse(run).charts if chart.id == "delay-by-depth")

    assert isinstance(lines, charts.Lines)
    closes = [point.y for point in lines.lines[0].points]
    assert closes == sorted(closes)


def test_one_cancellation_is_told_context_by_context(run: RunData) -> None:
    table = next(chart for chart in analyse(run).charts if chart.id == "one-cancellation")

    assert isinstance(table, charts.Table)
    # The tree of depth 2 and width 2; the order of the children is their map's.
    assert table.rows[0][0] == "0"
    assert sorted(str(row[0]).strip("· ") for row in table.rows) == [
        "0",
        "0.0",
        "0.0.0",
        "0.0.1",
        "0.1",
        "0.1.0",
        "0.1.1",
    ]
    assert all(row[4:6] == ["yes", "yes"] for row in table.rows)
