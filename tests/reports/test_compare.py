"""Comparisons of made-up matrices: what was planted is found, and nothing else is."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from go_labs import matrix
from reports import compare, compare_views, compare_words, compared, histograms, html, samples, synthetic
from reports.comparison import Comparison
from tests.reports import made
from tests.reports.matrices import PLANTED, A, B, C, D, effects, lab, primary, records, small
from vm.errors import RecordError, UsageError

# ---- what is found ----


def test_planted_effects_are_found_and_named_by_the_kind_of_their_metric(comparison: Comparison) -> None:
    changes = {
        (each.lab, effect.kernel): effect.change
        for each in comparison.labs
        for effect in compare_words.effects(each)
        if effect.change in compared.CHANGED
    }

    assert changes == {(A, "6.12"): "slower", (A, "6.18"): "slower", (B, "7.3"): "faster", (C, "6.1"): "lower"}
    for (name, line), ratio in PLANTED.items():
        effect = effects(comparison, name)[line]
        assert effect.ratio is not None
        assert effect.interval is not None
        assert effect.interval.low <= ratio <= effect.interval.high
        assert effect.n in {8, 9, 10}
    assert [primary(comparison, name).first_change for name in (A, B, C, D)] == ["6.12", "7.3", "6.1", ""]


@pytest.mark.parametrize("seed", [21, 22, 23])
def test_nothing_is_found_where_nothing_was_planted(tmp_path: Path, seed: int) -> None:
    found = compare.compare(small(tmp_path / "m", kernels=synthetic.KERNELS, labs=3, blocks=10, drift=0.1, seed=seed))

    assert not [e for each in found.labs for e in compare_words.effects(each) if e.change in compared.CHANGED]
    assert [primary(found, each.lab).first_change for each in found.labs] == ["", "", ""]


def test_undecided_never_reads_as_same(tmp_path: Path) -> None:
    """Much noise and few blocks: nothing is established, and every word says so."""
    found = compare.compare(small(tmp_path / "m", noise=0.3, blocks=3))

    effect = effects(found)["6.12"]
    assert effect.change == "undecided"
    assert "cannot establish anything" in effect.words
    assert effect.detectable is None
    assert found.blocks == 3
    assert found.blocks_needed == 6
    assert "no sign of sameness" in compare_words.summary(found)[0]
    assert "no difference could have been established" in compare_words.summary(found)[1]
    assert "Undecided or not measured: 6.12" in compare_words.first_change(found, "", primary(found).effects)


def test_the_control_is_a_kernel_of_its_own_and_decides_nothing(comparison: Comparison) -> None:
    control = [effect for effect in primary(comparison).effects if effect.control]

    assert [effect.kernel for effect in control] == ["5.10"]
    assert "5.10" not in effects(comparison)
    assert len(primary(comparison).control) == 10
    assert comparison.control is not None
    assert comparison.control.metrics > 20
    assert set(comparison.control.resolved) == {A, B, C, D}
    assert comparison.control.resolved[A] == pytest.approx(
        np.sqrt(control[0].interval.high / control[0].interval.low) - 1  # type: ignore[union-attr]
    )
    # Its runs are no runs of the baseline's column, and adjust nobody's p.
    assert comparison.kernels[0].runs == 40
    tested = [effect.p_adjusted for effect in effects(comparison).values()]
    assert len(tested) == 4
    assert "4 comparisons" in effects(comparison)["6.12"].words


def test_without_a_second_time_nothing_is_said_of_false_alarms(tmp_path: Path) -> None:
    found = compare.compare(small(tmp_path / "m", control=False))

    assert found.control is None
    assert "no second run of the baseline counts" in compare_words.summary(found)[1]


def test_p_is_corrected_by_holm_over_the_kernels_of_a_lab(comparison: Comparison) -> None:
    mine = sorted(effects(comparison).values(), key=lambda effect: effect.p or 0)

    raw = [effect.p for effect in mine]
    assert mine[0].p_adjusted == pytest.approx(4 * (raw[0] or 0))
    assert all((e.p_adjusted or 0) >= (e.p or 0) for e in mine)


def test_a_metric_that_only_follows_is_explored_and_corrected_over_everything(comparison: Comparison) -> None:
    explored = {each.metric: each for each in lab(comparison).exploratory}

    assert "follow.wake_ns" in explored
    follow = {effect.kernel: effect for effect in explored["follow.wake_ns"].effects if not effect.control}
    assert follow["6.12"].ratio == pytest.approx(1.06, abs=0.02)
    assert all((e.q or 0) >= (e.p or 0) for e in follow.values())
    assert "exploratory" in follow["6.12"].words
    assert all(effect.p_adjusted is None for effect in follow.values())
    assert not any(each.primary for each in explored.values())


def test_metrics_of_the_tracing_estimates_and_constants_are_not_explored(comparison: Comparison) -> None:
    names = {each.metric for each in lab(comparison).exploratory}

    assert not {"probe.pp_ns", "losses.total", "sampled.share", "always.zero", "always.same", "traced.parks"} & names
    assert lab(comparison).same == 2
    assert lab(comparison).partial == 1


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("time", ("slower", "faster")),
        ("rate", ("faster", "slower")),
        ("count", ("higher", "lower")),
        ("ratio", ("higher", "lower")),
        ("estimate", ("higher", "lower")),
    ],
)
def test_faster_is_said_of_times_and_rates_only(kind: Any, words: tuple[str, str]) -> None:
    assert (compared.direction(kind, "higher"), compared.direction(kind, "lower")) == words
    assert compared.direction(kind, "undecided") == "undecided"


def test_the_baseline_may_be_another_and_the_page_says_that_nobody_planned_it(made_up: Path) -> None:
    found = compare.compare(made_up, baseline="6.12.0-0-synthetic")

    assert found.baseline == "6.12"
    assert effects(found)["5.10"].change == "faster"
    assert any("chosen afterwards" in note for note in found.notes)
    assert [e.kernel for e in primary(found).effects if e.control] == ["5.10"]
    with pytest.raises(UsageError, match=r"no run is of kernel 9\.9"):
        compare.compare(made_up, baseline="9.9")


# ---- figures that have no ratio ----


def set_primary(file: Path, value: float | None, absent: str = "") -> None:
    def edit(data: dict[str, Any]) -> None:
        metric = next(m for m in data["metrics"] if m["name"] == "cost.op_ns")
        metric.update(value=value, absent=absent)

    made.change(file, edit)


def test_zero_in_every_run_is_identical_and_not_an_error(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    for file in records(folder):
        set_primary(file, 0.0)

    effect = effects(compare.compare(folder))["6.12"]

    assert (effect.change, effect.identical, effect.ratio) == ("equivalent", True, None)
    assert effect.absent == "0 in every run, here and on the baseline"


def test_zero_in_a_few_runs_is_not_equivalent_to_anything(tmp_path: Path) -> None:
    folder = small(tmp_path / "m", blocks=2)
    for file in records(folder):
        set_primary(file, 0.0)

    effect = effects(compare.compare(folder))["6.12"]

    assert effect.change == "undecided"
    assert effect.identical
    assert "2 blocks cannot establish anything" in effect.words


def test_zero_here_and_something_there_has_no_ratio_and_tells_both(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    for file in records(folder, "6.1"):
        set_primary(file, 0.0)

    effect = effects(compare.compare(folder))["6.12"]

    assert (effect.change, effect.ratio) == ("undecided", None)
    assert effect.absent.startswith("no ratio, since not all values are above 0: ")
    assert effect.absent.endswith("0 on 6.1")


def test_a_value_that_is_absent_takes_its_block_out_and_the_words_count_it(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    for file in records(folder, "6.12")[:1]:
        set_primary(file, None, "the clock went backwards")

    effect = effects(compare.compare(folder))["6.12"]
    assert effect.n == 7
    assert "1 of 8 blocks lack a value" in effect.words

    for file in records(folder, "6.12"):
        set_primary(file, None, "the clock went backwards")
    effect = effects(compare.compare(folder))["6.12"]
    assert effect.absent == "no block has both values: the clock went backwards"


def test_a_lab_that_cannot_run_somewhere_says_why(tmp_path: Path) -> None:
    unfit = {(A, "6.12"): "needs io_uring"}
    found = compare.compare(small(tmp_path / "m", kernels=("6.1", "6.12", "6.18"), unfit=unfit))

    assert lab(found).unfit == {"6.12": "needs io_uring"}
    assert set(effects(found)) == {"6.18"}
    assert compare_words.why_nothing(found, lab(found), "6.12") == "cannot run there: needs io_uring"


def test_a_lab_that_cannot_run_on_the_baseline_compares_nothing(tmp_path: Path) -> None:
    found = compare.compare(small(tmp_path / "m", unfit={(A, "6.1"): "too old"}))

    assert lab(found).primary is None
    assert Counter(each.kind for each in found.excluded) == {"incomplete_block": 8}
    assert "nothing is compared" in compare_words.summary(found)[0]


def test_a_matrix_of_which_nothing_has_run_has_a_comparison(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    (folder / matrix.JOURNAL).unlink()

    found = compare.compare(folder)

    assert (found.passed, found.finished, found.planned) == (0, 0, 24)
    told = io.StringIO()
    compare_views.print_comparison(found, told, 200)
    assert "A/A: no second run of the baseline counts" in told.getvalue()  # two were planned, none took place
    assert lab(found).primary is None


# ---- claims and latencies ----


def test_claims_hold_every_verdict_of_judged_runs_and_the_first_kernel_that_differs(comparison: Comparison) -> None:
    rows = {row.claim: row for row in lab(comparison).claims}

    assert [each.outcome for each in rows["a-2"].verdicts["6.12"]] == ["refuted", "refuted"]
    assert [each.block for each in rows["a-2"].verdicts["5.10"]] == ["1-A", "1-A again", "2-A", "2-A again"]
    assert rows["a-1"].first_change == ""
    assert rows["a-2"].first_change == "6.12"
    outcomes = {each.outcome for row in lab(comparison).claims for cells in row.verdicts.values() for each in cells}
    assert "not_testable" not in outcomes  # what runs of the timed phase alone would say


def test_mixed_verdicts_are_no_change(tmp_path: Path) -> None:
    folder = small(tmp_path / "m", judged=2, ratios={(A, "6.12"): 1.5})
    made.change(records(folder, "6.12")[1], lambda data: data["verdicts"][1].update(outcome="confirmed"))

    row = lab(compare.compare(folder)).claims[1]

    assert {each.outcome for each in row.verdicts["6.12"]} == {"confirmed", "refuted"}
    assert row.first_change == ""


@pytest.mark.parametrize("outcome", ["undecided", "not_testable"])
@pytest.mark.parametrize("line", ["6.1", "6.12"])
def test_what_a_run_could_not_tell_is_no_change(tmp_path: Path, outcome: str, line: str) -> None:
    folder = small(tmp_path / "m", judged=1, ratios={(A, "6.12"): 1.5})
    assert lab(compare.compare(folder)).claims[1].first_change == "6.12"
    for file in records(folder, line):
        made.change(file, lambda data: data["verdicts"] and data["verdicts"][1].update(outcome=outcome))

    row = lab(compare.compare(folder)).claims[1]

    assert {each.outcome for each in row.verdicts[line]} == {outcome}
    assert row.first_change == ""


def test_latencies_are_merged_and_percentiles_read_from_the_merged_counts(
    made_up: Path, comparison: Comparison
) -> None:
    heat = lab(comparison).latencies[0]
    shown = next(chart for chart in lab(comparison).distributions if chart.id == "latency-distribution-1")
    ours = [v.record for v in primary(comparison).values["6.12"]]
    parts = [each.histogram for run in ours for each in samples.latencies(samples.read(made_up / run))]

    assert [mark.label for mark in heat.marks] == list(synthetic.KERNELS)
    series = next(each for each in shown.series if each.name == "6.12")
    merged = histograms.merged(parts)
    assert merged is not None
    assert series.n == histograms.total(merged) == 400 * len(ours)
    assert html.percentile(series, 0.99) == histograms.percentile(merged, 0.99)
    # Parts per million of each kernel, rounded up.
    for column in range(5):
        assert 1_000_000 <= sum(row[column] for row in heat.counts) < 1_000_000 + len(heat.counts)


def test_latencies_are_read_only_of_labs_that_have_them(tmp_path: Path) -> None:
    folder = small(tmp_path / "m", labs=2)
    for file in (folder / "runs").glob(f"*-{B}-*/timed/workload.json"):
        file.write_bytes(b"{}")
    broken = next(iter(sorted((folder / "runs").glob(f"*-{A}-6.12-*/timed/workload.json"))))
    made.change(broken, lambda data: data["segments"][0]["histograms"]["latency_ns"]["counts"].update({"9" * 12: 1}))

    found = compare.compare(folder)

    assert lab(found, B).latencies == []
    assert lab(found, A).latencies
    assert len([note for note in found.notes if "are left out" in note and "that cannot be" in note]) == 1


# ---- as a document ----


def test_a_comparison_is_read_again_as_it_was_written(comparison: Comparison) -> None:
    assert compare.decode(compare.encode(comparison)) == comparison


def test_another_schema_and_no_comparison_are_refused(comparison: Comparison) -> None:
    other = compare.encode(msgspec.structs.replace(comparison, schema=7))

    with pytest.raises(RecordError, match="has schema 7"):
        compare.decode(other)
    with pytest.raises(RecordError, match="is no comparison"):
        compare.decode(b"{}")


def test_a_synthetic_record_says_so_and_is_whole(made_up: Path) -> None:
    from reports import record

    found = record.read(records(made_up)[0].parent)

    assert "nothing was measured" in found.lab.title
    assert found.notes == [synthetic.WORDS]
    assert found.provenance.provider == "synthetic"


def test_the_same_seed_makes_the_same_matrix(tmp_path: Path) -> None:
    one, two = small(tmp_path / "one"), small(tmp_path / "two")

    assert compare.encode(compare.compare(one)) == compare.encode(compare.compare(two))


def test_the_first_change_is_looked_for_away_from_the_baseline() -> None:
    lines = ["5.10", "6.1", "6.12", "7.3"]

    assert compared.away(lines, "5.10") == ["6.1", "6.12", "7.3"]
    assert compared.away(lines, "6.12") == ["7.3", "6.1", "5.10"]
    assert compared.away(lines, "7.3") == ["6.12", "6.1", "5.10"]


def test_a_change_that_a_later_kernel_does_not_have_is_said_so(tmp_path: Path) -> None:
    shape = synthetic.Shape(labs=1, kernels=("5.10", "6.1", "6.12"), blocks=10, noise=0.001, ratios={(A, "6.1"): 1.2})
    synthetic.write(tmp_path / "m", shape)
    found = compare.compare(tmp_path / "m")

    words = compare_words.first_change(found, primary(found).first_change, primary(found).effects)
    assert words == "First kernel that differs from 5.10: 6.1, slower. After it, 6.12 is equivalent again."
