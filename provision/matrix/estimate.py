"""What a matrix will take, from what earlier runs took: seconds of the host, bytes on disk."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from go_labs import matrix, spec
from go_labs.matrix import MatrixPlan, PlannedRun
from go_labs.spec import TIMED
from provision.labrun import EVIDENCE
from vm.errors import RecordError

AROUND_SECONDS = 3.0
"""Seconds of a run beyond its phases, where no earlier matrix tells: start, connection, record."""

RECORD_BYTES = 4 << 20
"""Bytes of a record, where none is there yet."""


class _Phase(msgspec.Struct):
    name: str
    wall_seconds: float


class _Provenance(msgspec.Struct):
    kernel_line: str
    clock: str
    options: dict[str, str] = {}


class _Evidence(msgspec.Struct):
    lab: str
    provenance: _Provenance
    phases: list[_Phase]


@dataclass(frozen=True, slots=True)
class Earlier:
    """What is known of earlier runs.

    :param seconds: (lab, kernel line, virtual clock, all phases) → seconds of each.
    :param sizes: lab → bytes of each record.
    """

    seconds: Mapping[tuple[str, str, bool, bool], Sequence[float]]
    sizes: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a matrix takes.

    :param seconds: expected for each run, by its number. :param bytes: on disk, for all of them.
    :param known: runs whose length earlier ones of the same lab tell; of the others the lab's own word is taken.
    :param largest: bytes of the largest record that is expected.
    """

    seconds: Mapping[int, float]
    bytes: int
    known: int
    largest: int

    @property
    def total(self) -> float:
        """Seconds that all runs take one after another."""
        return sum(self.seconds.values())


def earlier(runs: Path, matrices: Path) -> Earlier:
    """Read what earlier runs and matrices left; what cannot be read tells nothing."""
    seconds: dict[tuple[str, str, bool, bool], list[float]] = {}
    sizes: dict[str, list[int]] = {}
    for folder in _folders(matrices):
        _add_matrix(folder, seconds, sizes)
    for folder in _folders(runs):
        found = _evidence(folder)
        if found is not None:
            key = found.lab, found.provenance.kernel_line, found.provenance.clock == "virtual"
            walls = {phase.name: phase.wall_seconds for phase in found.phases}
            seconds.setdefault((*key, True), []).append(sum(walls.values()) + AROUND_SECONDS)
            if TIMED in walls:
                seconds.setdefault((*key, False), []).append(walls[TIMED] + AROUND_SECONDS)
            sizes.setdefault(found.lab, []).append(size_of(folder))
    return Earlier(seconds, sizes)


def _folders(parent: Path) -> list[Path]:
    return sorted(p for p in parent.glob("*") if p.is_dir() and not p.name.startswith("."))


def _evidence(folder: Path) -> _Evidence | None:
    try:
        return msgspec.json.decode((folder / EVIDENCE).read_bytes(), type=_Evidence)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _add_matrix(
    folder: Path, seconds: dict[tuple[str, str, bool, bool], list[float]], sizes: dict[str, list[int]]
) -> None:
    try:
        plan, attempts = matrix.read_plan(folder), matrix.ended(matrix.read_journal(folder))
    except RecordError:
        return
    lines = {cell.id: cell.kernel_line for cell in plan.cells}
    for run in plan.runs:
        for attempt in attempts.get(run.number, []):
            if attempt.outcome == "passed":
                key = (run.lab, lines[run.cell], plan.clock == "virtual", run.judged)
                seconds.setdefault(key, []).append(attempt.seconds)
                record = folder / matrix.RUNS / attempt.record
                if attempt.record and record.is_dir():
                    sizes.setdefault(run.lab, []).append(size_of(record))


def size_of(folder: Path) -> int:
    """Return the bytes that a record takes on disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def estimate(plan: MatrixPlan, runs: Iterable[PlannedRun], known: Earlier) -> Estimate:
    """Return what ``runs`` of ``plan`` will take: the median of the same lab on the same kernel, else on any kernel."""
    lines = {cell.id: cell.kernel_line for cell in plan.cells}
    expected: dict[int, float] = {}
    size = found = largest = 0
    for run in runs:
        same = known.seconds.get((run.lab, lines[run.cell], plan.clock == "virtual", run.judged), [])
        like = same or [s for key, all_ in known.seconds.items() if _like(key, run, plan) for s in all_]
        found += bool(like)
        expected[run.number] = statistics.median(like) if like else _own_word(plan, run)
        each = max(known.sizes.get(run.lab, [RECORD_BYTES]))
        size += each
        largest = max(largest, each)
    return Estimate(expected, size, found, largest)


def _like(key: tuple[str, str, bool, bool], run: PlannedRun, plan: MatrixPlan) -> bool:
    return key[0] == run.lab and key[2:] == (plan.clock == "virtual", run.judged)


def _own_word(plan: MatrixPlan, run: PlannedRun) -> float:
    planned = plan.lab(run.lab)
    lab = spec.find(planned.path or planned.name).lab
    return (lab.seconds if run.judged else lab.seconds / len(lab.phases)) + AROUND_SECONDS
