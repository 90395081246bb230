"""One metric over all kernels: from runs in blocks to effects, verdicts and their words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from reports import corrections, effects, power
from reports.comparison import Change, Compared, Effect, Value
from reports.samples import MetricBrief, Sample
from reports.schema import Kind
from reports.text import number

KINDS: frozenset[Kind] = frozenset({"time", "rate", "ratio", "share", "count"})
"""What is explored. Estimates are sampled by nature, and are compared only where a lab declares one as primary."""

GENERIC = ("probe.", "losses.", "events.", "forced.", "selftest.", "host.", "guest.")
"""Metrics of the tracing, which every lab has: what they say is not of the kernel's work."""

CHANGED: frozenset[Change] = frozenset({"faster", "slower", "higher", "lower"})
"""Verdicts that say that a kernel differs."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of a lab that count, by block.

    :param lines: all kernels, in the order of versions.
    :param by_line: kernel line → block → run; ``control``: block → the baseline's second run.
    :param control_line: the kernel that ran twice, empty where none did.
    """

    lab: str
    primary: str
    lines: Sequence[str]
    baseline: str
    by_line: Mapping[str, Mapping[str, Sample]]
    control: Mapping[str, Sample]
    control_line: str

    @property
    def others(self) -> list[str]:
        """Kernels that have runs, without the baseline."""
        return [line for line in self.lines if line != self.baseline and self.by_line.get(line)]


@dataclass(frozen=True, slots=True)
class Raw:
    """An effect before it is corrected for others.

    :param effect: None where there is no ratio, ``absent`` says why. :param zero: both are 0 in every run.
    :param without: paired blocks in which one of both has no value.
    """

    kernel: str
    control: bool
    effect: effects.Effect | None
    absent: str
    zero: bool
    n: int
    without: int


@dataclass(slots=True)
class Measured:
    """A metric of a lab with its effects, and the control's.

    :param q: kernel → p of no difference corrected over the comparison; ``q_equivalent``: of no equivalence.
    """

    runs: Runs
    metric: MetricBrief
    primary: bool
    raws: list[Raw]
    control: Raw | None
    q: dict[str, float] = field(default_factory=dict)
    q_equivalent: dict[str, float] = field(default_factory=dict)

    @property
    def tested(self) -> list[Raw]:
        """Those that have a ratio, without the control."""
        return [raw for raw in self.raws if raw.effect is not None]


@dataclass(slots=True)
class Explored:
    """Metrics beside the primary one; see :class:`reports.comparison.LabComparison` for ``same`` and ``partial``."""

    metrics: list[Measured] = field(default_factory=list)
    same: int = 0
    partial: int = 0


def primary(runs: Runs, delta: float) -> Measured | None:
    """Return the primary metric of a lab; None where no run has it, not even as absent."""
    metric = _latest(runs, runs.primary)
    if metric is None:
        return None
    raws = [_raw(runs, runs.primary, line, delta) for line in runs.others]
    return Measured(runs, metric, True, raws, _control(runs, runs.primary, delta))


def explore(runs: Runs, delta: float) -> Explored:
    """Return every other metric that the baseline and some kernel have in each of their runs, and that varies."""
    found = Explored()
    lines = [line for line in runs.lines if runs.by_line.get(line)]
    for name in _names(runs):
        whole = [line for line in lines if all(_value(s, name) is not None for s in runs.by_line[line].values())]
        if runs.baseline not in whole or len(whole) < 2:
            found.partial += 1
            continue
        values = {_value(sample, name) for line in whole for sample in runs.by_line[line].values()}
        if len(values) == 1:
            found.same += 1
            continue
        metric = _latest(runs, name)
        if metric is None or metric.kind not in KINDS:
            continue
        raws = [
            _raw(runs, name, line, delta)
            if line in whole
            else Raw(line, False, None, "it has no value in every block", zero=False, n=0, without=0)
            for line in runs.others
        ]
        found.metrics.append(Measured(runs, metric, False, raws, _control(runs, name, delta)))
    return found


def _names(runs: Runs) -> list[str]:
    names: dict[str, None] = {}
    for sample in _samples(runs):
        for name, metric in sample.metrics.items():
            if name not in names and metric.kind in KINDS and not name.startswith(GENERIC) and name != runs.primary:
                names[name] = None
    return list(names)


def _samples(runs: Runs) -> Iterator[Sample]:
    for line in runs.lines:
        yield from runs.by_line.get(line, {}).values()


