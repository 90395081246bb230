"""JUnit XML: what a CI server shows of a matrix."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from junitparser import JUnitXml, TestCase, TestSuite

from go_labs.matrix import Entry
from reports import expectations, exports
from reports.comparison import Comparison
from reports.expectations import Surprise
from tests.reports import compared

RUNS = [compared.run(1, "k1"), compared.run(2, "k2"), compared.run(3, "k4"), compared.run(4, "k3")]

JOURNAL: list[Entry] = [
    compared.opened(0),
    compared.begun(1, 1), compared.ended(1, 2, record="5.10-1"),
    compared.begun(2, 2), compared.ended(2, 3, "kernel_splat", words="BUG: sleeping function", log="2-1.log"),
    compared.begun(2, 3, 2), compared.ended(2, 4, attempt=2, record="6.1-1"),
    compared.begun(3, 4), compared.ended(3, 5, "timed_out", words="600 s", log="3-1.log"),
    compared.begun(3, 5, 2), compared.ended(3, 6, "gate_failed", attempt=2, words="stolen time", gates=["steal"]),
]  # fmt: skip


def suites(out: Path, comparison: Comparison, surprises: list[Surprise] | None = None) -> dict[str, TestSuite]:
    (path,) = exports.write_all(comparison, out, out, ["junit"], surprises)
    return {str(suite.name): suite for suite in JUnitXml.fromfile(str(path))}


def cases(suite: TestSuite) -> dict[str, TestCase]:
    return {f"{case.classname}: {case.name}": case for case in suite}


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    return compared.write(tmp_path / "m", compared.plan(*RUNS), *JOURNAL)


def test_a_run_that_passed_at_once_is_a_pass_with_its_time(matrix: Path) -> None:
    found = cases(suites(matrix, compared.comparison())["mutex"])["mutex.run: 5.10, block 1"]

    assert found.is_passed
    assert found.time == 60
    assert found.system_out is None


def test_a_run_that_passed_at_the_second_attempt_passes_and_says_that_it_is_flaky(matrix: Path) -> None:
    found = cases(suites(matrix, compared.comparison())["mutex"])["mutex.run: 6.1, block 1"]

    assert found.is_passed
    assert found.time == 120
    assert found.system_out == (
        "flaky: passed at attempt 2, after\nattempt 1: kernel complained: BUG: sleeping function; log logs/2-1.log"
    )


def test_a_run_that_failed_twice_is_a_failure_with_class_words_and_both_attempts(matrix: Path) -> None:
    found = cases(suites(matrix, compared.comparison())["mutex"])["mutex.run: 5.10 (control), block 1"]

    (failure,) = found.result
    assert found.is_failure
    assert (failure.type, failure.message) == ("gate_failed", "stolen time")
    assert failure.text == (
        "attempt 1: timed out: 600 s; log logs/3-1.log\nattempt 2: gate failed: stolen time; gates steal"
    )


def test_a_run_that_was_never_made_is_no_pass(matrix: Path) -> None:
    found = cases(suites(matrix, compared.comparison())["mutex"])["mutex.run: 7.3, block 1"]

    assert found.is_skipped
    assert "did not get to it" in str(found.result[0].message)


def test_a_run_that_passed_and_does_not_count_says_why(matrix: Path) -> None:
    left = compared.excluded("5.10", "incomplete_block", words="6.1 has no value", record="runs/5.10-1")
    found = cases(suites(matrix, compared.comparison(excluded=[left]))["mutex"])["mutex.run: 5.10, block 1"]

    assert found.is_passed
    assert found.system_out == "not part of the comparison: incomplete block: 6.1 has no value"


def test_a_lab_that_cannot_run_is_skipped_with_the_reason(matrix: Path) -> None:
    found = cases(suites(matrix, compared.comparison())["gmp"])

    assert [(name, case.is_skipped, case.result[0].message) for name, case in found.items()] == [
        ("gmp.run: 5.10", True, "cannot run here: too old")
    ]


def test_claims_and_comparisons_without_expectations(tmp_path: Path) -> None:
    found = cases(suites(tmp_path, compared.comparison())["mutex"])

    assert found["mutex.claim: 2.4-a on 6.1"].is_passed
    assert found["mutex.claim: 2.4-b on 6.1"].is_failure
    assert "block 1: refuted: because of refuted" in str(found["mutex.claim: 2.4-b on 6.1"].result[0].text)
    assert found["mutex.claim: 2.4-b on 7.3"].is_skipped
    assert found["mutex.effect: contended.mutex_ns on 6.1"].is_failure
    assert found["mutex.effect: contended.mutex_ns on 7.3"].is_passed
    assert not [name for name in found if "parks" in name], "what is exploratory fails nobody"


def test_without_a_plan_runs_are_those_that_left_something(tmp_path: Path) -> None:
    failed = [compared.excluded(block=9), compared.excluded(block=8, retried=True),
              compared.excluded(block=7, kind="unreadable")]  # fmt: skip
    found = cases(suites(tmp_path, compared.comparison(excluded=failed))["mutex"])
    runs = {name: case for name, case in found.items() if name.startswith("mutex.run")}

    assert sum(case.is_passed for case in runs.values()) == 30
    assert [name for name, case in runs.items() if case.is_failure] == ["mutex.run: 6.1, block 9, attempt 1"]
    assert [name for name, case in runs.items() if case.is_skipped] == ["mutex.run: 6.1, block 7, attempt 1"]


def test_with_expectations_what_is_expected_passes_and_what_is_not_fails(matrix: Path) -> None:
    comparison = compared.comparison(compared.lab(), finished=39)
    expected = expectations.parse(
        """
        schema = 1
        [[expect]]
        claim = "2.4-b"
        kernel = "6.1"
        verdict = "refuted"
        [[expect]]
        claim = "2.4-a"
        kernel = "7.3"
        verdict = "refuted"
        [[expect]]
        metric = "parks.mutex"
        kernel = "7.3"
        change = "lower"
        """
    )
    found = suites(matrix, comparison, expectations.check(comparison, expected))
    mine = cases(found["mutex"])

    assert mine["mutex.claim: 2.4-b on 6.1"].is_passed
    assert mine["mutex.claim: 2.4-a on 7.3"].is_failure
    assert mine["mutex.claim: 2.4-a on 7.3"].result[0].type == "unexpected_pass"
    assert mine["mutex.effect: contended.mutex_ns on 6.1"].is_passed, "nobody asked"
    assert mine["mutex.effect: parks.mutex on 7.3"].is_failure
    assert "40 runs" in str(cases(found["matrix"])["matrix.matrix: all runs were made"].result[0].message)


def test_runs_fail_or_pass_as_expected(matrix: Path) -> None:
    failed = [compared.excluded("5.10", "gate_failed", attempt=2)]
    comparison = compared.comparison(compared.lab(), excluded=failed)
    mixed = '[[expect]]\nkernel = "5.10"\nrun = ["passed", "gate_failed"]\n'
    for text, fails in (("schema = 1\n", True), (f"schema = 1\n{mixed}", False)):
        surprises = expectations.check(comparison, expectations.parse(text))
        found = cases(suites(matrix, comparison, surprises)["mutex"])["mutex.run: 5.10 (control), block 1"]
        assert found.is_failure == fails
        assert found.is_passed != fails


def test_a_kernel_that_should_have_failed_and_did_not_has_a_case_that_fails(matrix: Path) -> None:
    comparison = compared.comparison(compared.lab())
    expected = expectations.parse('schema = 1\n[[expect]]\nkernel = "7.3"\nrun = "kernel_splat"\n')
    found = cases(suites(matrix, comparison, expectations.check(comparison, expected))["mutex"])

    assert found["mutex.run: runs on 7.3 as expected"].result[0].type == "unexpected_pass"


def test_hostile_words_leave_the_file_well_formed(tmp_path: Path) -> None:
    bad = compared.excluded(words=compared.HOSTILE, log=compared.HOSTILE)
    lab = compared.lab(compared.HOSTILE, unfit={"5.10": compared.HOSTILE})
    comparison = compared.comparison(lab, compared.lab(), name=compared.HOSTILE, excluded=[bad])
    (path,) = exports.write_all(comparison, tmp_path, tmp_path, ["junit"])

    root = ElementTree.parse(path).getroot()  # noqa: S314  (of our own)
    assert [suite.get("name", "")[:4] for suite in root] == ["a,b;", "mute"]
    text = path.read_text()
    assert not {char for char in text if ord(char) < 32} - {"\n", "\t"}
    assert not {"\x1b", "\u202e", "\uffff"} & set(text)


def test_counts_of_suites_are_those_of_their_cases(matrix: Path) -> None:
    (path,) = exports.write_all(compared.comparison(), matrix, matrix, ["junit"])
    whole = JUnitXml.fromfile(str(path))

    assert whole.tests == sum(len(list(suite)) for suite in whole)
    assert whole.failures == sum(case.is_failure for suite in whole for case in suite)
    assert whole.skipped == sum(case.is_skipped for suite in whole for case in suite)
    assert {str(suite.timestamp) for suite in whole} == {"2026-11-23T12:00:00+00:00"}
