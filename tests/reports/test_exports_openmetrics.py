"""OpenMetrics: what prometheus_client's own parser reads out of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from reports import exports
from reports.comparison import Comparison
from tests.reports import compared


@pytest.fixture
def families(tmp_path: Path) -> dict[str, Metric]:
    return parsed(tmp_path, compared.comparison(tally={"passed": 40, "kernel_splat": 2}, planned=41))


def parsed(out: Path, comparison: Comparison) -> dict[str, Metric]:
    (path,) = exports.write_all(comparison, out, out, ["openmetrics"])
    return {family.name: family for family in text_string_to_metric_families(path.read_text())}


def values(family: Metric, **labels: str) -> list[float]:
    return [each.value for each in family.samples if labels.items() <= each.labels.items()]


def test_an_effect_has_its_ratio_bounds_and_verdict(families: dict[str, Metric]) -> None:
    of = {"lab": "mutex", "metric": "contended.mutex_ns", "kernel": "6.1", "baseline": "5.10", "clock": "emulated"}

    assert values(families["kmlab_effect_ratio"], **of) == [1.1]
    assert values(families["kmlab_effect_low_ratio"], **of, level="0.95") == [1.1 * 0.99]
    assert values(families["kmlab_effect_high_ratio"], **of, level="0.95") == [1.1 * 1.01]
    assert values(families["kmlab_effect_adjusted_p"], **of) == [0.0039]
    assert values(families["kmlab_effect_change"], **of, kmlab_effect_change="slower") == [1]
    assert sum(values(families["kmlab_effect_change"], **of)) == 1


def test_a_figure_that_is_absent_has_no_sample_and_its_verdict_has_one(families: dict[str, Metric]) -> None:
    of = {"metric": "parks.mutex", "kernel": "6.1"}

    assert values(families["kmlab_effect_ratio"], **of) == []
    assert values(families["kmlab_effect_change"], **of, kmlab_effect_change="undecided") == [1]


def test_medians_say_their_unit(families: dict[str, Metric]) -> None:
    of = {"metric": "contended.mutex_ns", "unit": "ns/op", "primary": "true"}
    medians = compared.primary().medians

    assert values(families["kmlab_metric_median"], **of, control="false") == [medians[line] for line in compared.LINES]
    assert values(families["kmlab_metric_median"], **of, control="true") == [compared.primary().control_median]
    assert len(values(families["kmlab_metric_median"], metric="parks.mutex")) == 1


def test_families_have_help_types_and_units(families: dict[str, Metric]) -> None:
    assert all(family.documentation for family in families.values())
    assert {name: family.type for name, family in families.items()} == {
        "kmlab_comparison": "info", "kmlab_metric_median": "gauge", "kmlab_effect_ratio": "gauge",
        "kmlab_effect_low_ratio": "gauge",
        "kmlab_effect_high_ratio": "gauge", "kmlab_effect_adjusted_p": "gauge", "kmlab_effect_blocks": "gauge",
        "kmlab_effect_change": "stateset", "kmlab_claim_verdicts": "gauge", "kmlab_attempts": "counter",
        "kmlab_runs_planned": "gauge", "kmlab_runs_finished": "gauge", "kmlab_runs_passed": "gauge",
    }  # fmt: skip
    assert {name for name, family in families.items() if family.unit == "ratio"} == {
        "kmlab_effect_ratio", "kmlab_effect_low_ratio", "kmlab_effect_high_ratio",
    }  # fmt: skip


def test_every_sample_says_its_clock(families: dict[str, Metric]) -> None:
    assert {each.labels["clock"] for family in families.values() for each in family.samples} == {"emulated"}


def test_the_control_is_told_from_the_kernels(families: dict[str, Metric]) -> None:
    controls = [each for each in families["kmlab_effect_ratio"].samples if each.labels["control"] == "true"]

    assert [each.labels["kernel"] for each in controls] == ["5.10"]


def test_runs_are_counted_by_outcome_those_that_never_happened_too(families: dict[str, Metric]) -> None:
    assert values(families["kmlab_attempts"], outcome="kernel_splat") == [2]
    assert values(families["kmlab_attempts"], outcome="kernel_panic") == [0]
    assert values(families["kmlab_runs_planned"]) == [41]
    assert values(families["kmlab_claim_verdicts"], claim="2.4-b", kernel="6.1", verdict="refuted") == [1]


def test_hostile_words_stay_one_sample(tmp_path: Path) -> None:
    plain = parsed(tmp_path, compared.comparison(compared.lab()))
    hostile = parsed(tmp_path, compared.comparison(compared.lab(compared.HOSTILE), name=compared.HOSTILE))

    count = {name: len(family.samples) for name, family in plain.items()}
    assert {name: len(family.samples) for name, family in hostile.items()} == count
    assert {each.labels["lab"][:4] for each in hostile["kmlab_effect_ratio"].samples} == {"a,b;"}
