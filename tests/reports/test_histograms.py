"""Log-linear histograms: buckets as the workload makes them, sums, percentiles."""

from __future__ import annotations

import itertools

import pytest

from go_labs.evidence import Histogram
from reports import histograms


def bucket(value: int, bits: int = 5) -> int:
    """The workload's own rule (``go_labs/labkit/histogram.go``)."""
    power = value.bit_length() - bits - 1
    return value if power <= 0 else (power << bits) + (value >> power)


def of(*values: int) -> Histogram:
    counts: dict[int, int] = {}
    for value in values:
        counts[bucket(value)] = counts.get(bucket(value), 0) + 1
    return Histogram(bits=5, counts=counts)


@pytest.mark.parametrize("value", [0, 1, 31, 32, 63, 64, 65, 127, 1000, 123_456_789, 2**63, 2**64 - 1])
def test_a_value_lies_in_its_bucket_which_is_a_thirty_second_wide(value: int) -> None:
    low, high = histograms.bounds(5, bucket(value))

    assert low <= value <= high
    assert (high - low) * 32 <= low or low == high
    assert bucket(low) == bucket(high) == bucket(value)


def test_buckets_leave_no_gap() -> None:
    edges = [histograms.bounds(5, number) for number in range(1920)]

    assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(edges))
    assert edges[-1][1] == 2**64 - 1


def test_merged_percentiles_are_not_the_mean_of_percentiles() -> None:
    fast, slow = of(*[10] * 900), of(*[10] * 50, *[1_000_000] * 50)

    both = histograms.merged([fast, slow])

    assert both is not None
    assert histograms.total(both) == 1000
    assert histograms.percentile(fast, 0.9) == 10
    assert histograms.percentile(slow, 0.9) == histograms.bounds(5, bucket(1_000_000))[1]
    assert histograms.percentile(both, 0.9) == 10  # the mean would be half a million


def test_percentiles_are_never_too_low_and_hardly_too_high() -> None:
    values = sorted(7 * n * n + 3 for n in range(1, 1001))
    histogram = of(*values)

    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        true = values[round(share * 1000) - 1]
        found = histograms.percentile(histogram, share)
        assert found is not None
        assert true <= found <= true * (1 + 1 / 32)


def test_nothing_has_no_percentile() -> None:
    assert histograms.percentile(Histogram(bits=5, counts={}), 0.5) is None
    assert histograms.merged([]) is None


def test_histograms_of_different_fineness_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="fineness"):
        histograms.merged([of(5), Histogram(bits=6, counts={5: 1})])


def test_a_distribution_ends_at_all_of_the_values() -> None:
    drawn = histograms.distribution(
        "timed", {"one": of(1, 2, 3, 400), "none": None}, what="requests", name="d", title="D", caption="C", x_title="x"
    )

    assert drawn is not None
    (series,) = drawn.series
    assert (series.name, series.n, series.p) == ("one", 4, [0.25, 0.5, 0.75, 1.0])
    assert series.x[:3] == [1.0, 2.0, 3.0]
