"""Which runs a comparison counts: every attempt and every record counts, or is listed with its reason."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from go_labs import matrix
from reports import compare, compare_words
from reports.comparison import Comparison
from tests.reports import made
from tests.reports.matrices import A, B, C, D, baseline_cell, effects, primary, records, small
from vm.errors import RecordError, UsageError

# ---- what does not count ----


def test_every_attempt_counts_or_is_listed(made_up: Path, comparison: Comparison) -> None:
    ended = [each for each in matrix.read_journal(made_up) if isinstance(each, matrix.Ended)]
    counted = sum(kernel.runs for kernel in comparison.kernels) + sum(
        len(primary(comparison, name).control) for name in (A, B, C, D)
    )

    failed = [each for each in ended if each.outcome != "passed"]
    assert len(comparison.excluded) == len(failed) + 1  # and the one that was cut off
    assert counted == len(ended) - len(failed)
    assert comparison.tally == dict(Counter(each.outcome for each in ended))
    assert Counter(each.kind for each in comparison.excluded) == Counter(
        [*(each.outcome for each in failed), "cut_off"]
    )
    assert (comparison.planned, comparison.finished, comparison.passed) == (240, 239, counted)


def test_what_failed_is_told_with_its_gates_its_log_and_what_became(made_up: Path, comparison: Comparison) -> None:
    by_kind = {each.kind: each for each in comparison.excluded}

    assert by_kind["machine_lost"].retried
    assert not by_kind["lab_failed"].retried
    assert "gates: no count lost" in by_kind["gate_failed"].words
    assert by_kind["cut_off"].words.startswith("it began and never ended")
    for each in comparison.excluded:
        if each.kind != "cut_off":
            assert (made_up / each.log).is_file()
    assert (made_up / by_kind["gate_failed"].record / "run.json").is_file()


def test_a_run_that_was_tried_again_has_the_value_of_the_second_time(made_up: Path, comparison: Comparison) -> None:
    again = next(each for each in comparison.excluded if each.kind == "kernel_splat")

    used = [v.record for values in (*primary(comparison, again.lab).values.values(),) for v in values]
    assert again.retried
    assert again.record
    assert again.record not in used
    plan = matrix.read_plan(made_up)
    second = [
        e
        for e in matrix.read_journal(made_up)
        if isinstance(e, matrix.Ended) and e.attempt == 2 and e.outcome == "passed"
    ]
    run = next(
        r.number
        for r in plan.runs
        if (r.lab, r.block, plan.cell(r.cell).kernel_line) == (again.lab, again.block, again.kernel)
    )
    assert f"runs/{next(e.record for e in second if e.run == run)}" in used


def test_a_record_that_broke_later_is_voided_and_its_run_open(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    other = records(folder, "6.12")[-1].parent.name
    last = next(e for e in matrix.read_journal(folder) if isinstance(e, matrix.Ended) and e.record == other)
    with (folder / matrix.JOURNAL).open("ab") as file:
        voided = matrix.Voided(at=last.at, run=last.run, attempt=last.attempt, words="its hash is another")
        file.write(msgspec.json.encode(voided) + b"\n")

    found = compare.compare(folder)

    assert [(each.kind, each.words) for each in found.excluded] == [("voided", "its hash is another")]
    assert found.finished == found.planned - 1


def test_a_broken_record_and_one_of_another_run_are_listed_and_never_guessed_at(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    others = records(folder, "6.12")
    others[0].write_bytes(others[0].read_bytes()[:200])
    made.change(others[1], lambda data: data["provenance"].update(kernel_line="6.1"))
    made.change(others[2], lambda data: data.update(schema=9))

    found = compare.compare(folder)

    assert sorted(each.kind for each in found.excluded) == ["mismatch", "unreadable", "unreadable"]
    assert any("schema 9" in each.words for each in found.excluded)
    assert effects(found)["6.12"].n == 5
    assert len(primary(found).values["6.1"]) == 8


def test_a_journal_cannot_lead_out_of_the_matrix(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    outside = tmp_path / "outside"
    first = records(folder, "6.12")[0].parent
    shutil.move(first, outside)
    journal = folder / matrix.JOURNAL
    journal.write_bytes(journal.read_bytes().replace(first.name.encode(), b"../../outside"))

    found = compare.compare(folder)

    assert [(each.kind, each.words) for each in found.excluded] == [("unreadable", "its name leads out of the matrix")]


def test_kernels_are_never_compared_across_hosts(tmp_path: Path) -> None:
    stray = frozenset({(A, 2, "6.12"), (A, 5, "6.1")})  # a kernel, and once the baseline itself
    found = compare.compare(small(tmp_path / "m", stray=stray))

    assert effects(found)["6.12"].n == 6
    listed = [(each.block, each.kernel, each.kind) for each in found.excluded]
    assert (2, "6.12", "other_host") in listed
    assert (5, "6.12", "other_host") in listed
    assert {value.block for value in primary(found).values["6.1"]} >= {"1-A", "5-B"}
    assert found.differs["Host"]


def test_a_block_without_baseline_pairs_nothing_and_says_so(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    first = records(folder, "6.1", baseline_cell(folder))[0]
    first.unlink()

    found = compare.compare(folder)

    kinds = Counter(each.kind for each in found.excluded)
    assert kinds == {"unreadable": 1, "incomplete_block": 2}  # the other kernel, and the control
    assert effects(found)["6.12"].n == 7


def test_a_run_of_another_clock_is_excluded_from_a_matrix(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    made.change(records(folder, "6.12")[3], lambda data: data["provenance"].update(clock="virtual"))

    found = compare.compare(folder)

    assert found.clock == "emulated"
    assert [(each.kind, each.block) for each in found.excluded] == [("other_clock", 4)]
    assert "its clock is virtual" in found.excluded[0].words


def test_a_set_with_two_clocks_is_refused_until_one_is_chosen(tmp_path: Path) -> None:
    one, two = small(tmp_path / "one"), small(tmp_path / "two", clock="virtual", seed=2)

    with pytest.raises(UsageError, match=r"several clocks: emulated \(24\), virtual \(24\)") as refused:
        compare.compare_records([one, two])
    found = compare.compare_records([one, two], clock="virtual")

    assert "--clock" in refused.value.hint
    assert found.clock == "virtual"
    assert Counter(each.kind for each in found.excluded) == {"other_clock": 24}
    with pytest.raises(UsageError, match="no run has the clock kvm"):
        compare.compare_records([one, two], clock="kvm")


def test_runs_that_shared_cores_are_noted(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    for file in records(folder, "6.12")[:2]:
        made.change(file.parent / "evidence.json", lambda data: data["phases"][0]["host"].update(neighbours=2))

    notes = compare.compare(folder).notes

    assert [note for note in notes if "2 of 24 runs shared cores" in note]


# ---- any set of records ----


def test_records_of_a_matrix_compare_like_the_matrix_but_were_not_chosen_beforehand(
    made_up: Path, comparison: Comparison
) -> None:
    same = compare.compare_records([made_up / "runs"], base=made_up)
    one_by_one = compare.compare_records([file.parent for file in records(made_up)], base=made_up)

    for other in (same, one_by_one):
        assert not other.chosen
        assert {k: e.ratio for k, e in effects(other).items()} == {k: e.ratio for k, e in effects(comparison).items()}
        assert [e.kind for e in other.excluded if e.kind in {"duplicate", "mismatch", "other_control"}] == []
    assert "No plan stands behind" in compare_words.AFTERWARDS


def without_matrix(folder: Path, root: Path, *, seeds: bool) -> Path:
    """Copy the records of a matrix, the control's aside, as runs of their own."""
    control = next(cell.id for cell in matrix.read_plan(folder).cells if cell.control)
    for number, file in enumerate(records(folder)):
        data = json.loads(file.read_bytes())
        if data["provenance"]["place"]["cell"] == control:
            continue
        target = root / file.parent.name
        shutil.copytree(file.parent, target)
        seed = data["provenance"]["seed"] if seeds else number
        made.change(target / "run.json", lambda d, seed=seed: d["provenance"].update(place=None, seed=seed))
    return root


