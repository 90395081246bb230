"""Many comparisons: corrected p-values, the four verdicts, and what the control of a run shows.

One primary metric for each lab is declared beforehand. Its comparisons of all kernels with the baseline are one
family, corrected by Holm: of all matrices without a difference, at most ``alpha`` call one in that lab. What is looked
at over the whole matrix is corrected by Benjamini and Hochberg, and called exploratory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reports import power, statistics
from reports.effects import Effect
from reports.statistics import Estimate, Floats

Change = Literal["higher", "lower", "equivalent", "undecided"]
"""What became of a kernel's value; whether higher is slower is for the metric's kind to say."""

ALPHA = 0.05
"""Error rate of a family where none is asked for."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict on one kernel.

    :param p_adjusted: of no difference, corrected for the family.
    :param p_equivalent_adjusted: of a ratio beyond the margin, corrected for the family.
    :param established: a difference was established, whether or not it is within the margin.
    :param why: one clause of words.
    """

    change: Change
    p_adjusted: float
    p_equivalent_adjusted: float
    established: bool
    why: str


@dataclass(frozen=True, slots=True)
class Control:
    """What the baseline's second cell (A/A) shows about this run: all that it finds is false.

    :param called: metrics that were called different, at ``alpha`` and without correction.
    :param able: metrics that could have been: enough blocks, and not identical in all of them.
    :param identical: metrics that were the same in every block; they cannot be called, and would make the rate look
        better than it is.
    :param too_few: metrics with too few blocks to call anything.
    :param rate: called by able, with its exact interval; None where none was able. The interval takes metrics for
        independent; those of one lab are not, so it is too narrow rather than too wide.
    :param resolved: for each effect, in the order given, the half-width of its interval as a share: a smaller
        difference was hidden by the noise of this run. None without an interval.
    """

    called: int
    able: int
    identical: int
    too_few: int
    rate: Estimate | None
    resolved: tuple[float | None, ...]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the family-wise error rate (Holm 1979), in the order given.

    :raises ValueError: a p-value outside 0 to 1.
    """
    return [float(p) for p in holm_rows(_checked(p_values)[np.newaxis, :])[0]]


def holm_rows(p_values: Floats) -> Floats:
    """Return :func:`holm` of each row (families × comparisons)."""
    count = p_values.shape[1]
    order = np.argsort(p_values, axis=1, kind="stable")
    scaled = np.take_along_axis(p_values, order, axis=1) * np.arange(count, 0, -1)
    adjusted = np.empty_like(p_values)
    np.put_along_axis(adjusted, order, np.minimum(1.0, np.maximum.accumulate(scaled, axis=1)), axis=1)
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the false discovery rate (Benjamini and Hochberg 1995), in the order given.

    :raises ValueError: a p-value outside 0 to 1.
    """
    checked = _checked(p_values)
    if not checked.size:
        return []
    from scipy import stats

    return [float(p) for p in stats.false_discovery_control(checked, method="bh")]


def _checked(p_values: Sequence[float]) -> Floats:
    array = np.asarray(p_values, dtype=np.float64)
    if array.ndim != 1 or not ((array >= 0) & (array <= 1)).all():
        raise ValueError("p-values are numbers from 0 to 1")
    return array


def decide(effects: Sequence[Effect], *, delta: float, alpha: float = ALPHA) -> list[Decision]:
    """Return the verdict on each effect of one lab's family (the kernels; not the control, which is no question).

    - *equivalent*: both one-sided tests reject a ratio beyond the margin, after Holm over the kernels. It wins over a
      difference that was established too: the margin was declared as what is too small to matter, and the difference
      is surely within it. The words then name both.
    - *higher*, *lower*: "no difference" was rejected, after Holm over the kernels. How large the difference is, the
      interval says; it may lie within the margin.
    - *undecided*: neither. That is no sign of sameness: the words say what was not established, and whether the
      blocks could have shown anything.

    Differences and equivalences are two families, and each has a false verdict with probability ``alpha`` at most. For
    one kernel only one of them can be false, since no ratio is both 1 and beyond the margin; over kernels of which some
    are at 1 and some exactly at the margin, both families together erred in 7% (simulated, two and two of 4). Intervals
    that are shown beside stay uncorrected: one may leave 1 out where the verdict is undecided; the words then say so.

    :param effects: one for each kernel of which a verdict was asked, the undecidable too: they count in the family.

    :raises ValueError: an effect was computed with another ``delta``.
    """
    if any(one.delta != delta for one in effects):
        raise ValueError("an effect was tested with another margin")
    different = holm([one.p for one in effects])
    equivalent = holm([one.p_equivalent for one in effects])
    decisions = []
    for one, p, p_equivalent in zip(effects, different, equivalent, strict=True):
        established = p <= alpha
        change: Change = "undecided"
        if p_equivalent <= alpha:
            change = "equivalent"
        elif established:
            change = "higher" if one.ratio > 1 else "lower"
        why = _why(one, change, established, comparisons=len(effects), alpha=alpha)
        decisions.append(Decision(change, p, p_equivalent, established, why))
    return decisions


def _why(one: Effect, change: Change, established: bool, *, comparisons: int, alpha: float) -> str:
    margin = f"±{one.delta * 100:.3g}%"
    blocks = _counted(one.n, "block")
    corrected = f" after correction for {comparisons} comparisons" if comparisons > 1 else ""
    if change == "equivalent":
        if one.identical:
            return f"identical in {one.n} of {blocks}"
        return f"within {margin}, though a difference was established" if established else f"within {margin}"
    if established:
        return f"a difference was established{corrected}; equivalence within {margin} was not"
    needed = power.blocks_needed(comparisons, alpha)
    if one.n < needed:
        found = f"identical in {one.n} of {blocks}, but " if one.identical else ""
        family = _counted(comparisons, "comparison")
        if one.n < power.blocks_needed(comparisons, 2 * alpha):
            return f"{found}{blocks} cannot establish anything over {family}: a difference needs {needed}"
        return (
            f"{found}no equivalence within {margin}; a difference over {family} needs {needed} blocks, here are {one.n}"
        )
    if one.p <= alpha:
        return f"a difference alone (p = {one.p:.2g}), but not{corrected}"
    if one.p_equivalent <= alpha:
        return f"within {margin} alone (p = {one.p_equivalent:.2g}), but not{corrected}"
    return f"neither a difference nor equivalence within {margin} was established{corrected}"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def shown_by_control(effects: Sequence[Effect], alpha: float = ALPHA) -> Control:
    """Return what the control cell's effects against the baseline show, one effect for each metric."""
    needed = power.blocks_needed(1, alpha)
    identical = [one for one in effects if one.identical]
    able = [one for one in effects if not one.identical and one.n >= needed]
    called = sum(one.p <= alpha for one in able)
    return Control(
        called=called,
        able=len(able),
        identical=len(identical),
        too_few=len(effects) - len(able) - len(identical),
        rate=statistics.share(called, len(able)) if able else None,
        resolved=tuple(one.half_width for one in effects),
    )
