"""A runner's surroundings made up: machines that nobody started, and a judge that says what a test wants."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import msgspec

from go_labs import matrix
from go_labs.evidence import Evidence, Place
from go_labs.matrix import RUNS, Ended, Judged, MatrixPlan, Outcome
from go_labs.spec import LabFolder
from provision.house import House
from provision.jobs import Job
from provision.labrun import Outcome as Left
from provision.labrun import staging_folder
from provision.matrix.journal import Journal
from provision.matrix.runner import Runner
from provision.matrix.state import State
from provision.payload import Payload
from tests.provision import matrices
from vm.errors import LabError, RecordError
from vm.machine import Machine
from vm.paths import Layout

PATIENCE = 30.0


class Made:
    """A machine that runs until somebody stops it."""

    def __init__(self) -> None:
        self.pid = 0
        self.cpu_threads: tuple[int, ...] = ()
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()


Happens = Callable[[Job, Made, Path], LabError | None]
"""What a run does: leave evidence in the folder, return an error that ended it early, or raise one."""


def goes_well(job: Job, _machine: Made, staging: Path) -> LabError | None:
    matrices.leave_evidence(staging, job.place, lab=job.folder.lab.name)
    return None


@dataclass
class Judge:
    """``reports`` as far as a runner knows it."""

    said: dict[int, Judged] = field(default_factory=dict)
    refuse: LabError | None = None
    rendered: list[str] = field(default_factory=list)
    render_fails: BaseException | None = None
    sealing: threading.Event = field(default_factory=threading.Event)

    def seal(self, staging: Path, _folder: LabFolder, runs: Path) -> Path:
        self.sealing.set()
        if self.refuse is not None:
            raise self.refuse
        place = place_of(staging)
        target = runs / f"r{place.run}-{place.attempt}"
        staging.rename(target)
        return target

    def verify(self, record: Path) -> None:
        if (record / "bad").exists() or not record.exists():
            raise RecordError(f"{record.name}: a hash is another")

    def judge(self, record: Path, _allowed: list[str]) -> Judged:
        return self.said.get(place_of(record).run, Judged())

    def render(self, record: Path, *, anew: bool = True) -> object:
        if not anew and record.name in self.rendered:
            return None
        self.rendered.append(record.name)
        if self.render_fails is not None:
            raise self.render_fails
        return None


def place_of(folder: Path) -> Place:
    place = msgspec.json.decode((folder / "evidence.json").read_bytes(), type=Evidence).provenance.place
    assert place is not None
    return place


@dataclass
class Bench:
    """A matrix in a folder of this test's own."""

    folder: Path
    plan: MatrixPlan
    layout: Layout
    happens: Happens = goes_well
    judge: Judge = field(default_factory=Judge)
    jobs: list[Job] = field(default_factory=list)
    state: State = field(init=False)

    @contextlib.contextmanager
    def staged(
        self, job: Job, _payload: Payload, house: House, seen: Callable[[Machine], None] = lambda _: None
    ) -> Iterator[Left]:
        """What :func:`provision.jobs.staged` does, with a machine that is made up."""
        self.jobs.append(job)
        staging = staging_folder(house.layout.runs)
        machine = Made()
        try:
            staging.mkdir(parents=True)
            seen(cast(Machine, machine))
            house.say("phase timed")
            left = Left(staging, self.happens(job, machine, staging))
            yield left
        finally:
            if not (staging / "evidence.json").exists():
                shutil.rmtree(staging, ignore_errors=True)

    def run(self, workers: int = 1, refresh: Callable[[], None] = lambda: None) -> None:
        layout = Layout(self.layout.cache, self.layout.state, self.folder / RUNS)
        keys = [(lab.name, judged) for lab in self.plan.labs for judged in (True, False)]
        before = matrix.ended(matrix.read_journal(self.folder))
        self.state = State(self.plan, before, {run.number: 10.0 for run in self.plan.runs}, workers)

        @contextlib.contextmanager
        def shown(_state: State) -> Iterator[Callable[[], None]]:
            yield refresh

        with Journal(self.folder) as journal:
            Runner(
                folder=self.folder, plan=self.plan, journal=journal, house=House(layout),
                labs={f.lab.name: f for f in matrices.folders([lab.name for lab in self.plan.labs])},
                kernels={cell.id: matrices.kernel(cell.kernel_line) for cell in self.plan.cells},
                payloads=cast(dict[tuple[str, bool], Payload], dict.fromkeys(keys)),
                state=self.state, reporters=self.judge, jobs=workers,
            ).run(shown)  # fmt: skip

    @property
    def entries(self) -> list[matrix.Entry]:
        return matrix.read_journal(self.folder)

    @property
    def told(self) -> list[Ended]:
        return [entry for entry in self.entries if isinstance(entry, Ended)]

    @property
    def outcomes(self) -> list[tuple[int, int, Outcome]]:
        return [(entry.run, entry.attempt, entry.outcome) for entry in self.told]

    def hidden(self) -> list[str]:
        """Staging folders that were left."""
        return [path.name for path in (self.folder / RUNS).iterdir() if path.name.startswith(".")]


def raises(error: BaseException) -> Happens:
    def happens(_job: Job, _machine: Made, _staging: Path) -> LabError | None:
        raise error

    return happens


def leaves(*phases: object, error: LabError | None = None) -> Happens:
    def happens(job: Job, _machine: Made, staging: Path) -> LabError | None:
        matrices.leave_evidence(staging, job.place, phases=phases)  # type: ignore[arg-type]
        return error

    return happens