def _latest(runs: Runs, name: str) -> MetricBrief | None:
    """Return the metric as the latest run with a value has it, else the latest run."""
    having = [sample for sample in _samples(runs) if name in sample.metrics]
    if not having:
        return None
    return max(
        having, key=lambda s: (s.metrics[name].value is not None, s.brief.provenance.finished, s.brief.id)
    ).metrics[name]


def _value(sample: Sample, name: str) -> float | None:
    metric = sample.metrics.get(name)
    return None if metric is None else metric.value


def _control(runs: Runs, name: str, delta: float) -> Raw | None:
    if not runs.control:
        return None
    return _compare(runs, name, runs.control_line, runs.control, runs.by_line.get(runs.control_line, {}), delta, True)


def _raw(runs: Runs, name: str, line: str, delta: float) -> Raw:
    return _compare(runs, name, line, runs.by_line[line], runs.by_line.get(runs.baseline, {}), delta, False)


def _compare(
    runs: Runs,
    name: str,
    line: str,
    mine: Mapping[str, Sample],
    theirs: Mapping[str, Sample],
    delta: float,
    control: bool,
) -> Raw:
    blocks = [block for block in mine if block in theirs]
    if not blocks:
        return Raw(line, control, None, f"no block has both {line} and {runs.baseline}", zero=False, n=0, without=0)
    pairs = [(_value(mine[block], name), _value(theirs[block], name)) for block in blocks]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    without = len(pairs) - len(both)
    if not both:
        metric = next((s.metrics[name] for s in (*mine.values(), *theirs.values()) if name in s.metrics), None)
        why = "" if metric is None or not metric.absent else f": {metric.absent}"
        return Raw(line, control, None, f"no block has both values{why}", zero=False, n=0, without=without)
    values, base = [a for a, _ in both], [b for _, b in both]
    zero = not any(values) and not any(base)
    if zero:  # A ratio of 1, as of all values that are the same in both.
        values = base = [1.0] * len(both)
    elif min(*values, *base) <= 0:
        words = f"no ratio, since not all values are above 0: {_range(values)} here, {_range(base)} on {runs.baseline}"
        return Raw(line, control, None, words, zero=False, n=len(both), without=without)
    made = effects.effect(values, base, delta=delta)
    return Raw(line, control, made, "0 in every run, here and on the baseline" if zero else "", zero, made.n, without)


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return number(low) if low == high else f"{number(low)} to {number(high)}"


# ---- corrected ----


def correct_all(measured: Sequence[Measured]) -> int:
    """Give each effect its q over the whole comparison (Benjamini–Hochberg); return how many there are."""
    all_of_them = [(metric, raw, raw.effect) for metric in measured for raw in metric.raws if raw.effect is not None]
    different = corrections.benjamini_hochberg([effect.p for _, _, effect in all_of_them])
    equivalent = corrections.benjamini_hochberg([effect.p_equivalent for _, _, effect in all_of_them])
    for (metric, raw, _), q, q_equivalent in zip(all_of_them, different, equivalent, strict=True):
        metric.q[raw.kernel] = q
        metric.q_equivalent[raw.kernel] = q_equivalent
    return len(all_of_them)


def direction(kind: Kind, change: corrections.Change) -> Change:
    """Return the word for a change of a metric of this ``kind``: more of a rate is faster, more time is slower."""
    if change in {"higher", "lower"}:
        if kind == "time":
            return "slower" if change == "higher" else "faster"
        if kind == "rate":
            return "faster" if change == "higher" else "slower"
    return change


def away(lines: Sequence[str], baseline: str) -> list[str]:
    """Return ``lines``, in the order of versions, as one walks away from ``baseline``: newer ones, then older ones."""
    at = lines.index(baseline) if baseline in lines else -1
    return [*lines[at + 1 :], *reversed(lines[: max(at, 0)])]


def to_compared(measured: Measured, delta: float, alpha: float, total: int, record_of: Mapping[int, str]) -> Compared:
    """Return ``measured`` as the comparison has it.

    :param total: effects of the whole comparison. :param record_of: identity of a sample → its folder, relative.
    """
    runs, metric = measured.runs, measured.metric
    if measured.primary:
        made = _primary_effects(measured, delta, alpha)
    else:
        made = [_exploratory_effect(measured, raw, alpha, total) for raw in measured.raws]
    if measured.control is not None:
        made.append(_control_effect(measured, measured.control, delta, alpha))
    changed = {effect.kernel for effect in made if effect.change in CHANGED and not effect.control}

    def values(of: Mapping[str, Sample]) -> list[Value]:
        return [
            Value(block=block, value=value, record=record_of[id(sample)])
            for block, sample in of.items()
            if (value := _value(sample, metric.name)) is not None
        ]

    by_line = {line: values(runs.by_line[line]) for line in runs.lines if runs.by_line.get(line)}
    second = values(runs.control)
    return Compared(
        metric=metric.name,
        title=metric.title,
        unit=metric.unit,
        kind=metric.kind,
        timing=metric.timing or metric.kind in {"time", "rate"},
        phase=metric.phase,
        meaning=metric.meaning,
        primary=measured.primary,
        values=by_line,
        control=second,
        medians={line: _median(mine) for line, mine in by_line.items() if mine},
        control_median=_median(second) if second else None,
        effects=made,
        first_change=next((line for line in away(runs.lines, runs.baseline) if line in changed), ""),
    )


