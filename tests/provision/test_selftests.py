"""The self-test's plan, its rows and its verdict; ``tests/test_bad_workloads.py`` runs it on machines."""

from __future__ import annotations

import msgspec
import pytest

from go_labs import spec
from go_labs.evidence import Difference, ForcedCheck
from provision import selftests
from provision.gobuild import PLAIN, Variant
from provision.selftests import Plan, Result, Row
from vm.errors import ExpectationError, Interrupted

EXACT = ForcedCheck(checked=8, differences=[], goids=5, goids_wrong=0, lost=0, errors=[])
SHORT = Difference(segment=3, parameters={"goroutines": "4"}, counter="slow", expected=4, traced=3)


def row(check: ForcedCheck | None = EXACT, error: str = "", unfit: str = "", record: str = "") -> Row:
    return Row(
        lab="mutex", kernel="6.1", go="1.27.3", build="plain", seconds=4.0, check=check, error=error, unfit=unfit,
        record=record,
    )  # fmt: skip


def test_only_forced_sections_of_traced_phases_are_left() -> None:
    lab = selftests.forced_only(spec.find("mutex")).lab
    assert [(phase.name, phase.sections) for phase in lab.phases] == [("traced", ["forced"])]
    assert (lab.claims, lab.gates) == ([], [])


def test_every_lab_meets_every_version_and_build() -> None:
    plan = Plan([spec.find("mutex")], [], ["1.21.13", "1.27.3"], [PLAIN, Variant(stripped=True)])
    assert [(each.version, each.variant.name) for each in selftests.combinations(plan)] == [
        ("1.21.13", "plain"),
        ("1.21.13", "stripped"),
        ("1.27.3", "plain"),
        ("1.27.3", "stripped"),
    ]


@pytest.mark.parametrize(
    ("made", "verdict", "failed"),
    [
        (row(), "8 of 8 equal", False),
        (row(msgspec.structs.replace(EXACT, differences=[SHORT])), "DIFFERS: 7 of 8 equal", True),
        (row(msgspec.structs.replace(EXACT, goids_wrong=2)), "DIFFERS: 8 of 8 equal", True),
        (row(msgspec.structs.replace(EXACT, goids=0)), "DIFFERS: 8 of 8 equal", True),
        (row(msgspec.structs.replace(EXACT, lost=1)), "DIFFERS: 8 of 8 equal", True),
        (row(msgspec.structs.replace(EXACT, checked=0)), "DIFFERS: 0 of 0 equal", True),
        (row(None, error="it did not build"), "FAILED: it did not build", True),
        (row(None, unfit="needs Go 1.24"), "not run: needs Go 1.24", False),
    ],
)
def test_a_row_is_exact_only_if_something_was_checked_and_all_agrees(made: Row, verdict: str, failed: bool) -> None:
    assert (made.verdict, made.failed) == (verdict, failed)


def test_every_difference_is_a_line() -> None:
    check = msgspec.structs.replace(EXACT, differences=[SHORT], goids_wrong=1, lost=2, errors=["phase traced: late"])
    assert selftests.differences(row(check, record="runs/1")) == [
        "segment 3 (goroutines 4): slow 3, expected 4",
        "1 goroutine ids were read wrong",
        "2 counts were lost",
        "phase traced: late",
        "runs/1",
    ]


def test_the_result_says_how_it_ended() -> None:
    Result(rows=[row(), row(None, unfit="needs Go 1.24")]).require_exact()
    with pytest.raises(ExpectationError, match="1 of 2 combinations are not exact"):
        Result(rows=[row(), row(None, error="late")]).require_exact()
    with pytest.raises(ExpectationError, match="nothing was checked"):
        Result(rows=[row(None, unfit="needs Go 1.24")]).require_exact()
    with pytest.raises(Interrupted):
        Result(rows=[row()], interrupted=True).require_exact()


def test_the_document_holds_every_row_with_its_check() -> None:
    document = msgspec.to_builtins(Result(rows=[row()]).document())
    assert document["exact"] is True
    assert document["rows"][0]["check"]["checked"] == 8
