"""A matrix on disk: what its plan and journal say, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from go_labs import matrix
from go_labs.matrix import OUTCOME_WORDS, PLAN, Begun, MatrixPlan, Outcome, Voided, counted, is_done
from tests.provision import matrices
from tests.provision.matrices import AT, ended
from vm.errors import RecordError


def kept(folder: Path, plan: MatrixPlan) -> Path:
    (folder / PLAN).write_bytes(msgspec.json.encode(plan))
    return folder


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = matrices.plan(labs=("mutex", "gmp"))

    assert matrix.read_plan(kept(tmp_path, plan)) == plan


def test_a_folder_without_a_plan_is_no_matrix(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"is no matrix: it has no plan\.json") as refused:
        matrix.read_plan(tmp_path)

    assert "invoke matrix" in refused.value.hint


def test_a_plan_of_another_schema_is_refused_whatever_else_it_holds(tmp_path: Path) -> None:
    (tmp_path / PLAN).write_text('{"schema": 99, "labs": "of another shape"}')

    with pytest.raises(RecordError, match="schema 99; this program reads 1") as refused:
        matrix.read_plan(tmp_path)
    assert "version" in refused.value.hint


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"schema": 1}', b'{"schema": "1"}', b"\xff\xfe", b'{"schema": 1, "id": "\xff"}']
)
def test_a_broken_plan_is_an_error_with_words(data: bytes, tmp_path: Path) -> None:
    (tmp_path / PLAN).write_bytes(data)

    with pytest.raises(RecordError, match=r"plan\.json is no plan") as refused:
        matrix.read_plan(tmp_path)
    assert refused.value.hint


def test_a_plan_cut_anywhere_is_never_read_as_another(tmp_path: Path) -> None:
    whole = msgspec.json.encode(matrices.plan(repeats=1))

    for length in range(len(whole)):
        (tmp_path / PLAN).write_bytes(whole[:length])
        with pytest.raises(RecordError):
            matrix.read_plan(tmp_path)


def test_a_cell_or_lab_that_the_plan_does_not_have_is_an_error() -> None:
    plan = matrices.plan()

    assert plan.cell("k1").id == "k1"
    assert plan.lab("mutex").name == "mutex"
    with pytest.raises(RecordError, match="no cell k9"):
        plan.cell("k9")
    with pytest.raises(RecordError, match="no lab gmp"):
        plan.lab("gmp")


def test_attempts_are_told_by_run_in_the_order_they_ended() -> None:
    first, second, other = ended(1, "timed_out"), ended(1, attempt=2), ended(2)

    assert matrix.ended([Begun(at=AT, run=1, attempt=1), first, other, second, Begun(at=AT, run=3, attempt=1)]) == {
        1: [first, second],
        2: [other],
    }


def test_a_voided_attempt_does_not_count_and_one_of_the_same_number_later_does() -> None:
    void = Voided(at=AT, run=1, attempt=2, words="broken")
    first, second = ended(1, "lab_failed"), ended(1, attempt=2)

    assert matrix.ended([first, second, void]) == {1: [first]}
    assert matrix.ended([first, second, void, second]) == {1: [first, second]}
    assert matrix.ended([void]) == {1: []}


def test_a_run_is_done_when_it_passed_or_failed_twice() -> None:
    fail, late = ended(1, "lab_failed"), ended(1, "machine_lost", attempt=2)

    assert not is_done([])
    assert not is_done([fail])
    assert is_done([fail, late])
    assert is_done([ended(1)])
    assert is_done([fail, ended(1, attempt=2)])


def test_the_attempt_that_passed_counts_else_the_last() -> None:
    fail, late, passed = ended(1, "lab_failed"), ended(1, "machine_lost", attempt=2), ended(1, attempt=2)

    assert counted([]) is None
    assert counted([fail]) is fail
    assert counted([fail, late]) is late
    assert counted([passed, late]) is passed


def test_every_outcome_has_words() -> None:
    assert set(OUTCOME_WORDS) == set(get_args(Outcome))
    assert len(set(OUTCOME_WORDS.values())) == len(OUTCOME_WORDS)
