"""Running a matrix with machines that are made up: what comes of each kind of failure, and of whatever ends it all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from go_labs import matrix
from go_labs.evidence import Place
from go_labs.matrix import LOGS, RUNS, Begun, Ended, Judged, Outcome
from go_labs.spec import LabFolder
from provision import hostshare, jobs
from provision.house import House
from provision.jobs import Job
from provision.labrun import Outcome as Left
from provision.matrix import runner as module
from provision.matrix.journal import Journal
from provision.matrix.runner import UNSEALED, Runner
from provision.payload import Payload
from tests.provision import matrices
from tests.provision.matrices import ended, phase
from tests.provision.matrix_bench import PATIENCE, Bench, Happens, Made, goes_well, leaves, raises
from vm import errors
from vm.errors import DiskFullError, LabError, RecordError
from vm.machine import Machine
from vm.paths import Layout


@pytest.fixture
def bench(tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path / "matrix", matrices.plan(lines=("5.10",), repeats=1), layout)
    (made.folder / RUNS).mkdir(parents=True)
    monkeypatch.setattr(jobs, "staged", made.staged)
    monkeypatch.setattr(hostshare, "pin", lambda *_: None)
    monkeypatch.setattr(module, "settle", lambda _: None)
    return made


def test_every_run_is_made_once_in_the_plans_order_and_recorded(bench: Bench) -> None:
    bench.plan = matrices.plan(lines=("5.10", "6.1"), repeats=2, judged=1)
    bench.run()

    assert bench.outcomes == [(run.number, 1, "passed") for run in bench.plan.runs]
    assert [entry.run for entry in bench.entries if isinstance(entry, Begun)] == list(range(1, 7))
    assert [entry.record for entry in bench.told] == [f"r{n}-1" for n in range(1, 7)]
    assert bench.judge.rendered == [entry.record for entry in bench.told]
    assert bench.state.over
    assert bench.hidden() == []
    for job, run in zip(bench.jobs, bench.plan.runs, strict=True):
        assert (job.seed, job.order, job.kernel.line) == (run.seed, run.number, bench.plan.cell(run.cell).kernel_line)
        assert (len(job.folder.lab.phases) > 1) is run.judged
        assert job.place == Place(matrix=bench.plan.id, run=run.number, block=run.block, cell=run.cell, attempt=1)


def test_each_attempt_has_a_log_that_says_what_was_done(bench: Bench) -> None:
    bench.run()

    first = bench.told[0]
    assert first.log == "0001-mutex-5.10-b1-1.log"
    text = (bench.folder / LOGS / first.log).read_text()
    assert "phase timed" in text
    assert text.rstrip().endswith("passed")


PASS, REFUSED = phase(), phase("traced", error="the verifier said no", failed="probe", refused=True)
LATE = phase(error="not over within 120 s", failed="workload", timed_out=True)
DIED = phase(error="exit status 2", failed="workload")

FAILURES: list[tuple[str, Happens, Judged, Outcome, str]] = [
    ("QEMU ends before a record", raises(errors.QemuDiedError("QEMU ended")), Judged(), "machine_lost", "QEMU"),
    ("SSH fails", raises(errors.SshError("no answer")), Judged(), "machine_lost", "no answer"),
    ("a port is taken", raises(errors.PortError("taken")), Judged(), "machine_lost", "taken"),
    ("the kernel panics at boot", raises(errors.KernelPanicError("VFS: no root")), Judged(), "kernel_panic", "VFS"),
    ("it does not come up", raises(errors.HangError("not up within 300 s")), Judged(), "timed_out", "not up"),
    ("no probe plan", raises(errors.ProbeError("no symbol")), Judged(), "load_refused", "no symbol"),
    ("the workload's fault", raises(errors.LabFailedError("it died")), Judged(), "lab_failed", "it died"),
    ("panic in a phase", leaves(PASS, error=errors.KernelPanicError("Oops")), Judged(), "kernel_panic", "Oops"),
    ("panic, splat", leaves(error=errors.KernelPanicError("Oops")), Judged(splats=["BUG: x"]), "kernel_panic", "Oops"),
    ("QEMU dies in a phase", leaves(error=errors.QemuDiedError("gone")), Judged(), "machine_lost", "gone"),
    ("a splat", leaves(), Judged(splats=["BUG: KASAN: x"], gates=["g"], words="w"), "kernel_splat", "BUG: KASAN: x"),
    ("a splat and a failed phase", leaves(DIED), Judged(splats=["WARNING: CPU: 1"]), "kernel_splat", "WARNING"),
    ("refused", leaves(PASS, REFUSED, error=errors.ProbeError("x")), Judged(), "load_refused", "phase traced: the ver"),
    ("too late", leaves(LATE, error=errors.LabFailedError("late")), Judged(), "timed_out", "late"),
    ("a phase failed", leaves(DIED, error=errors.LabFailedError("status 2")), Judged(), "lab_failed", "status 2"),
    ("a phase failed, no error", leaves(DIED), Judged(), "lab_failed", "phase timed: exit status 2"),
    ("a gate", leaves(), Judged(gates=["host pressure"], words="waited 20%"), "gate_failed", "waited 20%"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("happens", "judged", "outcome", "words"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES]
)
def test_a_failure_is_classified_and_tried_once_more_on_another_machine(
    happens: Happens, judged: Judged, outcome: Outcome, words: str, bench: Bench
) -> None:
    bench.happens = lambda job, machine, staging: (happens if job.order == 1 else goes_well)(job, machine, staging)
    bench.judge.said[1] = judged
    bench.run()

    failed = [entry for entry in bench.told if entry.run == 1]
    assert [(entry.attempt, entry.outcome) for entry in failed] == [(1, outcome), (2, outcome)]
    assert all(words in entry.words for entry in failed)
    assert all(entry.gates == judged.gates for entry in failed)
    assert [entry.outcome for entry in bench.told if entry.run == 2] == ["passed"]
    names = [job.name for job in bench.jobs]
    assert len(set(names)) == 3
    begun = [(entry.run, entry.attempt) for entry in bench.entries if isinstance(entry, Begun)]
    assert sorted(begun) == [(1, 1), (1, 2), (2, 1)]
    assert len({entry.log for entry in bench.told}) == 3
    assert bench.hidden() == []


def test_the_second_attempt_may_pass_and_then_nothing_is_repeated(bench: Bench) -> None:
    def happens(job: Job, machine: Made, staging: Path) -> LabError | None:
        if len(bench.jobs) == 1:
            raise errors.SshError("no answer")
        return goes_well(job, machine, staging)

    bench.happens = happens
    bench.run()

    assert bench.outcomes == [(1, 1, "machine_lost"), (1, 2, "passed"), (2, 1, "passed")]
    assert bench.told[0].record == ""
    assert bench.told[1].record == "r1-2"


def test_what_the_machine_left_on_its_console_is_kept_in_the_log(bench: Bench) -> None:
    def happens(job: Job, _machine: Made, _staging: Path) -> LabError | None:
        folder = bench.layout.machines / job.name
        folder.mkdir(parents=True)
        (folder / "console.log").write_bytes(b"Kernel panic - not syncing: VFS\xff\n")
        raise errors.KernelPanicError("the kernel panicked")

    bench.happens = happens
    bench.run()

    text = (bench.folder / LOGS / bench.told[0].log).read_text()
    assert "---- console.log ----\nKernel panic - not syncing: VFS\ufffd" in text


@pytest.mark.parametrize(
    "error", [RecordError("evidence is broken"), errors.ConfigError("analysis.py failed")], ids=str
)
def test_what_cannot_be_sealed_is_kept_and_the_run_failed(error: LabError, bench: Bench) -> None:
    bench.judge.refuse = error
    for name in ("0001-1", "0002-2"):  # left by an attempt that was cut off before its line was written
        (bench.folder / UNSEALED / name).mkdir(parents=True)
        (bench.folder / UNSEALED / name / "old").touch()
    bench.run()

    assert sorted(bench.outcomes) == [(n, a, "lab_failed") for n in (1, 2) for a in (1, 2)]
    assert {entry.words for entry in bench.told} == {error.message}
    kept = sorted(path.name for path in (bench.folder / UNSEALED).iterdir())
    assert kept == ["0001-1", "0001-2", "0002-1", "0002-2"]
    assert all((bench.folder / UNSEALED / name / "evidence.json").is_file() for name in kept)
    assert bench.judge.rendered == []


ENDS: list[BaseException] = [
    RuntimeError("a defect"),
    DiskFullError("no space left"),
    errors.BuildError("cannot be built"),
    OSError(errno.ENOSPC, "no space left"),
]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("error", ENDS, ids=lambda e: type(e).__name__)
def test_a_defect_or_a_failing_host_ends_the_matrix_and_what_was_finished_stays(
    error: BaseException, workers: int, bench: Bench
) -> None:
    bench.plan = matrices.plan(lines=("5.10", "6.1"), repeats=3)

    def happens(job: Job, machine: Made, staging: Path) -> LabError | None:
        if job.order < 4:
            return goes_well(job, machine, staging)
        with bench.state.changed:
            assert bench.state.changed.wait_for(lambda: bench.state.standing().done >= 2, PATIENCE)
        raise error

    bench.happens = happens
    with pytest.raises(type(error)) as ended_by:
        bench.run(workers)

    assert ended_by.value is error
    assert len(bench.outcomes) >= 2
    assert all(outcome == "passed" and run < 4 for run, _, outcome in bench.outcomes)
    assert bench.hidden() == []
    assert not bench.state.over


@pytest.mark.parametrize("error", [RuntimeError("a defect"), DiskFullError("no space left")], ids=str)
def test_an_error_after_the_last_run_is_not_swallowed(error: BaseException, bench: Bench) -> None:
    bench.judge.render_fails = error
    bench.plan = matrices.plan(lines=("5.10",), repeats=1)
    bench.plan.runs[1:] = []

    with pytest.raises(type(error)):
        bench.run()
    assert bench.outcomes == [(1, 1, "passed")]


def test_a_page_that_cannot_be_written_costs_neither_the_run_nor_the_matrix(bench: Bench) -> None:
    bench.judge.render_fails = RecordError("it cannot be written")
    bench.run()

    assert {outcome for _, _, outcome in bench.outcomes} == {"passed"}
    assert "no page of" in next((bench.folder / "logs").iterdir()).read_text()


def test_without_free_space_no_run_starts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=511 << 20))

    with pytest.raises(DiskFullError, match="511 MiB are free") as refused:
        bench.run()

    assert "--resume" in refused.value.hint
    assert bench.jobs == []
    assert bench.entries == []


def test_ctrl_c_stops_machines_seals_what_was_finished_and_forgets_the_rest(bench: Bench) -> None:
    bench.plan = matrices.plan(lines=("5.10", "6.1"), repeats=2)
    machines: list[Made] = []
    reached = threading.Event()

    def happens(job: Job, machine: Made, staging: Path) -> LabError | None:
        if job.order <= 2:
            return goes_well(job, machine, staging)
        machines.append(machine)
        reached.set()
        assert machine.stopped.wait(PATIENCE)
        if job.order == 3:
            raise errors.SshError("the connection was lost")  # because the machine was stopped
        return goes_well(job, machine, staging) or errors.QemuDiedError("it ended")

    def refresh() -> None:
        if reached.is_set() and bench.state.standing().done == 2 and not any(m.stopped.is_set() for m in machines):
            raise KeyboardInterrupt

    bench.happens = happens
    with pytest.raises(KeyboardInterrupt):
        bench.run(2, refresh)

    assert machines
    assert all(machine.stopped.is_set() for machine in machines)
    assert {run for run, _, _ in bench.outcomes} == {1, 2}
    assert {entry.run for entry in bench.entries if isinstance(entry, Begun)} >= {1, 2, 3}
    assert bench.hidden() == []
    assert not [t for t in threading.enumerate() if t.name.startswith("kmlab-worker")]

    bench.happens = goes_well
    bench.run()
    assert sorted(run for run, _, _ in bench.outcomes) == list(range(1, 7))


def test_a_run_that_was_over_when_its_machine_was_ended_counts(bench: Bench) -> None:
    reached = threading.Event()

    def happens(job: Job, machine: Made, staging: Path) -> LabError | None:
        goes_well(job, machine, staging)
        reached.set()
        assert machine.stopped.wait(PATIENCE)
        return None

    def refresh() -> None:
        if reached.is_set() and not bench.state.over:
            raise KeyboardInterrupt

    bench.happens = happens
    with pytest.raises(KeyboardInterrupt):
        bench.run(1, refresh)

    assert bench.outcomes == [(1, 1, "passed")]


def test_the_second_attempt_comes_before_all_that_waits(bench: Bench) -> None:
    bench.plan = matrices.plan(lines=("5.10", "6.1"), repeats=1)
    bench.happens = lambda job, machine, staging: (raises(errors.SshError("x")) if job.order == 1 else goes_well)(
        job, machine, staging
    )
    bench.run()

    assert [(job.order, job.place.attempt if job.place else 0) for job in bench.jobs] == [
        (1, 1),
        (1, 2),
        (2, 1),
        (3, 1),
    ]


def test_what_waits_to_be_sealed_when_it_is_stopped_is_sealed(bench: Bench) -> None:
    go = threading.Event()
    seal = bench.judge.seal

    def slowly(staging: Path, folder: LabFolder, runs: Path) -> Path:
        assert go.wait(PATIENCE)
        return seal(staging, folder, runs)

    def refresh() -> None:
        waiting = [run for run, now in list(bench.state.running.items()) if now.doing == "record"]
        if sorted(waiting) == [1, 2] and not go.is_set():
            go.set()
            raise KeyboardInterrupt

    bench.judge.seal = slowly  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        bench.run(2, refresh)

    assert sorted(bench.outcomes) == [(1, 1, "passed"), (2, 1, "passed")]


def test_no_run_begins_while_the_one_before_has_no_record(bench: Bench) -> None:
    seal = bench.judge.seal
    begun: list[int] = []

    def counting(staging: Path, folder: LabFolder, runs: Path) -> Path:
        begun.append(len(bench.jobs))
        return seal(staging, folder, runs)

    bench.judge.seal = counting  # type: ignore[method-assign]
    bench.run(1)

    assert begun == list(range(1, len(begun) + 1))


def test_a_machine_that_comes_up_after_the_stop_runs_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = threading.Event()
    ran: list[int] = []

    @contextlib.contextmanager
    def slow_start(job: Job, _p: Payload, _h: House, seen: Callable[[Machine], None]) -> Iterator[Left]:
        started.set()
        assert stopping.wait(PATIENCE)
        seen(cast(Machine, Made()))
        ran.append(job.order)
        yield Left(bench.folder, None)

    started = threading.Event()
    end = Runner._end

    def refresh() -> None:
        if started.is_set() and not stopping.is_set():
            raise KeyboardInterrupt

    def ends(self: Runner, *threads: object) -> None:
        self._stop.set()
        stopping.set()
        end(self, *threads)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs, "staged", slow_start)
    monkeypatch.setattr(Runner, "_end", ends)
    with pytest.raises(KeyboardInterrupt):
        bench.run(1, refresh)

    assert ran == []
    assert bench.outcomes == []


def test_several_workers_share_the_plan_and_no_run_is_made_twice(bench: Bench) -> None:
    bench.plan = matrices.plan(lines=("5.10", "6.1", "7.3"), repeats=4)
    together = threading.Barrier(2)

    def happens(job: Job, machine: Made, staging: Path) -> LabError | None:
        with contextlib.suppress(threading.BrokenBarrierError):
            if job.order <= 2:
                together.wait(PATIENCE)  # two machines at once, or this never ends
        return goes_well(job, machine, staging)

    bench.happens = happens
    bench.run(3)

    assert not together.broken
    assert sorted(bench.outcomes) == [(n, 1, "passed") for n in range(1, 17)]
    assert len({job.name for job in bench.jobs}) == 16


def test_a_journal_that_cannot_be_written_ends_the_matrix_and_the_record_stays_to_be_found(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Journal.add

    def full(self: Journal, entry: matrix.Entry) -> None:
        if isinstance(entry, Ended) and entry.run == 2:
            raise DiskFullError("the journal of the matrix cannot be written")
        add(self, entry)

    monkeypatch.setattr(Journal, "add", full)
    with pytest.raises(DiskFullError):
        bench.run()

    assert bench.outcomes == [(1, 1, "passed")]
    assert (bench.folder / RUNS / "r2-1").is_dir()


def test_finished_runs_are_left_alone_and_a_failed_one_has_one_attempt_left(bench: Bench) -> None:
    bench.plan = matrices.plan(lines=("5.10",), repeats=2)
    with Journal(bench.folder) as journal:
        for entry in (ended(2), ended(3, "machine_lost"), ended(4, "lab_failed"), ended(4, "lab_failed", attempt=2)):
            journal.add(entry)
    bench.run()

    assert [(job.order, job.place.attempt if job.place else 0) for job in bench.jobs] == [(1, 1), (3, 2)]


def test_the_processs_own_cpus_are_given_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[tuple[int, set[int]]] = []
    monkeypatch.setattr(hostshare, "pin", lambda pid, cores: pinned.append((pid, set(cores))))
    bench.happens = raises(RuntimeError("a defect"))

    with pytest.raises(RuntimeError):
        bench.run()

    assert pinned[-1] == (os.getpid(), os.sched_getaffinity(0))
