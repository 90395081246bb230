"""OpenMetrics text, for Prometheus and what reads its format.

Every sample has the clock as a label: a ratio of counted instructions and one of real seconds are not the same figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from go_labs.matrix import OUTCOME_WORDS
from reports.comparison import Change, Compared, Effect
from reports.exports._source import Format, Source, columns, metrics, write
from reports.schema import OUTCOMES
from reports.text import neutral

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

NAME = "openmetrics.txt"

LABELS = ("lab", "metric", "kernel", "baseline", "clock", "control", "primary")
"""Labels of an effect; ``control`` is ``true`` for the baseline's second time, whose kernel is the baseline."""


def text(source: Source) -> bytes:
    """Return the exposition."""
    from prometheus_client.openmetrics.exposition import generate_latest

    return bytes(generate_latest(_Families(source)))  # type: ignore[no-untyped-call]


class _Families:
    """What the exposition asks for families, in the place of a registry."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def collect(self) -> Iterator[Metric]:
        """Give every family."""
        yield _info(self.source)
        yield _medians(self.source)
        yield from _effects(self.source)
        yield _verdicts(self.source)
        yield from _runs(self.source)


def _info(source: Source) -> Metric:
    from prometheus_client.metrics_core import InfoMetricFamily

    comparison = source.comparison
    told = {
        "name": comparison.name, "baseline": comparison.baseline, "clock": comparison.clock,
        "chosen": _bool(comparison.chosen), "kernels": ",".join(kernel.release for kernel in comparison.kernels),
        "started": comparison.started, "finished": comparison.finished_at,
    }  # fmt: skip
    return InfoMetricFamily(
        "kmlab_comparison",
        "The comparison; chosen says whether kernels, repeats and metrics were chosen before anything ran.",
        {name: neutral(value) for name, value in told.items()},
    )


def _medians(source: Source) -> Metric:
    from prometheus_client.metrics_core import GaugeMetricFamily

    family = GaugeMetricFamily(
        "kmlab_metric_median", "Median of a metric over the runs that count, in the unit that its label says.",
        labels=("lab", "metric", "kernel", "unit", "clock", "control", "primary"),
    )  # fmt: skip
    clock = source.comparison.clock
    for lab in source.comparison.labs:
        for compared in metrics(lab):
            for line, control, values in columns(source, compared):
                median = compared.control_median if control else compared.medians.get(line)
                if values and median is not None:
                    words = (lab.lab, compared.metric, line, compared.unit, clock)
                    labels = [*(neutral(word) for word in words), _bool(control), _bool(compared.primary)]
                    family.add_metric(labels, median)
    return family


def _effects(source: Source) -> Iterator[Metric]:
    from prometheus_client.metrics_core import GaugeMetricFamily, StateSetMetricFamily

    ratio = GaugeMetricFamily(
        "kmlab_effect_ratio",
        "Value on the kernel by value on the baseline, paired by block; 1.041 is +4.1%. Absent where there is none.",
        labels=LABELS, unit="ratio",
    )  # fmt: skip
    bounds = [
        GaugeMetricFamily(
            f"kmlab_effect_{which}_ratio", f"{which.capitalize()} end of the interval of the effect's ratio.",
            labels=(*LABELS, "level"), unit="ratio",
        )
        for which in ("low", "high")
    ]  # fmt: skip
    adjusted = GaugeMetricFamily(
        "kmlab_effect_adjusted_p",
        "P-value of no difference, adjusted for the family of the lab (Holm).", labels=LABELS,
    )  # fmt: skip
    blocks = GaugeMetricFamily("kmlab_effect_blocks", "Paired blocks behind the effect.", labels=LABELS)
    change = StateSetMetricFamily(
        "kmlab_effect_change", "Verdict on the effect; undecided is no sign of sameness.", labels=LABELS
    )
    for labels, effect in _each(source):
        if effect.ratio is not None:
            ratio.add_metric(labels, effect.ratio)
        if effect.interval is not None:
            level = f"{effect.interval.level:g}"
            bounds[0].add_metric((*labels, level), effect.interval.low)
            bounds[1].add_metric((*labels, level), effect.interval.high)
        if effect.p_adjusted is not None:
            adjusted.add_metric(labels, effect.p_adjusted)
        blocks.add_metric(labels, effect.n)
        change.add_metric(labels, {state: state == effect.change for state in get_args(Change)})
    yield from (ratio, *bounds, adjusted, blocks, change)


def _each(source: Source) -> Iterator[tuple[tuple[str, ...], Effect]]:
    for lab in source.comparison.labs:
        for compared in metrics(lab):
            for effect in compared.effects:
                yield _labels(source, lab.lab, compared, effect), effect


def _labels(source: Source, lab: str, compared: Compared, effect: Effect) -> tuple[str, ...]:
    comparison = source.comparison
    words = (lab, compared.metric, effect.kernel, comparison.baseline, comparison.clock)
    return (*(neutral(word) for word in words), _bool(effect.control), _bool(compared.primary))


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _verdicts(source: Source) -> Metric:
    from prometheus_client.metrics_core import GaugeMetricFamily

    family = GaugeMetricFamily(
        "kmlab_claim_verdicts", "Runs with this verdict on the claim.",
        labels=("lab", "claim", "kernel", "clock", "verdict"),
    )  # fmt: skip
    clock = source.comparison.clock
    for lab in source.comparison.labs:
        for claim in lab.claims:
            for line, found in claim.verdicts.items():
                counts = Counter(each.outcome for each in found)
                for outcome in OUTCOMES:
                    words = (lab.lab, claim.claim, line, clock, outcome)
                    family.add_metric([neutral(word) for word in words], counts[outcome])
    return family


def _runs(source: Source) -> Iterator[Metric]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    comparison = source.comparison
    attempts = CounterMetricFamily(
        "kmlab_attempts", "Attempts at runs by what came of them.", labels=("clock", "outcome")
    )
    for outcome in dict.fromkeys([*OUTCOME_WORDS, *comparison.tally]):
        attempts.add_metric((comparison.clock, neutral(outcome)), comparison.tally.get(outcome, 0))
    yield attempts
    for name, words, value in (
        ("planned", "Runs that were to be made.", comparison.planned),
        ("finished", "Runs with an attempt that counts or was the last.", comparison.finished),
        ("passed", "Runs that passed, at the first attempt or the second.", comparison.passed),
    ):
        family = GaugeMetricFamily(f"kmlab_runs_{name}", words, labels=("clock",))
        family.add_metric((comparison.clock,), value)
        yield family


def _write(source: Source, out: Path) -> list[Path]:
    return [write(out / NAME, text(source))]


FORMAT = Format("openmetrics", "effects, verdicts and runs as samples, for Prometheus", _write)
