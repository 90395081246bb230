"""Every export of a whole made-up matrix: planted effects, failed and flaky runs, a lab that does not fit, a cut."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
from junitparser import JUnitXml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from go_labs import matrix
from go_labs.matrix import Begun
from reports import compare, expectations, exports, synthetic
from reports.comparison import Comparison
from reports.exports import perfetto
from tests.reports.test_exports_gobench import changes
from tests.reports.test_exports_perfetto import slices

A, B, C = (synthetic.lab_name(number) for number in range(3))

SHAPE = synthetic.Shape(
    labs=3, kernels=("5.10", "6.1", "7.3"), baseline="6.1", blocks=12, judged=2, troubles=5, cut=True, extra=3,
    points=0, ratios={(A, "5.10"): 1.1, (A, "7.3"): 0.9, (B, "7.3"): 0.85, (C, "7.3"): 1.2},
    unfit={(B, "5.10"): "too old"},
)  # fmt: skip
"""A's metric is a time, B's a rate, C's a count; the baseline is in the middle."""


@dataclass(frozen=True, slots=True)
class Exported:
    folder: Path
    out: Path
    comparison: Comparison
    files: list[Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder, out = tmp_path_factory.mktemp("matrix"), tmp_path_factory.mktemp("out")
    synthetic.write(folder, SHAPE)
    comparison = compare.compare(folder)
    return Exported(folder, out, comparison, exports.write_all(comparison, folder, out))


def test_planted_effects_are_what_goes_out(exported: Exported) -> None:
    """The rest of this module rests on it."""
    found = {
        (lab.lab, effect.kernel): effect.change
        for lab in exported.comparison.labs
        for effect in (lab.primary.effects if lab.primary else [])
        if not effect.control
    }
    assert found == {
        (A, "5.10"): "slower", (A, "7.3"): "faster", (B, "7.3"): "slower",
        (C, "5.10"): "equivalent", (C, "7.3"): "higher",
    }  # fmt: skip


def test_nothing_was_left_out_and_nothing_temporary_is_there(exported: Exported) -> None:
    there = {path.relative_to(exported.out).as_posix() for path in exported.out.rglob("*") if path.is_file()}

    assert there == {path.relative_to(exported.out).as_posix() for path in exported.files}
    assert there == {
        "compare.json", "benchmarks.txt", "openmetrics.txt", "junit.xml", "perfetto/matrix.pftrace",
        *(f"{table}.{how}" for table in ("effects", "values", "verdicts", "excluded") for how in ("csv", "parquet")),
    }  # fmt: skip


@pytest.mark.build
def test_benchstat_agrees_in_direction_on_every_clear_effect(exported: Exported, benchstat: Path) -> None:
    said = changes(benchstat, exported.out / "benchmarks.txt")
    clear = [
        (lab.lab, lab.primary.metric, effect.kernel, effect.ratio)
        for lab in exported.comparison.labs
        if lab.primary
        for effect in lab.primary.effects
        if effect.change in {"faster", "slower", "higher", "lower"} and effect.ratio and not effect.control
    ]
    assert len(clear) == 4
    for lab, metric, kernel, ratio in clear:
        mine = said[f"{lab[:1].upper()}{lab[1:].replace('-', '_')}/{metric}", kernel]
        assert mine[0] == ("+" if ratio > 1 else "-"), (lab, kernel, mine)
        assert float(mine.rstrip("%")) / 100 == pytest.approx(ratio - 1, abs=0.05)
    controls = [word for (name, kernel), word in said.items() if kernel == "6.1+control" and "extra" not in name]
    assert set(controls) == {"~"}


def test_tables_can_be_asked_which_kernel_changed_what(exported: Exported) -> None:
    with duckdb.connect() as connection:
        effects = connection.read_parquet(str(exported.out / "effects.parquet"))
        changed = effects.filter('"primary" AND NOT control AND p_adjusted <= 0.05 AND abs(ratio - 1) > 0.05')
        assert set(changed.project("lab, kernel").fetchall()) == {(A, "5.10"), (A, "7.3"), (B, "7.3"), (C, "7.3")}
        values = connection.read_parquet(str(exported.out / "values.parquet"))
        counts = values.filter('"primary"').aggregate("lab, kernel, control, count(DISTINCT record)").fetchall()
        records = [row for (row,) in values.project("record").distinct().fetchall()]
    kept = sum(kernel.runs for kernel in exported.comparison.kernels)
    assert sum(count for _, _, control, count in counts if not control) == kept
    assert records
    assert all((exported.folder / record).is_dir() for record in records)


def test_every_run_of_the_plan_is_a_case(exported: Exported) -> None:
    plan = matrix.read_plan(exported.folder)
    whole = JUnitXml.fromfile(str(exported.out / "junit.xml"))
    runs = [case for suite in whole for case in suite if str(case.classname).endswith(".run")]
    done = matrix.ended(matrix.read_journal(exported.folder))
    counted = [matrix.counted(done.get(run.number, [])) for run in plan.runs]

    assert len({(case.classname, case.name) for case in runs}) == len(runs) == len(plan.runs) + 1, "one lab is unfit"
    assert sum(case.is_failure for case in runs) == sum(one is not None and one.outcome != "passed" for one in counted)
    assert sum(case.is_skipped for case in runs) == sum(one is None for one in counted) + 1
    flaky = [case for case in runs if case.is_passed and "flaky" in str(case.system_out)]
    assert len(flaky) == sum(one is not None and one.outcome == "passed" and one.attempt > 1 for one in counted)
    assert len(flaky) >= 2


def test_expectations_and_test_cases_say_the_same(exported: Exported, tmp_path: Path) -> None:
    """Drafted from the matrix, every run that failed is expected; the one that was cut off still is not."""
    text = expectations.draft(exported.comparison)
    surprises = expectations.check(exported.comparison, expectations.parse(text))
    exports.write_all(exported.comparison, exported.folder, tmp_path, ["junit"], surprises)
    failures = [case for suite in JUnitXml.fromfile(str(tmp_path / "junit.xml")) for case in suite if case.is_failure]

    assert [each.what for each in surprises] == ["matrix"]
    assert [case.classname for case in failures] == ["matrix.matrix"]


def test_samples_count_what_the_journal_has(exported: Exported) -> None:
    text = (exported.out / "openmetrics.txt").read_text()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    counts = {each.labels["outcome"]: each.value for each in families["kmlab_attempts"].samples}

    assert {name: count for name, count in counts.items() if count} == exported.comparison.tally
    assert families["kmlab_runs_planned"].samples[0].value == len(matrix.read_plan(exported.folder).runs)


def test_the_trace_has_every_attempt_and_the_one_that_was_cut_off(exported: Exported) -> None:
    journal = matrix.read_journal(exported.folder)
    found = slices((exported.out / perfetto.FOLDER / perfetto.MATRIX).read_bytes())

    assert list(found) == ["job 1"]
    assert len(found["job 1"]) == sum(isinstance(each, Begun) for each in journal)
    assert [name for name, *_ in found["job 1"] if name.endswith("cut off")] == [found["job 1"][-1][0]]