def _median(values: Sequence[Value]) -> float:
    return float(np.median([each.value for each in values]))


def _primary_effects(measured: Measured, delta: float, alpha: float) -> list[Effect]:
    tested = measured.tested
    decided = corrections.decide([e for raw in tested if (e := raw.effect) is not None], delta=delta, alpha=alpha)
    by_kernel = {raw.kernel: one for raw, one in zip(tested, decided, strict=True)}
    made = []
    for raw in measured.raws:
        one = by_kernel.get(raw.kernel)
        made.append(
            _absent(raw) if one is None else _effect(measured, raw, one, len(tested), alpha, measured.q.get(raw.kernel))
        )
    return made


def _control_effect(measured: Measured, raw: Raw, delta: float, alpha: float) -> Effect:
    if raw.effect is None:
        return _absent(raw)
    one = corrections.decide([raw.effect], delta=delta, alpha=alpha)[0]
    return _effect(measured, raw, one, 1, alpha, None)


def _absent(raw: Raw) -> Effect:
    return Effect(
        kernel=raw.kernel,
        control=raw.control,
        change="undecided",
        absent=raw.absent,
        n=raw.n,
        words=f"undecided: {raw.absent}",
    )


def _effect(
    measured: Measured, raw: Raw, one: corrections.Decision, comparisons: int, alpha: float, q: float | None
) -> Effect:
    effect = raw.effect
    assert effect is not None  # noqa: S101  (callers have looked)
    change = direction(measured.metric.kind, one.change)
    spread = effect.spread
    detectable = None
    if measured.primary and spread is not None:
        detectable = power.smallest_detectable(effect.n, spread, comparisons, alpha=alpha)
    why = raw.absent if raw.zero and change == "equivalent" else f"{raw.absent}; {one.why}" if raw.zero else one.why
    return Effect(
        kernel=raw.kernel,
        control=raw.control,
        change=change,
        ratio=None if raw.zero else effect.ratio,
        absent=raw.absent,
        interval=None if raw.zero else effect.interval,
        n=effect.n,
        p=effect.p,
        p_adjusted=one.p_adjusted,
        p_equivalent=effect.p_equivalent,
        p_equivalent_adjusted=one.p_equivalent_adjusted,
        q=q,
        spread=spread,
        identical=effect.identical,
        detectable=detectable,
        words=f"{change}: {why}{_remarks(measured, raw)}",
    )


def _remarks(measured: Measured, raw: Raw) -> str:
    words = ""
    if raw.without:
        words += f"; {raw.without} of {raw.n + raw.without} blocks lack a value"
    if measured.metric.kind == "estimate":
        words += "; the figure is an estimate, sampled by nature"
    return words


def _exploratory_effect(measured: Measured, raw: Raw, alpha: float, total: int) -> Effect:
    effect = raw.effect
    if effect is None:
        return _absent(raw)
    q, q_equivalent = measured.q[raw.kernel], measured.q_equivalent[raw.kernel]
    change: corrections.Change = "undecided"
    if q_equivalent <= alpha:
        change = "equivalent"
    elif q <= alpha:
        change = "higher" if effect.ratio > 1 else "lower"
    word = direction(measured.metric.kind, change)
    why = (
        f"q = {q:.2g} over {total} effects"
        if change != "equivalent"
        else f"q = {q_equivalent:.2g} over {total} effects"
    )
    zero = f"{raw.absent}; " if raw.zero else ""
    return Effect(
        kernel=raw.kernel,
        change=word,
        ratio=None if raw.zero else effect.ratio,
        absent=raw.absent,
        interval=None if raw.zero else effect.interval,
        n=effect.n,
        p=effect.p,
        p_equivalent=effect.p_equivalent,
        p_equivalent_adjusted=q_equivalent,
        q=q,
        spread=effect.spread,
        identical=effect.identical,
        words=f"{word}, exploratory: {zero}{why}",
    )
