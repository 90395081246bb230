"""A matrix on disk: the data between who runs it (``provision``) and who compares it (``reports``).

A matrix is a folder::

    plan.json        what is to be run, in which order; written once, never changed
    journal.jsonl    what came of it, a line each, only ever added to
    runs/            run records, a folder each, as `invoke lab` makes them
    logs/            a log for each attempt
    compare.html     and exports: made from the above, and made again at will

A line of the journal is on the disk before anything is told, and a record gets its name when it is whole. So whatever
ends a matrix, what is in the folder is true, and the rest has not happened.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from vm.errors import RecordError

MATRIX_SCHEMA = 1
"""Version of the shapes below. A matrix of another version is refused, never guessed at."""

DELTA = 0.03
"""Relative difference within which kernels count as equivalent, where nobody chose."""

ALPHA = 0.05
"""Level of all tests, where nobody chose."""

PLAN = "plan.json"
JOURNAL = "journal.jsonl"
RUNS = "runs"
LOGS = "logs"
COMPARISON = "compare.html"

TRIES = 2
"""How often a run is tried: once, and once more on a fresh machine where it failed."""

Outcome = Literal[
    "passed",
    "machine_lost",
    "kernel_panic",
    "kernel_splat",
    "load_refused",
    "lab_failed",
    "gate_failed",
    "timed_out",
]
"""What came of an attempt. All but the first are failures, from the machine upwards:

``machine_lost``: QEMU ended, or SSH failed although it lives. ``kernel_panic``: the console shows one.
``kernel_splat``: the
kernel complained (BUG, WARNING, KASAN …) and no entry of the allow list knows it. ``load_refused``: the kernel's
verifier,
or its probes, refused what was to be loaded. ``lab_failed``: the workload, or a tool beside it, failed.
``gate_failed``: it ran, and a condition under which a run counts did not hold. ``timed_out``: it was not over in time.
"""

OUTCOME_WORDS: Mapping[Outcome, str] = {
    "passed": "passed",
    "machine_lost": "machine lost",
    "kernel_panic": "kernel panic",
    "kernel_splat": "kernel complained",
    "load_refused": "load refused",
    "lab_failed": "lab failed",
    "gate_failed": "gate failed",
    "timed_out": "timed out",
}
"""How outcomes are told."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A column of the matrix: a kernel, or the baseline's second time.

    :param id: the name that records carry, ``k1``, given in random order. The baseline's second time (``control``)
        has one
        like any other, so that nothing on the way can treat it differently; only the plan knows.
    :param path: of a kernel of one's own, or its name in ``kernels.toml``; ``sha256``: of its package. Both are empty
        for a kernel of the lock.
    """

    id: str
    kernel_line: str
    kernel_release: str
    control: bool = False
    path: str = ""
    sha256: str = ""


class PlannedLab(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the matrix.

    :param path: of its folder, for `--resume`; empty for a lab of the repository.
    :param sha256: of its folder, as ``Provenance.lab_sha256``: a matrix goes on only with the lab that it began with.
    :param options: resolved, as every run gets them.
    :param primary: the metric that kernels are compared by, chosen before anything ran.
    """

    name: str
    title: str
    path: str = ""
    sha256: str = ""
    section: str = ""
    primary: str
    options: dict[str, str]


class PlannedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One lab on one kernel in one block.

    :param number: its place in the order, from 1. :param block: the repeat, from 1.
    :param seed: of the workload; all cells of a lab in a block have the same.
    :param judged: whether all phases run, so that claims are judged; else the timed phase alone.
    """

    number: int
    block: int
    lab: str
    cell: str
    seed: int
    judged: bool = True


class Unfit(msgspec.Struct, frozen=True, kw_only=True):
    """A lab that cannot run on a kernel, and why: that is a result, too."""

    lab: str
    cell: str
    why: str


class Allowed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A complaint of a kernel that is known and costs no run.

    :param pattern: regular expression that finds the line. :param kernels: lines that say it; all where none is named.
    """

    pattern: str
    why: str
    kernels: list[str] = []


