"""Verdicts: criteria that were written first, held against metrics. Pure.

The rules, in the order they are tried for each criterion:

1. the metric is absent → *not testable here*, with its reason;
2. the clock is not one that the criterion lists, or the metric is a timing under emulation and the criterion gives no
   reason why the emulator cannot turn it round → *not testable here*, the figure shown; a virtual clock is emulation,
   too, and needs no reason where the criterion lists it and leaves ``emulated`` out: it asks for counted instructions;
3. a gate that the claim depends on failed, or the metric's phase lost what the metric is computed from → *undecided*;
4. the value, or the whole of its interval, satisfies ``refute`` → *refuted*; ``confirm`` → *confirmed*; neither →
   *undecided*.

A claim is refuted if any criterion is, confirmed if all are, undecided if any is, else not testable here.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from go_labs.spec import Claim, Clock, Criterion, Gate, Lab
from reports.metrics import EVENT_ONLY_LOSSES
from reports.schema import CriterionResult, Figure, GateResult, Loss, Metric, Outcome, Verdict
from reports.text import interval, quantity
from vm.errors import ConfigError

_COMPARISON = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*")
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
_OPERATOR_WORDS: Mapping[str, str] = {
    "<": "less than",
    "<=": "at most",
    "==": "exactly",
    "!=": "anything but",
    ">=": "at least",
    ">": "more than",
}
_CLOCK_WORDS: Mapping[str, str] = {
    "kvm": "real time",
    "emulated": "emulated time",
    "virtual": "counted instructions",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """``>= 1``: an operator and a number."""

    sign: str
    limit: float

    def holds(self, low: float, high: float) -> bool:
        """Whether every value from ``low`` to ``high`` satisfies it."""
        compare = _OPERATORS[self.sign]
        if self.sign == "!=":
            return high < self.limit or low > self.limit
        return compare(low, self.limit) and compare(high, self.limit)

    def words(self, metric: Metric) -> str:
        """Return the comparison as one says it of ``metric``, in its unit."""
        return f"{_OPERATOR_WORDS[self.sign]} {quantity(self.limit, metric.unit, metric.kind)}"


def parse(text: str) -> Comparison | None:
    """Return the comparison that ``text`` writes, or None for an empty one, which nothing satisfies.

    :raises ConfigError: it is no operator with a number.
    """
    if not text.strip():
        return None
    match = _COMPARISON.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is no comparison", 'write an operator and a number, ">= 1"')
    return Comparison(match[1], float(match[2]))


def check(lab: Lab) -> None:
    """Check that every comparison of ``lab`` can be read and every gate names claims that are there.

    :raises ConfigError: with the claim or gate.
    """
    ids = {claim.id for claim in lab.claims}
    for claim in lab.claims:
        if not claim.criteria:
            raise ConfigError(f"claim {claim.id} has no criteria", "a claim is decided by at least one criterion")
        for criterion in claim.criteria:
            if parse(criterion.confirm) is None and parse(criterion.refute) is None:
                raise ConfigError(f"claim {claim.id}: {criterion.metric} can decide nothing", "give confirm or refute")
    for gate in lab.gates:
        if parse(gate.require) is None:
            raise ConfigError(f"gate {gate.name} requires nothing", 'give a comparison, "== 0"')
        unknown = sorted(set(gate.claims) - ids)
        if unknown:
            raise ConfigError(f"gate {gate.name} names claims that are not there: {', '.join(unknown)}")


def gates(lab: Lab, metrics: Sequence[Metric]) -> list[GateResult]:
    """Return what became of each gate of ``lab``; a gate looks at the value alone."""
    return [_gate(gate, _find(metrics, gate.metric)) for gate in lab.gates]


def _gate(gate: Gate, metric: Metric) -> GateResult:
    comparison = parse(gate.require)
    passed, value = None, metric.value
    reason = f"there is no figure for “{metric.title}”: {metric.absent}"
    if value is not None and comparison is not None:
        passed = comparison.holds(value, value)
        reason = f"{quantity(value, metric.unit, metric.kind)}, {gate.require} is required"
    return GateResult(
        name=gate.name,
        metric=gate.metric,
        require=gate.require,
        passed=passed,
        value=value,
        reason=reason,
        claims=gate.claims,
        meaning=gate.meaning,
    )


def judge(
    lab: Lab, metrics: Sequence[Metric], results: Sequence[GateResult], losses: Sequence[Loss], clock: Clock
) -> list[Verdict]:
    """Return the verdict on each claim of ``lab``, in its order.

    :param results: from :func:`gates`.
    :raises ConfigError: a comparison cannot be read, or both ``confirm`` and ``refute`` hold of one figure.
    """
    return [_claim(claim, metrics, results, losses, clock) for claim in lab.claims]


def combine(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the verdict of a claim from those of its criteria."""
    if "refuted" in outcomes:
        return "refuted"
    if outcomes and all(outcome == "confirmed" for outcome in outcomes):
        return "confirmed"
    return "undecided" if "undecided" in outcomes or not outcomes else "not_testable"


def _find(metrics: Sequence[Metric], name: str) -> Metric:
    for metric in metrics:
        if metric.name == name:
            return metric
    return Metric(name=name, title=name, unit="", kind="count", absent=f"this run has no metric {name}")


