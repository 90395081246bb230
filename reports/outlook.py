"""``invoke matrix --plan``: what the chosen number of blocks can detect, from what earlier matrices showed. Pure.

The spread is that of paired log-ratios of the primary metric, in earlier matrices of the same lab, clock and host. It
is a guess about this one: a spread from 10 blocks is itself uncertain by about a quarter.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from go_labs.matrix import MatrixPlan, PlannedLab
from reports import matrices, power
from reports.matrices import Matrix
from reports.schema import Clock
from reports.text import percent

ASSUMED = 0.03
"""Spread where no earlier matrix shows one: a guess, and told as one."""


class LabOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan can find of a lab.

    :param comparisons: kernels that the baseline is compared with, corrected for. :param n: blocks.
    :param spread: of the paired log-ratios, 0.03 is about 3%; ``assumed``: nobody measured it.
    :param matrices: ids of the earlier matrices that it is from; ``other_options``: these ran the lab with others.
    :param detectable: smallest relative difference that is found with 80% power; None: none can be.
    :param needed: fewest blocks that can establish any difference at all.
    """

    lab: str
    metric: str
    comparisons: int
    n: int
    spread: float
    assumed: bool
    matrices: list[str]
    other_options: bool
    detectable: float | None
    needed: int
    words: str


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan can find, by lab.

    :param needed: fewest blocks with which every lab can establish some difference.
    """

    labs: list[LabOutlook]
    n: int
    needed: int


def outlook(plan: MatrixPlan, clock: Clock, host: Mapping[str, str], earlier: Iterable[Matrix]) -> Outlook:
    """Return what ``plan`` can detect.

    :param clock: that its machines will have. :param host: as ``Provenance.host``, of this host.
    :param earlier: matrices (``matrices.find``); only those of this clock and host are used.
    """
    name = matrices.host_name(host)
    alike = [each for each in earlier if each.comparison.clock == clock and each.host == name]
    labs = [_lab(plan, lab, alike) for lab in plan.labs if _comparisons(plan, lab.name)]
    return Outlook(labs=labs, n=plan.repeats, needed=max((lab.needed for lab in labs), default=0))


def _comparisons(plan: MatrixPlan, lab: str) -> int:
    """Return how many kernels are compared with the baseline; 0 where the lab cannot run on that."""
    unfit = {each.cell for each in plan.unfit if each.lab == lab}
    if plan.baseline in unfit:
        return 0
    return sum(not cell.control and cell.id not in {plan.baseline, *unfit} for cell in plan.cells)


def _lab(plan: MatrixPlan, lab: PlannedLab, alike: Sequence[Matrix]) -> LabOutlook:
    comparisons = _comparisons(plan, lab.name)
    n = len({run.block for run in plan.runs if run.lab == lab.name})  # a lab without a timed phase has fewer
    found = {each.plan.id: spreads for each in alike if (spreads := _spreads(each, lab))}
    same = {each.plan.id for each in alike if each.plan.id in found and each.plan.lab(lab.name).options == lab.options}
    used = {name: spreads for name, spreads in found.items() if name in same or not same}
    spread = statistics.median([value for spreads in used.values() for value in spreads]) if used else ASSUMED
    detectable = power.smallest_detectable(n, spread, comparisons, alpha=plan.alpha)
    needed = power.blocks_needed(comparisons, plan.alpha)
    other = bool(used) and not same
    return LabOutlook(
        lab=lab.name, metric=lab.primary, comparisons=comparisons, n=n, spread=spread, assumed=not used,
        matrices=list(used), other_options=other, detectable=detectable, needed=needed,
        words=_words(n, detectable, needed, spread, len(used), other=other),
    )  # fmt: skip


def _spreads(one: Matrix, lab: PlannedLab) -> list[float]:
    """Return the spreads of the lab's primary metric, one for each kernel; none where it was another metric."""
    return [
        effect.spread
        for found in one.comparison.labs
        if found.lab == lab.name and found.primary is not None and found.primary.metric == lab.primary
        for effect in found.primary.effects
        if effect.spread is not None and not effect.control
    ]


def _words(n: int, detectable: float | None, needed: int, spread: float, count: int, *, other: bool) -> str:
    if count:
        with_ = ", with other options" if other else ""
        source = f"spread {percent(spread)} in {count} earlier {'matrix' if count == 1 else 'matrices'}{with_}"
    else:
        source = f"no earlier matrix: a spread of {percent(spread)} is assumed"
    if detectable is None:
        return f"{n} blocks cannot establish any difference, at least {needed} are needed ({source})"
    if detectable == 0:
        return f"{n} blocks find any difference, since there was no spread ({source})"
    return f"{n} blocks find a difference of {percent(detectable)} with 80% power ({source})"