@pytest.mark.parametrize("seeds", [True, False])
def test_runs_that_no_matrix_planned_are_paired_afterwards(tmp_path: Path, seeds: bool) -> None:
    runs = without_matrix(small(tmp_path / "m", ratios={(A, "6.12"): 1.06}), tmp_path / "runs", seeds=seeds)

    found = compare.compare_records([runs])

    assert effects(found)["6.12"].change == "slower"
    assert effects(found)["6.12"].n == 8
    assert found.baseline == "6.1"
    assert primary(found).values["6.1"][0].block.startswith("seed-" if seeds else "run-")
    assert any("paired afterwards" in note for note in found.notes)


def test_of_several_conditions_the_latest_is_compared_and_the_others_are_listed(tmp_path: Path) -> None:
    runs = without_matrix(small(tmp_path / "m"), tmp_path / "runs", seeds=True)
    for file in sorted(runs.glob("*/run.json"))[:4]:
        made.change(file, lambda data: data["provenance"].update(go_version="go1.26.1"))

    found = compare.compare_records([runs])

    assert found.provenance["Go"] == "go1.27.3"
    others = [each for each in found.excluded if each.kind == "other_group"]
    assert len(others) == 4
    assert others[0].words == "run under other conditions: Go go1.26.1, not go1.27.3"


