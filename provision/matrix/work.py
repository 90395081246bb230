"""A matrix from its plan to its end: made, prepared, run, gone on with. What ``tasks.py`` calls."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from go_labs import matrix, spec
from go_labs.evidence import Evidence
from go_labs.matrix import (
    LOGS,
    PLAN,
    RUNS,
    Ended,
    MatrixPlan,
    Opened,
    Outcome,
    Voided,
    counted,
    is_done,
)
from go_labs.spec import Clock, LabFolder
from provision import hostfacts, jobs, labrun, payload
from provision.gobuild import variant
from provision.house import START_SECONDS, House
from provision.jobs import Job
from provision.labrun import EVIDENCE
from provision.matrix import classify, estimate, planning
from provision.matrix.journal import Journal, now, settle
from provision.matrix.runner import Reporters, Runner, Shown, render
from provision.matrix.state import State
from provision.payload import Payload
from vm import errors
from vm.deadline import Deadline
from vm.errors import LabError, LabFailedError, MachineError, RecordError, UsageError
from vm.machine import MachineRequest
from vm.model import Kernel

OVERHEAD_MIB = 400
"""Memory that a machine takes on the host beyond its own: QEMU, its translated code, this program's share."""

BROKEN = "broken"
"""Folder for records that were found broken."""


@dataclass(frozen=True, slots=True)
class Summary:
    """How a matrix ended.

    :param failed: outcome → runs whose attempt that counts ended so.
    """

    folder: Path
    plan: MatrixPlan
    done: int
    passed: int
    failed: Mapping[Outcome, int]
    retried: int

    def require_passed(self) -> None:
        """Return if every run passed.

        :raises LabFailedError: some did not, in either attempt.
        """
        count = sum(self.failed.values())
        if count:
            raise LabFailedError(
                f"{count} of {len(self.plan.runs)} runs failed",
                f"the page lists them; their logs are in {self.folder / LOGS}",
            )


def create(plan: MatrixPlan, folder: Path) -> Path:
    """Write ``plan`` into a new folder and return it.

    :raises UsageError: something is there already.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise UsageError(f"{folder} is there already", "name another with --out, or --resume it") from error
    for name in (RUNS, LOGS):
        (folder / name).mkdir()
    temporary = folder / f".{PLAN}"
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n")
    temporary.rename(folder / PLAN)
    settle(folder)
    return folder


def refuse_with_resume(planned: Mapping[str, object]) -> None:
    """Refuse options that make a plan where one is there already.

    :param planned: option → what was given; nothing, where it was not.
    :raises UsageError: one was given.
    """
    for option, value in planned.items():
        if value:
            raise UsageError(
                f"{option} means nothing with --resume",
                "a matrix goes on with the plan that it began with: leave it away",
            )


def unfinished(matrices: Path) -> Path:
    """Return the latest matrix that has runs left.

    :raises UsageError: there is none.
    """
    for folder in sorted(matrices.glob("*/"), reverse=True):
        try:
            plan, ended = matrix.read_plan(folder), matrix.ended(matrix.read_journal(folder))
        except RecordError:
            continue
        if not all(is_done(ended.get(run.number, [])) for run in plan.runs):
            return folder
    raise UsageError(f"no matrix in {matrices} has runs left", "name one: --resume FOLDER")


def free_bytes(folder: Path) -> int:
    """Return the bytes that are free where ``folder`` lies, or will."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def clock_of(plan: MatrixPlan) -> Clock:
    """Return what a second will be in the machines of ``plan``, as far as nobody has tried: KVM is only said to work
    where it was asked for."""
    return "virtual" if plan.clock == "virtual" else "kvm" if plan.accel == "kvm" else "emulated"


def effective_jobs(plan: MatrixPlan, jobs: int) -> int:
    """Return how many of ``jobs`` machines are at work at once, for the expected time.

    Timed phases share no CPUs: more machines than the host has room for mostly wait for each other.
    """
    cpus = max(spec.find(lab.path or lab.name).lab.cpus for lab in plan.labs)
    room = len(os.sched_getaffinity(0)) // (1 if plan.clock == "virtual" else cpus)
    return jobs if plan.share else max(1, min(jobs, room))


