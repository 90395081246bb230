"""``invoke selftest``: the forced section of every lab, on each kernel, Go version and build, held against its trace.

One machine per kernel serves all of them; nothing is judged but whether counts are exact. What the counts came to is
the word of ``reports``, which is handed in: this room does not know that one.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Self

import msgspec

from go_labs import spec
from go_labs.evidence import ForcedCheck
from go_labs.spec import Lab, LabFolder
from provision import cli, gobuild, jobs, labrun, options, payload, toolchains
from provision.gobuild import Variant
from provision.house import START_SECONDS, House
from provision.labrun import RunRequest
from provision.payload import Payload
from provision.workplace import Workplace
from vm.deadline import Deadline
from vm.errors import ExpectationError, Interrupted, LabError, MachineError, UsageError
from vm.machine import DEFAULT_CPUS, DEFAULT_MEMORY_MIB, AcceleratorChoice, Machine, MachineRequest
from vm.model import Kernel

FORCED = "forced"
"""Name of the section whose counts are exact (docs/labs.md)."""

SIZES = "sizes"
"""Name of the option that holds the forced section's sizes, where a lab has one."""

SEED = 1
"""Seed of every run: nothing that is checked here may depend on it."""

COMBINATION_SECONDS = 300.0
"""Time for one combination beyond the time-outs of its phases."""

Check = Callable[[Path, Lab], ForcedCheck]
Seal = Callable[[Path, LabFolder, Path], Path]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be checked: every lab on every kernel with every Go version and build.

    :param sizes: of the forced sections, as the option's text; empty: each lab's default.
    """

    folders: Sequence[LabFolder]
    kernels: Sequence[Kernel]
    versions: Sequence[str]
    variants: Sequence[Variant]
    sizes: str = ""
    accel: AcceleratorChoice = "auto"


def plan(house: House, *, kernels: str, versions: str, labs: str, sizes: str, builds: str, accel: str = "auto") -> Plan:
    """Return what a person asked for, each with commas; empty: all default kernels, all labs.

    :raises UsageError: a name is not known. :raises ConfigError: a lab does not hold together.
    """
    return Plan(
        folders=[spec.find(name) for name in (cli.words("--labs", labs) if labs else spec.names())],
        kernels=house.kernels(kernels) if kernels else house.default_kernels(),
        versions=[toolchains.resolve(version) for version in cli.words("--go", versions)],
        variants=[gobuild.variant(word) for word in cli.words("--build", builds)],
        sizes=sizes,
        accel=cli.accelerator(accel),
    )


@dataclass(frozen=True, slots=True)
class Combination:
    """One lab, built with one Go version in one way. ``lab`` has its forced sections in traced phases, and no more."""

    folder: LabFolder
    version: str
    variant: Variant


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one combination on one kernel.

    :param check: None where it could not be run; ``error`` says why.
    :param unfit: why it cannot be run by its own word: the lab needs a newer Go or kernel, or has no forced section.
    :param record: folder of the record, where it is not exact.
    """

    lab: str
    kernel: str
    go: str
    build: str
    seconds: float
    check: ForcedCheck | None = None
    error: str = ""
    unfit: str = ""
    record: str = ""

    @property
    def failed(self) -> bool:
        """Whether it could have been exact and is not."""
        return not self.unfit and (self.check is None or bool(self.error) or not self.check.exact)

    @property
    def verdict(self) -> str:
        """What the table says."""
        if self.unfit:
            return f"not run: {self.unfit}"
        if self.check is None:
            return f"FAILED: {self.error}"
        equal = self.check.checked - sum(each.traced is not None for each in self.check.differences)
        return f"{'' if not self.failed else 'DIFFERS: '}{equal} of {self.check.checked} equal"


