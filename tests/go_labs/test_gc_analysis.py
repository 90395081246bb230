"""What the analysis of the gc lab makes of a recorded run (6.1, Go 1.27.3, short options), and of changed ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest

from go_labs.evidence import Segment
from reports import charts
from reports.analysis import PhaseData, RunData
from tests.go_labs.recorded import analyse, figures, judge, read_record


@pytest.fixture
def run(tmp_path: Path) -> RunData:
    return read_record("gc", tmp_path / "run")


def with_phase(run: RunData, phase: PhaseData) -> RunData:
    return dataclasses.replace(run, phases={**run.phases, phase.name: phase})


def counted(run: RunData, pool: str, **counts: int) -> RunData:
    """The run with other counts of the workload in the timed load of one pool."""
    phase = run.phase("timed")
    assert phase.workload is not None

    def changed(segment: Segment) -> Segment:
        if segment.parameters.get("pool") != pool:
            return segment
        return msgspec.structs.replace(segment, counts=segment.counts | counts)

    segments = [changed(segment) for segment in phase.workload.segments]
    return with_phase(
        run, dataclasses.replace(phase, workload=msgspec.structs.replace(phase.workload, segments=segments))
    )


def listed(run: RunData, name: str, **changes: Any) -> RunData:
    """The run in which ``bcc/prog_list`` says something else of one program."""
    phase = run.phase("kernel")
    document = phase.tools["bcc/prog_list"]
    programs = [p | changes if p["name"] == name else p for p in document["programs"]]
    return with_phase(run, dataclasses.replace(phase, tools={"bcc/prog_list": document | {"programs": programs}}))


def on_kvm(run: RunData) -> RunData:
    provenance = msgspec.structs.replace(run.provenance, clock="kvm", accelerator="kvm")
    return dataclasses.replace(run, provenance=provenance)


def reasons(run: RunData, claim: str) -> dict[str, str]:
    return {result.metric: result.outcome for result in judge(run)[claim].criteria}


def test_the_recorded_run_has_a_verdict_on_each_claim(run: RunData) -> None:
    outcomes = {claim: verdict.outcome for claim, verdict in judge(run).items()}

    assert outcomes == {"4.1-a": "not_testable", "4.1-b": "refuted"}


def test_counts_are_judged_where_a_second_is_no_second(run: RunData) -> None:
    assert reasons(run, "4.1-a") == {
        "alloc.bytes_ratio": "confirmed",
        "collections.ratio": "confirmed",
        "article.collections": "not_testable",
        "article.pause": "not_testable",
        "article.allocation": "not_testable",
    }


def test_every_count_of_the_recorded_run_is_equal(run: RunData) -> None:
    found = figures(run)

    assert found["forced.checked"].value == 2 * (6 * 4 + 2) + 1
    assert found["forced.mismatches"].value == 0
    assert found["oracle.checked"].value == 3 * (2 * 7 + 4)
    assert found["oracle.mismatches"].value == 0
    assert found["sites.mismatches"].value == 0
    assert found["profile.mismatches"].value == 0
    assert found["losses.total"].value == 0


def test_gos_own_profile_has_only_half_of_the_tiny_objects(run: RunData) -> None:
    tiny = figures(run)["profile.tiny_share"].value

    assert tiny is not None
    assert 0.45 <= tiny <= 0.6


def test_on_kvm_the_articles_figures_are_judged(run: RunData) -> None:
    requests = run.phase("timed").segments("load", pool="misused", rate="5000")[0].counts["requests"]
    article = {
        "elapsed_ns": 10**10, "memstats_collections": 89, "runtime_pauses": 178, "memstats_pause_ns": int(178 * 12.3e6),
        "memstats_bytes": 107 * 10**7, "requests": requests,
    }  # fmt: skip

    same = on_kvm(counted(run, "misused", **article))
    quick = on_kvm(counted(run, "misused", **article | {"memstats_pause_ns": 178 * 40_000}))
    between = on_kvm(counted(run, "misused", **article | {"memstats_pause_ns": 178 * 3_000_000}))

    assert judge(same)["4.1-a"].outcome == "confirmed"
    assert judge(quick)["4.1-a"].outcome == "refuted"
    assert judge(between)["4.1-a"].outcome == "undecided"


def test_a_pool_that_makes_no_difference_refutes(run: RunData) -> None:
    well = run.phase("timed").segments("load", pool="used well", rate="5000")[0].counts
    same = {name: well[name] for name in ("memstats_bytes", "memstats_collections", "requests")}

    assert judge(counted(run, "misused", **same))["4.1-a"].outcome == "refuted"


def test_a_pool_that_is_not_misused_decides_nothing(run: RunData) -> None:
    assert reasons(counted(run, "misused", pool_misses=2), "4.1-a")["alloc.bytes_ratio"] == "undecided"


@pytest.mark.parametrize("counter", ["malloc", "collections"])
def test_a_count_that_the_runtime_does_not_have_leaves_the_claim_undecided(run: RunData, counter: str) -> None:
    phase = run.phase("traced")
    assert phase.trace is not None
    (segment,) = phase.segments("load", pool="misused", rate="5000")
    more = phase.counters(segment) | {counter: phase.counters(segment).get(counter, 0) + 1}
    trace = msgspec.structs.replace(phase.trace, counters={**phase.trace.counters, segment.id: more})
    changed = with_phase(run, dataclasses.replace(phase, trace=trace))

    assert figures(changed)["oracle.mismatches"].value == 1
    assert reasons(changed, "4.1-a")["alloc.bytes_ratio"] == "undecided"


def test_an_allocation_at_the_wrong_place_leaves_the_claim_undecided(run: RunData) -> None:
    phase = run.phase("traced")
    assert phase.trace is not None
    forced = [segment.id for segment in phase.segments("forced", kind="scan")]
    sites = [
        msgspec.structs.replace(site, count=site.count - 1) if site.segment == forced[0] and site.count > 1 else site
        for site in phase.trace.sites
    ]
    changed = with_phase(run, dataclasses.replace(phase, trace=msgspec.structs.replace(phase.trace, sites=sites)))

    assert figures(changed)["sites.mismatches"].value == 1
    assert reasons(changed, "4.1-a")["collections.ratio"] == "undecided"


def test_a_list_that_told_programs_apart_would_not_refute_by_its_words(run: RunData) -> None:
    words = run.phase("kernel").tools["bcc/prog_list"]["programs"][0]["words"]

    found = reasons(listed(run, "listed_running", words=words | {"run_cnt": 7}), "4.1-b")

    assert found["prog_list.told_apart"] == "confirmed"


def test_what_names_a_program_does_not_tell_how_it_fares(run: RunData) -> None:
    words = run.phase("kernel").tools["bcc/prog_list"]["programs"][0]["words"]

    changed = listed(run, "listed_running", words=words | {"id": 999, "tag": "ffff", "loaded_at": 1})

    assert figures(changed)["prog_list.told_apart"].value == 0


@pytest.mark.parametrize(("name", "hits"), [("listed_running", 0), ("listed_waiting", 1)])
def test_programs_of_which_it_is_not_known_whether_they_ran_decide_nothing(run: RunData, name: str, hits: int) -> None:
    assert judge(listed(run, name, hits=hits))["4.1-b"].outcome == "undecided"


def test_statistics_would_have_told(run: RunData) -> None:
    found = figures(run)["prog_list.told_apart_counted"]

    assert found.value == 2
    assert "run_cnt, run_time_ns" in found.meaning


@pytest.mark.parametrize("document", [None, {"programs": 5}, {"programs": [{"name": "x"}]}, {"error": "no kprobes"}])
def test_a_tool_without_a_usable_answer_is_absent_and_not_zero(run: RunData, document: object) -> None:
    changed = with_phase(run, dataclasses.replace(run.phase("kernel"), tools={"bcc/prog_list": document}))

    found = figures(changed)

    assert found["prog_list.told_apart"].value is None
    assert "bcc/prog_list left no result" in found["prog_list.told_apart"].absent


def test_a_failed_phase_takes_its_figures_along_and_no_others(run: RunData) -> None:
    lost = PhaseData(name="traced", exit_status=1, wall_seconds=1, workload_seconds=1, error="the tracer died")

    found = figures(with_phase(run, lost))

    assert found["oracle.mismatches"].value is None
    assert "the tracer died" in found["oracle.mismatches"].absent
    assert found["alloc.bytes_ratio"].value is not None


def test_both_sources_name_the_places_of_the_article(run: RunData) -> None:
    drawn = {chart.id: chart for chart in analyse(run).charts}

    table = drawn["sites"]
    assert isinstance(table, charts.Table)
    rows = {(row[0], row[1]): row for row in table.rows}
    buffer = rows["misused", "bytes.NewBuffer"]
    assert (buffer[2], buffer[4]) == (1.0, 1.0)
    assert (buffer[3], buffer[5]) == (40.0, 48.0)  # asked for, and the size class


def test_the_flame_graphs_agree(run: RunData) -> None:
    drawn = {chart.id: chart for chart in analyse(run).charts}

    probes, difference = drawn["flame-probes"], drawn["flame-difference"]
    assert isinstance(probes, charts.Flame)
    assert isinstance(difference, charts.FlameDifference)
    names = {node.frame for node in probes.nodes}
    assert {"main.(*Book).Misused", "main.(*Book).parseChapter", "bytes.growSlice"} <= names
    assert difference.distance is not None
    assert difference.distance < 0.05


def test_pauses_and_collections_are_drawn(run: RunData) -> None:
    drawn = {chart.id: chart for chart in analyse(run).charts}

    heat, lines = drawn["pauses-over-time"], drawn["collections-over-time"]
    assert isinstance(heat, charts.HeatMap)
    assert isinstance(lines, charts.Lines)
    traced = run.phase("traced")
    stops = sum(segment.counts["runtime_pauses"] for segment in traced.segments("load"))
    assert sum(map(sum, heat.counts)) + heat.beyond == stops
    last = {line.name: line.points[-1].y for line in lines.lines}
    for pool in ("misused", "used well"):
        (segment,) = traced.segments("load", pool=pool, rate="5000")
        assert last[pool] == segment.counts["memstats_collections"]
