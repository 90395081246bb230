from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reports import statistics
from reports.effects import Effect, effect, p_values, tails
from reports.statistics import Floats
from tests.reports.simulated import DELTA, NOISE, TRIALS, against_first, measured, standard_error

ALPHA = 0.05
NEVER_MORE = ALPHA + standard_error(ALPHA)


def of_logs(logs: Floats) -> Effect:
    return effect([float(v) for v in np.exp(logs)], [1.0] * len(logs), delta=DELTA)


# One effect, by hand.


def test_an_effect_is_the_hodges_lehmann_ratio_with_its_interval() -> None:
    baseline = [100.0, 108, 96, 103, 99, 110, 101, 95]
    found = effect([b * r for b, r in zip(baseline, (1.04, 1.05, 1.03, 1.06, 1.02, 1.04, 1.05, 1.03), strict=True)],
                   baseline, delta=0.1)  # fmt: skip

    assert found.ratio == pytest.approx(1.04, abs=0.001)
    assert found.interval is not None
    assert found.interval.low == pytest.approx(1.03, abs=0.003)
    assert found.interval.high == pytest.approx(1.05, abs=0.003)
    assert found.interval.level == 0.95
    assert found.p == 2 / 2**8
    assert found.p_equivalent == found.p_higher == 1 / 2**8
    assert found.spread == pytest.approx(0.0125, abs=0.0005)
    assert found.half_width == pytest.approx(0.01, abs=0.003)
    assert (found.n, found.identical) == (8, False)


@pytest.mark.parametrize(("blocks", "level"), [(2, 0.5), (3, 0.75), (4, 0.875), (5, 0.9375), (6, 0.95)])
def test_few_blocks_give_the_widest_interval_there_is_and_say_its_level(blocks: int, level: float) -> None:
    ratios = [1.01, 1.05, 1.02, 0.98, 1.03, 1.00][:blocks]
    found = effect(ratios, [1.0] * blocks, delta=DELTA)

    assert found.interval is not None
    assert found.interval.level == level
    assert (found.interval.low, found.interval.high) == pytest.approx((min(ratios), max(ratios)))


def test_one_block_gives_a_ratio_and_nothing_that_it_cannot_know() -> None:
    found = effect([3.0], [2.0], delta=DELTA)

    assert (found.ratio, found.interval, found.spread, found.half_width) == (pytest.approx(1.5), None, None, None)
    assert (found.p, found.p_equivalent) == (1.0, 1.0)


def test_counts_that_are_the_same_in_every_block_are_identical_and_equivalent() -> None:
    found = effect([4096] * 10, [4096] * 10, delta=0.001)

    assert (found.ratio, found.p, found.spread, found.identical) == (1.0, 1.0, 0.0, True)
    assert found.p_equivalent == 1 / 2**10
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (1.0, 1.0)


def test_a_count_that_is_always_one_higher_is_as_clear_as_blocks_allow() -> None:
    found = effect([1001] * 8, [1000] * 8, delta=0.01)

    assert found.ratio == pytest.approx(1.001)
    assert (found.p, found.p_equivalent, found.identical) == (2 / 2**8, 1 / 2**8, False)


def test_a_ratio_exactly_at_the_margin_is_never_within_it() -> None:
    for top, bottom in (([105] * 10, [100] * 10), ([100] * 10, [105] * 10)):
        assert effect(top, bottom, delta=0.05).p_equivalent == 1.0


@pytest.mark.parametrize(
    ("values", "baseline", "words"),
    [
        ([], [], "no block has both"),
        ([1, 2], [1], "2 values and 1 of the baseline make no pairs"),
        ([1, 0], [1, 1], "the kernel has 0 in block 2"),
        ([1, 1], [0, 1], "the baseline has 0 in block 1"),
        ([-1.5], [1], "the kernel has -1.5 in block 1"),
        ([math.nan], [1], "the kernel has nan in block 1"),
        ([1], [math.inf], "the baseline has inf in block 1"),
    ],
)
def test_what_makes_no_ratio_is_refused_in_words(values: list[float], baseline: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        effect(values, baseline, delta=DELTA)


@pytest.mark.parametrize("delta", [0, -0.1, math.nan])
def test_a_margin_is_above_zero(delta: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        effect([1], [1], delta=delta)


# The test itself.


def test_the_signed_ranks_are_those_of_the_textbook() -> None:
    # Hollander and Wolfe, table 3.1: Hamilton depression scale factor before and after tranquillisers.
    before = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])

    at_most, at_least = tails((before - after)[np.newaxis, :])

    assert at_least[0] == 10 / 512  # 0.0195, for a sum of 40.
    assert at_most[0] == 1 - 7 / 512  # Seven of the 512 ways have a sum of 41 or more.


def flipped(values: Floats) -> tuple[float, float]:
    """Both tails by all 2**n flips, with Pratt's ranks: the definition, written out."""
    ranks = np.where(values == 0, 0, stats.rankdata(np.abs(values)))
    observed = ranks[values > 0].sum()
    sums = [np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=len(values))]
    return float(np.mean(np.array(sums) <= observed)), float(np.mean(np.array(sums) >= observed))


