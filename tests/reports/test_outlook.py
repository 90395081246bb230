"""What a plan can detect, before it runs: from earlier matrices, or from a guess that is called one."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import msgspec
import pytest

from go_labs.matrix import MatrixPlan, Unfit
from reports import matrices, outlook, power, synthetic
from reports.matrices import Matrix

LAB = synthetic.lab_name(0)
HOST = {"cpu": "synthetic host 1", "cpus": "2", "memory_mib": "0", "kernel": "none", "system": "none"}


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """A made-up matrix of one lab on three kernels, with a spread of about √2 × 1%."""
    folder = tmp_path_factory.mktemp("matrix")
    synthetic.write(folder, synthetic.Shape(labs=1, kernels=("5.10", "6.1", "7.3"), blocks=20, extra=0, points=0))
    return matrices.read(folder)


def plan(matrix: Matrix, blocks: int = 10, **changes: Any) -> MatrixPlan:
    runs = [run for run in matrix.plan.runs if run.block <= blocks]
    return msgspec.structs.replace(matrix.plan, id="planned", repeats=blocks, runs=runs, **changes)


def spreads(matrix: Matrix) -> list[float]:
    (lab,) = matrix.comparison.labs
    assert lab.primary is not None
    return [e.spread for e in lab.primary.effects if not e.control and e.spread is not None]


def test_the_spread_is_that_of_earlier_matrices_and_the_rest_follows_from_it(matrix: Matrix) -> None:
    found = outlook.outlook(plan(matrix), "emulated", HOST, [matrix])
    (lab,) = found.labs

    assert lab.spread == statistics.median(spreads(matrix))
    assert lab.spread == pytest.approx(0.01 * 2**0.5, rel=0.4)
    assert (lab.comparisons, lab.n, lab.needed, lab.assumed) == (2, 10, power.blocks_needed(2), False)
    assert lab.detectable == power.smallest_detectable(10, lab.spread, 2)
    assert lab.matrices == ["synthetic-1"]
    assert "in 1 earlier matrix)" in lab.words
    assert (found.n, found.needed) == (10, lab.needed)


@pytest.mark.parametrize(
    ("clock", "host"), [("virtual", HOST), ("kvm", HOST), ("emulated", {**HOST, "cpu": "synthetic host 2"})]
)
def test_another_clock_or_host_says_nothing(matrix: Matrix, clock: Any, host: dict[str, str]) -> None:
    (lab,) = outlook.outlook(plan(matrix), clock, host, [matrix]).labs

    assert (lab.spread, lab.assumed, lab.matrices) == (0.03, True, [])
    assert lab.detectable == power.smallest_detectable(10, 0.03, 2)
    assert "no earlier matrix: a spread of 3% is assumed" in lab.words


def test_another_primary_metric_says_nothing(matrix: Matrix) -> None:
    lab = msgspec.structs.replace(matrix.plan.labs[0], primary="another.metric")
    (found,) = outlook.outlook(plan(matrix, labs=[lab]), "emulated", HOST, [matrix]).labs

    assert found.assumed


def test_matrices_with_the_same_options_go_before_others(matrix: Matrix, tmp_path: Path) -> None:
    synthetic.write(
        tmp_path / "loud",
        synthetic.Shape(labs=1, kernels=("5.10", "6.1"), blocks=8, seed=2, noise=0.1, extra=0, points=0),
    )
    loud = matrices.read(tmp_path / "loud")
    longer = msgspec.structs.replace(matrix.plan.labs[0], options={"rounds": "20"})
    other = dataclasses.replace(loud, plan=msgspec.structs.replace(loud.plan, labs=[longer]))

    (mine,) = outlook.outlook(plan(matrix), "emulated", HOST, [matrix, other]).labs
    assert (mine.matrices, mine.other_options) == (["synthetic-1"], False)
    (theirs,) = outlook.outlook(plan(matrix), "emulated", HOST, [other]).labs
    assert (theirs.matrices, theirs.other_options) == (["synthetic-2"], True)
    assert "with other options" in theirs.words
    assert theirs.spread > 4 * mine.spread
    (both,) = outlook.outlook(plan(matrix), "emulated", HOST, [matrix, loud]).labs
    assert both.spread == statistics.median([*spreads(matrix), *spreads(loud)])


def test_too_few_blocks_cannot_establish_anything_and_the_words_say_how_many_can(matrix: Matrix) -> None:
    (lab,) = outlook.outlook(plan(matrix, 5), "emulated", HOST, [matrix]).labs

    assert lab.detectable is None
    assert lab.needed == 7
    assert lab.words.startswith("5 blocks cannot establish any difference, at least 7 are needed")


def test_a_lab_that_runs_in_fewer_repeats_than_the_others_has_only_these(matrix: Matrix) -> None:
    few = [run for run in plan(matrix).runs if run.block <= 3]
    planned = msgspec.structs.replace(plan(matrix), runs=few)
    (lab,) = outlook.outlook(planned, "emulated", HOST, [matrix]).labs

    assert (lab.n, lab.detectable) == (3, None)


def test_kernels_that_a_lab_cannot_run_on_are_not_corrected_for(matrix: Matrix) -> None:
    cells = {cell.kernel_line: cell.id for cell in matrix.plan.cells if not cell.control}
    one = [Unfit(lab=LAB, cell=cells["7.3"], why="too new")]
    (lab,) = outlook.outlook(plan(matrix, unfit=one), "emulated", HOST, []).labs
    assert lab.comparisons == 1

    base = [Unfit(lab=LAB, cell=matrix.plan.baseline, why="too old")]
    assert outlook.outlook(plan(matrix, unfit=base), "emulated", HOST, []).labs == []


def test_a_lab_without_any_spread_finds_any_difference(matrix: Matrix, tmp_path: Path) -> None:
    synthetic.write(tmp_path / "m", synthetic.Shape(labs=1, kernels=("5.10", "6.1"), noise=0, extra=0, points=0))
    (lab,) = outlook.outlook(plan(matrix), "emulated", HOST, [matrices.read(tmp_path / "m")]).labs

    assert lab.spread == pytest.approx(0, abs=1e-12)
    assert lab.detectable == pytest.approx(0, abs=1e-12)
