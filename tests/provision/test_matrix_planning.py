"""Which runs a matrix has, in which order, and what is refused before anything is started."""

from __future__ import annotations

import random
from itertools import groupby
from pathlib import Path

import msgspec
import pytest

from go_labs import spec
from go_labs.matrix import MatrixPlan, Unfit
from go_labs.spec import LabFolder
from provision.house import House
from provision.matrix import planning
from provision.matrix.planning import Wish
from tests.provision import matrices
from vm.errors import UsageError
from vm.paths import Layout


def wanted(layout: Layout, **changes: object) -> MatrixPlan:
    return planning.plan(Wish(**changes), House(layout))  # type: ignore[arg-type]


def same(plan: MatrixPlan) -> tuple[object, ...]:
    return plan.cells, plan.runs, plan.labs, plan.baseline


def test_a_seed_makes_a_plan_and_another_seed_another(layout: Layout) -> None:
    first, again = (wanted(layout, labs="mutex,gmp", kernels="6.1,7.3", repeats="3", seed="5") for _ in range(2))
    other = wanted(layout, labs="mutex,gmp", kernels="6.1,7.3", repeats="3", seed="6")

    assert same(first) == same(again)
    assert first.id != again.id
    assert same(first) != same(other)
    assert first.seed == 5


def test_without_wishes_all_labs_meet_the_default_kernels_ten_times(layout: Layout) -> None:
    plan = wanted(layout)

    assert [lab.name for lab in plan.labs] == spec.names()
    assert [c.kernel_line for c in plan.cells if not c.control] == ["5.10", "6.1", "6.12", "6.18", "7.3"]
    assert (plan.repeats, plan.judged, plan.delta, plan.alpha) == (10, 10, 0.03, 0.05)
    assert len(plan.runs) == len(plan.labs) * 6 * 10
    assert all(run.judged for run in plan.runs)
    assert all(lab.sha256 and lab.path == "" for lab in plan.labs)


def test_in_a_block_a_lab_has_all_cells_back_to_back_and_each_once() -> None:
    plan = matrices.plan(labs=("mutex", "gmp", "gc"), lines=("5.10", "6.1", "7.3"), repeats=5)

    assert [run.number for run in plan.runs] == list(range(1, len(plan.runs) + 1))
    stretches = [(key, list(runs)) for key, runs in groupby(plan.runs, lambda run: (run.block, run.lab))]
    assert len(stretches) == 5 * 3
    assert [block for (block, _), _ in stretches] == sorted(block for (block, _), _ in stretches)
    for _, runs in stretches:
        assert sorted(run.cell for run in runs) == ["k1", "k2", "k3", "k4"]
        assert len({run.seed for run in runs}) == 1
    assert len({runs[0].seed for _, runs in stretches}) == 15


def test_labs_and_cells_come_in_another_order_from_block_to_block() -> None:
    plan = matrices.plan(labs=("mutex", "gmp", "gc"), lines=("5.10", "6.1", "7.3"), repeats=10)

    by_block = [list(runs) for _, runs in groupby(plan.runs, lambda run: run.block)]
    assert len({tuple(dict.fromkeys(run.lab for run in runs)) for runs in by_block}) > 2
    assert len({tuple(run.cell for run in runs if run.lab == "gc") for runs in by_block}) > 4


def test_over_seeds_each_cell_comes_first_equally_often() -> None:
    plans = [matrices.plan(repeats=1, seed=seed) for seed in range(600)]
    controls = sum(plan.cell(plan.runs[0].cell).control for plan in plans)

    assert abs(controls - 200) < 4 * 11.5  # a third of 600, within four standard errors


def test_the_name_of_a_cell_says_nothing_of_the_control() -> None:
    cells = [matrices.plan(lines=("5.10", "6.1", "7.3"), repeats=1, seed=seed).cells for seed in range(200)]
    names = [next(cell.id for cell in each if cell.control) for each in cells]

    assert all(sum(cell.control for cell in each) == 1 for each in cells)
    assert {name: 30 <= names.count(name) <= 70 for name in sorted(set(names))} == dict.fromkeys(
        ("k1", "k2", "k3", "k4"), True
    )


def test_the_control_is_the_baselines_kernel_once_more(layout: Layout) -> None:
    plan = wanted(layout, labs="mutex", kernels="7.3,6.1", baseline="7.3")

    control = next(cell for cell in plan.cells if cell.control)
    base = plan.cell(plan.baseline)
    assert (control.kernel_line, base.kernel_line, base.control) == ("7.3", "7.3", False)
    assert control.id != base.id


@pytest.mark.parametrize(
    ("kernels", "baseline", "line"),
    [
        ("7.3,6.12,6.1", "", "6.1"),
        ("7.3,5.10", "", "5.10"),  # by number: as text, 5.10 comes after 5.9 and before 5.2
        ("7.3,6.1", "7.3", "7.3"),
        ("7.3,6.1", "6.1.0-56-cloud-amd64", "6.1"),
    ],
)
def test_the_baseline_is_the_oldest_or_the_one_that_is_named(
    kernels: str, baseline: str, line: str, layout: Layout
) -> None:
    plan = wanted(layout, labs="mutex", kernels=kernels, baseline=baseline)

    assert plan.cell(plan.baseline).kernel_line == line


