"""What a number of blocks can detect, for a plan and beside a result.

For the test that is used (:mod:`reports.effects`), at the strictest step of Holm: ``alpha / comparisons``. A kernel
that is not the most different of its family is held to a milder one, so these figures are on the safe side.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import lru_cache

import numpy as np

from reports.statistics import EXACT_PAIRS, signed_rank_quantile

DRAWS = 8_000
"""Simulated experiments behind a figure: its power is then known to half a point (standard error)."""

SIMULATED = 50
"""Blocks up to which power is simulated; beyond, it is continued towards its limit for many blocks."""

MOST = 10**9
"""Blocks beyond which no answer is looked for."""

SEED = 1


def blocks_needed(comparisons: int, alpha: float = 0.05) -> int:
    """Return the fewest blocks with which a difference can be established at all: ``2 * 2**-n <= alpha / comparisons``.

    The smallest two-sided p that ``n`` signs can give is ``2 / 2**n``. Equivalence rests on one-sided tests and needs
    one block less.

    :raises ValueError: no comparisons, or ``alpha`` not between 0 and 1.
    """
    _check(comparisons, alpha)
    n = 1
    while 2 * 2.0**-n * comparisons > alpha:
        n += 1
    return n


def smallest_detectable(
    n: int, spread: float, comparisons: int, *, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Return the smallest true effect (0.03 is +3%) that ``n`` blocks establish with probability ``power``.

    None where they cannot establish anything. 0 where there is no spread. For log-ratios that are normal with
    standard deviation ``spread``; a spread that was itself estimated from 10 blocks is uncertain by about a quarter.

    :param spread: as in :class:`reports.effects.Effect`.
    :raises ValueError: a parameter outside its range.
    """
    _check(comparisons, alpha)
    if n < 1 or not spread >= 0 or not 0 < power < 1:
        raise ValueError("blocks from 1, a spread from 0 and a power between 0 and 1 are needed")
    if n < blocks_needed(comparisons, alpha):
        return None
    return math.expm1(_shift(n, alpha / comparisons, power) * spread)


def blocks_for(effect: float, spread: float, comparisons: int, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Return the fewest blocks that establish a true ``effect`` (0.03 is +3%, -0.03 is -3%) with probability ``power``.

    :raises ValueError: an effect of 0 or at most -1, one that needs more than :data:`MOST` blocks, or another parameter
        outside its range.
    """
    if not effect > -1 or effect == 0:
        raise ValueError("an effect above -100%, and other than 0, is needed")
    if not spread >= 0 or not 0 < power < 1:
        raise ValueError("a spread from 0 and a power between 0 and 1 are needed")
    wanted = abs(math.log1p(effect))

    def enough(n: int) -> bool:
        return _shift(n, alpha / comparisons, power) * spread <= wanted

    needed = blocks_needed(comparisons, alpha)
    # One by one where the test is exact: the first step beyond detects a little less than the last one before.
    few = next((n for n in range(needed, EXACT_PAIRS + 1) if enough(n)), None)
    if few is not None:
        return few
    many = range(max(needed, EXACT_PAIRS + 1), MOST)
    at = bisect_left(many, True, key=enough)
    if at == len(many):
        raise ValueError(f"an effect of {effect:g} is too small beside a spread of {spread:g}")
    return many[at]


def _check(comparisons: int, alpha: float) -> None:
    if comparisons < 1 or not 0 < alpha < 1:
        raise ValueError("at least one comparison and an alpha between 0 and 1 are needed")


@lru_cache(maxsize=4096)
def _shift(n: int, alpha: float, power: float) -> float:
    """Return the shift, in standard deviations, that is established with probability ``power``.

    A shift is established where the k-th smallest Walsh average (the lower end of the interval) stays above 0. It moves
    with the shift, so the shift wanted is a quantile of where it lies without one. Beyond :data:`SIMULATED` blocks the
    limit is taken, with an error that falls by ``1 / n`` from what it is there.
    """
    if n > SIMULATED:
        limit = _normal_shift(alpha, power)
        beyond = _shift(SIMULATED, alpha, power) * math.sqrt(SIMULATED) / limit - 1
        return limit / math.sqrt(n) * (1 + beyond * SIMULATED / n)
    k = max(1, signed_rank_quantile(n, alpha / 2))  # The last bit of alpha may take the 1 that blocks_needed grants.
    random = np.random.default_rng(SEED)
    i, j = np.triu_indices(n)
    ends = []
    for _ in range(8):
        draws = random.standard_normal((DRAWS // 8, SIMULATED))[:, :n]  # The same for each n: their figures compare.
        walsh = (draws[:, i] + draws[:, j]) / 2
        ends.append(np.partition(walsh, k - 1, axis=1)[:, k - 1])
    return float(np.quantile(-np.concatenate(ends), power))


def _normal_shift(alpha: float, power: float) -> float:
    """Return the same times the root of n, for many blocks: that of the t-test by the root of its efficiency, 3/π.

    (Lehmann, Nonparametrics, section 4.2.)
    """
    from scipy import special

    return float((special.ndtri(1 - alpha / 2) + special.ndtri(power)) * math.sqrt(math.pi / 3))
