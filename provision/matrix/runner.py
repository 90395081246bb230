"""Running a matrix: workers that take runs in the plan's order and make records of them, and stopping it all.

A worker's machine belongs to this process and dies with it. A run counts when its record has its name and the journal's
line is on the disk; whatever ends the process before that costs the runs in flight, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import msgspec

from go_labs.evidence import Evidence, Place
from go_labs.matrix import LOGS, RUNS, Allowed, Begun, Ended, Judged, MatrixPlan, Outcome, PlannedRun
from go_labs.spec import LabFolder
from provision import hostshare, jobs
from provision.gobuild import variant
from provision.house import House
from provision.jobs import Job
from provision.labrun import EVIDENCE
from provision.matrix import classify
from provision.matrix.cores import Cores, HostTurn, Seat
from provision.matrix.journal import Journal, now, settle
from provision.matrix.logs import Log, kept_console
from provision.matrix.planning import timed_only
from provision.matrix.state import State
from provision.payload import Payload
from vm import progress
from vm.errors import DiskFullError, Interrupted, LabError
from vm.machine import Machine
from vm.model import Kernel

MINIMUM_FREE = 512 << 20
"""Bytes that must be free before a run starts, beside three times the largest record that is expected."""

TURN = "timed.lock"
"""File below the state folder that keeps timed phases of several matrices apart."""

UNSEALED = "unsealed"
"""Folder for what a run left of which no record could be made."""

JOIN_SECONDS = 60.0
"""Time for workers to end after their machines were."""


class Reporters(Protocol):
    """What is done with what a run left: the part that only ``reports`` knows."""

    def seal(self, staging: Path, folder: LabFolder, runs: Path) -> Path:
        """Make a record of a staging folder; return it (``reports.record.seal``)."""

    def verify(self, record: Path) -> None:
        """Read a record whole and compare every hash.

        :raises RecordError: it is not what was sealed.
        """

    def judge(self, record: Path, allowed: Sequence[Allowed]) -> Judged:
        """Say whether a record counts."""

    def render(self, record: Path, *, anew: bool = True) -> object:
        """Write a record's page; unless ``anew``, only where it has none."""


def render(reporters: Reporters, record: Path, say: Callable[[str], None], *, anew: bool = True) -> None:
    """Write a record's page; that it cannot be written is said, and costs neither the run nor the matrix.

    :raises DiskFullError: no space is left, also for the runs to come.
    """
    try:
        reporters.render(record, anew=anew)
    except DiskFullError:
        raise
    except LabError as error:
        say(f"no page of {record.name}: {error}; `invoke report` makes it")


Shown = Callable[[State], AbstractContextManager[Callable[[], None]]]
"""Shows a matrix while it runs: gives what is called now and then, and when something changed."""


@dataclass(frozen=True, slots=True)
class _Try:
    """An attempt under way. :param began: ``time.monotonic``."""

    run: PlannedRun
    attempt: int
    log: Log
    began: float = field(default_factory=time.monotonic)

    def ended(self, outcome: Outcome, words: str, record: str = "", judged: Judged | None = None) -> Ended:
        """Return the journal's line for it."""
        self.log.say(f"{outcome}{': ' if words else ''}{words}")
        return Ended(
            at=now(),
            run=self.run.number,
            attempt=self.attempt,
            outcome=outcome,
            seconds=time.monotonic() - self.began,
            record=record,
            words=words,
            log=self.log.name,
            gates=[] if judged is None else judged.gates,
        )