def test_ties_and_zeros_are_counted_out_over_all_flips() -> None:
    random = np.random.default_rng(11)
    for blocks in (1, 2, 5, 8, 10):
        rows = random.integers(-3, 5, (12, blocks)).astype(float)
        at_most, at_least = tails(rows)
        for row, low, high in zip(rows, at_most, at_least, strict=True):
            assert (low, high) == pytest.approx(flipped(row))


@pytest.mark.parametrize("blocks", [6, 13, 25])
def test_without_ties_scipy_says_the_same(blocks: int) -> None:
    rows = np.random.default_rng(12).normal(0.3, 1, (20, blocks))
    theirs: Any = stats.wilcoxon(rows, axis=1, zero_method="pratt", method="exact")

    assert p_values(rows, DELTA).p == pytest.approx(theirs.pvalue)


def test_beyond_the_exact_test_the_normal_one_is_close_and_careful() -> None:
    rows = np.random.default_rng(13).normal(0.3, 1, (200, 30))
    theirs: Any = stats.wilcoxon(rows, axis=1, method="exact")
    mine = p_values(rows, DELTA).p

    assert (mine >= theirs.pvalue - 0.0005).all()
    assert np.abs(mine - theirs.pvalue).max() < 0.02
    assert tails(np.zeros((1, 30))) == (1.0, 1.0)


def test_p_only_falls_as_all_values_move_away() -> None:
    """Why zeros keep their ranks (Pratt): dropping them breaks this, and with it the tests at the margins."""

    def dropped(row: Floats) -> float:
        rest = row[row != 0]
        return float(tails(rest[np.newaxis, :])[1][0]) if rest.size else 1.0

    random = np.random.default_rng(14)
    broken = 0
    for _ in range(300):
        row = random.integers(-4, 6, random.integers(4, 11)).astype(float)
        moved = row + np.arange(-6, 6.01, 0.5)[:, np.newaxis]
        assert (np.diff(tails(moved)[1]) <= 1e-12).all()
        broken += any(b > a + 1e-12 for a, b in itertools.pairwise([dropped(m) for m in moved]))
    assert broken > 0


@pytest.mark.parametrize("blocks", [6, 10, 17, 25, 26, 40])
def test_test_and_interval_are_duals(blocks: int) -> None:
    """Difference against the 95% interval, equivalence against the 90% interval within the margin."""
    random = np.random.default_rng(blocks)
    calls = set()
    for _ in range(150):
        logs = random.normal(random.choice([0, 0.015, 0.04]), NOISE * math.sqrt(2), blocks)
        found = of_logs(logs)
        narrow = statistics.paired_log_ratio(np.exp(logs), np.ones(blocks), 0.90).interval
        assert found.interval is not None
        assert narrow is not None
        assert (found.p <= 0.05) == (not found.interval.low <= 1 <= found.interval.high)
        within = narrow.low > 1 / (1 + DELTA) and narrow.high < 1 + DELTA
        assert (found.p_equivalent <= 0.05) == within
        calls.add((found.p <= 0.05, within))
    assert {(True, False), (False, True)} <= calls


def test_with_ties_no_interval_leaves_1_out_where_the_test_does_not() -> None:
    random = np.random.default_rng(15)
    for _ in range(500):
        found = of_logs(random.integers(-3, 6, random.integers(6, 14)) * 0.01)
        assert found.interval is not None
        if found.p > 0.05:
            assert found.interval.low <= 1 + 1e-12
            assert found.interval.high >= 1 - 1e-12


# What must not matter.


@pytest.mark.parametrize("blocks", [5, 12, 30])
def test_swapping_scaling_and_permuting(blocks: int) -> None:
    random = np.random.default_rng(16)
    for _ in range(20):
        a, b = (np.round(random.lognormal(5, 0.05, blocks)) for _ in range(2))  # Whole numbers: with ties.
        found = effect(a, b, delta=DELTA)

        swapped = effect(b, a, delta=DELTA)
        assert swapped.ratio == pytest.approx(1 / found.ratio)
        assert (swapped.p, swapped.p_lower, swapped.p_higher) == (found.p, found.p_higher, found.p_lower)
        assert found.interval is not None
        assert swapped.interval is not None
        assert (1 / swapped.interval.high, 1 / swapped.interval.low) == pytest.approx(
            (found.interval.low, found.interval.high)
        )

        scale = random.lognormal(0, 3, blocks)
        order = random.permutation(blocks)
        for other in (effect(a * scale, b * scale, delta=DELTA), effect(a[order], b[order], delta=DELTA)):
            assert (other.p, other.p_lower, other.p_higher) == (found.p, found.p_lower, found.p_higher)
            assert (other.ratio, other.spread) == pytest.approx((found.ratio, found.spread))
            assert other.interval is not None
            assert (other.interval.low, other.interval.high) == pytest.approx((found.interval.low, found.interval.high))


# Simulated: how often it errs, how much it finds.


def test_without_a_difference_one_is_found_in_5_of_100_at_most() -> None:
    p, _ = against_first(measured(np.random.default_rng(1), 10, [1, 1]))

    assert len(p) == TRIALS
    assert 0.03 < (p <= ALPHA).mean() <= NEVER_MORE


