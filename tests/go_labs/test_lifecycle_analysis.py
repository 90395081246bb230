"""What the analysis of the lifecycle lab makes of a recorded run (6.1, Go 1.27.3, short), and of changed ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bpf.gotrace import SegmentTrace
from bpf.trace import EventKind
from go_labs.evidence import Segment
from reports import charts
from reports.analysis import Events, PhaseData, RunData
from tests.go_labs.recorded import analyse, figures, judge, read_record


@pytest.fixture
def run(tmp_path: Path) -> RunData:
    return read_record("lifecycle", tmp_path / "run")


def with_phase(run: RunData, **changes: object) -> RunData:
    """The run with other things in its traced phase."""
    phase = dataclasses.replace(run.phase("traced"), **changes)  # type: ignore[arg-type]
    return dataclasses.replace(run, phases={**run.phases, "traced": phase})


def load(run: RunData) -> Segment:
    (segment,) = run.phase("traced").segments("table")
    return segment


def with_load(run: RunData, segment: Segment) -> RunData:
    workload = run.phase("traced").workload
    assert workload is not None
    others = [segment if each.id == segment.id else each for each in workload.segments]
    return with_phase(run, workload=msgspec.structs.replace(workload, segments=others))


def with_oracle(run: RunData, **changes: object) -> RunData:
    """The run whose Go trace says something else of the load."""
    seen = run.phase("traced").go_trace
    assert seen is not None
    number = load(run).id
    changed = msgspec.structs.replace(seen.segments[number], **changes)
    return with_phase(run, go_trace=msgspec.structs.replace(seen, segments={**seen.segments, number: changed}))


def oracle(run: RunData) -> SegmentTrace:
    seen = run.phase("traced").go_traced(load(run))
    assert seen is not None
    return seen


def of_load(phase: PhaseData, run: RunData, kind: EventKind) -> Events:
    return phase.events_of([load(run)], kind)


def table(run: RunData, name: str) -> charts.Table:
    found = next(chart for chart in analyse(run).charts if chart.id == name)
    assert isinstance(found, charts.Table)
    return found


def test_the_recorded_run_has_a_verdict_on_each_claim(run: RunData) -> None:
    outcomes = {claim: verdict.outcome for claim, verdict in judge(run).items()}

    assert outcomes == {"3.3-a": "refuted", "3.3-b": "refuted"}


def test_each_metric_that_the_lab_names_is_there(run: RunData) -> None:
    named = {criterion.metric for claim in run.lab.claims for criterion in claim.criteria}
    named |= {gate.metric for gate in run.lab.gates} | {run.lab.primary}
    found = {name: metric.value for name, metric in figures(run).items()}
    attempts = {name for name in named if name.startswith("attempt.")}

    assert {name for name in named - attempts if found[name] is None} == set()
    assert len(attempts) == 3


def test_every_forced_count_of_the_recorded_run_is_equal_and_go_counts_the_same(run: RunData) -> None:
    found = figures(run)

    assert found["forced.checked"].value == 3 * 6 * 4 + 1 + 2
    assert found["forced.mismatches"].value == 0
    assert found["forced.oracle_mismatches"].value == 0
    assert found["losses.total"].value == 0


def test_the_cross_check_of_the_recorded_run_deviates_in_nothing(run: RunData) -> None:
    found = figures(run)
    rows = {row[0]: row for row in table(run, "cross-check").rows}
    counts = load(run).counts

    assert found["table.deviation"].value == 0
    assert rows["created"][1:6] == [counts["created"]] * 4 + [0]
    assert rows["ended"][4] == counts["ended"] == counts["created"]
    assert rows["panicked"][4] == counts["planned_panics"]
    assert isinstance(rows["panicked"][2], charts.Absent)


def test_the_article_s_figures_stand_beside_it(run: RunData) -> None:
    assert [row[-1] for row in table(run, "cross-check").rows] == ["0.0014%", None, "0.018%", "0%"]


def test_those_who_were_held_waited_beyond_the_threshold_by_both(run: RunData) -> None:
    waited = next(row for row in table(run, "cross-check").rows if row[0] == "waited beyond the threshold")

    # The long-lived ones wait as long as the load lasts, and are not among those that were held on purpose.
    assert waited[2] == waited[4]
    assert int(str(waited[4])) >= load(run).counts["held"] + 20


def test_a_goroutine_that_only_go_s_tracer_saw_is_a_deviation(run: RunData) -> None:
    seen = oracle(run)
    extra = msgspec.structs.replace(seen.goroutines[0], id=10**9)
    changed = with_oracle(run, goroutines=[*seen.goroutines, extra])

    assert figures(changed)["table.deviation"].value == pytest.approx(1 / seen.created())


def test_a_wait_that_only_the_probes_saw_is_a_deviation(run: RunData) -> None:
    seen = oracle(run)
    longest = max(seen.waits, key=lambda wait: wait.duration_ns if wait.reason == "chan receive" else 0)
    changed = with_oracle(run, waits=[wait for wait in seen.waits if wait.goroutine != longest.goroutine])

    assert (figures(changed)["table.deviation"].value or 0) > 0


def test_equal_numbers_of_different_goroutines_deviate(run: RunData) -> None:
    seen = oracle(run)
    first = msgspec.structs.replace(seen.goroutines[0], id=10**9)
    changed = with_oracle(run, goroutines=[first, *seen.goroutines[1:]])

    assert figures(changed)["table.deviation"].value == pytest.approx(2 / seen.created())


def test_a_go_trace_that_is_not_whole_leaves_the_claim_undecided(run: RunData) -> None:
    changed = with_oracle(run, whole=False)

    assert judge(changed)["3.3-a"].outcome == "undecided"
    assert judge(changed)["3.3-b"].outcome == "refuted"


def test_a_creation_without_its_event_leaves_the_claim_undecided(run: RunData) -> None:
    events = run.phase("traced").events
    ours = (events["segment"] == load(run).id) & (events["kind"] == EventKind.CREATE)
    changed = with_phase(run, events=np.delete(events, np.flatnonzero(ours)[0]))

    assert figures(changed)["table.events_lost"].value == 1
    assert judge(changed)["3.3-a"].outcome == "undecided"


def test_records_that_the_soak_did_not_keep_touch_no_verdict(run: RunData) -> None:
    trace = run.phase("traced").trace
    assert trace is not None
    changed = with_phase(run, trace=msgspec.structs.replace(trace, losses={**trace.losses, "events_omitted": 99}))

    assert judge(changed)["3.3-a"].outcome == "refuted"
    assert "99 records were not kept" in table(changed, "soak").caption


def test_without_go_s_trace_the_deviation_is_absent(run: RunData) -> None:
    changed = with_phase(run, go_trace=None)

    assert figures(changed)["table.deviation"].value is None
    assert figures(changed)["dumps.matched_share"].value is not None


def test_dumps_are_right_about_the_moment_and_miss_short_lives(run: RunData) -> None:
    found = figures(run)
    rows = {str(row[0]): row[1] for row in table(run, "dumps").rows}
    total, unseen = rows["created and ended, by the events"], rows["in no dump"]

    assert found["dumps.wrong"].value == 0
    assert found["dumps.made"].value == load(run).counts["dumps"] == len(load(run).samples["dump_at_ns"])
    assert isinstance(total, int)
    assert isinstance(unseen, int)
    assert found["dumps.seen_share"].value == pytest.approx((total - unseen) / total)
    assert 0 < unseen < total


def test_matching_is_the_article_s_beginning_and_end_within_50_ms(run: RunData) -> None:
    """Created 49 ms before the first dump and gone 49 ms after the last, one is matched; at 50 ms it is not."""
    segment = load(run)
    events = run.phase("traced").events
    first, last = (int(segment.samples["dump_at_ns"][i]) for i in (0, -1))
    goid = 10**9
    for distance, share in ((49_000_000, 1.0), (50_000_000, 0.0)):
        made = np.zeros(2, dtype=events.dtype)
        made["kind"], made["segment"], made["goid"] = [EventKind.CREATE, EventKind.END], segment.id, goid
        made["start_ns"], made["stack"] = [first - distance, last + distance], -1
        alone = with_phase(run, events=made)
        lists = {name: [goid] for name in segment.goroutines}
        changed = with_load(alone, msgspec.structs.replace(segment, goroutines=lists))

        assert figures(changed)["dumps.matched_share"].value == share


def test_a_dump_that_lists_a_goroutine_long_gone_is_wrong(run: RunData) -> None:
    segment = load(run)
    gone = of_load(run.phase("traced"), run, EventKind.END)
    early = gone[gone["start_ns"] < segment.samples["dump_at_ns"][-1]]["goid"]
    number = f"dump-{segment.counts['dumps'] - 1}"
    lists = {**segment.goroutines, number: [*segment.goroutines[number], int(early[0])]}

    assert figures(with_load(run, msgspec.structs.replace(segment, goroutines=lists)))["dumps.wrong"].value == 1


def test_the_soak_is_counted_twice_and_its_memory_is_flat(run: RunData) -> None:
    found = figures(run)

    assert found["soak.difference"].value == 0
    assert found["soak.tracer_growth"].value == 0
    assert {row[0]: row[4] for row in table(run, "soak").rows} == {"created": 0, "ended": 0, "panicked": 0}


def test_a_soak_that_created_what_nobody_traced_differs(run: RunData) -> None:
    phase = run.phase("traced")
    assert phase.trace is not None
    number = phase.segments("soak")[0].id
    counters = {**phase.trace.counters[number], "created": phase.trace.counters[number]["created"] - 3}
    trace = msgspec.structs.replace(phase.trace, counters={**phase.trace.counters, number: counters})

    assert figures(with_phase(run, trace=trace))["soak.difference"].value == 3


def test_charts_show_lives_waits_memory_and_sites(run: RunData) -> None:
    found = {chart.id: chart for chart in analyse(run).charts}

    assert set(found) == {
        "cross-check", "forced-oracle", "dumps", "alive", "lives", "lengths", "memory", "soak", "sites",
    }  # fmt: skip
    sites = found["sites"]
    assert isinstance(sites, charts.StackList)
    assert sites.without == 0
    assert all("lifecycle" in frame for stack in sites.stacks for frame in stack.frames[:1])
    alive = found["alive"]
    assert isinstance(alive, charts.Lines)
    assert {line.name for line in alive.lines} == {"events", "dumps"}


def test_an_old_go_without_the_metric_says_so(run: RunData) -> None:
    segment = load(run)
    counts = {name: count for name, count in segment.counts.items() if name != "metric_created"}
    changed = with_load(run, msgspec.structs.replace(segment, counts=counts))

    assert any("has no /sched/goroutines-created" in note for note in analyse(changed).notes)
    assert not any("has no /sched/goroutines-created" in note for note in analyse(run).notes)


def halved(run: RunData, goid: int) -> RunData:
    """The run whose probes saw one goroutine's waits half as long."""
    events = run.phase("traced").events.copy()
    ours = (events["segment"] == load(run).id) & (events["kind"] == EventKind.PARK) & (events["goid"] == goid)
    events["duration_ns"][ours] //= 2
    return with_phase(run, events=events)


def held(run: RunData) -> int:
    """A goroutine that was held beyond the threshold, and not for the length of the load."""
    own = {each.id for each in oracle(run).goroutines if each.goroutine_class == "user"}
    return next(w.goroutine for w in oracle(run).waits if w.goroutine in own and 1e8 <= w.duration_ns < 4e8)


def test_a_wait_that_both_know_on_either_side_of_the_threshold_is_no_deviation(run: RunData) -> None:
    changed = halved(run, held(run))

    assert figures(changed)["table.deviation"].value == 0
    assert "1 goroutines have a wait that both know" in table(changed, "cross-check").caption


def test_a_wait_without_its_record_deviates_unless_its_loss_was_counted(run: RunData) -> None:
    phase = run.phase("traced")
    goid, events = held(run), phase.events
    changed = with_phase(run, events=events[~((events["kind"] == EventKind.PARK) & (events["goid"] == goid))])
    assert phase.trace is not None
    counted = msgspec.structs.replace(phase.trace, losses={**phase.trace.losses, "expired": 1})

    assert (figures(changed)["table.deviation"].value or 0) > 0
    assert figures(with_phase(changed, trace=counted))["table.deviation"].value == 0
