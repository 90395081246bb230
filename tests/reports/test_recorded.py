"""A real run of the mutex lab on 6.1, emulated on 2 CPUs, as ``provision`` left it, judged by the lab as it was then.

Its kernel phase failed: no tool of bcc or bpftrace could attach. So it shows a record with a hole in it, too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from reports import html, record
from reports.schema import Record
from tests.reports import made


@pytest.fixture(scope="module")
def run(recorded: Path) -> Record:
    return record.read(recorded)


def test_every_forced_count_of_the_real_run_is_equal_and_nothing_was_lost(run: Record) -> None:
    assert len(run.equality) == 104
    assert [row for row in run.equality if not row.equal] == []
    assert {loss.count for loss in run.losses} == {0}
    parks = [row for row in run.equality if row.counter == "park_mutex" and row.parameters.get("waiters") == "lockers"]
    assert [row.traced for row in parks] == [4, 16, 64]


def test_the_real_run_has_verdicts_of_all_four_kinds(run: Record) -> None:
    assert {verdict.claim: verdict.outcome for verdict in run.verdicts} == {
        "2.4-a": "confirmed",
        "2.4-b": "not_testable",
        "2.4-c": "not_testable",
        "2.4-d": "refuted",
        "2.4-e": "undecided",
        "2.4-f": "refuted",
    }


def test_emulated_figures_of_the_article_are_shown_and_decide_nothing(run: Record) -> None:
    claim = next(verdict for verdict in run.verdicts if verdict.claim == "2.4-b")
    assert "in emulated time; it may be judged in real time only" in claim.sentence
    assert all(criterion.figure.value is not None for criterion in claim.criteria)


def test_a_phase_that_failed_takes_only_its_own_claims_with_it(run: Record) -> None:
    failed = [phase.name for phase in run.phases if phase.error]
    assert failed == ["kernel"]
    claim = next(verdict for verdict in run.verdicts if verdict.claim == "2.4-c")
    assert "no kernel-side tool could attach" in claim.sentence


def test_the_page_of_the_real_run_is_small_and_marked(recorded: Path) -> None:
    content = html.render(recorded).read_text()
    assert len(content.encode()) < 400_000
    assert content.count('<span class="tag">emulated</span>') > 100
    assert "internal/sync.(*Mutex).lockSlow" in content


def test_one_count_more_in_the_real_trace_is_found_and_leaves_its_claims_undecided(tmp_path: Path) -> None:
    staging, lab = made.unpack(tmp_path)

    def miscount(trace: dict[str, dict[str, dict[str, int]]]) -> None:
        first = next(counts for number, counts in sorted(trace["counters"].items()) if number == "1")
        first["park_mutex"] += 1

    made.change(staging / "traced/trace.json", miscount)
    run = record.read(record.seal(staging, lab, tmp_path / "runs"))
    outcomes = {verdict.claim: verdict.outcome for verdict in run.verdicts}
    mismatches = run.metric("forced.mismatches")
    assert mismatches is not None
    assert mismatches.value == 1
    assert (outcomes["2.4-d"], outcomes["2.4-b"]) == ("undecided", "not_testable")