@pytest.mark.parametrize("blocks", range(5, 13))
def test_at_no_number_of_blocks_is_the_level_exceeded(blocks: int) -> None:
    """By all sign patterns, without chance; and 5 blocks never find anything."""
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=blocks)))
    rate = (p_values(signs * np.arange(1, blocks + 1), DELTA).p <= ALPHA).mean()

    assert rate <= ALPHA
    assert (rate == 0) == (blocks == 5)
    p, _ = against_first(measured(np.random.default_rng(100 + blocks), blocks, [1, 1]))
    assert abs((p <= ALPHA).mean() - rate) <= 3 * standard_error(ALPHA)


def test_a_trend_within_the_block_is_harmless_in_random_order_only() -> None:
    """Each run of a block takes 5% longer than the one before it."""
    random = np.random.default_rng(2)
    logs = measured(random, 10, [1, 1])
    fixed = np.broadcast_to([0, 0.05], logs.shape)

    drawn, _ = against_first(logs + random.permuted(fixed, axis=2))
    always, _ = against_first(logs + fixed)

    assert (drawn <= ALPHA).mean() <= NEVER_MORE
    assert (always <= ALPHA).mean() > 0.9


def test_all_of_one_kernel_and_then_all_of_the_other_is_wrong_half_the_time() -> None:
    random = np.random.default_rng(3)
    walk = np.cumsum(random.normal(0, 0.02, (TRIALS, 20)), axis=1) + random.normal(0, NOISE, (TRIALS, 20))

    in_turn = p_values(walk[:, 10:] - walk[:, :10], DELTA).p
    pairs = random.permuted(walk.reshape(TRIALS, 10, 2), axis=2)
    interleaved = p_values(pairs[:, :, 1] - pairs[:, :, 0], DELTA).p

    assert (in_turn <= ALPHA).mean() > 0.4
    assert (interleaved <= ALPHA).mean() <= NEVER_MORE


def test_the_boot_is_the_sample_and_iterations_are_not() -> None:
    """Boots differ by 2%, iterations within a boot by 2% more; no kernel differs from the other."""
    random = np.random.default_rng(4)
    boots, iterations = 10, 20
    logs = random.normal(0, 0.02, (TRIALS, 2, boots, 1)) + random.normal(0, 0.02, (TRIALS, 2, boots, iterations))
    differences = logs[:, 1] - logs[:, 0]

    pooled = p_values(differences[:, :5].reshape(TRIALS, 5 * iterations), DELTA).p
    unpaired: Any = stats.mannwhitneyu(*logs[:, :, :5].reshape(TRIALS, 2, -1).swapaxes(0, 1), axis=1)
    medians = np.median(logs, axis=3)
    one_for_each_boot = p_values(medians[:, 1] - medians[:, 0], DELTA).p

    assert (pooled <= ALPHA).mean() > 0.5
    assert (unpaired.pvalue <= ALPHA).mean() > 0.5
    assert (one_for_each_boot <= ALPHA).mean() <= NEVER_MORE


def test_pairing_finds_3_percent_under_4_percent_of_drift_and_unpaired_values_do_not() -> None:
    logs = measured(np.random.default_rng(5), 10, [1, 1.03])

    paired, _ = against_first(logs)
    unpaired: Any = stats.mannwhitneyu(logs[:, :, 0], logs[:, :, 1], axis=1)

    assert (paired <= ALPHA).mean() >= 0.75
    assert (unpaired.pvalue <= ALPHA).mean() < 0.25


@pytest.mark.parametrize("blocks", [5, 10, 15, 30])
@pytest.mark.parametrize("ratio", [1 + DELTA, 1 / (1 + DELTA)])
def test_at_the_margin_equivalence_is_declared_in_5_of_100_at_most(blocks: int, ratio: float) -> None:
    _, p = against_first(measured(np.random.default_rng(6), blocks, [1, ratio]))

    assert (p <= ALPHA).mean() <= NEVER_MORE


def test_equivalence_is_declared_where_it_holds() -> None:
    _, p = against_first(measured(np.random.default_rng(7), 10, [1, 1.01]))

    assert (p <= ALPHA).mean() > 0.9


Noise = Callable[[np.random.Generator], Callable[[tuple[int, ...]], Floats]]
NOISES: dict[str, Noise] = {
    "normal": lambda random: random.standard_normal,
    "heavy": lambda random: lambda shape: random.standard_t(3, shape),
    "skewed": lambda random: lambda shape: random.lognormal(0, 1, shape),
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("blocks", [10, 15, 30])
def test_the_interval_covers_the_truth_as_often_as_it_says(blocks: int, noise: str) -> None:
    random = np.random.default_rng(8)
    logs = measured(random, blocks, [1, 1.03], noise=NOISES[noise](random))
    covered = 0
    for row in np.exp(logs):
        interval = statistics.paired_log_ratio(row[:, 1], row[:, 0]).interval
        assert interval is not None
        covered += interval.low <= 1.03 <= interval.high

    assert 0.93 <= covered / TRIALS <= 0.97
