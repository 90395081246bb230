"""From what a person asked for to the plan of a matrix: which runs, in which order. Nothing is started here."""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from go_labs import spec
from go_labs.matrix import ALPHA, DELTA, MATRIX_SCHEMA, Allowed, Cell, MatrixPlan, PlannedLab, PlannedRun, Unfit
from go_labs.spec import TIMED, LabFolder
from provision import cli, gobuild, jobs, options, payload, toolchains
from provision.house import House
from vm.errors import UsageError
from vm.kernels import sort_key
from vm.machine import AcceleratorChoice, ClockChoice, MachineRequest
from vm.model import Kernel
from vm.version import VERSION

REPEATS = 10
"""Blocks where nobody chose: nine are the least with which Holm over nine comparisons can reject anything."""

MOST_REPEATS = 1000

OWN = "own"
"""``Kernel.support`` of a kernel of one's own (``vm.owned_kernel``)."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for, as typed; empty where nothing was said.

    :param labs: names or folders, with commas. :param sets: ``LAB.OPTION=VALUE`` each.
    :param judged: how many of the repeats run all phases; :param baseline: a kernel's line or release.
    :param delta: a percentage, ``3`` or ``3%``. :param allowed: complaints of kernels that are known.
    """

    labs: str = ""
    kernels: str = ""
    repeats: str = ""
    judged: str = ""
    baseline: str = ""
    seed: str = ""
    go: str = ""
    build: str = "plain"
    sets: Sequence[str] = ()
    delta: str = ""
    accel: AcceleratorChoice = "auto"
    clock: ClockChoice = "host"
    share: bool = False
    allowed: Sequence[Allowed] = ()


def plan(wish: Wish, house: House) -> MatrixPlan:
    """Return the plan of what ``wish`` asks for.

    :raises UsageError: a name, number or option cannot be meant. :raises ConfigError: a lab does not hold together.
    """
    folders = _folders(wish.labs)
    kernels = house.kernels(wish.kernels) if wish.kernels else house.default_kernels()
    repeats = cli.whole("--repeats", wish.repeats, 1, MOST_REPEATS) if wish.repeats else REPEATS
    judged = cli.whole("--judged", wish.judged, 1, repeats) if wish.judged else repeats
    seed = cli.whole("--seed", wish.seed, 0, jobs.SEED_LIMIT) if wish.seed else jobs.new_seed()
    values = assigned(folders, wish.sets)
    dice = random.Random(seed)  # noqa: S311  (an order that can be made again, no secret)
    cells = make_cells(kernels, _baseline(wish.baseline, kernels), dice, own_paths(wish.kernels, kernels))
    again = next(cell.kernel_release for cell in cells if cell.control)
    baseline = next(cell.id for cell in cells if not cell.control and cell.kernel_release == again)
    unfit = _unfit(folders, kernels, cells)
    if len(unfit) == len(folders) * len(cells):
        raise UsageError(
            "no lab of the matrix can run on any of its kernels", "; ".join(dict.fromkeys(each.why for each in unfit))
        )
    version = toolchains.resolve(wish.go or None)
    for folder in folders:
        payload.require_go(folder, version)
        MachineRequest(kernels[0], folder.lab.cpus, folder.lab.memory, accel=wish.accel, clock=wish.clock)
    return MatrixPlan(
        schema=MATRIX_SCHEMA,
        id=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        product_version=VERSION,
        seed=seed,
        labs=[_planned(folder, values[folder.lab.name]) for folder in folders],
        cells=cells,
        baseline=baseline,
        repeats=repeats,
        judged=judged,
        delta=read_delta(wish.delta),
        alpha=ALPHA,
        clock=wish.clock,
        accel=wish.accel,
        go_version=version,
        build=gobuild.variant(wish.build).name,
        share=wish.share,
        allowed=list(wish.allowed),
        lock_digest=house.lock.digest,
        runs=order(folders, cells, unfit, repeats, judged, dice),
        unfit=unfit,
    )


