"""The four outcomes, on made-up metrics; ``test_record`` judges a whole run."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from go_labs.spec import Claim, Clock, Criterion, Gate, Lab
from reports import verdicts
from reports.schema import GateResult, Interval, Loss, Metric, Outcome, Verdict
from vm.errors import ConfigError


def metric(value: float | None = 5.0, interval: tuple[float, float] | None = None, **more: Any) -> Metric:
    bounds = None if interval is None else Interval(low=interval[0], high=interval[1], level=0.95, method="exact")
    fields = {"name": "m.x", "title": "Parks", "unit": "", "kind": "count", "phase": "traced"} | more
    absent = "" if value is not None else "no probe"
    return Metric(value=value, absent=absent, interval=bounds, **fields)


def lab(*criteria: Criterion, gates: list[Gate] | None = None) -> Lab:
    return Lab(
        schema=1, name="x", title="", section="", question="", primary="", oracle="", seconds=1.0, phases=[],
        claims=[Claim(id="c", text="", criteria=list(criteria))], gates=gates or [],
    )  # fmt: skip


def criterion(confirm: str = ">= 4", refute: str = "<= 2", **more: Any) -> Criterion:
    return Criterion(confirm=confirm, refute=refute, **({"metric": "m.x", "meaning": "It parks"} | more))


def judge(
    found: Metric | list[Metric],
    *criteria: Criterion,
    clock: Clock = "emulated",
    losses: list[Loss] | None = None,
    results: list[GateResult] | None = None,
) -> Verdict:
    metrics = found if isinstance(found, list) else [found]
    return verdicts.judge(lab(*(criteria or (criterion(),))), metrics, results or [], losses or [], clock)[0]


@pytest.mark.parametrize(
    ("found", "outcome", "words"),
    [
        (metric(5), "confirmed", "“Parks” is 5 (at least 4 confirms)."),
        (metric(4), "confirmed", "(at least 4 confirms)"),
        (metric(2), "refuted", "“Parks” is 2 (at most 2 refutes)."),
        (
            metric(3),
            "undecided",
            "“Parks” is 3; it takes at least 4 to confirm, at most 2 to refute.",
        ),
        (metric(None), "not_testable", "There is no figure for “Parks”: no probe."),
        (metric(5, (4, 6)), "confirmed", "all of the interval is at least 4, which confirms"),
        (metric(5, (3, 6)), "undecided", "at most 2 to refute, all of the interval"),
        (metric(1, (0, 2)), "refuted", "all of the interval is at most 2, which refutes"),
        (metric(2, (1, 3)), "undecided", "at most 2 to refute, all of the interval"),
    ],
)
def test_a_value_or_the_whole_of_its_interval_decides(found: Metric, outcome: Outcome, words: str) -> None:
    verdict = judge(found)
    assert verdict.outcome == outcome
    assert words in verdict.sentence


def test_a_metric_that_no_one_measured_is_not_testable_by_name() -> None:
    verdict = judge([])
    assert verdict.outcome == "not_testable"
    assert "this run has no metric m.x" in verdict.sentence


TIME: dict[str, Any] = {"kind": "time", "unit": "ns", "phase": "timed"}
WHY = "the emulator executes the same instructions"


@pytest.mark.parametrize(
    ("found", "more", "clock", "outcome"),
    [
        (metric(5, **TIME), {}, "kvm", "confirmed"),
        (metric(5, **TIME), {}, "emulated", "not_testable"),
        (metric(1, **TIME), {}, "emulated", "not_testable"),
        (metric(5, **TIME), {"emulation": WHY}, "emulated", "confirmed"),
        (metric(5, **TIME), {"emulation": WHY, "clocks": ["kvm"]}, "emulated", "not_testable"),
        (metric(5, **TIME), {"clocks": ["kvm"]}, "virtual", "not_testable"),
        (metric(5, **TIME), {"clocks": ["kvm", "virtual"]}, "virtual", "confirmed"),
        (metric(5, **TIME), {}, "virtual", "not_testable"),
        (metric(5, **TIME), {"emulation": WHY}, "virtual", "confirmed"),
        (metric(5), {}, "virtual", "confirmed"),
        (metric(5, kind="rate", phase="timed"), {}, "emulated", "not_testable"),
        (metric(5, kind="ratio", timing=True), {}, "emulated", "not_testable"),
        (metric(5, kind="ratio"), {}, "emulated", "confirmed"),
        (metric(5), {"clocks": ["kvm"]}, "emulated", "not_testable"),
    ],
)
def test_the_clock_decides_whether_a_figure_may_be_judged(
    found: Metric, more: dict[str, Any], clock: Clock, outcome: Outcome
) -> None:
    assert judge(found, criterion(**more), clock=clock).outcome == outcome


def test_a_figure_that_may_not_be_judged_is_shown_and_marked() -> None:
    verdict = judge(metric(5, **TIME))
    assert "5\u00a0ns in emulated time" in verdict.sentence
    assert verdict.criteria[0].figure.value == 5
    assert verdict.criteria[0].figure.timing


def test_a_figure_of_counted_instructions_is_named_so() -> None:
    verdict = judge(metric(5, **TIME), criterion(clocks=["virtual"]), clock="virtual")
    assert "counted instructions" in verdict.sentence


def test_counted_instructions_are_no_speed_of_hardware_unless_the_criterion_asks_for_them() -> None:
    verdict = judge(metric(5, **TIME), clock="virtual")
    assert "in counted instructions; a number of instructions says nothing of real hardware" in verdict.sentence


def gate(value: float | None, claims: list[str] | None = None) -> list[GateResult]:
    made = Gate(name="nothing lost", metric="m.g", require="== 0", claims=claims or [], meaning="")
    return verdicts.gates(lab(criterion(), gates=[made]), [metric(value, name="m.g", title="Lost")])


@pytest.mark.parametrize(
    ("results", "outcome"),
    [
        (gate(0), "confirmed"),
        (gate(1), "undecided"),
        (gate(None), "undecided"),
        (gate(1, ["c"]), "undecided"),
        (gate(1, ["another"]), "confirmed"),
    ],
)
def test_a_gate_that_failed_leaves_its_claims_undecided(results: list[GateResult], outcome: Outcome) -> None:
    assert judge(metric(5), results=results).outcome == outcome


def test_a_failed_gate_says_what_it_required() -> None:
    assert "gate “nothing lost” failed: 1, == 0 is required" in judge(metric(1), results=gate(1)).sentence


def test_what_is_absent_stays_not_testable_though_a_gate_failed_too() -> None:
    assert judge(metric(None), results=gate(None)).outcome == "not_testable"


@pytest.mark.parametrize(
    ("found", "name", "phase", "outcome"),
    [
        (metric(5), "ring_full", "traced", "undecided"),
        (metric(5), "map_full", "traced", "undecided"),
        (metric(5, exact=True), "ring_full", "traced", "confirmed"),
        (metric(5, exact=True), "map_full", "traced", "undecided"),
        (metric(5, phase="timed"), "ring_full", "traced", "confirmed"),
        (metric(5, phase=""), "ring_full", "traced", "undecided"),
    ],
)
def test_losses_leave_undecided_what_was_computed_from_them(
    found: Metric, name: str, phase: str, outcome: Outcome
) -> None:
    assert judge(found, losses=[Loss(phase=phase, name=name, count=3)]).outcome == outcome
    assert judge(found, losses=[Loss(phase=phase, name=name, count=0)]).outcome == "confirmed"


@pytest.mark.parametrize(
    ("outcomes", "claim"),
    [
        (["confirmed", "confirmed"], "confirmed"),
        (["confirmed", "refuted"], "refuted"),
        (["not_testable", "refuted"], "refuted"),
        (["undecided", "refuted"], "refuted"),
        (["confirmed", "undecided"], "undecided"),
        (["undecided", "not_testable"], "undecided"),
        (["confirmed", "not_testable"], "not_testable"),
        (["not_testable"], "not_testable"),
        ([], "undecided"),
    ],
)
def test_a_claim_of_several_criteria(outcomes: list[Outcome], claim: Outcome) -> None:
    assert verdicts.combine(outcomes) == claim


def test_the_sentence_of_several_criteria_names_those_that_decided_and_then_what_holds() -> None:
    other = metric(1, name="m.y", title="Calls")
    verdict = judge([metric(5), other], criterion(), criterion(metric="m.y", meaning="It calls"))
    assert verdict.outcome == "refuted"
    assert verdict.sentence == "“Calls” is 1 (at most 2 refutes). What holds: “Parks” is 5."
    assert [result.outcome for result in verdict.criteria] == ["confirmed", "refuted"]


@pytest.mark.parametrize(
    ("text", "low", "high", "holds"),
    [
        ("< 1", 0.5, 0.9, True),
        ("< 1", 0.5, 1.0, False),
        ("<=1", 0.5, 1.0, True),
        ("== 0", 0, 0, True),
        ("== 0", 0, 1, False),
        ("!= 0", 1, 2, True),
        ("!= 0", -1, 1, False),
        (">= -1.5e1", -15, 3, True),
        ("> 2", 2, 3, False),
    ],
)
def test_a_comparison_holds_for_the_whole_range(text: str, low: float, high: float, holds: bool) -> None:
    comparison = verdicts.parse(text)
    assert comparison is not None
    assert comparison.holds(low, high) is holds


@pytest.mark.parametrize("text", ["=> 1", ">= one", "1", ">= 1 and < 2", ">="])
def test_what_is_no_comparison_is_a_fault_of_the_lab(text: str) -> None:
    with pytest.raises(ConfigError, match="is no comparison"):
        verdicts.parse(text)


def test_an_empty_side_is_satisfied_by_nothing() -> None:
    assert judge(metric(0), criterion(refute="")).outcome == "undecided"
    assert judge(metric(5), criterion(refute="")).outcome == "confirmed"


def test_a_figure_that_confirms_and_refutes_is_a_fault_of_the_lab() -> None:
    with pytest.raises(ConfigError, match="same figure"):
        judge(metric(5), criterion(">= 4", ">= 3"))


def test_a_lab_is_checked_before_anything_is_judged() -> None:
    with pytest.raises(ConfigError, match="can decide nothing"):
        verdicts.check(lab(criterion("", "")))
    with pytest.raises(ConfigError, match="claim c has no criteria"):
        verdicts.check(lab())
    stray = Gate(name="g", metric="m", require="== 0", claims=["nowhere"], meaning="")
    with pytest.raises(ConfigError, match="nowhere"):
        verdicts.check(lab(criterion(), gates=[stray]))
    with pytest.raises(ConfigError, match="requires nothing"):
        verdicts.check(lab(criterion(), gates=[msgspec.structs.replace(stray, require="", claims=[])]))