def test_judged_repeats_are_drawn_and_the_others_run_the_timed_phase_alone() -> None:
    drawn = set()
    for seed in range(40):
        plan = matrices.plan(repeats=6, judged=2, seed=seed)
        blocks = {run.block: run.judged for run in plan.runs}
        assert all(blocks[run.block] == run.judged for run in plan.runs)
        assert sum(blocks.values()) == 2
        drawn.add(tuple(block for block, judged in blocks.items() if judged))

    assert len(drawn) > 8
    assert {block for pair in drawn for block in pair} == {1, 2, 3, 4, 5, 6}


def test_a_lab_without_a_timed_phase_runs_in_judged_repeats_alone() -> None:
    plan = matrices.plan(labs=("leak", "mutex"), repeats=5, judged=2)

    assert sum(run.lab == "leak" for run in plan.runs) == 2 * 3
    assert all(run.judged for run in plan.runs if run.lab == "leak")
    assert sum(run.lab == "mutex" for run in plan.runs) == 5 * 3
    assert [run.number for run in plan.runs] == list(range(1, 22))


def test_a_lab_that_does_not_fit_a_kernel_is_left_out_there_alone() -> None:
    cells = matrices.plan().cells
    out = [Unfit(lab="gmp", cell="k2", why="too old")]

    runs = planning.order(matrices.folders(("mutex", "gmp")), cells, out, 3, 3, random.Random(1))  # noqa: S311

    assert {run.cell for run in runs if run.lab == "gmp"} == {"k1", "k3"}
    assert {run.cell for run in runs if run.lab == "mutex"} == {"k1", "k2", "k3"}


def needing(monkeypatch: pytest.MonkeyPatch, minimum: str) -> None:
    """Let every lab need kernel ``minimum``."""
    find = spec.find

    def newer(name: str) -> LabFolder:
        folder = find(name)
        return msgspec.structs.replace(folder, lab=msgspec.structs.replace(folder.lab, kernel_minimum=minimum))

    monkeypatch.setattr(spec, "find", newer)