class Result(msgspec.Struct, kw_only=True):
    """All rows so far; ``interrupted`` where not all of them could be run."""

    rows: list[Row] = []
    interrupted: bool = False

    def document(self) -> dict[str, object]:
        """Return all of it for ``--json``."""
        rows = [{**msgspec.to_builtins(row), "exact": not row.failed and not row.unfit} for row in self.rows]
        return {"exact": not any(row.failed for row in self.rows), "interrupted": self.interrupted, "rows": rows}

    def require_exact(self) -> None:
        """Return if all that was run is exact.

        :raises Interrupted: not all was run. :raises ExpectationError: something differs, or nothing was checked.
        """
        if self.interrupted:
            raise Interrupted("interrupted", "what was finished is above")
        failed = [row for row in self.rows if row.failed]
        if failed:
            raise ExpectationError(
                f"{len(failed)} of {len(self.rows)} combinations are not exact",
                "the records of these are kept; `invoke report` renders them",
            )
        if all(row.unfit for row in self.rows):
            raise ExpectationError("nothing was checked", "choose labs, kernels and Go versions that fit each other")


def forced_only(folder: LabFolder) -> LabFolder:
    """Return ``folder`` with nothing but the forced sections of its traced phases: no claims, gates or attempts."""
    phases = [
        msgspec.structs.replace(phase, sections=[FORCED])
        for phase in folder.lab.phases
        if phase.probes and FORCED in phase.sections
    ]
    lab = msgspec.structs.replace(folder.lab, phases=phases, claims=[], gates=[], attempts=[])
    return msgspec.structs.replace(folder, lab=lab)


def combinations(plan: Plan) -> list[Combination]:
    """Return what is run on each kernel, in order."""
    folders = [forced_only(folder) for folder in plan.folders]
    return [Combination(f, version, variant) for f in folders for version in plan.versions for variant in plan.variants]


def run(plan: Plan, house: House, check: Check, seal: Seal) -> Result:
    """Run all of ``plan``; progress on stderr. After a Ctrl-C the result holds what was finished.

    :param check: says what a staging folder came to; ``seal`` makes a record of it.
    :raises UsageError: a lab's option does not take ``plan.sizes``.
    """
    result = Result()
    wanted = combinations(plan)
    for each in wanted:
        _options(each.folder.lab, plan.sizes)
    try:
        for kernel in plan.kernels:
            for row in _on_kernel(plan, kernel, wanted, house, check, seal):
                result.rows.append(row)
                house.say(f"{row.lab} on {row.kernel}, Go {row.go}, {row.build}: {row.verdict} ({row.seconds:.1f} s)")
    except (KeyboardInterrupt, Interrupted):
        result.interrupted = True
    return result


def _options(lab: Lab, sizes: str) -> dict[str, str]:
    return options.resolve(lab, {SIZES: sizes} if sizes and SIZES in lab.options else {})


def _on_kernel(
    plan: Plan, kernel: Kernel, wanted: Sequence[Combination], house: House, check: Check, seal: Seal
) -> Iterator[Row]:
    """Give a row per combination. A machine that is lost is told in the rows of all that it could not run."""
    labs = [each.folder.lab for each in wanted]
    request = MachineRequest(
        kernel=kernel,
        cpus=max([DEFAULT_CPUS, *(lab.cpus for lab in labs)]),
        memory_mib=max([DEFAULT_MEMORY_MIB, *(lab.memory for lab in labs)]),
        accel=plan.accel,
    )
    left = list(wanted)
    try:
        with (
            house.provider().start(request, Deadline.after(START_SECONDS)) as machine,
            _Visit(plan, kernel, machine, house, check, seal) as visit,
            closing(_prepared(wanted, kernel, house)) as prepared,
        ):
            for combination, loaded in prepared:
                row = visit.row(combination, loaded)
                left.pop(0)
                yield row
    except MachineError as error:
        for each in left:
            yield _row(each, kernel, error=error.message)


Loaded = Payload | LabError
"""What goes onto the machine, or why it cannot be made."""


def _prepared(wanted: Sequence[Combination], kernel: Kernel, house: House) -> Generator[tuple[Combination, Loaded]]:
    """Give each combination with its payload, or why it has none; the next is built while one runs."""
    tools = house.images(kernel).tools

    def prepare(each: Combination) -> Loaded:
        try:
            jobs.check_kernel(each.folder, kernel)
            return payload.prepare(each.folder, each.version, house.layout, tools, each.variant)
        except LabError as error:
            return error

    with ThreadPoolExecutor(1) as pool:
        ahead: deque[Future[Loaded]] = deque()
        for index, each in enumerate(wanted):
            ahead.extend(pool.submit(prepare, later) for later in wanted[index + len(ahead) : index + 2])
            yield each, ahead.popleft().result()