def _claim(
    claim: Claim, metrics: Sequence[Metric], results: Sequence[GateResult], losses: Sequence[Loss], clock: Clock
) -> Verdict:
    failed = [gate for gate in results if not gate.passed and (not gate.claims or claim.id in gate.claims)]
    judged = [
        _criterion(criterion, _find(metrics, criterion.metric), failed, losses, clock) for criterion in claim.criteria
    ]
    outcome = combine([result.outcome for result in judged])
    return Verdict(
        claim=claim.id,
        text=claim.text,
        says=claim.says,
        why=claim.why,
        outcome=outcome,
        sentence=_sentence(outcome, judged),
        criteria=judged,
    )


def _criterion(
    criterion: Criterion, metric: Metric, failed: Sequence[GateResult], losses: Sequence[Loss], clock: Clock
) -> CriterionResult:
    outcome, reason = _outcome(criterion, metric, failed, losses, clock)
    return CriterionResult(
        metric=criterion.metric,
        confirm=criterion.confirm,
        refute=criterion.refute,
        meaning=criterion.meaning,
        emulation=criterion.emulation,
        outcome=outcome,
        reason=reason,
        figure=Figure(
            metric=metric.name,
            title=metric.title,
            unit=metric.unit,
            kind=metric.kind,
            value=metric.value,
            absent=metric.absent,
            interval=metric.interval,
            phase=metric.phase,
            timing=metric.is_timing,
        ),
    )


def _outcome(
    criterion: Criterion, metric: Metric, failed: Sequence[GateResult], losses: Sequence[Loss], clock: Clock
) -> tuple[Outcome, str]:
    if metric.value is None:
        return "not_testable", f"There is no figure for “{metric.title}”: {metric.absent}"
    figure = _figure(metric, clock)
    refusal = _clock_refusal(criterion, metric, clock)
    if refusal:
        return "not_testable", f"{figure}; {refusal}"
    if failed:
        words = "; ".join(f"gate “{gate.name}” failed: {gate.reason}" for gate in failed)
        return "undecided", f"{figure}; {words}"
    lost = _lost(metric, losses)
    if lost:
        return "undecided", f"{figure}; the {metric.phase or 'traced'} phase lost {lost}"
    return _compare(criterion, metric, metric.value, figure)


def _clock_refusal(criterion: Criterion, metric: Metric, clock: Clock) -> str:
    if clock not in criterion.clocks:
        allowed = " or ".join(_CLOCK_WORDS[name] for name in criterion.clocks)
        here = "" if metric.is_timing else f", and this machine has {_CLOCK_WORDS[clock]}"
        return f"it may be judged in {allowed} only{here}"
    if metric.is_timing and clock != "kvm" and not criterion.emulation and "emulated" in criterion.clocks:
        what = "a number of instructions" if clock == "virtual" else "a time or rate under emulation"
        return f"{what} says nothing of real hardware"
    return ""


def _lost(metric: Metric, losses: Sequence[Loss]) -> str:
    """Return in words what was lost of that which ``metric`` is computed from."""
    touching = [
        loss
        for loss in losses
        if loss.count
        and (not metric.phase or loss.phase == metric.phase)
        and not (metric.exact and loss.name in EVENT_ONLY_LOSSES)
        and metric.name != "losses.total"
    ]
    return ", ".join(f"{loss.count} records ({loss.name})" for loss in touching)


def _compare(criterion: Criterion, metric: Metric, value: float, figure: str) -> tuple[Outcome, str]:
    bounds = metric.interval
    low, high = (value, value) if bounds is None else (bounds.low, bounds.high)
    ranged = low != high
    confirm, refute = parse(criterion.confirm), parse(criterion.refute)
    confirms = confirm is not None and confirm.holds(low, high)
    refutes = refute is not None and refute.holds(low, high)
    if confirms and refutes:
        raise ConfigError(
            f"{criterion.metric}: {criterion.confirm!r} confirms and {criterion.refute!r} refutes the same figure",
            "mend the criterion in lab.toml: at most one of both may hold",
        )
    if refutes and refute is not None:
        return "refuted", f"{figure} ({_holding(refute, metric, ranged=ranged)} refutes)"
    if confirms and confirm is not None:
        return "confirmed", f"{figure} ({_holding(confirm, metric, ranged=ranged)} confirms)"
    sides = ((confirm, "confirm"), (refute, "refute"))
    needs = ", ".join(f"{side.words(metric)} to {verb}" for side, verb in sides if side is not None)
    return "undecided", f"{figure}; it takes {needs}{', all of the interval' if ranged else ''}"


def _holding(side: Comparison, metric: Metric, *, ranged: bool) -> str:
    words = side.words(metric)
    return f"all of the interval is {words}, which" if ranged else words


def _figure(metric: Metric, clock: Clock) -> str:
    bounds = interval(metric.interval, metric.unit, metric.kind)
    mark = f" in {_CLOCK_WORDS[clock]}" if metric.is_timing and clock != "kvm" else ""
    shown = quantity(metric.value, metric.unit, metric.kind)
    said = f": “{metric.words}”" if metric.words else ""
    return f"“{metric.title}” is {shown}{f' {bounds}' if bounds else ''}{mark}{said}"


def _sentence(outcome: Outcome, judged: Sequence[CriterionResult]) -> str:
    """Return the reasons that decided, a sentence each; then what of a claim that is refuted was confirmed."""
    deciding = [result for result in judged if result.outcome == outcome] or list(judged)
    sentences = [f"{result.reason}." for result in deciding]
    holding = [result.figure for result in judged if result.outcome == "confirmed"]
    if outcome == "refuted" and holding:
        said = (f"“{figure.title}” is {quantity(figure.value, figure.unit, figure.kind)}" for figure in holding)
        sentences.append(f"What holds: {', '.join(said)}.")
    return " ".join(sentences)