def test_a_record_given_twice_counts_once(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    copy = tmp_path / "copy" / "x"
    shutil.copytree(records(folder)[0].parent, copy)

    found = compare.compare_records([folder, folder / "runs", copy])

    assert Counter(each.kind for each in found.excluded)["duplicate"] == 25
    assert effects(found)["6.12"].n == 8


def test_a_record_whose_gate_failed_does_not_count_in_a_set_either(tmp_path: Path) -> None:
    runs = without_matrix(small(tmp_path / "m"), tmp_path / "runs", seeds=True)
    first = min(runs.glob("*-6.12-*/run.json"))
    made.change(first, lambda data: data["gates"][0].update(passed=None))

    found = compare.compare_records([runs])

    assert [(each.kind, each.words) for each in found.excluded] == [
        ("gate_failed", "gates: no count lost"),
    ]


def test_two_matrices_are_put_together_block_by_block(tmp_path: Path) -> None:
    one, two = small(tmp_path / "one", blocks=4), small(tmp_path / "two", blocks=5, seed=2)

    found = compare.compare_records([one, two])

    assert effects(found)["6.12"].n == 9
    assert found.delta == 0.03
    assert found.seed is None
    assert {value.block for value in primary(found).control} >= {"synthetic-1-1-A", "synthetic-2-5-A"}
    assert (tmp_path / primary(found).control[0].record).is_dir()


def test_what_holds_no_records_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run records"):
        compare.compare_records([tmp_path])
    with pytest.raises(UsageError, match="nothing to compare"):
        compare.compare_records([])
    with pytest.raises(RecordError, match="is no matrix"):
        compare.compare(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="none of these records can be compared") as refused:
        compare.compare_records([tmp_path])
    assert "is no run record" in refused.value.hint


@pytest.mark.parametrize(("name", "value"), [("delta", 0.0), ("alpha", 1.5)])
def test_a_margin_or_level_that_is_none_is_refused(made_up: Path, name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"--{name}"):
        compare.compare_records([made_up], **{name: value})  # type: ignore[arg-type]


def test_a_control_that_does_not_count_is_told_from_its_kernel(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    control = next(cell.id for cell in matrix.read_plan(folder).cells if cell.control)
    records(folder, "6.1", control)[0].unlink()
    records(folder, "6.1", baseline_cell(folder))[2].unlink()

    unreadable = [each for each in compare.compare(folder).excluded if each.kind == "unreadable"]

    assert ["second time" in each.words for each in unreadable] == [True, False]


def test_exports_beside_records_are_no_broken_run(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(small(tmp_path / "m") / "runs", runs)
    before = compare.compare_records([runs])
    (runs / "exports" / "perfetto").mkdir(parents=True)
    (runs / "exports" / "values.csv").touch()

    assert compare.compare_records([runs]) == before
    next(runs.glob("*/run.json")).unlink()
    assert compare.compare_records([runs]).tally["unreadable"] == 1