@dataclass(slots=True)
class _Visit:
    """One kernel's machine, in which all combinations run one after another."""

    plan: Plan
    kernel: Kernel
    machine: Machine
    house: House
    check: Check
    seal: Seal
    _stack: ExitStack = field(default_factory=ExitStack)
    _place: Workplace | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def row(self, each: Combination, loaded: Loaded) -> Row:
        """Run one combination and say what came of it.

        :raises MachineError: the machine is lost. :raises Interrupted: a signal ended it.
        """
        lab = each.folder.lab
        if isinstance(loaded, UsageError):
            return _row(each, self.kernel, unfit=loaded.message)
        if isinstance(loaded, LabError):
            return _row(each, self.kernel, error=loaded.message)
        if not lab.phases:
            return _row(each, self.kernel, unfit="no traced phase of it has a forced section")
        began = monotonic()
        request = RunRequest(each.folder, _options(lab, self.plan.sizes), loaded, SEED)
        staging = labrun.staging_folder(self.house.layout.runs)
        try:
            staging.mkdir(parents=True)
            outcome = labrun.run_in(self._at(request), request, staging, _say_nothing)
            if isinstance(outcome.error, Interrupted | MachineError):
                raise outcome.error
            found = self.check(staging, lab)
            row = _row(each, self.kernel, seconds=monotonic() - began, check=found)
            return self._kept(row, each.folder, staging) if row.failed else row
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _at(self, request: RunRequest) -> Workplace:
        """Return the place in the machine, with the payload of ``request`` in it."""
        if self._place is None:
            place = Workplace(
                self.machine, request.payload, request.words, request.seed, self._deadline(request), self.house.say
            )
            self._place = self._stack.enter_context(place)
            return self._place
        self._place.deadline = self._deadline(request)
        self._place.change(request.payload, request.words)
        return self._place

    def _deadline(self, request: RunRequest) -> Deadline:
        return Deadline.after(COMBINATION_SECONDS + sum(phase.timeout for phase in request.folder.lab.phases))

    def _kept(self, row: Row, folder: LabFolder, staging: Path) -> Row:
        """Make a record of what is not exact."""
        try:
            return msgspec.structs.replace(row, record=str(self.seal(staging, folder, self.house.layout.runs)))
        except LabError as error:
            return msgspec.structs.replace(row, error=f"no record could be made of it: {error.message}")


def _say_nothing(_: str) -> None:
    return


def _row(
    each: Combination,
    kernel: Kernel,
    *,
    seconds: float = 0.0,
    check: ForcedCheck | None = None,
    error: str = "",
    unfit: str = "",
) -> Row:
    return Row(
        lab=each.folder.lab.name,
        kernel=kernel.line,
        go=each.version,
        build=each.variant.name,
        seconds=seconds,
        check=check,
        error=error,
        unfit=unfit,
    )


def differences(row: Row) -> list[str]:
    """Return all that is not exact in a row, a line each."""
    if row.check is None:
        return []
    found = row.check
    lines = [
        f"segment {each.segment} ({', '.join(f'{name} {value}' for name, value in each.parameters.items())}): "
        f"{each.counter} {'not traced' if each.traced is None else each.traced}, expected {each.expected}"
        for each in found.differences
    ]
    lines += [f"{found.goids_wrong} goroutine ids were read wrong"] if found.goids_wrong else []
    lines += ["no goroutine id was read"] if not found.goids else []
    lines += [f"{found.lost} counts were lost"] if found.lost else []
    lines += ["nothing was checked"] if not found.checked else []
    return [*lines, *found.errors, *([row.error] if row.error else []), *([row.record] if row.record else [])]


def show(result: Result) -> None:
    """Print the table, then each difference."""
    rows = [(r.lab, r.kernel, r.go, r.build, r.verdict, f"{r.seconds:.1f} s") for r in result.rows]
    cli.print_table(("lab", "kernel", "Go", "build", "counts", "took"), rows)
    for row in result.rows:
        for line in differences(row) if row.failed else []:
            print(cli.printable(f"{row.lab} on {row.kernel}, Go {row.go}, {row.build}: {line}"))
