"""A matrix that is made, cut off and gone on with: what was finished is never repeated, what is broken never read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from go_labs import matrix
from go_labs.evidence import Place
from go_labs.matrix import LOGS, PLAN, RUNS, Begun, Ended, Judged, MatrixPlan, Opened, Outcome, Voided
from provision import hostfacts, jobs
from provision.house import House
from provision.matrix import planning, work
from provision.matrix.estimate import Earlier
from provision.matrix.journal import Journal
from provision.matrix.runner import Runner
from provision.matrix.state import State
from provision.matrix.work import BROKEN
from provision.payload import Payload
from tests.provision import matrices
from tests.provision.matrices import AT, ended, phase
from tests.provision.matrix_bench import Judge
from vm import errors
from vm.errors import LabFailedError, RecordError, UsageError
from vm.machine import MachineRequest
from vm.paths import Layout

NOTHING = Earlier({}, {})


@contextmanager
def shown(_state: State) -> Iterator[Callable[[], None]]:
    yield lambda: None


class Going:
    """A matrix in a folder, and a runner that only notes what it would run."""

    def __init__(self, folder: Path, layout: Layout, plan: MatrixPlan) -> None:
        self.folder, self.plan = work.create(plan, folder), plan
        self.said: list[str] = []
        self.house = House(layout, say=self.said.append)
        self.judge = Judge()
        self.left: list[tuple[int, int]] = []

    def add(self, *entries: matrix.Entry) -> None:
        with Journal(self.folder) as journal:
            for entry in entries:
                journal.add(entry)

    def record(self, run: int, attempt: int = 1, name: str = "", **more: Any) -> str:
        name = name or f"r{run}-{attempt}"
        place = Place(matrix=more.pop("matrix", self.plan.id), run=run, block=1, cell="k1", attempt=attempt)
        matrices.leave_evidence(self.folder / RUNS / name, place, **more)
        return name

    def go_on(self) -> work.Summary:
        return work.perform(self.folder, self.house, self.judge, shown, known=NOTHING)

    @property
    def ended(self) -> dict[int, list[Ended]]:
        return matrix.ended(matrix.read_journal(self.folder))


@pytest.fixture
def going(tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Going:
    wish = planning.Wish(labs="mutex", kernels="6.1,7.3", repeats="2", seed="3")
    made = Going(tmp_path / "matrix", layout, planning.plan(wish, House(layout)))

    def run(self: Runner, _shown: object) -> None:
        while (taken := self.state.take()) is not None:
            made.left.append((taken[0].number, taken[1]))

    monkeypatch.setattr(Runner, "run", run)
    monkeypatch.setattr(work, "prepare", lambda *_: {})
    return made


def test_a_new_matrix_is_a_folder_with_its_plan(tmp_path: Path) -> None:
    plan = matrices.plan()
    folder = work.create(plan, tmp_path / "new" / "matrix")

    assert matrix.read_plan(folder) == plan
    assert sorted(path.name for path in folder.iterdir()) == sorted([PLAN, RUNS, LOGS])


def test_a_folder_that_is_there_is_never_written_into(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")

    with pytest.raises(UsageError, match="is there already") as refused:
        work.create(matrices.plan(), tmp_path)

    assert "--out" in refused.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_plan_that_was_not_whole_is_no_matrix(tmp_path: Path) -> None:
    (tmp_path / f".{PLAN}").write_text('{"schema": 1')  # cut off before it got its name

    with pytest.raises(RecordError, match="is no matrix"):
        matrix.read_plan(tmp_path)


def test_finished_runs_are_never_repeated_and_the_plans_order_is_kept(going: Going) -> None:
    for n in (2, 4):
        going.add(Begun(at=AT, run=n, attempt=1), ended(n, record=going.record(n)))
    going.add(ended(3, "machine_lost"), Begun(at=AT, run=1, attempt=1))
    going.go_on()

    assert going.left == [(1, 1), (3, 2), (5, 1), (6, 1)]
    assert isinstance(matrix.read_journal(going.folder)[-1], Opened)
    assert going.said == []


def test_a_finished_matrix_is_not_even_prepared_again(going: Going, monkeypatch: pytest.MonkeyPatch) -> None:
    going.add(*(ended(run.number) for run in going.plan.runs))
    before = matrix.read_journal(going.folder)
    monkeypatch.setattr(work, "prepare", lambda *_: pytest.fail("nothing is left"))

    done = going.go_on()

    assert (done.done, done.passed, done.failed, done.retried) == (6, 6, {}, 0)
    assert matrix.read_journal(going.folder) == before


def test_a_broken_record_is_voided_set_aside_and_its_run_made_again(going: Going) -> None:
    going.add(*(ended(run.number, record=going.record(run.number)) for run in going.plan.runs))
    (going.folder / RUNS / "r3-1" / "bad").touch()
    going.go_on()

    (void,) = [entry for entry in matrix.read_journal(going.folder) if isinstance(entry, Voided)]
    assert (void.run, void.attempt) == (3, 1)
    assert "a hash is another" in void.words
    assert going.left == [(3, 1)]
    assert [path.name for path in (going.folder / BROKEN).iterdir()] == ["r3-1"]
    assert not (going.folder / RUNS / "r3-1").exists()
    assert any("run 3 is made again" in text for text in going.said)


def test_a_record_that_is_gone_is_made_again(going: Going) -> None:
    going.add(ended(1, record="r1-1"))
    going.go_on()

    assert going.left[0] == (1, 1)


def test_a_record_broken_twice_is_set_aside_twice(going: Going) -> None:
    for _ in range(2):
        going.add(ended(1, record=going.record(1)))
        (going.folder / RUNS / "r1-1" / "bad").touch()
        going.go_on()

    assert going.ended[1] == []
    assert (going.folder / BROKEN / "r1-1" / "bad").exists()


TAKEN: list[tuple[str, dict[str, Any], Judged, Outcome]] = [
    ("passed", {}, Judged(), "passed"),
    ("gate", {}, Judged(gates=["lost counts"], words="3 counts were lost"), "gate_failed"),
    ("splat", {}, Judged(splats=["BUG: x"]), "kernel_splat"),
    ("phase", {"phases": [phase(error="exit status 2", failed="workload")]}, Judged(), "lab_failed"),
    ("late", {"phases": [phase(error="late", timed_out=True)]}, Judged(), "timed_out"),
    ("panic", {"facts": {"error": {"class": "KernelPanicError", "message": "Oops"}}}, Judged(), "kernel_panic"),
    ("QEMU", {"facts": {"error": {"class": "QemuDiedError", "message": "gone"}}}, Judged(), "machine_lost"),
    ("unknown error", {"facts": {"error": {"class": "Nonsense", "message": "x"}}}, Judged(), "lab_failed"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "judged", "outcome"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_a_record_without_its_line_is_taken_in_with_its_outcome(
    more: dict[str, Any], judged: Judged, outcome: Outcome, going: Going
) -> None:
    going.add(Begun(at=AT, run=1, attempt=1))
    going.record(1, **more)
    going.judge.said[1] = judged
    going.go_on()

    (taken,) = going.ended[1]
    assert (taken.attempt, taken.outcome, taken.record, taken.seconds) == (1, outcome, "r1-1", 9.0)
    assert taken.gates == judged.gates
    assert ((1, 2) in going.left) is (outcome != "passed")
    assert (1, 1) not in going.left


def test_what_is_no_record_of_this_matrix_is_set_aside_and_said(going: Going) -> None:
    going.add(ended(2, "lab_failed"))
    going.record(1, name="another-matrix", matrix="20200101T000000Z-ffff")
    going.record(99, name="no-such-run")
    going.record(2, name="known-attempt")
    matrices.leave_evidence(going.folder / RUNS / "a-run-of-its-own", None)
    (going.folder / RUNS / "empty").mkdir()
    (going.folder / RUNS / "broken").mkdir()
    (going.folder / RUNS / "broken" / "evidence.json").write_text("{")
    going.go_on()

    names = {"another-matrix", "no-such-run", "known-attempt", "a-run-of-its-own", "empty", "broken"}
    assert {path.name for path in (going.folder / BROKEN).iterdir()} == names
    assert list((going.folder / RUNS).iterdir()) == []
    assert all(any(text.startswith(f"{name} is set aside") for text in going.said) for name in names)
    assert [len(attempts) for attempts in going.ended.values()] == [1]


def test_what_a_killed_process_was_about_to_record_is_cleared_and_never_read(going: Going) -> None:
    place = Place(matrix=going.plan.id, run=1, block=1, cell="k1", attempt=1)
    dead = matrices.leave_evidence(going.folder / RUNS / f".staging-{2**22 + 5}-abcd", place)
    going.go_on()

    assert not dead.exists()
    assert going.left[0] == (1, 1)


def test_a_changed_plan_is_refused_before_anything_is_touched(going: Going) -> None:
    going.record(1)
    lab = msgspec.structs.replace(going.plan.labs[0], sha256="0" * 64)
    for changed in (
        msgspec.structs.replace(going.plan, labs=[lab]),
        msgspec.structs.replace(going.plan, lock_digest="0" * 64),
    ):
        (going.folder / PLAN).write_bytes(msgspec.json.encode(changed))
        with pytest.raises(UsageError) as refused:
            going.go_on()
        assert "take back the change" in refused.value.hint

    assert not (going.folder / matrix.JOURNAL).exists()
    assert (going.folder / RUNS / "r1-1").is_dir()


def test_a_matrix_that_another_process_works_on_is_left_alone(going: Going) -> None:
    going.record(1)

    with Journal(going.folder), pytest.raises(UsageError, match="another process works"):
        going.go_on()
    assert (going.folder / RUNS / "r1-1").is_dir()


class Provider:
    """Starts nothing; some kernels do not come up."""

    def __init__(self, down: set[str]) -> None:
        self.down, self.asked = down, [""][:0]

    def start(self, request: MachineRequest, _deadline: object) -> object:
        self.asked.append(request.kernel.line)
        if request.kernel.line in self.down:
            raise errors.KernelPanicError("no root")
        return SimpleNamespace(stop=lambda: None)


def prepared(plan: MatrixPlan, down: set[str], layout: Layout, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    provider, said = Provider(down), [""][:0]
    kit = cast(Payload, SimpleNamespace(kit=SimpleNamespace(digest="kit-1")))
    monkeypatch.setattr(jobs, "prepare", lambda *_: kit)
    monkeypatch.setattr(House, "provider", lambda _: provider)
    kernels = {cell.id: matrices.kernel(cell.kernel_line) for cell in plan.cells}
    labs = {folder.lab.name: folder for folder in matrices.folders([lab.name for lab in plan.labs])}
    return work.prepare(plan, labs, kernels, House(layout, say=said.append)), provider.asked, said


def test_every_kernel_is_prepared_once_and_every_lab_whole_and_timed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads, asked, said = prepared(matrices.plan(labs=("mutex", "leak")), set(), layout, monkeypatch)

    assert set(payloads) == {("mutex", True), ("mutex", False), ("leak", True)}
    assert sorted(asked) == ["5.10", "6.1"]
    assert said == []


def test_a_kernel_that_does_not_come_up_leaves_the_others_their_runs(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, asked, said = prepared(matrices.plan(), {"6.1"}, layout, monkeypatch)

    assert sorted(asked) == ["5.10", "6.1"]
    assert said == ["kernel 6.1 does not come up: no root"]
    with pytest.raises(errors.KernelPanicError):
        prepared(matrices.plan(), {"5.10", "6.1"}, layout, monkeypatch)


def test_another_kit_than_the_one_it_began_with_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(matrices.plan(kit="kit-1"), set(), layout, monkeypatch)
    with pytest.raises(UsageError, match="tracer and tools are not those") as refused:
        prepared(matrices.plan(kit="kit-0"), set(), layout, monkeypatch)
    assert "take back the change" in refused.value.hint


def test_the_latest_matrix_with_runs_left_is_gone_on_with(tmp_path: Path) -> None:
    plan = matrices.plan(repeats=1)
    with pytest.raises(UsageError, match="has runs left") as refused:
        work.unfinished(tmp_path / "nowhere")
    assert "--resume FOLDER" in refused.value.hint

    for name in ("20260101T000000Z-aaaa", "20260102T000000Z-aaaa", "20260103T000000Z-aaaa"):
        work.create(plan, tmp_path / name)
    (tmp_path / "20260104T000000Z-aaaa").mkdir()  # no matrix
    with Journal(tmp_path / "20260103T000000Z-aaaa") as journal:
        for run in plan.runs:
            journal.add(ended(run.number))

    assert work.unfinished(tmp_path).name == "20260102T000000Z-aaaa"


def test_jobs_are_bounded_by_cpus_and_by_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = matrices.plan()
    monkeypatch.setattr(work.os, "sched_getaffinity", lambda _: set(range(8)))
    labs = {folder.lab.name: folder for folder in matrices.folders()}
    memory = labs["mutex"].lab.memory + work.OVERHEAD_MIB
    assert labs["mutex"].lab.cpus == 2

    for free, clock, count in (
        (100 * memory, "host", 4),
        (3 * memory, "host", 3),
        (3 * memory - 1, "host", 2),
        (0, "host", 1),  # one is tried all the same
        (100 * memory, "virtual", 8),
    ):
        monkeypatch.setattr(hostfacts, "available_mib", lambda free=free: free)
        assert work.most_jobs(msgspec.structs.replace(plan, clock=clock), labs) == count


def test_more_machines_than_the_memory_holds_are_refused_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostfacts, "available_mib", lambda: 3 * (1024 + work.OVERHEAD_MIB) + 1)  # a lab has 1024
    said: list[str] = []
    folders = {folder.lab.name: folder for folder in matrices.folders()}

    assert work._jobs(matrices.plan(), folders, 8, said.append) == 3
    assert said == ["3 machines at once, not 8: there is no memory for more"]
    assert work._jobs(matrices.plan(), folders, 2, said.append) == 2
    assert len(said) == 1


def test_a_summary_counts_the_attempt_that_counts(tmp_path: Path) -> None:
    folder = work.create(matrices.plan(repeats=2), tmp_path / "m")
    with Journal(folder) as journal:
        for entry in (
            ended(1), ended(2, "timed_out"), ended(2, attempt=2), ended(3, "timed_out"),
            ended(3, "gate_failed", attempt=2), ended(4, "lab_failed"),
        ):  # fmt: skip
            journal.add(entry)

    done = work.summary(folder)

    assert (done.done, done.passed, done.failed, done.retried) == (3, 2, {"gate_failed": 1}, 2)
    with pytest.raises(LabFailedError, match="1 of 6 runs failed") as failed:
        done.require_passed()
    assert str(folder / LOGS) in failed.value.hint


def test_free_space_is_that_of_the_folder_that_will_hold_it(tmp_path: Path) -> None:
    assert work.free_bytes(tmp_path / "not" / "yet") == pytest.approx(work.free_bytes(tmp_path), rel=0.2)