def _folders(text: str) -> list[LabFolder]:
    folders = [spec.find(name) for name in (cli.words("--labs", text) if text else spec.names())]
    names = [folder.lab.name for folder in folders]
    if len(set(names)) < len(names):
        raise UsageError(f"--labs {text} names one lab twice", f"it means {', '.join(names)}")
    return folders


def _planned(folder: LabFolder, values: dict[str, str]) -> PlannedLab:
    lab = folder.lab
    return PlannedLab(
        name=lab.name,
        title=lab.title,
        path="" if folder.path.parent == spec.LABS else str(folder.path),
        sha256=payload.lab_digest(folder),
        section=lab.section,
        primary=lab.primary,
        options=values,
    )


def assigned(folders: Sequence[LabFolder], texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return every lab's options, resolved: ``LAB.OPTION=VALUE`` is for one lab, all others have their defaults.

    :raises UsageError: a text is not of that form, or names no lab of the matrix or no option of it.
    """
    given: dict[str, dict[str, str]] = {folder.lab.name: {} for folder in folders}
    for name, value in options.parse_assignments(list(texts)).items():
        lab, dot, option = name.partition(".")
        if not dot or lab not in given:
            raise UsageError(f"--set {name}={value}: which lab?", f"write LAB.OPTION=VALUE; labs: {', '.join(given)}")
        given[lab][option] = value
    return {folder.lab.name: options.resolve(folder.lab, given[folder.lab.name]) for folder in folders}


def read_delta(text: str) -> float:
    """Return the relative difference that ``--delta`` means, :data:`DELTA` where it is empty.

    :raises UsageError: it is no percentage in range.
    """
    if not text:
        return DELTA
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0.001 <= value <= 0.5:
        raise UsageError(f"--delta {text!r} is no percentage", "give one from 0.1% to 50%, for example 3%")
    return value


def _baseline(text: str, kernels: Sequence[Kernel]) -> Kernel:
    """Return the kernel that all others are compared with: the one that is named, else the oldest of the matrix."""
    if not text:
        return min(kernels, key=_age)
    for kernel in kernels:
        if text in (kernel.line, kernel.release):
            return kernel
    known = ", ".join(kernel.line for kernel in kernels)
    raise UsageError(f"--baseline {text} is no kernel of the matrix", f"it has {known}")


def _age(kernel: Kernel) -> tuple[int, tuple[int, ...]]:
    try:
        return 0, sort_key(kernel.line)
    except ValueError:  # a kernel of one's own has no line
        return 1, ()


def own_paths(text: str, kernels: Sequence[Kernel]) -> dict[str, str]:
    """Return what names each kernel of one's own, by release: ``--kernels`` was ``text`` and gave ``kernels``."""
    parts = [part.strip() for part in text.split(",")]
    return {
        kernel.release: str(Path(part).expanduser().absolute()) if "/" in part or part.endswith(".deb") else part
        for part, kernel in zip(parts, kernels, strict=False)
        if kernel.support == OWN
    }


def make_cells(
    kernels: Sequence[Kernel], baseline: Kernel, dice: random.Random, own: Mapping[str, str] | None = None
) -> list[Cell]:
    """Return a cell for each kernel and one more for ``baseline``, with names drawn by ``dice`` that tell nothing.

    :param own: what names kernels of one's own (:func:`own_paths`).
    """
    columns = [(kernel, False) for kernel in kernels] + [(baseline, True)]
    names = [f"k{number}" for number in range(1, len(columns) + 1)]
    dice.shuffle(names)
    return [
        Cell(
            id=name,
            kernel_line=kernel.line,
            kernel_release=kernel.release,
            control=control,
            path=(own or {}).get(kernel.release, ""),
            sha256=_own_sha256(kernel),
        )
        for name, (kernel, control) in zip(names, columns, strict=True)
    ]


def _own_sha256(kernel: Kernel) -> str:
    return kernel.packages[0].sha256 if kernel.support == OWN else ""


def _unfit(folders: Sequence[LabFolder], kernels: Sequence[Kernel], cells: Sequence[Cell]) -> list[Unfit]:
    found = []
    by_release = {kernel.release: kernel for kernel in kernels}
    for folder in folders:
        gobuild.check_labkit(folder.path)
        for cell in cells:
            try:
                jobs.check_kernel(folder, by_release[cell.kernel_release])
            except UsageError as error:
                found.append(Unfit(lab=folder.lab.name, cell=cell.id, why=error.message))
    return found


def order(
    folders: Sequence[LabFolder],
    cells: Sequence[Cell],
    unfit: Sequence[Unfit],
    repeats: int,
    judged: int,
    dice: random.Random,
) -> list[PlannedRun]:
    """Return all runs in the order that they take place.

    Within a repeat the labs come in random order, and within a lab all cells, back to back and in random order: what
    drifts on the host meets every kernel alike, and the two that are compared ran minutes apart. A seed gives the same
    order on one version of Python; that another shuffles alike nobody promises (``random``, "Notes on
    Reproducibility"), and the plan on disk is what counts. Which repeats are the judged ones is drawn, too: were they
    the first, the others would be another time of day.

    All cells of a lab in a repeat have one seed, so that they do the same work.
    """
    out = {(each.lab, each.cell) for each in unfit}
    whole = set(dice.sample(range(1, repeats + 1), judged))
    runs: list[PlannedRun] = []
    for block in range(1, repeats + 1):
        labs = list(folders)
        dice.shuffle(labs)
        for folder in labs:
            seed = dice.randrange(jobs.SEED_LIMIT)
            columns = [cell for cell in cells if (folder.lab.name, cell.id) not in out]
            dice.shuffle(columns)
            # What a lab without a timed phase is compared by is counted: it runs in the judged repeats alone.
            timed = any(phase.name == TIMED for phase in folder.lab.phases)
            columns = columns if timed or block in whole else []
            runs += [
                PlannedRun(
                    number=len(runs) + place,
                    block=block,
                    lab=folder.lab.name,
                    cell=cell.id,
                    seed=seed,
                    judged=block in whole,
                )
                for place, cell in enumerate(columns, 1)
            ]
    return runs


def timed_only(folder: LabFolder) -> LabFolder:
    """Return ``folder`` with its timed phase alone: no claims, gates or attempts, which need the others."""
    phases = [phase for phase in folder.lab.phases if phase.name == TIMED]
    lab = msgspec.structs.replace(folder.lab, phases=phases, claims=[], gates=[], attempts=[])
    return msgspec.structs.replace(folder, lab=lab)


def found_again(plan: MatrixPlan, house: House) -> tuple[dict[str, LabFolder], dict[str, Kernel]]:
    """Return labs by name and kernels by cell of a plan that is gone on with.

    :raises UsageError: a lab, a kernel of one's own, or the lock, is not what it was when the plan was made.
    """
    hint = "a matrix goes on only with what it began with: take back the change, or start another"
    if plan.lock_digest != house.lock.digest:
        raise UsageError(f"the lock is not the one that matrix {plan.id} began with", hint)
    labs: dict[str, LabFolder] = {}
    for each in plan.labs:
        folder = spec.find(each.path or each.name)
        if payload.lab_digest(folder) != each.sha256:
            raise UsageError(f"lab {each.name} is not as it was when matrix {plan.id} began", hint)
        labs[each.name] = folder
    kernels = {cell.id: house.kernel(cell.path or cell.kernel_release) for cell in plan.cells}
    for cell in plan.cells:
        found = kernels[cell.id]
        if found.release != cell.kernel_release or _own_sha256(found) != cell.sha256:
            raise UsageError(f"kernel {cell.path} is not as it was when matrix {plan.id} began", hint)
    return labs, kernels
