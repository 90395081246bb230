"""The main job on the machine's side: from what a person asked for to staging folders with evidence.

What ``reports`` makes of a staging folder is the caller's: this room does not know that one.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from go_labs.evidence import Place
from go_labs.spec import LabFolder
from provision import hostshare, labrun, options, payload
from provision.gobuild import PLAIN, Variant, check_labkit
from provision.hostshare import Around
from provision.house import House
from provision.labrun import Outcome, RunRequest
from provision.payload import Payload
from provision.workplace import Progress
from vm.deadline import Deadline
from vm.errors import Interrupted, LabError, UsageError
from vm.kernels import sort_key
from vm.machine import AcceleratorChoice, ClockChoice, Machine, MachineRequest
from vm.model import Kernel
from vm.pace import patience

OVERHEAD_SECONDS = 300.0
"""Time for everything around a lab's phases: connecting, pushing, tools that compile, pulling."""

RENEWAL_SECONDS = 120.0
"""Time for each phase to be ended and the machine to be reset after it."""

SEED_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Job:
    """One lab on one kernel.

    :param options: of the lab, resolved.
    :param machine: name of a person's machine to run on; empty: a fresh one of this run's own.
    :param variant: how the workload is linked. :param arguments: of a program that is no lab.
    :param place: and ``around``: as in :class:`~provision.labrun.RunRequest`.
    :param name: of the fresh machine; empty: one is made up.
    :param clock: of the fresh machine; a person's own keeps the one that it has.
    """

    folder: LabFolder
    kernel: Kernel
    options: dict[str, str]
    go_version: str
    seed: int
    accel: AcceleratorChoice = "auto"
    cold: bool = False
    machine: str = ""
    order: int = 0
    variant: Variant = PLAIN
    arguments: tuple[str, ...] = ()
    place: Place | None = None
    around: Around = hostshare.alone
    name: str = ""
    clock: ClockChoice = "host"


def new_seed() -> int:
    """Return a seed for a run that was given none; it is recorded, so that the run can be made again."""
    return secrets.randbelow(SEED_LIMIT)


def check(folder: LabFolder, kernels: Sequence[Kernel]) -> None:
    """Refuse, before anything is built or started, a folder that is no Go program and kernels that do not fit the lab.

    :raises BuildError: the folder has no Go source, belongs to no module, or to one that does not lead to labkit.
    :raises UsageError: a kernel is too old for the lab.
    """
    check_labkit(folder.path)
    for kernel in kernels:
        check_kernel(folder, kernel)


def check_kernel(folder: LabFolder, kernel: Kernel) -> None:
    """Refuse a kernel that is older than the lab needs; one's own kernel has no line and is let through.

    :raises UsageError: it is too old.
    """
    with contextlib.suppress(ValueError):
        if sort_key(kernel.line) < sort_key(folder.lab.kernel_minimum):
            raise UsageError(
                f"lab {folder.lab.name} needs kernel {folder.lab.kernel_minimum} or newer, not {kernel.line}",
                "`invoke kernels` lists what there is",
            )


@contextlib.contextmanager
def performed(job: Job, house: House) -> Iterator[Outcome]:
    """Run ``job`` and give its staging folder; a staging folder that nobody made a record of is removed.

    One that holds whole evidence stays until the next start where an error comes from the caller's own work on it.

    :raises LabError: nothing could be run. What failed while the lab ran is in the outcome.
    """
    labrun.sweep(house.layout.runs)
    with staged(job, prepare(job, house), house) as outcome:
        yield outcome


def prepare(job: Job, house: House) -> Payload:
    """Return what goes onto the machine of ``job``, building what is not there.

    :raises LabError: something cannot be built.
    """
    images = house.images(job.kernel)
    return payload.prepare(job.folder, job.go_version, house.layout, images.tools, job.variant)


@contextlib.contextmanager
def staged(
    job: Job, prepared: Payload, house: House, seen: Callable[[Machine], None] = lambda _: None
) -> Iterator[Outcome]:
    """Do as :func:`performed` with what is prepared already.

    :param seen: is told the machine as soon as it runs.
    """
    staging = labrun.staging_folder(house.layout.runs)
    timings: dict[str, float] = {}
    try:
        staging.mkdir(parents=True)
        with _machine(job, house, timings) as machine:
            seen(machine)
            outcome = _run(job, prepared, machine, staging, house.say)
        labrun.add_timings(staging, timings)
        yield outcome
    finally:
        if not (staging / labrun.EVIDENCE).exists():
            shutil.rmtree(staging, ignore_errors=True)


def run_each(work: Sequence[Job], house: House, keep: Callable[[Job, Path], None]) -> LabError | None:
    """Run ``work`` one after another, hand each staging folder to ``keep``, and return the first error of a lab.

    After a Ctrl-C the rest is not run.

    :raises LabError: one could not be run at all, or could not be kept.
    """
    failed: LabError | None = None
    for job in work:
        with performed(job, house) as outcome:
            keep(job, outcome.staging)
        failed = failed or outcome.error
        if isinstance(outcome.error, Interrupted):
            break
    return failed


def _run(job: Job, prepared: Payload, machine: Machine, staging: Path, say: Progress) -> Outcome:
    lab = options.stretched(job.folder.lab, job.options)
    request = RunRequest(
        folder=msgspec.structs.replace(job.folder, lab=lab),
        options=job.options,
        payload=prepared,
        seed=job.seed,
        order=job.order,
        arguments=job.arguments,
        owned=not job.machine,
        place=job.place,
        around=job.around,
    )
    allowed = sum(phase.timeout + RENEWAL_SECONDS for phase in lab.phases) + OVERHEAD_SECONDS
    deadline = Deadline.after(patience(allowed, machine.facts().clock))
    return labrun.run_lab(request, machine, staging, deadline, say)


@contextlib.contextmanager
def _machine(job: Job, house: House, timings: dict[str, float]) -> Iterator[Machine]:
    """Give a person's machine, which stays, or a fresh one, which ends with the block.

    :param timings: gets ``start_seconds`` and ``stop_seconds`` of a fresh one: with Vagrant, those of ``up`` and
        ``destroy``.
    """
    if job.machine:
        machine = house.machine(job.machine)
        if machine.facts().kernel.release != job.kernel.release:
            raise UsageError(
                f"machine {job.machine} runs {machine.facts().kernel.release}, not {job.kernel.release}",
                "leave --kernel away, or choose another machine",
            )
        if job.clock == "virtual" and machine.facts().clock != "virtual":
            raise UsageError(
                f"machine {job.machine} has the host's clock, and a machine keeps its clock",
                "leave --machine away for a fresh one, or start another: invoke vm.up --clock virtual --name NAME",
            )
        yield machine
        return
    lab = job.folder.lab
    request = MachineRequest(
        kernel=job.kernel,
        cpus=lab.cpus,
        memory_mib=lab.memory,
        accel=job.accel,
        clock=job.clock,
        start="cold" if job.cold else "warm",
        name=job.name,
    )
    began = time.monotonic()
    with house.starter().start(request, house.start_deadline()) as machine:
        timings["start_seconds"] = time.monotonic() - began
        yield machine
        began = time.monotonic()
    timings["stop_seconds"] = time.monotonic() - began
