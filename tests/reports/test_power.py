from __future__ import annotations

import numpy as np
import pytest

from reports.effects import p_values
from reports.power import blocks_for, blocks_needed, smallest_detectable
from tests.reports.simulated import against_first, measured


def found(n: int, spread: float, comparisons: int, effect: float, trials: int = 4_000) -> float:
    """Share of made-up experiments in which the test finds a true ``effect``."""
    random = np.random.default_rng(31)
    p = [
        p_values(random.normal(np.log1p(effect), spread, (100, n)), 0.05).p  # 100 at once: memory.
        for _ in range(trials // 100)
    ]
    return float((np.concatenate(p) <= 0.05 / comparisons).mean())


def test_the_fewest_blocks_that_can_establish_anything() -> None:
    # 9 comparisons need 9 blocks; 5 blocks never suffice.
    assert [blocks_needed(m) for m in (1, 2, 3, 4, 9)] == [6, 7, 7, 8, 9]
    for comparisons in range(1, 30):
        n = blocks_needed(comparisons)
        agreeing = p_values(np.arange(1.0, n + 1)[np.newaxis, :], 0.05).p[0]  # All of one sign: as clear as it gets.
        assert agreeing * comparisons <= 0.05 < 2 * agreeing * comparisons


@pytest.mark.parametrize(
    ("n", "spread", "comparisons"),
    [(6, 0.02, 1), (8, 0.03, 4), (10, 0.028, 1), (10, 0.028, 4), (15, 0.1, 4), (25, 0.03, 9), (26, 0.03, 9),
     (30, 0.03, 4), (50, 0.03, 1)],
)  # fmt: skip
@pytest.mark.parametrize("power", [0.8, 0.95])
def test_the_smallest_detectable_effect_is_found_as_often_as_it_says(
    n: int, spread: float, comparisons: int, power: float
) -> None:
    effect = smallest_detectable(n, spread, comparisons, power=power)

    assert effect is not None
    assert found(n, spread, comparisons, effect) == pytest.approx(power, abs=0.025)


@pytest.mark.parametrize(("n", "comparisons"), [(51, 4), (80, 4), (200, 1)])
def test_for_many_blocks_it_is_continued(n: int, comparisons: int) -> None:
    effect = smallest_detectable(n, 0.03, comparisons)

    assert effect is not None
    assert found(n, 0.03, comparisons, effect, trials=2_000) == pytest.approx(0.8, abs=0.03)


def test_the_power_that_was_promised_under_drift_is_the_power_that_is_there() -> None:
    """3% at 10 blocks: noise of 2% for each run is a spread of 2.8% of their ratio, and the drift cancels."""
    p, _ = against_first(measured(np.random.default_rng(32), 10, [1, 1.03]))

    smallest = smallest_detectable(10, 0.02 * np.sqrt(2), 1)

    assert smallest == pytest.approx(0.03, abs=0.001)
    assert (p <= 0.05).mean() == pytest.approx(0.81, abs=0.025)


def test_what_cannot_be_established_has_no_smallest_effect() -> None:
    assert smallest_detectable(5, 0.02, 1) is None
    assert smallest_detectable(7, 0.02, 4) is None
    assert smallest_detectable(8, 0.02, 4) is not None


def test_without_spread_any_difference_shows() -> None:
    assert smallest_detectable(6, 0.0, 1) == 0
    assert blocks_for(0.001, 0.0, 4) == blocks_needed(4)


def test_more_blocks_show_less_and_more_comparisons_or_noise_hide_more() -> None:
    def detectable(n: int, spread: float, comparisons: int) -> float:
        effect = smallest_detectable(n, spread, comparisons)
        assert effect is not None
        return effect

    exact = [detectable(n, 0.03, 4) for n in range(8, 26)]
    beyond = [detectable(n, 0.03, 4) for n in (*range(26, 53, 2), 100, 1000)]
    assert exact == sorted(exact, reverse=True)
    assert beyond == sorted(beyond, reverse=True)
    # The normal test is the more careful one: where it begins, it detects a little less.
    assert beyond[0] == pytest.approx(exact[-1], rel=0.02)
    assert detectable(10, 0.03, 1) < detectable(10, 0.03, 4) < detectable(10, 0.06, 4)


@pytest.mark.parametrize("effect", [0.2, 0.05, 0.03, 0.01, -0.04])
def test_blocks_for_an_effect_are_the_fewest_that_detect_it(effect: float) -> None:
    n = blocks_for(effect, 0.028, 4)
    wanted = np.expm1(abs(np.log1p(effect)))

    smallest, before = smallest_detectable(n, 0.028, 4), smallest_detectable(n - 1, 0.028, 4)
    assert smallest is not None
    assert smallest <= wanted
    assert before is None or before > wanted


def test_a_plan_that_makes_no_sense_is_refused() -> None:
    for effect in (0.0, -1.0, -2.0):
        with pytest.raises(ValueError, match="effect"):
            blocks_for(effect, 0.02, 1)
    with pytest.raises(ValueError, match="too small"):
        blocks_for(1e-9, 0.02, 1)
    with pytest.raises(ValueError, match="comparison"):
        blocks_needed(0)
    with pytest.raises(ValueError, match="spread"):
        smallest_detectable(10, -0.1, 1)