class MatrixPlan(msgspec.Struct, frozen=True, kw_only=True):
    """``plan.json``.

    :param id: name of the matrix; records carry it.
    :param seed: of the order and of all workloads' seeds.
    :param baseline: id of the cell that all others are compared with.
    :param repeats: blocks; ``judged``: of these, how many run all phases.
    :param delta: relative difference within which two kernels count as equivalent, 0.03 is 3%; ``alpha``: level of all
        tests. Both are chosen before anything ran.
    :param share: whether timed phases may share cores with other runs.
    :param allowed: complaints of kernels that are known.
    :param kit: identifies tracer and tools in the machine; with it, ``lock_digest`` and the labs' own hashes a matrix
        cannot go on with other code than it began with.
    """

    schema: int
    id: str
    created: str
    product_version: str
    seed: int
    labs: list[PlannedLab]
    cells: list[Cell]
    baseline: str
    repeats: int
    judged: int
    delta: float
    alpha: float
    clock: Literal["host", "virtual"]
    accel: Literal["auto", "kvm", "tcg"]
    go_version: str
    build: str
    share: bool
    allowed: list[Allowed]
    lock_digest: str
    kit: str = ""
    runs: list[PlannedRun]
    unfit: list[Unfit] = []

    def cell(self, name: str) -> Cell:
        """Return the cell called ``name``.

        :raises RecordError: there is none.
        """
        for cell in self.cells:
            if cell.id == name:
                return cell
        raise RecordError(f"matrix {self.id} has no cell {name}", "its plan does not hold together")

    def lab(self, name: str) -> PlannedLab:
        """Return the lab called ``name``.

        :raises RecordError: there is none.
        """
        for lab in self.labs:
            if lab.name == name:
                return lab
        raise RecordError(f"matrix {self.id} has no lab {name}", "its plan does not hold together")


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened", tag_field="what"):
    """A process began to work on the matrix: the first time, or to go on with it.

    :param jobs: machines at once. :param host: as ``Provenance.host``; ``load``: as ``Evidence.facts.host_load``.
    """

    at: str
    pid: int
    jobs: int
    host: dict[str, str]
    load: dict[str, float]


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag="begun", tag_field="what"):
    """An attempt at a run began. One that never ended was cut off, and does not count."""

    at: str
    run: int
    attempt: int


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended", tag_field="what"):
    """An attempt ended.

    :param seconds: of the host, from when it was taken up to its record, waits for CPUs among them.
    :param record: folder below ``runs/``; empty where nothing could be recorded.
    :param words: why it is no pass, in a clause. :param log: file below ``logs/``.
    :param gates: names of the gates that failed.
    """

    at: str
    run: int
    attempt: int
    outcome: Outcome
    seconds: float
    record: str = ""
    words: str = ""
    log: str = ""
    gates: list[str] = []


class Voided(msgspec.Struct, frozen=True, kw_only=True, tag="voided", tag_field="what"):
    """The record of an attempt was found broken later (a power cut, say): it does not count, the run is made again."""

    at: str
    run: int
    attempt: int
    words: str


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a run counts: the word of ``reports`` to who runs the matrix.

    :param splats: lines of the kernel's log that no allow list knows. :param gates: names of the gates that failed.
    :param words: what they say, in a clause.
    """

    splats: list[str] = []
    gates: list[str] = []
    words: str = ""


Entry = Opened | Begun | Ended | Voided
"""A line of ``journal.jsonl``."""


class _Version(msgspec.Struct):
    schema: int


def read_plan(folder: Path) -> MatrixPlan:
    """Read the plan of the matrix in ``folder``.

    :raises RecordError: it is no matrix, of another schema, or broken.
    """
    file = folder / PLAN
    try:
        data = file.read_bytes()
    except OSError as error:
        raise RecordError(f"{folder} is no matrix: it has no {PLAN}", "`invoke matrix` makes one") from error
    try:
        version = msgspec.json.decode(data, type=_Version).schema
        if version != MATRIX_SCHEMA:
            raise RecordError(
                f"{file} has schema {version}; this program reads {MATRIX_SCHEMA}",
                "use the version of the program that made it",
            )
        return msgspec.json.decode(data, type=MatrixPlan)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{file} is no plan: {error}", "the matrix is broken; start another") from error


def read_journal(folder: Path) -> list[Entry]:
    """Return the whole lines of a matrix's journal; a last one that was cut off has not happened.

    :raises RecordError: a line before the last is broken.
    """
    file = folder / JOURNAL
    try:
        lines = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror}", "check its permissions") from error
    entries: list[Entry] = []
    # What follows the last line feed was cut off while it was written: also where it happens to be whole.
    for number, line in enumerate(lines[:-1], 1):
        try:
            entries.append(msgspec.json.decode(line, type=Entry))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            # A line that only the disk's block boundary ended (zeros after a power cut) can be the last alone.
            if number == len(lines) - 1:
                break
            raise RecordError(f"{file}, line {number} is broken: {error}", "restore the file") from error
    return entries


def whole_length(data: bytes) -> int:
    """Return how many bytes of a journal are whole lines, so that what was cut off can be cut away."""
    end = data.rfind(b"\n") + 1
    start = data.rfind(b"\n", 0, max(0, end - 1)) + 1
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        if end:
            msgspec.json.decode(data[start : end - 1], type=Entry)
        return end
    return start


def ended(entries: Iterable[Entry]) -> dict[int, list[Ended]]:
    """Return the attempts that ended and were not voided since, by run, in the order they did."""
    found: dict[int, list[Ended]] = {}
    for entry in entries:
        if isinstance(entry, Ended):
            found.setdefault(entry.run, []).append(entry)
        elif isinstance(entry, Voided):
            found[entry.run] = [each for each in found.get(entry.run, []) if each.attempt != entry.attempt]
    return found


def is_done(attempts: Iterable[Ended]) -> bool:
    """Tell whether nothing more is to be done for a run with these ``attempts``."""
    tried = list(attempts)
    return any(each.outcome == "passed" for each in tried) or len(tried) >= TRIES


def counted(attempts: Iterable[Ended]) -> Ended | None:
    """Return the attempt that counts: the one that passed, else the last one; None where nothing ended yet."""
    tried = list(attempts)
    return next((each for each in tried if each.outcome == "passed"), tried[-1] if tried else None)
