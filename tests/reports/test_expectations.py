"""Expectations: what the file may say, what is a surprise, and that a draft expects what is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from reports import compare, expectations, synthetic
from reports.comparison import Comparison
from reports.expectations import Surprise
from tests.reports import compared
from vm.errors import ConfigError, ExpectationError
from vm.paths import REPOSITORY


def check(text: str, comparison: Comparison | None = None) -> list[Surprise]:
    return expectations.check(comparison or compared.comparison(), expectations.parse(f"schema = 1\n{text}"))


def entry(**fields: str | list[str] | float) -> str:
    return "[[expect]]\n" + "".join(
        f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in fields.items()
    )


# --- what is expected where nothing is said -----------------------------------------------------------------------


def test_by_default_runs_pass_and_verdicts_and_changes_may_be_any() -> None:
    assert check("") == []


def test_a_run_that_failed_for_good_is_a_surprise_and_one_that_passed_later_is_none() -> None:
    lost = compared.excluded(kind="machine_lost", attempt=1, retried=True)
    gone = [compared.excluded("7.3", attempt=n, log=f"logs/9-{n}.log", record="") for n in (1, 2)]
    (found,) = check("", compared.comparison(excluded=[lost, *gone]))

    assert (found.what, found.lab, found.kernel, found.sense, found.entry) == ("run", "mutex", "7.3", "fail", 0)
    assert (found.expected, found.got) == ("passed", "passed in 10, kernel splat in 1 runs")
    assert found.evidence == ["logs/9-2.log"]


def test_a_matrix_that_is_not_finished_is_a_surprise() -> None:
    (found,) = check("", compared.comparison(finished=39))

    assert expectations.words(found) == "matrix not finished: expected 40 runs, got 39 that came to an end"
    assert check('[default]\nrun = "any"\n', compared.comparison(finished=39)) == []


def test_defaults_can_ask_for_more() -> None:
    found = check('[default]\nverdict = ["confirmed", "not_testable"]\nchange = ["equivalent", "undecided"]\n')

    assert [(each.thing, each.kernel, each.got) for each in found] == [
        ("2.4-b", "6.1", "refuted in 1 run"),
        ("contended.mutex_ns", "6.1", "slower, ratio 1.1"),
    ]


# --- entries ------------------------------------------------------------------------------------------------------


def test_an_unexpected_pass_is_as_bad_as_an_unexpected_fail() -> None:
    found = check(
        entry(lab="mutex", kernel="5.10", claim="2.4-a", verdict="refuted", why="5.10 lacks it")
        + entry(lab="mutex", kernel="6.1", claim="2.4-b", verdict="confirmed")
    )
    assert [(each.sense, each.kernel, each.expected, each.got, each.entry) for each in found] == [
        ("pass", "5.10", "refuted", "confirmed in 1 run", 1),
        ("fail", "6.1", "confirmed", "refuted in 1 run", 2),
    ]
    assert found[0].evidence == ["runs/5.10-1"]
    assert expectations.words(found[0]) == (
        "unexpected pass: mutex on 5.10, claim 2.4-a: expected refuted, got confirmed in 1 run (5.10 lacks it); see "
        "runs/5.10-1"
    )


def test_a_run_that_should_have_failed_and_passed_is_a_surprise() -> None:
    (found,) = check(entry(lab="mutex", kernel="6.1", run="kernel_splat"))

    assert (found.sense, found.got) == ("pass", "passed in 10 runs")


def test_a_fail_that_was_expected_is_none() -> None:
    failed = compared.comparison(excluded=[compared.excluded(attempt=2)])

    assert check(entry(kernel="6.1", run=["passed", "kernel_splat"]), failed) == []
    (found,) = check(entry(kernel="6.1", run="kernel_splat"), failed)
    assert found.got == "passed in 10, kernel splat in 1 runs"


def test_undecided_where_confirmed_was_expected_is_a_surprise() -> None:
    mixed = compared.comparison(compared.lab(claims=[compared.claim(v6_1=("confirmed", "undecided", "confirmed"))]))
    (found,) = check(entry(claim="2.4-a", verdict="confirmed"), mixed)

    assert (found.kernel, found.sense, found.got) == ("6.1", "fail", "confirmed in 2, undecided in 1 runs")
    assert found.evidence == ["runs/6.1-2"]
    assert check(entry(claim="2.4-a", verdict=["confirmed", "undecided"]), mixed) == []


def test_a_verdict_that_is_not_there_is_a_surprise_where_one_was_expected() -> None:
    silent = compared.comparison(compared.lab(claims=[compared.claim(v6_1=())]))
    (found,) = check(entry(claim="2.4-a", verdict="confirmed"), silent)

    assert (found.kernel, found.got, found.sense) == ("6.1", "nothing", "fail")


def test_a_kernel_without_a_run_that_counts_has_no_change_as_expected() -> None:
    whole = compared.primary()
    without = msgspec.structs.replace(whole, effects=[each for each in whole.effects if each.kernel != "7.3"])
    failed = [compared.excluded("7.3", block=n, attempt=2) for n in range(1, 11)]
    gone = compared.comparison(compared.lab(primary=without, exploratory=[]), excluded=failed)
    fine = entry(lab="mutex", kernel="7.3", run="kernel_splat").replace(
        "[[expect]]", '[default]\nrun = "any"\n[[expect]]'
    )

    found = check(fine + entry(lab="mutex", change=["equivalent", "slower"]), gone)

    assert [(each.kernel, each.thing, each.got) for each in found if each.what == "change"] == [
        ("7.3", "contended.mutex_ns", "nothing")
    ]


def test_a_lab_that_failed_everywhere_is_a_surprise_and_no_fault_of_the_file() -> None:
    silent = compared.lab(primary=None, exploratory=[], claims=[])
    failed = [compared.excluded(line, attempt=2, log=f"logs/{line}.log") for line in compared.LINES]
    gone = compared.comparison(silent, excluded=failed)
    wanted = entry(lab="mutex", kernel="7.3", claim="2.4-a", verdict="confirmed") + entry(
        lab="mutex", change="equivalent"
    )

    found = [each for each in check(wanted, gone) if each.what != "run"]

    assert [(each.what, each.kernel, each.thing, each.got, each.sense) for each in found] == [
        ("verdict", "7.3", "2.4-a", "nothing", "fail"),
        ("change", "6.1", "primary metric", "nothing", "fail"),
        ("change", "7.3", "primary metric", "nothing", "fail"),
    ]
    assert found[0].evidence == ["logs/7.3.log"]
    with pytest.raises(ConfigError, match="names lab"):
        check(entry(lab="mutexx", claim="2.4-a", verdict="confirmed"), gone)


def test_a_change_is_of_the_primary_metric_unless_one_is_named() -> None:
    found = check(entry(lab="mutex", change="equivalent") + entry(metric="parks.mutex", kernel="7.3", change="lower"))

    assert [(each.thing, each.kernel, each.expected, each.got) for each in found] == [
        ("contended.mutex_ns", "6.1", "equivalent", "slower, ratio 1.1"),
        ("parks.mutex", "7.3", "lower", "higher, ratio 0.333"),
    ]


@pytest.mark.parametrize(
    ("bounds", "fine"),
    [({"at_most": 1.1}, True), ({"at_most": 1.09}, False), ({"at_least": 1.05, "at_most": 1.2}, True),
     ({"at_least": 1.11}, False)],
)  # fmt: skip
def test_a_ratio_has_bounds_with_a_change_or_without(bounds: dict[str, float], fine: bool) -> None:
    assert (check(entry(lab="mutex", kernel="6.1", change="slower", **bounds)) == []) == fine
    assert (check(entry(lab="mutex", kernel="6.1", **bounds)) == []) == fine


def test_a_bound_of_a_ratio_that_is_absent_is_not_kept() -> None:
    (found,) = check(entry(metric="parks.mutex", kernel="6.1", at_most=2.0))

    assert (found.expected, found.got) == ("ratio at most 2", "undecided, no ratio")


def test_of_several_entries_for_one_thing_the_last_counts() -> None:
    early = entry(lab="*", claim="*", verdict="confirmed")
    late = entry(kernel=["6.1", "7.3"], claim="2.4-b", verdict=["refuted", "not_testable"])

    assert check(early + late) == []
    assert [each.kernel for each in check(late + early)] == ["6.1", "7.3"]


def test_a_kernel_may_be_named_by_its_release() -> None:
    (found,) = check(entry(kernel="6.1.0-56-cloud-amd64", claim="2.4-a", verdict="refuted"))

    assert found.kernel == "6.1"


def test_a_lab_that_cannot_run_is_a_surprise_only_to_who_named_it() -> None:
    assert check(entry(lab="gmp", kernel="5.10", run="unfit")) == []
    (found,) = check(entry(lab="gmp", kernel="5.10", run="passed"))
    assert (found.got, found.sense) == ("unfit", "fail")
    assert check(entry(kernel="5.10", run="passed")) == []
    (found,) = check(entry(lab="mutex", kernel="5.10", run="unfit"))
    assert (found.got, found.sense) == ("passed in 20 runs", "pass"), "the control's runs are the baseline's, too"


def test_strict_wants_everything_named() -> None:
    found = check("strict = true\n" + entry(claim="2.4-a", verdict="confirmed") + entry(lab="mutex", change="slower"))

    assert [(each.thing, each.kernel, each.expected) for each in found if each.entry == 0] == [
        ("2.4-b", line, "to be named by an entry (strict)") for line in compared.LINES
    ]
    assert [(each.thing, each.kernel) for each in found if each.entry] == [("contended.mutex_ns", "7.3")]


# --- faults of the file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("schema = 2", "schema 2", "version"),
        ("strict = true", "schema", "Expectations"),
        ("schema = 1\n[[expect]\n", "no TOML", "Expectations"),
        ("schema = 1\n[[expect]]\nlab = 'a'\n[[expect]]\nlabs = 'b'\n", "unknown field `labs` - at `[[expect]] 2`", ""),
        ("schema = 1\n[[expect]]\nkernel = 5.10\nrun = 'passed'", "str", ""),
        ("schema = 1\n[default]\nverdict = 'confirm'", "[default]: verdict 'confirm'", "confirmed"),
        ("schema = 1\n" + entry(lab="mutex"), "[[expect]] 1 must say one thing", "entry for each"),
        ("schema = 1\n" + entry(verdict="confirmed", run="passed"), "[[expect]] 1 must say one thing", ""),
        ("schema = 1\n" + entry(run="passed", at_most=2.0), "[[expect]] 1 must say one thing", ""),
        ("schema = 1\n" + entry(run="kernel_splatt"), "run 'kernel_splatt'", "kernel_splat"),
        ("schema = 1\n" + entry(change="worse"), "change 'worse'", "slower"),
        ("schema = 1\n" + entry(run="passed", claim="2.4-a"), "is about run and has claim", ""),
        ("schema = 1\n" + entry(verdict="confirmed", metric="x"), "is about verdict and has metric", ""),
        ("schema = 1\n" + entry(change="slower", at_least=2.0, at_most=1.0), "no bounds of a ratio", "1.03"),
        ("schema = 1\n" + entry(change="slower", at_least=-0.1), "no bounds of a ratio", "1.03"),
        ("schema = 1\n" + entry(run="passed", kernel=[]), "kernel is an empty list", "*"),
        ("schema = 1\n" + entry(verdict=[]), "must say one thing", ""),
    ],
)
def test_a_file_that_does_not_hold_together_says_where(text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        expectations.parse(text, "expect.toml")
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("fields", "message", "hint"),
    [
        ({"lab": "mutx", "run": "passed"}, "names lab mutx", "did you mean mutex?"),
        ({"kernel": "5.1", "run": "passed"}, "names kernel 5.1", "did you mean 5.10"),
        ({"kernel": ["edge", "next"], "run": "passed"}, "names kernel edge or next", "there are 5.10"),
        ({"claim": "2.4-c", "verdict": "confirmed"}, "names claim 2.4-c", "did you mean 2.4-"),
        ({"metric": "contended.mutex", "change": "slower"}, "names metric contended.mutex,", "contended.mutex_ns"),
        ({"lab": "gmp", "claim": "2.4-a", "verdict": "confirmed"}, "matches nothing", "nowhere together"),
        ({"kernel": "5.10", "change": "slower"}, "matches nothing", "the baseline is compared with nothing"),
    ],
)
def test_an_entry_that_names_nothing_is_a_fault_of_the_file(
    fields: dict[str, str | list[str]], message: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        check(entry(run="passed") + entry(**fields))
    assert "[[expect]] 2" in error.value.message
    assert hint in error.value.hint


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        expectations.read(tmp_path / "expect.toml")
    (tmp_path / "expect.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        expectations.read(tmp_path / "expect.toml")


# --- telling ------------------------------------------------------------------------------------------------------


def test_surprises_end_with_exit_status_50_and_name_every_one() -> None:
    found = check(entry(claim="2.4-a", verdict="refuted"))
    with pytest.raises(ExpectationError) as error:
        expectations.require(found)

    assert error.value.exit_code == 50
    assert error.value.message.splitlines()[0] == "3 unexpected passes and no unexpected fails:"
    assert [line.split(":")[1].strip() for line in error.value.message.splitlines()[1:]] == [
        f"mutex on {line}, claim 2.4-a" for line in compared.LINES
    ]
    expectations.require([])


def test_for_machines_there_is_a_document() -> None:
    document = expectations.document(check(entry(kernel="6.1", claim="2.4-a", verdict="refuted")))

    assert (document["schema"], document["as_expected"]) == (1, False)
    assert msgspec.convert(document["surprises"], list[Surprise])[0].thing == "2.4-a"


def test_words_of_a_file_cannot_act_upon_a_terminal() -> None:
    (found,) = check('[[expect]]\nkernel = "6.1"\nclaim = "2.4-a"\nverdict = "refuted"\nwhy = "\\u001b[2J"\n')

    assert "\x1b" not in expectations.words(found)


# --- drafting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "comparison",
    [
        compared.comparison(),
        compared.comparison(excluded=[compared.excluded(attempt=2), compared.excluded("7.3", "timed_out")]),
        compared.comparison(
            compared.lab('a "lab" \\ of\x7f\n☃', claims=[compared.claim(v6_1=("confirmed", "refuted"))])
        ),
        compared.comparison(compared.lab(primary=None, exploratory=[], claims=[])),
    ],
)
def test_a_draft_expects_what_is_there(comparison: Comparison) -> None:
    text = expectations.draft(comparison)

    assert expectations.check(comparison, expectations.parse(text)) == []
    strict = text.replace("schema = 1", "schema = 1\nstrict = true", 1)
    assert expectations.check(comparison, expectations.parse(strict)) == [], "and names everything"


def test_a_draft_of_one_comparison_finds_what_is_other_in_the_next() -> None:
    before = expectations.parse(expectations.draft(compared.comparison(compared.lab())))
    other = [compared.claim(v7_3=("refuted",)), compared.claim("2.4-b", v6_1=("confirmed",), v7_3=("not_testable",))]
    found = expectations.check(compared.comparison(compared.lab(claims=other)), before)

    assert [(each.thing, each.kernel, each.sense) for each in found] == [
        ("2.4-a", "7.3", "fail"),
        ("2.4-b", "6.1", "pass"),
    ]


def test_a_draft_of_a_half_done_matrix_says_so() -> None:
    assert "# Only 39 of 40 runs had come to an end." in expectations.draft(compared.comparison(finished=39))


# --- a whole matrix -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A made-up matrix with a planted slowdown on 6.1, a lab that does not fit 5.10, and runs that failed."""
    folder = tmp_path_factory.mktemp("matrix")
    first, second = synthetic.lab_name(0), synthetic.lab_name(1)
    shape = synthetic.Shape(ratios={(first, "6.1"): 1.1}, troubles=4, unfit={(second, "5.10"): "too old"})
    synthetic.write(folder, synthetic.Shape(**{**_fields(shape), "baseline": "6.12"}))
    return compare.compare(folder)


