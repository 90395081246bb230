"""Latencies over all runs of a kernel: histograms that workloads left, merged, as a heat map and as distributions.

Counts add up, percentiles do not: they are read from the merged counts of all runs, and never averaged.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from go_labs.evidence import Histogram
from go_labs.spec import TIMED
from reports import histograms, samples, statistics
from reports.charts import Ecdf, HeatMap, Mark
from reports.samples import Latencies, Sample
from vm.errors import RecordError

PER_DECADE = 8
"""Rows of a heat map for each power of ten."""

PARTS = 1_000_000
"""Counts of a heat map are parts of so many, for each kernel by itself: kernels may have other numbers of runs."""

MOST = 4
"""Kinds of latency of a lab that are shown."""


@dataclass(slots=True)
class Merged:
    """Charts of a lab's latencies, and what could not be read."""

    maps: list[HeatMap] = field(default_factory=list)
    distributions: list[Ecdf] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def merged(lab: str, by_kernel: Mapping[str, Sequence[Sample]]) -> Merged:
    """Return the merged latencies of ``lab``; nothing where its first run left none: then no other is read.

    :param by_kernel: kernel line → its runs, in the order of the columns.
    """
    found = Merged()
    first = next((sample for runs in by_kernel.values() for sample in runs if sample.workload is not None), None)
    if first is None or not _read(first, found):
        return found
    found.notes.clear()
    sums: dict[str, dict[str, Histogram]] = defaultdict(dict)
    loads: dict[str, set[str]] = defaultdict(set)
    for line, runs in by_kernel.items():
        parts: dict[str, list[Histogram]] = defaultdict(list)
        for each in (latency for sample in runs for latency in _read(sample, found)):
            parts[each.name].append(each.histogram)
            loads[each.name].add(", ".join(f"{name} {value}" for name, value in each.parameters.items()))
        for name, group in parts.items():
            try:
                total = histograms.merged(group)
            except ValueError as error:
                found.notes.append(f"{lab}, {name} on {line}: {error}.")
                continue
            if total is not None and total.counts:
                sums[name][line] = total
    for name in sorted(sums, key=lambda name: (name != "latency_ns", name))[:MOST]:
        _draw(found, name, sums[name], sorted(loads[name]))
    if len(sums) > MOST:
        found.notes.append(f"{lab} recorded {len(sums)} kinds of latency; {MOST} are shown.")
    return found


def _read(sample: Sample, found: Merged) -> list[Latencies]:
    try:
        return list(samples.latencies(sample))
    except RecordError as error:
        found.notes.append(f"Latencies of {sample.brief.id} are left out: {error.message}.")
        return []


def _draw(found: Merged, name: str, by_kernel: Mapping[str, Histogram], loads: Sequence[str]) -> None:
    number = len(found.maps) + 1
    title = name.removesuffix("_ns").replace("_", " ")
    title = f"{title[:1].upper()}{title[1:]}"
    over = f" over all loads of the lab ({'; '.join(filter(None, loads[:8]))}{'; …' if len(loads) > 8 else ''})"
    caption = f"All runs that count, merged{over if len(loads) > 1 else ''}."
    found.maps.append(heat_map(f"latency-{number}", title, caption, by_kernel))
    shown = histograms.distribution(
        TIMED,
        by_kernel,
        what="values",
        name=f"latency-distribution-{number}",
        title=f"{title}, distribution",
        caption=f"Share of values within the time on the axis (logarithmic). {caption}",
        x_title=name.removesuffix("_ns").replace("_", " "),
    )
    if shown is not None:
        found.distributions.append(shown)


def heat_map(name: str, title: str, caption: str, by_kernel: Mapping[str, Histogram]) -> HeatMap:
    """Return the heat map of merged histograms: a column for each kernel, its mark at the middle.

    A cell holds parts of :data:`PARTS` of its kernel's values, rounded up: what happened once in a billion is seen.

    :raises ValueError: no kernel, or one without values.
    """
    ends = [histograms.bounds(each.bits, bucket) for each in by_kernel.values() for bucket in each.counts]
    lowest, highest = min(low for low, _ in ends), max(high for _, high in ends)
    edges = statistics.log_edges(max(1, lowest), max(1, highest), PER_DECADE)
    counts = [[0] * len(by_kernel) for _ in edges[1:]]
    for column, histogram in enumerate(by_kernel.values()):
        total = histograms.total(histogram)
        if not total:
            raise ValueError("a kernel without values has no column")
        rows: dict[int, int] = defaultdict(int)
        for bucket, count in histogram.counts.items():
            low, high = histograms.bounds(histogram.bits, bucket)
            rows[_row(edges, max(1, low + high) / 2 if high > low else max(1, low))] += count
        for row, count in rows.items():
            counts[row][column] = -(-count * PARTS // total)
    return HeatMap(
        id=name,
        title=title,
        caption=f"{caption} Colour: the share of a kernel’s own values.",
        place="time",
        phase=TIMED,
        timing=True,
        what="parts per million of the kernel’s values",
        x_title="kernel",
        x_unit="",
        x_edges=[float(edge) for edge in range(len(by_kernel) + 1)],
        y_title=title,
        y_edges=edges,
        counts=counts,
        marks=[Mark(x=column + 0.5, label=line) for column, line in enumerate(by_kernel)],
    )


def _row(edges: Sequence[float], value: float) -> int:
    row = math.floor((math.log10(value) - math.log10(edges[0])) * PER_DECADE + 1e-9)
    return min(max(row, 0), len(edges) - 2)
