from __future__ import annotations

import numpy as np
import pytest

from reports.corrections import Decision, benjamini_hochberg, decide, holm, holm_rows, shown_by_control
from reports.effects import Effect, effect
from tests.reports.simulated import TRIALS, against_first, measured, standard_error

ALPHA = 0.05
NEVER_MORE = ALPHA + standard_error(ALPHA)

# Benjamini and Hochberg 1995, section 4.1: fifteen end points of a study of thrombolysis.
THROMBOLYSIS = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459,
                0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]  # fmt: skip


# Corrections.


def test_the_example_of_benjamini_and_hochberg_rejects_four() -> None:
    adjusted = benjamini_hochberg(THROMBOLYSIS)

    assert [p <= 0.05 for p in adjusted] == [True] * 4 + [False] * 11
    assert adjusted[3:6] == pytest.approx([0.0095 * 15 / 4, 0.0201 * 15 / 5, 0.0298 * 15 / 7])


def test_the_same_example_rejects_three_by_holm() -> None:
    adjusted = holm(THROMBOLYSIS)

    assert adjusted[:4] == pytest.approx([0.0015, 0.0056, 0.0247, 0.114])
    assert [p <= 0.05 for p in adjusted] == [True] * 3 + [False] * 12


def test_holm_never_lets_a_larger_p_become_the_smaller_one() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_corrections_are_monotone_and_know_no_order(adjust: type[holm]) -> None:
    random = np.random.default_rng(21)
    for count in (1, 2, 5, 40):
        p = np.round(random.uniform(0, 1, count) ** 3, 2)  # Rounded: with ties.
        adjusted = np.array(adjust(p))
        order = random.permutation(count)

        assert ((p <= adjusted) & (adjusted <= 1)).all()
        assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
        assert adjust(p[order]) == pytest.approx(list(adjusted[order]))


def test_corrections_take_any_number_of_p_values_and_nothing_else() -> None:
    assert holm([]) == benjamini_hochberg([]) == []
    assert holm([0.02]) == benjamini_hochberg([0.02]) == [0.02]
    for adjust in (holm, benjamini_hochberg):
        with pytest.raises(ValueError, match="from 0 to 1"):
            adjust([0.5, 1.2])


# Verdicts.


def made(ratios: list[float], delta: float = 0.05) -> Effect:
    return effect(ratios, [1.0] * len(ratios), delta=delta)


WOBBLE = [0.99, 1.0, 1.01, 0.985, 1.015, 1.005, 0.995, 1.012, 0.988, 1.003]


def around(ratio: float, blocks: int = 10, wider: float = 1) -> Effect:
    return made([ratio * (1 + wider * (w - 1)) for w in WOBBLE[:blocks]])


def only(one: Effect, delta: float = 0.05) -> Decision:
    return decide([one], delta=delta)[0]


def test_the_four_verdicts() -> None:
    higher, lower, equivalent, undecided = decide(
        [around(1.10), around(0.9), around(1.0), around(1.04, wider=6)], delta=0.05
    )

    assert (higher.change, lower.change) == ("higher", "lower")
    assert (
        higher.why == "a difference was established after correction for 4 comparisons; equivalence within ±5% was not"
    )
    assert (equivalent.change, equivalent.established, equivalent.why) == ("equivalent", False, "within ±5%")
    assert undecided.change == "undecided"
    assert undecided.why == (
        "neither a difference nor equivalence within ±5% was established after correction for 4 comparisons"
    )


def test_a_small_difference_within_the_margin_is_equivalent_and_the_words_name_it() -> None:
    found = only(around(1.02))

    assert (found.change, found.established) == ("equivalent", True)
    assert found.why == "within ±5%, though a difference was established"


def test_a_difference_may_lie_within_the_margin_and_not_surely() -> None:
    found = only(around(1.045))

    assert (found.change, found.p_equivalent_adjusted > ALPHA) == ("higher", True)


def test_a_difference_that_correction_takes_away_is_said_to_be_one_alone() -> None:
    one = around(1.04, wider=4)
    alone = only(one)
    among = decide([one, around(1.0, wider=5), around(1.0, wider=5), around(1.0, wider=5)], delta=0.05)[0]

    assert one.p_equivalent > ALPHA
    assert alone.change == "higher"
    assert among.change == "undecided"
    assert among.why == f"a difference alone (p = {one.p:.2g}), but not after correction for 4 comparisons"


def test_no_verdict_of_too_few_blocks_reads_as_sameness() -> None:
    five = [around(r, blocks=5) for r in (1.0, 1.0, 1.3, 1.3)]
    for found in decide(five, delta=0.05):
        assert found.change == "undecided"
        assert found.why == "5 blocks cannot establish anything over 4 comparisons: a difference needs 8"


def test_blocks_that_are_enough_for_equivalence_alone_say_so() -> None:
    assert only(around(1.0, blocks=5)).change == "equivalent"
    assert only(around(1.3, blocks=5)).why == (
        "no equivalence within ±5%; a difference over 1 comparison needs 6 blocks, here are 5"
    )


