from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reports import statistics
from reports.schema import Interval


def bounds(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.low, interval.high


@pytest.mark.parametrize("size", [6, 9, 17, 100, 1001])
def test_the_median_has_the_interval_of_scipys_quantile_test(size: int) -> None:
    values = np.random.default_rng(3).lognormal(size=size)
    found = statistics.median(values)
    theirs: Any = stats.quantile_test(values, q=1.0, p=0.5).confidence_interval(0.95)
    assert found.value == np.median(values)
    assert bounds(found.interval) == (theirs.low, theirs.high)


def test_six_values_are_the_fewest_that_give_a_median_its_interval() -> None:
    assert statistics.median([1, 2, 3, 4, 5]).interval is None
    assert bounds(statistics.median([6, 5, 4, 3, 2, 1]).interval) == (1, 6)


def test_the_interval_of_a_median_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        low, high = bounds(statistics.median(random.exponential(size=12)).interval)
        covered += low <= math.log(2) <= high
    assert covered >= 940


def test_a_paired_ratio_is_the_hodges_lehmann_of_the_logs() -> None:
    found = statistics.paired_log_ratio([2, 4, 8, 6, 10, 3], [1, 2, 4, 3, 5, 1.5])
    assert found.value == pytest.approx(2)
    assert bounds(found.interval) == pytest.approx((2, 2))


def test_thesigned_rank_quantiles_are_those_of_the_tables() -> None:
    # Critical values of T for 5% on two sides: 0 at 6 pairs, 2 at 7, 8 at 10, 52 at 20.
    for pairs, critical in ((6, 0), (7, 2), (10, 8), (20, 52)):
        assert statistics.signed_rank_quantile(pairs, 0.025) == critical + 1
    assert statistics.signed_rank_quantile(5, 0.025) == 0


def test_the_normal_approximation_meets_the_exact_quantile() -> None:
    exact = [statistics.signed_rank_quantile(n, 0.025) for n in (24, 25)]
    assert statistics.signed_rank_quantile(26, 0.025) - exact[1] == pytest.approx(exact[1] - exact[0], abs=2)


@pytest.mark.parametrize(("top", "bottom"), [([], []), ([1], [1, 2]), ([0], [1]), ([1], [-1]), ([math.nan], [1])])
def test_a_ratio_needs_positive_pairs(top: list[float], bottom: list[float]) -> None:
    with pytest.raises(ValueError, match=r"pairs|positive|finite"):
        statistics.paired_log_ratio(top, bottom)


def test_fairness_goes_from_one_over_n_to_one() -> None:
    assert statistics.jain([5, 5, 5, 5]) == 1
    assert statistics.jain([9, 0, 0]) == pytest.approx(1 / 3)
    assert statistics.jain([1, 2, 3]) == pytest.approx(36 / (3 * 14))
    with pytest.raises(ValueError, match="not all zero"):
        statistics.jain([0, 0])


def test_a_share_has_the_exact_interval() -> None:
    for part, whole in ((1, 9), (32, 271), (271, 271)):
        theirs = stats.binomtest(part, whole).proportion_ci(0.95, method="exact")
        assert bounds(statistics.share(part, whole).interval) == pytest.approx((theirs.low, theirs.high))
    found = statistics.share(0, 271)
    low, high = bounds(found.interval)
    assert (found.value, low) == (0, 0)
    assert high == pytest.approx(1 - 0.025 ** (1 / 271))
    with pytest.raises(ValueError, match="no share"):
        statistics.share(2, 1)


def test_log_edges_cover_both_ends_and_are_equally_far_apart() -> None:
    edges = statistics.log_edges(950, 1_200_000, per_decade=5)
    assert edges[0] <= 950
    assert edges[-1] > 1_200_000
    assert np.allclose(np.diff(np.log10(edges)), 0.2)
    assert len(statistics.log_edges(1000, 1000)) == 2


def test_a_heat_map_loses_no_point() -> None:
    counts, beyond = statistics.heat([0.1, 0.1, 1.9, 5.0], [10, 11, 900, 10], [0, 1, 2], [1, 100, 1000])
    assert counts == [[2, 0], [0, 1]]
    assert beyond == 1


def test_a_distribution_keeps_the_ends_and_exact_percentiles() -> None:
    values = np.random.default_rng(2).permutation(np.arange(1.0, 10_001.0))
    x, p = statistics.ecdf(values, points=50)
    assert len(x) <= 50
    assert (x[0], x[-1], p[-1]) == (1, 10_000, 1)
    kept = dict(zip(x, p, strict=True))
    assert (kept[5000], kept[9000], kept[9900]) == (0.5, 0.9, 0.99)
    assert statistics.ecdf([7.0]) == ([7.0], [1.0])
