"""Statistics of one run: medians and log-ratios with intervals, fairness, histograms, distributions.

Pure and exact where that is affordable, thin over numpy and scipy; each names its source. scipy is imported where it is
needed: that takes a third of a second, which rendering an old record does not pay. Samples of one run share one
boot: an interval from here speaks about this run, not about the kernel (comparisons pair boots instead).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reports.charts import Quantiles
from reports.schema import Interval

Floats = npt.NDArray[np.float64]
Numbers = Sequence[float] | Floats | npt.NDArray[np.int64] | npt.NDArray[np.uint64]

LEVEL = 0.95
"""Confidence level where none is asked for."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its interval (None where ``n`` is too small for the level), and how many values it rests on."""

    value: float
    interval: Interval | None
    n: int


def _floats(values: Numbers) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError("a list of finite numbers is needed")
    return array


def median(values: Numbers, level: float = LEVEL) -> Estimate:
    """Return the median with its exact, distribution-free interval from order statistics.

    The interval runs from the k-th smallest to the k-th largest value with the largest k for which
    ``2 * P(Binomial(n, 1/2) < k) <= 1 - level`` (Conover, Practical Nonparametric Statistics, section 3.2;
    ``scipy.stats.quantile_test`` does the same). Below 6 values no such k exists at 95%: there is no interval.

    :raises ValueError: no values, or one that is not finite.
    """
    array = np.sort(_floats(values))
    n = int(array.size)
    if n == 0:
        raise ValueError("there is no median of nothing")
    from scipy import special

    # The smallest k with P(X <= k) >= alpha/2, so that fewer than k lie below with at most alpha/2.
    k = int(np.searchsorted(special.bdtr(np.arange(n + 1), n, 0.5), (1 - level) / 2))
    interval = None
    if k >= 1:
        method = "exact, order statistics (binomial)"
        interval = Interval(low=float(array[k - 1]), high=float(array[n - k]), level=level, method=method)
    return Estimate(float(np.median(array)), interval, n)


def hodges_lehmann(values: Numbers) -> float:
    """Return the median of all means of two values, each with itself too (Hodges and Lehmann 1963)."""
    array = _floats(values)
    upper = np.triu_indices(array.size)
    return float(np.median((array[upper[0]] + array[upper[1]]) / 2))


def paired_log_ratio(numerators: Numbers, denominators: Numbers, level: float = LEVEL) -> Estimate:
    """Return the ratio of paired positive values: Hodges–Lehmann of the log-ratios, raised again.

    The interval inverts Wilcoxon's signed-rank test: the k-th smallest and k-th largest Walsh average, with k from the
    exact null distribution to 25 pairs, its normal approximation beyond (Hollander and Wolfe, section 3.3).

    :raises ValueError: no pairs, unequal lengths, or a value that is not positive.
    """
    top, bottom = _floats(numerators), _floats(denominators)
    if top.size != bottom.size or top.size == 0:
        raise ValueError("pairs are needed")
    if (top <= 0).any() or (bottom <= 0).any():
        raise ValueError("a log-ratio needs positive values")
    logs = np.log(top / bottom)
    n = int(logs.size)
    i, j = np.triu_indices(n)
    walsh = np.sort((logs[i] + logs[j]) / 2)
    value = float(np.exp(np.median(walsh)))
    k = signed_rank_quantile(n, (1 - level) / 2)
    if k < 1:
        return Estimate(value, None, n)
    interval = Interval(
        low=float(np.exp(walsh[k - 1])),
        high=float(np.exp(walsh[walsh.size - k])),
        level=level,
        method="Hodges–Lehmann, signed rank",
    )
    return Estimate(value, interval, n)


EXACT_PAIRS = 25
"""Pairs up to which the distribution of signed ranks is counted out; beyond, it is taken as normal."""


def flip_sums(ranks: Iterable[int]) -> Floats:
    """Return how many ways of giving signs to ``ranks`` have each sum of the positive ones, from 0 to the sum of all.

    The null distribution of Wilcoxon's statistic, not yet divided by ``2**n``: each difference is as likely to be
    positive as negative. Ranks with ties come doubled, as whole numbers.
    """
    ways = np.ones(1)
    for rank in ranks:
        shifted = np.zeros(ways.size + rank)
        shifted[: ways.size] += ways
        shifted[rank:] += ways
        ways = shifted
    return ways


def signed_rank_quantile(n: int, alpha: float) -> int:
    """Return the largest k with P(T < k) <= alpha, for Wilcoxon's signed-rank statistic T of n pairs."""
    if n > EXACT_PAIRS:
        from scipy import special

        mean, deviation = n * (n + 1) / 4, np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return int(np.floor(mean + deviation * special.ndtri(alpha)))
    below = np.cumsum(flip_sums(range(1, n + 1))) / 2.0**n  # below[t] = P(T <= t)
    return int(np.searchsorted(below, alpha, side="right"))


