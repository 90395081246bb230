"""analysis.py of the mutex lab on a recorded run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from go_labs.evidence import HostShare
from reports.analysis import RunData
from reports.charts import Funnel, HeatMap, Table
from reports.statistics import paired_log_ratio
from tests.go_labs.recorded import analyse, figures, judge, locks, read, recorded_tools, tool

SEEN = {"bcc/mutex_lock": tool(hits=3, addresses={0xFFFF888000000000: 3}), "bcc/futex": tool(hits=40, total=90)}


def test_each_metric_that_the_lab_names_is_there(tmp_path: Path) -> None:
    run = read(tmp_path, SEEN)

    found = figures(run)

    named = {criterion.metric for claim in run.lab.claims for criterion in claim.criteria}
    named |= {gate.metric for gate in run.lab.gates} | {run.lab.primary}
    assert named <= set(found)
    assert {name for name in named if found[name].value is None} == set()


def test_verdicts_on_the_recorded_run(tmp_path: Path) -> None:
    verdicts = judge(read(tmp_path, SEEN))

    outcomes = {claim: verdict.outcome for claim, verdict in verdicts.items()}
    assert outcomes["2.4-a"] == "confirmed"
    assert outcomes["2.4-b"] == "not_testable"
    assert outcomes["2.4-c"] == "refuted"
    assert outcomes["2.4-d"] == "refuted"
    assert outcomes["2.4-f"] == "refuted"


def test_forced_counts_of_the_recorded_trace_are_equal(tmp_path: Path) -> None:
    found = figures(read(tmp_path))

    assert found["forced.checked"].value == 80
    assert found["forced.mismatches"].value == 0
    assert found["selftest.mismatches"].value == 0


def test_one_wait_too_many_leaves_claims_undecided(tmp_path: Path) -> None:
    run = read(tmp_path, SEEN)
    segment = run.phase("traced").segments("forced")[0]
    trace = run.phase("traced").trace
    assert trace is not None
    counters = {**trace.counters, segment.id: {**trace.counters[segment.id], "park_mutex": 5}}
    traced = replace(run.phase("traced"), trace=msgspec.structs.replace(trace, counters=counters))

    verdicts = judge(replace(run, phases={**run.phases, "traced": traced}))

    assert verdicts["2.4-d"].outcome == "undecided"
    assert verdicts["2.4-f"].outcome == "undecided"
    assert verdicts["2.4-a"].outcome == "confirmed"


def test_recorded_tools_saw_calls_but_no_go_lock(tmp_path: Path) -> None:
    run = read(tmp_path, recorded_tools())

    found = figures(run)

    assert len(recorded_tools()) == 4
    assert found["kernel.waits"].value == 48
    assert found["kernel.mutex_lock_hits"].value == 23
    assert found["kernel.mutex_lock_on_go_locks"].value == 0
    assert found["kernel.futex_hits"].value == 424
    assert found["kernel.futex_on_go_locks"].value == 0
    assert judge(run)["2.4-c"].outcome == "refuted"


def test_a_hit_on_a_go_lock_would_confirm_what_the_article_says(tmp_path: Path) -> None:
    run = read(tmp_path, {"bcc/mutex_lock": tool(hits=9, addresses={locks()[1] + 4: 9})})

    assert figures(run)["kernel.mutex_lock_on_go_locks"].value == 9
    assert judge(run)["2.4-c"].outcome == "confirmed"


def test_a_tool_that_saw_nothing_at_all_proves_nothing(tmp_path: Path) -> None:
    assert judge(read(tmp_path, {"bcc/mutex_lock": tool(total=0)}))["2.4-c"].outcome == "undecided"


def test_a_tool_that_lost_addresses_proves_nothing(tmp_path: Path) -> None:
    lost = {"bcc/mutex_lock": tool(hits=3, losses={"address": 2})}

    assert judge(read(tmp_path, lost))["2.4-c"].outcome == "undecided"


def test_a_tool_that_lost_stacks_still_knows_its_addresses(tmp_path: Path) -> None:
    lost = {"bcc/mutex_lock": tool(hits=3, losses={"address": 0, "other": 3})}

    assert judge(read(tmp_path, lost))["2.4-c"].outcome == "refuted"


def test_a_tool_that_could_not_attach_says_why(tmp_path: Path) -> None:
    run = read(tmp_path, {"bpftrace/mutex_lock": {"schema": 1, "error": "mutex_lock is not traceable"}})

    verdict = judge(run)["2.4-c"]

    assert verdict.outcome == "not_testable"
    assert "mutex_lock is not traceable" in verdict.sentence


def test_without_a_trace_figures_are_absent_with_their_reason(tmp_path: Path) -> None:
    run = read(tmp_path)
    phases = {name: phase for name, phase in run.phases.items() if name != "traced"}

    found = figures(replace(run, phases=phases))

    for name in ("futex.lock_share", "futex.waits_per_park"):
        assert found[name].value is None
        assert "phase traced did not run" in found[name].absent


def test_the_article_s_table_is_judged_on_16_real_cpus_only(tmp_path: Path) -> None:
    few = judge(read(tmp_path, clock="kvm", cpus=2))["2.4-b"]
    enough = judge(read(tmp_path, clock="kvm", cpus=16))["2.4-b"]

    assert few.outcome == "not_testable"
    assert "16 threads need 16 CPUs, this machine has 2" in few.sentence
    assert enough.outcome in ("confirmed", "refuted", "undecided")


def test_the_collector_s_ratio_is_that_of_the_pairs_as_the_profile_counted_them(tmp_path: Path) -> None:
    run = read(tmp_path)
    on, off = (
        [
            1000 * (s.counts["profile_contentions"] + 0.5) / s.counts["attempts"]
            for s in run.phase("profiled").segments("gc", collector=side)
        ]
        for side in ("on", "off")
    )

    found = figures(run)["gc.wait_ratio"]

    assert found.value == paired_log_ratio(on, off).value
    assert found.n == len(on) > 1


def beside(run: RunData, waited: float) -> RunData:
    """``run`` as if its machine had waited that share of the profiled phase for a CPU of the host."""
    host = HostShare(cores=[0, 1], neighbours=0, cpu_seconds=10 * (1 - waited), wait_seconds=10 * waited)
    return replace(run, phases={**run.phases, "profiled": replace(run.phase("profiled"), host=host)})


def test_where_the_host_takes_the_cpus_away_the_collector_is_not_blamed_for_it(tmp_path: Path) -> None:
    run = read(tmp_path, clock="emulated")

    idle, busy = beside(run, 0.14), beside(run, 0.42)

    assert figures(idle)["gc.wait_ratio"].value == figures(run)["gc.wait_ratio"].value
    assert figures(busy)["gc.host_wait_share"].value == pytest.approx(0.42)
    assert "waited 42% of its time for a CPU of the host" in figures(busy)["gc.wait_ratio"].absent
    assert judge(busy)["2.4-e"].outcome == "not_testable"


def test_where_cpus_take_turns_the_collector_is_not_judged(tmp_path: Path) -> None:
    """Counted instructions: one CPU runs at a time, and whoever holds a lock on another one is stopped with it."""
    run = beside(read(tmp_path, clock="virtual"), 0.9)

    assert figures(run)["gc.wait_ratio"].value is not None
    assert judge(run)["2.4-e"].outcome == "not_testable"


def test_pairs_too_few_for_an_interval_decide_nothing(tmp_path: Path) -> None:
    run = read(tmp_path, SEEN)
    profiled = run.phase("profiled")
    assert profiled.workload is not None
    few = [s for s in profiled.workload.segments if s.section != "gc" or int(s.parameters["pair"]) < 2]
    short = replace(profiled, workload=msgspec.structs.replace(profiled.workload, segments=few))

    run = replace(run, phases={**run.phases, "profiled": short})

    assert "2 values are too few" in figures(run)["gc.wait_ratio"].absent
    assert judge(run)["2.4-e"].outcome == "not_testable"


def test_the_funnel_narrows(tmp_path: Path) -> None:
    charts = {chart.id: chart for chart in analyse(read(tmp_path)).charts}

    funnel = charts["funnel"]

    assert isinstance(funnel, Funnel)
    counts = [step.count for step in funnel.steps]
    assert None not in counts
    assert counts == sorted((count or 0 for count in counts), reverse=True)
    assert counts[-1] == 0


def test_charts_hold_every_wait_and_are_marked_as_timings(tmp_path: Path) -> None:
    run = read(tmp_path, {"bcc/futex": tool(hits=3, heat=[[0, 12, 2], [4, 20, 1]])})
    charts = {chart.id: chart for chart in analyse(run).charts}

    heat, futex = charts["waits-over-time"], charts["bcc-futex-heat"]

    assert isinstance(heat, HeatMap)
    assert isinstance(futex, HeatMap)
    outside = int((run.phase("traced").events["segment"] == 0).sum())
    assert sum(map(sum, heat.counts)) + heat.beyond + outside == len(run.phase("traced").events)
    assert sum(map(sum, futex.counts)) == 3
    assert {chart.timing for name, chart in charts.items() if name.startswith("ns-per-op")} == {True}
    assert [chart.id for chart in charts.values() if chart.id in ("order", "kernel-side") and chart.timing] == []


def test_tables_of_fairness_and_starvation_have_a_row_for_each_load(tmp_path: Path) -> None:
    charts = {chart.id: chart for chart in analyse(read(tmp_path)).charts}

    fairness, starvation = charts["fairness"], charts["starvation"]

    assert isinstance(fairness, Table)
    assert isinstance(starvation, Table)
    assert len(fairness.rows) == 2 * 4 * 2  # locks × reader shares × numbers of goroutines above 1
    assert len(starvation.rows) == 3
    assert all(0 < float(row[3] or 0) <= 1 for row in fairness.rows)