def _fields(shape: synthetic.Shape) -> dict[str, object]:
    return {name: getattr(shape, name) for name in shape.__dataclass_fields__}


def test_what_failed_and_changed_in_a_matrix_is_found(matrix: Comparison) -> None:
    found = check('[default]\nchange = ["equivalent", "undecided"]\n', matrix)
    changed = [(each.lab, each.kernel) for each in found if each.what == "change"]
    failed = {each.lab for each in found if each.what == "run"}

    assert (synthetic.lab_name(0), "6.1") in changed
    finals = [each for each in matrix.excluded if not each.retried and each.attempt == 2]
    assert len({(each.lab, each.kernel) for each in finals}) == sum(each.what == "run" for each in found)
    assert failed


def test_a_draft_of_a_matrix_expects_it(matrix: Comparison) -> None:
    assert expectations.check(matrix, expectations.parse(expectations.draft(matrix))) == []


# --- the document -------------------------------------------------------------------------------------------------


def test_the_example_of_the_document_holds() -> None:
    text = (REPOSITORY / "docs" / "reports.md").read_text()
    section = text.partition("## Expectations")[2].partition("\n## ")[0]
    example = re.search(r"```toml\n(.*?)```", section, re.DOTALL)
    assert example
    tomllib.loads(example[1])
    failed = [compared.excluded("6.1", "kernel_splat", attempt=2)]
    comparison = compared.comparison(compared.lab(), excluded=failed)
    found = expectations.check(comparison, expectations.parse(example[1]))

    assert [expectations.words(each).partition(":")[0] for each in found] == ["unexpected fail"]
    assert (found[0].thing, found[0].kernel, found[0].why) == ("contended.mutex_ns", "6.1", "what we ship on")