def jain(shares: Numbers) -> float:
    """Return Jain's fairness index ``(Σx)² / (n Σx²)``: 1 when all are equal, 1/n when one has everything.

    Jain, Chiu, Hawe: A Quantitative Measure of Fairness, DEC-TR-301 (1984).

    :raises ValueError: no shares, a negative one, or all of them zero.
    """
    array = _floats(shares)
    if array.size == 0 or (array < 0).any() or not array.any():
        raise ValueError("fairness needs shares that are not negative and not all zero")
    return float(array.sum() ** 2 / (array.size * (array**2).sum()))


def share(part: int, whole: int, level: float = LEVEL) -> Estimate:
    """Return ``part / whole`` with its exact interval (Clopper and Pearson 1934, by the beta distribution).

    :raises ValueError: ``whole`` is 0, or ``part`` is not within it.
    """
    if whole <= 0 or not 0 <= part <= whole:
        raise ValueError(f"{part} of {whole} is no share")
    from scipy import special

    alpha = (1 - level) / 2
    low = float(special.betaincinv(part, whole - part + 1, alpha)) if part else 0.0
    high = float(special.betaincinv(part + 1, whole - part, 1 - alpha)) if part < whole else 1.0
    interval = Interval(low=low, high=high, level=level, method="exact, Clopper–Pearson")
    return Estimate(part / whole, interval, whole)


def log_edges(low: float, high: float, per_decade: int = 5) -> list[float]:
    """Return edges equally spaced in the logarithm that cover ``low`` to ``high``, on powers of ``10**(1/per_decade)``.

    :raises ValueError: not ``0 < low <= high``.
    """
    if not 0 < low <= high:
        raise ValueError("a logarithmic scale needs 0 < low <= high")
    first = int(np.floor(np.log10(low) * per_decade + 1e-9))
    last = int(np.floor(np.log10(high) * per_decade + 1e-9)) + 1
    return [float(10 ** (step / per_decade)) for step in range(first, last + 1)]


def histogram(values: Numbers, edges: Sequence[float]) -> list[int]:
    """Return counts by bin; a bin holds its lower edge, the last one its upper edge too (``numpy.histogram``)."""
    return [int(count) for count in np.histogram(np.asarray(values, dtype=np.float64), bins=np.asarray(edges))[0]]


def heat(x: Numbers, y: Numbers, x_edges: Sequence[float], y_edges: Sequence[float]) -> tuple[list[list[int]], int]:
    """Return counts by cell (rows of ``y``, lowest first) and how many points lie beyond the edges."""
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    counts, _, _ = np.histogram2d(ys, xs, bins=[np.asarray(y_edges), np.asarray(x_edges)])
    return [[int(cell) for cell in row] for row in counts], int(xs.size - counts.sum())


def ecdf(values: Numbers, points: int = 200) -> tuple[list[float], list[float]]:
    """Return at most ``points`` steps of the empirical distribution: values and the share that is at most each.

    Taken at equally spaced ranks and at both ends, so that no step is farther than ``1/points`` from the true curve,
    and at the exact ranks of the 50th, 90th and 99th percentile (the smallest value that so many are at most).

    :raises ValueError: no values.
    """
    array = np.sort(_floats(values))
    if array.size == 0:
        raise ValueError("there is no distribution of nothing")
    spaced = np.linspace(0, array.size - 1, min(points - 3, array.size)).round().astype(np.int64)
    exact = np.ceil(np.array([0.5, 0.9, 0.99]) * array.size - 1e-9).astype(np.int64) - 1
    ranks = np.unique(np.concatenate([spaced, np.maximum(exact, 0)]))
    return [float(v) for v in array[ranks]], [float(r + 1) / array.size for r in ranks]


TWENTIETHS, QUARTERS = 20, 4
"""Values from which on one in twenty, and one in four, is at least one value."""


def quantiles(label: str, values: Numbers, absent: str = "no values") -> Quantiles:
    """Return five quantiles of ``values``, interpolated (Hyndman and Fan 1996, type 7, numpy's default).

    The outer ones are None below :data:`TWENTIETHS` and :data:`QUARTERS` values.

    :param absent: why there are none, where there are none.
    :raises ValueError: a value is not finite.
    """
    array = _floats(values)
    n = int(array.size)
    if n == 0:
        return Quantiles(label=label, n=0, absent=absent)
    p5, p25, p50, p75, p95 = (float(q) for q in np.quantile(array, [0.05, 0.25, 0.5, 0.75, 0.95]))
    outer, inner = n >= TWENTIETHS, n >= QUARTERS
    return Quantiles(
        label=label,
        n=n,
        p5=p5 if outer else None,
        p25=p25 if inner else None,
        p50=p50,
        p75=p75 if inner else None,
        p95=p95 if outer else None,
    )


def share_distance(left: Sequence[float], right: Sequence[float]) -> float:
    """Return half the sum of the differences of two lists of shares: the total variation distance, 0 to 1."""
    return min(1.0, sum(abs(a - b) for a, b in zip(left, right, strict=True)) / 2)