@dataclass(slots=True)
class Runner:
    """One process's work on a matrix.

    :param labs: by name; ``kernels``: by cell; ``payloads``: by lab, whole and timed alone.
    :param largest: bytes of the largest record that is expected.
    """

    folder: Path
    plan: MatrixPlan
    journal: Journal
    house: House
    labs: Mapping[str, LabFolder]
    kernels: Mapping[str, Kernel]
    payloads: Mapping[tuple[str, bool], Payload]
    state: State
    reporters: Reporters
    jobs: int
    largest: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _fatal: BaseException | None = None
    _machines: dict[int, Machine] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _cores: Cores = field(init=False)
    _sealing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        stopped = self._stop.is_set
        turn = None if self.plan.share else HostTurn(self.house.layout.state / TURN, stopped)
        self._cores = Cores(os.sched_getaffinity(0), share=self.plan.share, stopped=stopped, turn=turn)

    def run(self, shown: Shown) -> None:
        """Run what is left of the plan.

        :raises Interrupted: or KeyboardInterrupt: it was stopped; what was finished is kept.
        :raises LabError: the host cannot go on (a full disk, say).
        """
        workers = [threading.Thread(target=self._work, name=f"kmlab-worker-{n}") for n in range(self.jobs)]
        before = os.sched_getaffinity(0)
        try:
            with shown(self.state) as refresh:
                try:
                    for worker in workers:
                        worker.start()
                    self._watch(refresh)
                finally:
                    self._end(workers)
                    refresh()
        finally:
            hostshare.pin(os.getpid(), before)  # all threads, those of libraries, too
        if self._fatal is not None:
            raise self._fatal

    def _watch(self, refresh: Callable[[], None]) -> None:
        while not self.state.over and self._fatal is None:
            refresh()
            with self.state.changed:
                self.state.changed.wait(1.0)

    def _end(self, workers: list[threading.Thread]) -> None:
        """End machines that still run, and wait for the workers, who make records of what was finished."""
        self._stop.set()
        with self._lock:
            machines = list(self._machines.values())
        for machine in machines:
            with contextlib.suppress(LabError, OSError):
                machine.stop()
        with self.state.changed:
            self.state.changed.notify_all()
        deadline = time.monotonic() + JOIN_SECONDS
        for worker in workers:
            if worker.ident is not None:
                worker.join(max(0.0, deadline - time.monotonic()))

    # ---- workers ----

    def _work(self) -> None:
        with progress.quiet():
            while not self._stop.is_set():
                try:
                    taken = self.state.take()
                    if taken is None:
                        if self.state.over:
                            return
                        with self.state.changed:
                            self.state.changed.wait(0.5)
                        continue
                    self._attempt(*taken)
                except Interrupted:
                    return
                except BaseException as error:  # handed to the main thread, which raises it
                    self._fail(error)
                    return

    def _fail(self, error: BaseException) -> None:
        self._fatal = self._fatal or error
        self._stop.set()
        with self.state.changed:
            self.state.changed.notify_all()

    def _attempt(self, run: PlannedRun, attempt: int) -> None:
        """Run once, and make a record of it.

        No other run begins before: a kill then costs each worker one run, and a second attempt really comes next.
        """
        self._require_space()
        log = Log(self.folder / LOGS, run, attempt, self.plan.cell(run.cell).kernel_line)
        this = _Try(run, attempt, log)
        self.journal.add(Begun(at=now(), run=run.number, attempt=attempt))

        def say(text: str) -> None:
            log.say(text)
            self.state.doing(run, text)

        house = replace(self.house, say=say)
        payload = self.payloads[run.lab, run.judged]
        with log, self._cores.seat() as seat:
            job = self._job(run, attempt, seat)
            try:
                with jobs.staged(job, payload, house, lambda machine: self._seen(run, machine)) as done:
                    pass
            except classify.OF_THE_RUN as error:
                self._give_up_if_stopped(None)
                kept_console(house, job.name, log)
                self._tell(this, this.ended(*classify.outcome(error)))
                return
            finally:
                with self._lock:
                    self._machines.pop(run.number, None)
            if done.error is not None:  # else it was over before its machine was ended, and counts
                self._give_up_if_stopped(done.staging)
        self.state.doing(run, "record")
        with self._sealing:  # one at a time: Python runs one at a time anyhow, and memory is spared
            self._seal(this, job.folder, done.staging, done.error)

    def _give_up_if_stopped(self, staging: Path | None) -> None:
        """Forget an attempt whose machine was ended because the matrix was: that says nothing of the run."""
        if self._stop.is_set():
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)
            raise Interrupted("interrupted", "what was finished is kept")

    def _seen(self, run: PlannedRun, machine: Machine) -> None:
        with self._lock:
            self._machines[run.number] = machine
        if self._stop.is_set():
            raise Interrupted("interrupted", "what was finished is kept")

    def _job(self, run: PlannedRun, attempt: int, seat: Seat) -> Job:
        folder = self.labs[run.lab]
        return Job(
            folder=folder if run.judged else timed_only(folder),
            kernel=self.kernels[run.cell],
            options=self.plan.lab(run.lab).options,
            go_version=self.plan.go_version,
            seed=run.seed,
            accel=self.plan.accel,
            clock=self.plan.clock,
            order=run.number,
            variant=variant(self.plan.build),
            place=Place(matrix=self.plan.id, run=run.number, block=run.block, cell=run.cell, attempt=attempt),
            around=self._cores.around(seat),
            name=f"matrix-{os.getpid()}-{run.number}-{attempt}",
        )

    def _require_space(self) -> None:
        needed = MINIMUM_FREE + 3 * self.largest
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise DiskFullError(
                f"{free >> 20} MiB are free for {self.folder}, and a run may need {needed >> 20}",
                "free some space, then go on with --resume: nothing that was finished is lost",
            )

    # ---- records ----

    def _seal(self, this: _Try, folder: LabFolder, staging: Path, error: LabError | None) -> None:
        """Make a record of what an attempt left, judge it, and write the journal's line."""
        with contextlib.ExitStack() as stack:
            if not self._stop.is_set():
                with contextlib.suppress(Interrupted):  # stopped meanwhile: what is finished is sealed all the same
                    stack.enter_context(self._cores.seat())
            evidence = msgspec.json.decode((staging / EVIDENCE).read_bytes(), type=Evidence)
            judged: Judged | None = None
            record = ""
            try:
                path = self.reporters.seal(staging, folder, self.folder / RUNS)
                settle(path)
                record, judged = path.name, self.reporters.judge(path, self.plan.allowed)
            except classify.OF_THE_RUN as caught:
                error = error or caught
                if staging.exists():
                    target = self.folder / UNSEALED / f"{this.run.number:04d}-{this.attempt}"
                    target.parent.mkdir(exist_ok=True)
                    # The same attempt may have come to this before, and been cut off before its line was written.
                    shutil.rmtree(target, ignore_errors=True)
                    staging.rename(target)
            outcome, words = classify.outcome(error, evidence.phases, judged)
            self._tell(this, this.ended(outcome, words, record, judged))
            if record:
                render(self.reporters, self.folder / RUNS / record, this.log.say)

    def _tell(self, this: _Try, ended: Ended) -> None:
        self.journal.add(ended)
        self.state.end(this.run, ended)