def test_identical_counts_are_equivalent_as_soon_as_blocks_allow() -> None:
    same = made([1.0] * 10, delta=0.001)
    assert only(same, 0.001) == Decision("equivalent", 1.0, 1 / 2**10, False, "identical in 10 of 10 blocks")

    few = only(made([1.0] * 4, delta=0.001), 0.001)
    assert (few.change, few.why) == (
        "undecided",
        "identical in 4 of 4 blocks, but 4 blocks cannot establish anything over 1 comparison: a difference needs 6",
    )


def test_an_effect_of_another_margin_is_refused() -> None:
    with pytest.raises(ValueError, match="another margin"):
        decide([around(1.0)], delta=0.01)
    assert decide([], delta=0.01) == []


# Simulated families.


@pytest.mark.parametrize("blocks", [8, 10, 15])
def test_of_families_of_four_without_a_difference_5_of_100_find_one_at_most(blocks: int) -> None:
    p, _ = against_first(measured(np.random.default_rng(22), blocks, [1] * 5))

    uncorrected = (p <= ALPHA).any(axis=1).mean()
    corrected = (holm_rows(p) <= ALPHA).any(axis=1).mean()

    assert len(p) == TRIALS
    assert corrected <= NEVER_MORE < uncorrected


def test_families_of_four_at_the_margin_are_called_equivalent_in_5_of_100_at_most() -> None:
    _, p = against_first(measured(np.random.default_rng(23), 10, [1, 1.05, 1.05, 1 / 1.05, 1 / 1.05]))

    assert (holm_rows(p) <= ALPHA).any(axis=1).mean() <= NEVER_MORE


def test_a_family_with_true_differences_keeps_the_others_out() -> None:
    """Holm in the strong sense: two kernels differ by 10%, two do not."""
    p, _ = against_first(measured(np.random.default_rng(24), 10, [1, 1.1, 0.9, 1, 1]))
    rejected = holm_rows(p) <= ALPHA

    assert rejected[:, 2:].any(axis=1).mean() <= NEVER_MORE
    assert rejected[:, :2].all(axis=1).mean() > 0.95


def test_each_family_errs_in_5_of_100_at_most_where_both_can_and_together_in_less_than_10() -> None:
    """Two kernels without a difference, two exactly at the margin: the worst that both families can meet at once."""
    p, p_equivalent = against_first(measured(np.random.default_rng(27), 10, [1, 1, 1, 1.05, 1.05]))

    called_different = (holm_rows(p)[:, :2] <= ALPHA).any(axis=1)
    called_equivalent = (holm_rows(p_equivalent)[:, 2:] <= ALPHA).any(axis=1)

    assert called_different.mean() <= NEVER_MORE
    assert called_equivalent.mean() <= NEVER_MORE
    assert ALPHA < (called_different | called_equivalent).mean() < 0.09


def test_decide_calls_what_the_families_of_the_simulation_call() -> None:
    logs = measured(np.random.default_rng(25), 10, [1, 1, 1.03, 1.06, 1.2], trials=40)
    p, p_equivalent = (holm_rows(each) for each in against_first(logs))
    values = np.exp(logs)
    seen = set()
    for trial in range(40):
        effects = [effect(values[trial, :, k], values[trial, :, 0], delta=0.05) for k in range(1, 5)]
        decisions = decide(effects, delta=0.05)
        assert [d.p_adjusted for d in decisions] == pytest.approx(list(p[trial]))
        assert [d.p_equivalent_adjusted for d in decisions] == pytest.approx(list(p_equivalent[trial]))
        seen.update(d.change for d in decisions)
    assert {"higher", "equivalent", "undecided"} <= seen


# The control.


def test_the_control_shows_the_rate_of_false_findings_and_what_the_noise_hid() -> None:
    logs = measured(np.random.default_rng(26), 10, [1, 1], trials=60)
    effects = [effect(row[:, 1], row[:, 0], delta=0.05) for row in np.exp(logs)]
    effects += [made([1.0] * 10), around(1.0, blocks=5)]

    shown = shown_by_control(effects)

    assert (shown.able, shown.identical, shown.too_few) == (60, 1, 1)
    assert shown.called == sum(one.p <= 0.05 for one in effects[:60])
    assert shown.rate is not None
    assert shown.rate.value == shown.called / 60
    assert shown.rate.interval is not None
    assert shown.rate.interval.low < 0.05 < shown.rate.interval.high
    assert len(shown.resolved) == 62
    assert shown.resolved[60] == 0.0
    assert all(0.005 < width < 0.06 for width in shown.resolved[:60] if width is not None)


def test_a_control_that_could_not_find_anything_shows_no_rate() -> None:
    shown = shown_by_control([around(1.0, blocks=5), made([1.0])])

    assert (shown.rate, shown.called, shown.able, shown.too_few) == (None, 0, 0, 1)
    assert shown.resolved[1] is None