def test_unfit_kernels_are_listed_with_the_reason(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    needing(monkeypatch, "6.2")

    plan = wanted(layout, labs="mutex", kernels="6.1,7.3", repeats="1")

    # 6.1 is the baseline, too: both its cells are out.
    lines = {cell.id: cell.kernel_line for cell in plan.cells}
    assert [lines[each.cell] for each in plan.unfit] == ["6.1", "6.1"]
    assert "needs kernel 6.2 or newer, not 6.1" in plan.unfit[0].why
    assert [lines[run.cell] for run in plan.runs] == ["7.3"]


def test_a_go_version_that_a_lab_is_too_new_for_is_refused_before_anything_is_built(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = spec.find

    def newer(name: str) -> LabFolder:
        folder = find(name)
        return msgspec.structs.replace(folder, lab=msgspec.structs.replace(folder.lab, go_minimum="1.24"))

    monkeypatch.setattr(spec, "find", newer)
    assert wanted(layout, labs="mutex", kernels="6.1", go="1.24").go_version.startswith("1.24")
    with pytest.raises(UsageError, match=r"lab mutex needs Go 1\.24 or newer"):
        wanted(layout, labs="mutex", kernels="6.1", go="1.23")


def test_a_matrix_without_any_run_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    needing(monkeypatch, "9.9")

    with pytest.raises(UsageError, match="no lab of the matrix can run") as refused:
        wanted(layout, labs="mutex,gmp", kernels="6.1,7.3")

    assert "lab gmp needs kernel 9.9 or newer, not 7.3" in refused.value.hint


def test_an_option_is_set_for_its_lab_and_all_others_keep_their_defaults(layout: Layout) -> None:
    default, changed = (
        wanted(layout, labs="mutex,gmp", kernels="6.1", seed="1", sets=sets) for sets in ((), ("mutex.readers=0,50",))
    )

    assert changed.lab("mutex").options["readers"] == "0,50"
    assert default.lab("mutex").options["readers"] != "0,50"
    assert {**default.lab("mutex").options, "readers": ""} == {**changed.lab("mutex").options, "readers": ""}
    assert changed.lab("gmp") == default.lab("gmp")


@pytest.mark.parametrize(("text", "value"), [("", 0.03), ("3", 0.03), ("5%", 0.05), ("0.1", 0.001), ("50%", 0.5)])
def test_delta_is_a_percentage(text: str, value: float) -> None:
    assert planning.read_delta(text) == pytest.approx(value)


REFUSED: list[tuple[dict[str, object], str, str]] = [
    ({"labs": "mutexx"}, "no lab 'mutexx'", "mutex"),
    ({"labs": "mutex,mutex"}, "names one lab twice", "mutex"),
    ({"labs": "mutex,,gmp"}, "empty element", "comma"),
    ({"kernels": "6.10"}, "no kernel '6.10'", "6.1"),
    ({"kernels": "6.1,6.1.0-56-cloud-amd64"}, "one kernel twice", "6.1"),
    ({"repeats": "0"}, "--repeats 0", "1 to 1000"),
    ({"repeats": "1001"}, "--repeats 1001", "1 to 1000"),
    ({"repeats": "ten"}, "--repeats 'ten'", "1 to 1000"),
    ({"repeats": "4", "judged": "5"}, "--judged 5", "1 to 4"),
    ({"judged": "0"}, "--judged 0", "1 to 10"),
    ({"seed": "-1"}, "--seed", "0 to"),
    ({"baseline": "6.18"}, "--baseline 6.18 is no kernel of the matrix", "6.1, 7.3"),
    ({"go": "1.20"}, "1.20", "1.21"),
    ({"build": "piee"}, "--build 'piee'", "pie"),
    ({"delta": "nan"}, "--delta 'nan'", "0.1% to 50%"),
    ({"delta": "0"}, "--delta '0'", "0.1% to 50%"),
    ({"delta": "51%"}, "--delta '51%'", "0.1% to 50%"),
    ({"delta": "three"}, "--delta 'three'", "for example 3%"),
    ({"sets": ["readers=0"]}, "--set readers=0: which lab?", "LAB.OPTION=VALUE; labs: mutex"),
    ({"sets": ["gmp.readers=0"]}, "--set gmp.readers=0: which lab?", "labs: mutex"),
    ({"sets": ["mutex.readrs=0"]}, "no option 'readrs'", "readers"),
    ({"sets": ["mutex.readers=200"]}, "readers=200", ""),
    ({"sets": ["mutex.readers"]}, "option=value", "--set"),
    ({"clock": "virtual", "accel": "kvm"}, "KVM does not have", "leave --clock away"),
]


@pytest.mark.parametrize(("wish", "said", "hint"), REFUSED, ids=[str(row[0]) for row in REFUSED])
def test_what_cannot_be_meant_is_refused_with_a_hint(
    wish: dict[str, object], said: str, hint: str, layout: Layout
) -> None:
    with pytest.raises(UsageError) as refused:
        wanted(layout, **{"labs": "mutex", "kernels": "6.1,7.3", **wish})

    assert said in refused.value.message
    assert hint in refused.value.hint
    assert refused.value.hint or "range" in refused.value.message


def test_the_timed_phase_alone_judges_nothing() -> None:
    folder = planning.timed_only(spec.find("mutex"))

    assert [phase.name for phase in folder.lab.phases] == ["timed"]
    assert (folder.lab.claims, folder.lab.gates, folder.lab.attempts) == ([], [], [])
    assert folder.lab.options == spec.find("mutex").lab.options
    assert planning.timed_only(spec.find("leak")).lab.phases == []


def test_a_plan_finds_its_labs_and_kernels_again(layout: Layout) -> None:
    plan = wanted(layout, labs="gmp,mutex", kernels="6.1,7.3")

    labs, kernels = planning.found_again(plan, House(layout))

    assert list(labs) == ["gmp", "mutex"]
    assert {name: kernel.line for name, kernel in kernels.items()} == {c.id: c.kernel_line for c in plan.cells}


def test_a_changed_lab_or_lock_is_refused(layout: Layout) -> None:
    plan = wanted(layout, labs="mutex", kernels="6.1,7.3")
    lab = msgspec.structs.replace(plan.labs[0], sha256="0" * 64)

    for changed, said in (
        (msgspec.structs.replace(plan, labs=[lab]), "lab mutex is not as it was"),
        (msgspec.structs.replace(plan, lock_digest="0" * 64), "the lock is not the one"),
    ):
        with pytest.raises(UsageError, match=said) as refused:
            planning.found_again(changed, House(layout))
        assert "take back the change, or start another" in refused.value.hint


def test_a_kernel_of_ones_own_is_found_again_by_its_path_and_refused_when_it_changed(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The house is asked for it as a person would; what it reads there is another test's.
    house = House(layout)
    from vm.model import Package

    def own(sha256: str) -> object:
        package = Package(name="k", version="1", architecture="amd64", archive="own", path="k", size=1, sha256=sha256)
        return msgspec.structs.replace(matrices.kernel("6.1.0-mine", "own"), packages=[package])

    asked: list[str] = []
    real = House.kernel

    def kernel(self: House, text: str) -> object:
        asked.append(text)
        return own(held[0]) if text.endswith("mine.deb") else real(self, text)

    held = ["aa" * 32]
    monkeypatch.setattr(House, "kernel", kernel)
    monkeypatch.chdir(tmp_path)
    plan = wanted(layout, labs="mutex", kernels="./mine.deb,6.1", baseline="6.1")
    mine = next(cell for cell in plan.cells if cell.path)
    assert (mine.path, mine.sha256) == (str(tmp_path / "mine.deb"), held[0])
    assert [cell.path for cell in plan.cells if cell is not mine] == ["", ""]

    asked.clear()
    assert planning.found_again(plan, house)[1][mine.id].release == mine.kernel_release
    assert str(tmp_path / "mine.deb") in asked

    held[0] = "bb" * 32
    with pytest.raises(UsageError, match="is not as it was"):
        planning.found_again(plan, house)
