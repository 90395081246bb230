"""Log-linear histograms that workloads leave (``labkit.Histogram``): merging, percentiles, distributions. Pure.

Histograms of the same fineness add up exactly. A percentile is taken from the merged counts, never from other
percentiles: the mean of two 99th percentiles is no percentile of anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from go_labs.evidence import Histogram
from reports.charts import Ecdf, EcdfSeries


def merged(histograms: Iterable[Histogram]) -> Histogram | None:
    """Return the sum of ``histograms``, or None where there are none.

    :raises ValueError: they are not equally fine.
    """
    found = list(histograms)
    if not found:
        return None
    if len({histogram.bits for histogram in found}) > 1:
        raise ValueError("histograms of different fineness do not add up")
    counts: Counter[int] = Counter()
    for histogram in found:
        counts.update(histogram.counts)
    return Histogram(bits=found[0].bits, counts=dict(counts))


def possible(histogram: Histogram) -> bool:
    """Whether each bucket is one that a value of 64 bits can fall into, and holds something."""
    if not 1 <= histogram.bits <= 16:
        return False
    last = (64 - histogram.bits + 1) << histogram.bits
    return all(0 <= bucket < last and count > 0 for bucket, count in histogram.counts.items())


def bounds(bits: int, bucket: int) -> tuple[int, int]:
    """Return the lowest and the highest value of a bucket.

    Values below ``2**bits`` have a bucket each; above, each power of two has ``2**bits`` of equal width.
    """
    power = (bucket >> bits) - 1
    if power <= 0:
        return bucket, bucket
    low = (bucket - (power << bits)) << power
    return low, low + (1 << power) - 1


def total(histogram: Histogram) -> int:
    """Return how many values were recorded."""
    return sum(histogram.counts.values())


def percentile(histogram: Histogram, share: float) -> int | None:
    """Return the value that ``share`` (0 to 1) of all values are at most; None without values.

    It is the highest of its bucket: at most ``2**-bits`` of itself too high, and never too low.
    """
    wanted, seen = share * total(histogram), 0
    for bucket, count in sorted(histogram.counts.items()):
        seen += count
        if seen >= wanted - 1e-9:
            return bounds(histogram.bits, bucket)[1]
    return None


def distribution(
    phase: str, groups: Mapping[str, Histogram | None], *, what: str, name: str, title: str, caption: str, x_title: str
) -> Ecdf | None:
    """Return the cumulative distributions of ``groups`` in nanoseconds; None where all are empty.

    :param what: what is distributed, as a plural.
    """
    series = [_series(label, histogram) for label, histogram in groups.items() if histogram and histogram.counts]
    if not series:
        return None
    return Ecdf(
        id=name,
        title=title,
        caption=caption,
        place="time",
        phase=phase,
        timing=True,
        what=what,
        x_title=x_title,
        series=series,
    )


def _series(label: str, histogram: Histogram) -> EcdfSeries:
    n, seen = total(histogram), 0
    x: list[float] = []
    p: list[float] = []
    for bucket, count in sorted(histogram.counts.items()):
        seen += count
        x.append(float(max(1, bounds(histogram.bits, bucket)[1])))
        p.append(seen / n)
    return EcdfSeries(name=label, n=n, x=x, p=p)
