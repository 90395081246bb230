"""``compare.json``: the shape of a comparison of kernels, from which every view and export is made. Structs only.

Made by ``reports.compare`` from the records of a matrix, or from any set of records. Nothing that a page, a table or an
export shows is computed anywhere else, so that all of them tell the same.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from reports.charts import Ecdf, HeatMap
from reports.schema import Clock, Interval, Kind, Outcome

COMPARISON_SCHEMA = 1

Change = Literal["faster", "slower", "higher", "lower", "equivalent", "undecided"]
"""Verdict on a metric on a kernel, against the baseline.

``faster`` and ``slower`` are said of times (less is faster) and rates (more is faster), ``higher`` and ``lower`` of
everything else, ratios of two times too: a speed-up that falls is not faster. ``equivalent``: within ±delta;
``undecided``: the data allow none of these.
"""


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """A column.

    :param runs: records that count. :param cell: its name in the matrix, empty outside one.
    """

    line: str
    release: str
    runs: int
    cell: str = ""


class Excluded(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt or a record that does not count, listed and never dropped in silence.

    :param kind: an outcome of ``go_labs.matrix`` other than passed; ``cut_off`` (it never ended), ``voided`` (its
        record broke later), ``unreadable``, ``mismatch`` (the record is not of the run that the journal names),
        ``duplicate`` (of a set of records); ``other_control`` (the second time of another baseline);
        ``other_clock``, ``other_group`` (Go version, build, options, lab, lock, machine or kernel release are not those
        that the comparison is of), ``other_host`` (than the baseline's of the same block),
        ``incomplete_block`` (the baseline is missing in it).
    :param block: the repeat, 0 where it has none.
    :param retried: whether a later attempt at the same run counts.
    """

    lab: str
    kernel: str
    block: int
    attempt: int
    kind: str
    words: str
    record: str = ""
    log: str = ""
    retried: bool = False


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A metric in one run.

    :param block: repeat and host, as one word. :param record: folder, relative to the comparison's page.
    """

    block: str
    value: float
    record: str


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """A metric on a kernel against the baseline.

    :param control: the baseline against itself.
    :param ratio: 1.041 is +4.1%; None where there is none, ``absent`` says why. ``n``: paired blocks.
    :param p: of no difference, as it is; ``p_adjusted``: for the family of the lab (Holm), primary metrics only;
        ``q``: for all of the comparison (Benjamini–Hochberg), exploratory.
    :param p_equivalent: of a ratio beyond the margin, as it is; ``p_equivalent_adjusted``: for the family (Holm), of an
        exploratory metric for all of the comparison (Benjamini–Hochberg).
    :param spread: standard deviation of the paired log-ratios.
    :param identical: the same value in every block, or 0 in every run.
    :param detectable: smallest relative difference that n blocks of this spread find with 80% power; None: none at
        all, or not a primary metric.
    :param words: the verdict in a sentence.
    """

    kernel: str
    control: bool = False
    change: Change
    ratio: float | None = None
    absent: str = ""
    interval: Interval | None = None
    n: int = 0
    p: float | None = None
    p_adjusted: float | None = None
    p_equivalent: float | None = None
    p_equivalent_adjusted: float | None = None
    q: float | None = None
    spread: float | None = None
    identical: bool = False
    detectable: float | None = None
    words: str = ""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of a lab over all kernels.

    :param primary: the one that was declared beforehand; all others are exploratory.
    :param values: by kernel line; ``control``: those of the baseline's second time. ``medians`` and ``control_median``:
        of these.
    :param first_change: first kernel, in the order of versions, that differs from the baseline; empty where none does.
    """

    metric: str
    title: str
    unit: str
    kind: Kind
    timing: bool
    phase: str
    meaning: str
    primary: bool
    values: dict[str, list[Value]]
    control: list[Value]
    effects: list[Effect]
    medians: dict[str, float] = {}
    control_median: float | None = None
    first_change: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict in one run: the record, its page where it has one, and the sentence."""

    block: str
    outcome: Outcome
    sentence: str
    record: str
    report: str = ""


class ClaimRow(msgspec.Struct, frozen=True, kw_only=True):
    """A claim over all kernels: every verdict by kernel line.

    :param first_change: first kernel confirmed where the baseline is refuted, or the reverse; empty where none is.
    """

    claim: str
    text: str
    verdicts: dict[str, list[Evidence]]
    first_change: str = ""


class LabComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A lab over all kernels.

    :param primary: None where no run counts.
    :param unfit: kernel line → why the lab cannot run there.
    :param same: metrics that had one and the same value in every run, so that there is nothing to compare.
    :param partial: metrics that the baseline has no value of in some block, or no other kernel in all of them.
    :param distributions: of the primary metric's values by kernel, and of the latencies of all runs where the lab
        records any.
    :param latencies: heat map kernel × latency of merged histograms, where the lab has one.
    """

    lab: str
    title: str
    section: str
    primary: Compared | None
    exploratory: list[Compared]
    claims: list[ClaimRow]
    distributions: list[Ecdf]
    latencies: list[HeatMap]
    unfit: dict[str, str] = {}
    same: int = 0
    partial: int = 0


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What the baseline against itself showed.

    :param metrics: that could have differed; ``false``: how many of these did at ``alpha``, uncorrected; ``interval``:
        of their share. ``identical`` and ``too_few``: others, the same in every block or with too few blocks.
    :param resolved: lab → smallest effect that its primary metric could resolve (half the width of the control's
        interval).
    """

    metrics: int
    false: int
    interval: Interval | None
    resolved: dict[str, float]
    words: str
    identical: int = 0
    too_few: int = 0


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """``compare.json``.

    :param name: id of the matrix, or of the set of records.
    :param clock: of all its runs: clocks are never compared with each other.
    :param chosen: whether kernels, repeats, delta and metrics were chosen before anything ran (a matrix), or after
        (a set of records), which the page says.
    :param kernels: in the order of versions; ``baseline`` is the line of one of them.
    :param planned: runs of the plan; ``finished``: those with an attempt that counts or was the last; ``passed``.
    :param tally: outcome → attempts, of a set of records ``passed`` and kinds of :class:`Excluded`.
    :param blocks: most blocks in which some kernel of some lab pairs with the baseline.
    :param blocks_needed: least paired blocks with which any difference could be established, after correction.
    :param provenance: label → value, of what all runs have in common; ``differs``: label → values, of what they do not.
    """

    schema: int
    name: str
    clock: Clock
    chosen: bool
    delta: float
    alpha: float
    seed: int | None
    baseline: str
    kernels: list[Kernel]
    labs: list[LabComparison]
    control: Control | None
    excluded: list[Excluded]
    planned: int
    finished: int
    passed: int
    tally: dict[str, int]
    blocks: int
    blocks_needed: int
    started: str
    finished_at: str
    provenance: dict[str, str]
    differs: dict[str, list[str]]
    notes: list[str] = []