def most_jobs(plan: MatrixPlan, labs: Mapping[str, LabFolder] | None = None) -> int:
    """Return how many machines at once suit this host: by its CPUs, and by the memory that is free now.

    With counted instructions a machine takes one CPU of the host, however many it has itself.
    """
    labs = labs or {lab.name: spec.find(lab.path or lab.name) for lab in plan.labs}
    cpus = max(folder.lab.cpus for folder in labs.values())
    by_cores = len(os.sched_getaffinity(0)) // (1 if plan.clock == "virtual" else cpus)
    return max(1, min(by_cores, _by_memory(labs)))


def _by_memory(labs: Mapping[str, LabFolder]) -> int:
    return max(1, hostfacts.available_mib() // (max(folder.lab.memory for folder in labs.values()) + OVERHEAD_MIB))


def _jobs(plan: MatrixPlan, labs: Mapping[str, LabFolder], wanted: int, say: Callable[[str], None]) -> int:
    """Return how many machines run at once: what was wanted, as far as the memory goes that is free now."""
    if not wanted:
        return most_jobs(plan, labs)
    room = _by_memory(labs)
    if wanted > room:
        say(f"{room} machines at once, not {wanted}: there is no memory for more")
    return min(wanted, room)


def perform(
    folder: Path, house: House, reporters: Reporters, shown: Shown, *, wanted_jobs: int = 0, known: estimate.Earlier
) -> Summary:
    """Run what is left of the matrix in ``folder`` and return how it ended.

    :param wanted_jobs: machines at once; 0: what suits the host.
    :param known: of earlier runs, for the expected end.
    :raises UsageError: it cannot be gone on with. :raises LabError: the host cannot; :raises KeyboardInterrupt: it was
        stopped. In each case what was finished is kept.
    """
    plan = matrix.read_plan(folder)
    labs, kernels = planning.found_again(plan, house)
    house = replace(house, layout=replace(house.layout, runs=folder / RUNS))
    with Journal(folder) as journal:
        # Seen before anything is prepared: what is broken must be told at once.
        _recover(folder, plan, journal, reporters, house)
        labrun.sweep(folder / RUNS)  # what runs in flight left when their process was killed
        ended = matrix.ended(matrix.read_journal(folder))
        left = [run for run in plan.runs if not is_done(ended.get(run.number, []))]
        if left:
            payloads = prepare(plan, labs, kernels, house)
            count = _jobs(plan, labs, wanted_jobs, house.say)
            expected = estimate.estimate(plan, left, known)
            journal.add(Opened(at=now(), pid=os.getpid(), jobs=count, host=hostfacts.describe(), load=hostfacts.load()))
            state = State(plan, ended, expected.seconds, effective_jobs(plan, count))
            Runner(
                folder, plan, journal, house, labs, kernels, payloads, state, reporters, count, expected.largest
            ).run(shown)
    return summary(folder)


def summary(folder: Path) -> Summary:
    """Return how the matrix in ``folder`` stands."""
    plan, ended = matrix.read_plan(folder), matrix.ended(matrix.read_journal(folder))
    tried = [ended.get(run.number, []) for run in plan.runs]
    verdicts = [counted(each) for each in tried if is_done(each)]
    outcomes: Counter[Outcome] = Counter(each.outcome for each in verdicts if each is not None)
    passed = outcomes.pop("passed", 0)
    return Summary(
        folder=folder,
        plan=plan,
        done=len(verdicts),
        passed=passed,
        failed=dict(outcomes),
        retried=sum(len(each) > 1 for each in tried),
    )


def prepare(
    plan: MatrixPlan, labs: Mapping[str, LabFolder], kernels: Mapping[str, Kernel], house: House
) -> dict[tuple[str, bool], Payload]:
    """Build all that the runs need, and the saved state of each machine, so that no run pays for it.

    A kernel that does not come up ends nothing here: that is what its runs are to show.

    :raises LabError: something cannot be built, or no kernel comes up. :raises UsageError: the tracer is not the one
        that the matrix began with.
    """
    first = next(iter(kernels.values()))
    payloads: dict[tuple[str, bool], Payload] = {}
    for name, folder in labs.items():
        for judged in (True, False):
            used = folder if judged else planning.timed_only(folder)
            if not used.lab.phases:
                continue
            job = Job(used, first, {}, plan.go_version, 0, variant=variant(plan.build))
            payloads[name, judged] = jobs.prepare(job, house)
    kit = next(iter(payloads.values())).kit.digest
    if plan.kit and kit != plan.kit:
        raise UsageError(
            f"tracer and tools are not those that matrix {plan.id} began with",
            "a matrix goes on only with what it began with: take back the change, or start another",
        )
    _save_states(plan, labs, list({kernel.release: kernel for kernel in kernels.values()}.values()), house)
    return payloads


def _save_states(plan: MatrixPlan, labs: Mapping[str, LabFolder], kernels: Sequence[Kernel], house: House) -> None:
    failed: dict[str, MachineError] = {}
    for kernel in kernels:
        for cpus, memory in {(folder.lab.cpus, folder.lab.memory) for folder in labs.values()}:
            request = MachineRequest(kernel, cpus, memory, accel=plan.accel, clock=plan.clock)
            try:
                house.provider().start(request, Deadline.after(START_SECONDS)).stop()
            except MachineError as error:  # its own runs will fail, and say so; those of other kernels need not
                house.say(f"kernel {kernel.line} does not come up: {error.message}")
                failed[kernel.release] = error
    if len(failed) == len(kernels):
        raise next(iter(failed.values()))


def with_kit(plan: MatrixPlan, house: House) -> MatrixPlan:
    """Return ``plan`` with what identifies tracer and tools; builds them where they are not there."""
    kernel = house.kernel(plan.cells[0].path or plan.cells[0].kernel_release)
    return msgspec.structs.replace(plan, kit=payload.kit(house.layout, house.images(kernel).tools).digest)


def _recover(folder: Path, plan: MatrixPlan, journal: Journal, reporters: Reporters, house: House) -> None:
    """Make journal and records agree: void what is broken, take in what was finished and not yet written down."""
    for staging in (folder / RUNS).glob(".staging-*"):  # nobody else works on this matrix: what is there was cut off
        shutil.rmtree(staging, ignore_errors=True)
    ended = matrix.ended(matrix.read_journal(folder))
    for attempts in ended.values():
        for each in attempts:
            if each.record:
                path = folder / RUNS / each.record
                try:
                    reporters.verify(path)
                except RecordError as error:
                    journal.add(Voided(at=now(), run=each.run, attempt=each.attempt, words=error.message))
                    _set_aside(folder, each.record)
                    house.say(f"run {each.run} is made again: {error.message}")
                else:
                    render(reporters, path, house.say, anew=False)
    written = {each.record for attempts in ended.values() for each in attempts}
    for path in sorted((folder / RUNS).iterdir()):
        if path.is_dir() and path.name not in written and not path.name.startswith("."):
            _take_in(path, folder, plan, journal, reporters, house)


def _take_in(path: Path, folder: Path, plan: MatrixPlan, journal: Journal, reporters: Reporters, house: House) -> None:
    """Write down a record that got its name just before the journal's line could be written."""
    try:
        reporters.verify(path)
        evidence = msgspec.json.decode((path / EVIDENCE).read_bytes(), type=Evidence)
        place = evidence.provenance.place
        if place is None or place.matrix != plan.id or place.run not in {run.number for run in plan.runs}:
            raise RecordError(f"{path.name} is no record of this matrix")
        ended = matrix.ended(matrix.read_journal(folder)).get(place.run, [])
        if any(each.attempt == place.attempt for each in ended):
            raise RecordError(f"attempt {place.attempt} at run {place.run} is written down without it")
        judged = reporters.judge(path, plan.allowed)
    except (RecordError, OSError, msgspec.DecodeError) as error:
        house.say(f"{path.name} is set aside: {error}")
        _set_aside(folder, path.name)
        return
    outcome, words = classify.outcome(_error(evidence), evidence.phases, judged)
    seconds = evidence.timings.get("machine_seconds", 0.0)
    journal.add(
        Ended(
            at=now(), run=place.run, attempt=place.attempt, outcome=outcome, seconds=seconds, record=path.name,
            words=words, gates=judged.gates,
        )
    )  # fmt: skip
    render(reporters, path, house.say)


def _error(evidence: Evidence) -> LabError | None:
    """Return the error that ended a run early, as far as its evidence tells: class and message."""
    found = evidence.facts.get("error")
    if not isinstance(found, dict):
        return None
    kind = getattr(errors, str(found.get("class")), errors.LabFailedError)
    return kind(str(found.get("message"))) if issubclass(kind, LabError) else None


def _set_aside(folder: Path, name: str) -> None:
    target = folder / BROKEN / name
    target.parent.mkdir(exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    source = folder / RUNS / name
    if source.exists():
        source.rename(target)
