"""What a matrix will take, from what earlier runs and matrices took."""

from __future__ import annotations

from pathlib import Path

import pytest

from go_labs import spec
from go_labs.evidence import Place
from go_labs.matrix import RUNS
from provision.matrix import estimate, work
from provision.matrix.estimate import AROUND_SECONDS, RECORD_BYTES, Earlier
from provision.matrix.journal import Journal
from tests.provision import matrices
from tests.provision.matrices import ended, phase


def test_the_median_of_the_same_lab_kernel_clock_and_phases_is_expected() -> None:
    plan = matrices.plan(lines=("5.10", "6.1"), repeats=4, judged=2)
    known = Earlier(
        {
            ("mutex", "5.10", False, True): [50.0, 60.0, 300.0],
            ("mutex", "6.1", False, True): [70.0],
            ("mutex", "5.10", False, False): [11.0],
            ("mutex", "6.1", False, False): [13.0, 15.0],
            ("mutex", "6.1", True, True): [9999.0],  # another clock
            ("gmp", "6.1", False, True): [7777.0],
        },
        {"mutex": [100, 300, 200]},
    )
    made = estimate.estimate(plan, plan.runs, known)

    lines = {cell.id: cell.kernel_line for cell in plan.cells}
    expected = {("5.10", True): 60.0, ("6.1", True): 70.0, ("5.10", False): 11.0, ("6.1", False): 14.0}
    assert made.seconds == {run.number: expected[lines[run.cell], run.judged] for run in plan.runs}
    assert made.known == len(plan.runs) == 12
    assert (made.bytes, made.largest) == (12 * 300, 300)
    assert made.total == sum(made.seconds.values())


def test_what_is_not_known_of_a_kernel_is_taken_from_the_others_and_else_from_the_lab_itself() -> None:
    plan = matrices.plan(labs=("mutex", "gmp"), lines=("5.10", "6.1"), repeats=2, judged=1)
    known = Earlier({("mutex", "7.3", False, True): [40.0], ("mutex", "6.12", False, True): [60.0]}, {})
    made = estimate.estimate(plan, plan.runs, known)

    for run in plan.runs:
        lab = spec.find(run.lab).lab
        own = lab.seconds if run.judged else lab.seconds / len(lab.phases)
        known_here = run.lab == "mutex" and run.judged
        assert made.seconds[run.number] == (50.0 if known_here else own + AROUND_SECONDS)
    assert made.known == 3
    assert (made.bytes, made.largest) == (12 * RECORD_BYTES, RECORD_BYTES)


def test_only_the_runs_that_are_left_are_counted() -> None:
    plan = matrices.plan()

    made = estimate.estimate(plan, plan.runs[4:], Earlier({}, {}))
    assert list(made.seconds) == [5, 6]
    assert made.known == 0


def test_a_virtual_clock_is_judged_by_its_own_runs() -> None:
    plan = matrices.plan(repeats=1, clock="virtual")
    known = Earlier({("mutex", "6.1", True, True): [400.0], ("mutex", "6.1", False, True): [40.0]}, {})

    assert set(estimate.estimate(plan, plan.runs, known).seconds.values()) == {400.0}


def test_earlier_runs_and_matrices_are_read_and_what_is_broken_is_passed_over(tmp_path: Path) -> None:
    runs, all_ = tmp_path / "runs", tmp_path / "matrices"
    matrices.leave_evidence(runs / "a", None, [phase(wall_seconds=20.0), phase("traced", wall_seconds=30.0)])
    matrices.leave_evidence(runs / "b", None, [phase("traced", wall_seconds=5.0)], lab="leak", clock="virtual")
    matrices.leave_evidence(runs / ".staging-1-a", None, [phase(wall_seconds=900.0)])
    (runs / "broken").mkdir()
    (runs / "broken" / "evidence.json").write_text('{"lab"')
    plan = matrices.plan(lines=("6.1",), repeats=2, judged=1)
    folder = work.create(plan, all_ / plan.id)
    place = Place(matrix=plan.id, run=1, block=1, cell="k1", attempt=1)
    matrices.leave_evidence(folder / RUNS / "r1", place)
    with Journal(folder) as journal:
        for run in plan.runs:
            outcome, seconds = ("passed", 40.0 + run.number) if run.number < 4 else ("timed_out", 999.0)
            record = "r1" if run.number == 1 else ""
            journal.add(ended(run.number, outcome, seconds=seconds, record=record))  # type: ignore[arg-type]
    (all_ / "no-matrix").mkdir()

    known = estimate.earlier(runs, all_)

    judged = [40.0 + run.number for run in plan.runs if run.judged and run.number < 4]
    alone = [40.0 + run.number for run in plan.runs if not run.judged and run.number < 4]
    assert known.seconds == {
        ("mutex", "6.1", False, True): [*judged, 50.0 + AROUND_SECONDS],
        ("mutex", "6.1", False, False): [*alone, 20.0 + AROUND_SECONDS],
        ("leak", "6.1", True, True): [5.0 + AROUND_SECONDS],
    }
    assert set(known.sizes) == {"mutex", "leak"}


def test_an_attempt_without_a_record_tells_nothing_of_the_size_of_one(tmp_path: Path) -> None:
    plan = matrices.plan(repeats=1)
    folder = work.create(plan, tmp_path / plan.id)
    with Journal(folder) as journal:
        journal.add(ended(1, record="gone"))
        journal.add(ended(2))
    (folder / RUNS / "someone-elses").mkdir()
    (folder / RUNS / "someone-elses" / "big").write_bytes(b"x" * 100_000)

    assert max(estimate.earlier(tmp_path / "none", tmp_path).sizes.get("mutex", [0])) == 0


def test_a_record_takes_what_its_files_take_on_disk(tmp_path: Path) -> None:
    (tmp_path / "timed").mkdir()
    (tmp_path / "timed" / "a").write_bytes(b"x" * 10_000)
    (tmp_path / "run.json").write_bytes(b"x")

    assert estimate.size_of(tmp_path) == pytest.approx(16_384, abs=12_288)
    assert estimate.size_of(tmp_path) >= 10_001
