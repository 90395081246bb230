"""Traces for Perfetto's viewer: a run's timeline where its lab has one, and the matrix itself.

A lab's trace is that of the first run that counts and was judged, on each kernel. The matrix's has a track for each
machine that ran at the same time as others, and on it which attempt ran when.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from go_labs.matrix import OUTCOME_WORDS, Begun, Ended, Entry, MatrixPlan, Opened, Voided
from reports.comparison import LabComparison
from reports.exports._source import Format, Source, columns, metrics, plain, replacing, translated, write
from reports.timeline import SUFFIX
from vm.errors import RecordError

FOLDER = "perfetto"

ENDING = ".pftrace"

MATRIX = f"matrix{ENDING}"


def _write(source: Source, out: Path) -> list[Path]:
    folder = out / FOLDER
    traces = [
        (trace, f"{plain(lab.lab)}-{plain(line)}{part}{ENDING}")
        for lab in source.comparison.labs
        for line in [kernel.line for kernel in source.comparison.kernels]
        for trace, part in timelines(source, lab, line)
    ]
    attempts = jobs(source.journal)
    if not traces and not attempts:
        return []
    with translated(folder):
        folder.mkdir(exist_ok=True)
    written = [_copy(trace, folder / name) for trace, name in traces]
    if attempts and source.plan is not None:
        written.append(write(folder / MATRIX, matrix_trace(source.plan, source.journal)))
    return written


def timelines(source: Source, lab: LabComparison, line: str) -> list[tuple[Path, str]]:
    """Return the traces of the run that stands for a lab on a kernel, each with what tells it from the run's others."""
    for record in _records(source, lab, line):
        folder = source.folder / record
        found = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file() and not path.is_symlink())
        if found:
            return [(path, f"-{plain(path.name.removesuffix(SUFFIX))}" if len(found) > 1 else "") for path in found]
    return []


def _records(source: Source, lab: LabComparison, line: str) -> dict[str, None]:
    """Return records that count: those that were judged first, each group in the order of blocks."""
    judged = [each.record for claim in lab.claims for each in claim.verdicts.get(line, [])]
    others = [
        value.record
        for compared in metrics(lab)
        for mine, control, values in columns(source, compared)
        if mine == line and not control
        for value in values
    ]
    return dict.fromkeys([*judged, *others])


def _copy(trace: Path, target: Path) -> Path:
    """Make ``trace`` appear as ``target``: another name of the same file where the file system can, else a copy."""
    with replacing(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(trace, temporary)
        except OSError:  # another file system, or one without links
            with contextlib.suppress(shutil.SameFileError):
                shutil.copyfile(trace, temporary)
    return target


# ---- the matrix itself ----


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt as it ran. :param job: lane, from 0. :param ended: None where it was cut off at ``end``."""

    begun: Begun
    start: datetime
    end: datetime
    job: int
    ended: Ended | None


def jobs(journal: Sequence[Entry]) -> list[Attempt]:
    """Return the attempts with a lane each: the lowest that was free when they began.

    The journal does not say which machine was which; of a matrix without parallel jobs all are in one lane. What a
    process left open when it died was cut off when its journal last said something.

    :raises RecordError: a time of the journal is none.
    """
    open_: dict[tuple[int, int], tuple[Begun, datetime, int]] = {}
    found: list[Attempt] = []
    last: datetime | None = None

    def cut(at: datetime) -> Iterator[Attempt]:
        for begun, start, job in open_.values():
            yield Attempt(begun, start, max(start, at), job, None)
        open_.clear()

    for entry in journal:
        at = _time(entry)
        if isinstance(entry, Opened) and last is not None:
            found += cut(last)
        elif isinstance(entry, Begun):
            taken = {job for _, _, job in open_.values()}
            free = next(job for job in range(len(taken) + 1) if job not in taken)
            open_[entry.run, entry.attempt] = entry, at, free
        elif isinstance(entry, Ended) and (entry.run, entry.attempt) in open_:
            begun, start, job = open_.pop((entry.run, entry.attempt))
            found.append(Attempt(begun, start, max(start, at), job, entry))
        last = at
    if last is not None:
        found += cut(last)
    return sorted(found, key=lambda each: (each.start, each.job))


def _time(entry: Entry) -> datetime:
    try:
        at = datetime.fromisoformat(entry.at)
    except ValueError as error:
        raise RecordError(f"the journal has {entry.at!r} for a time", "restore the file") from error
    if at.tzinfo is None:
        raise RecordError(f"the journal has a time without an offset: {entry.at}", "restore the file")
    return at


def matrix_trace(plan: MatrixPlan, journal: Sequence[Entry]) -> bytes:
    """Return the trace of a matrix; its times count from the first attempt's start.

    :raises RecordError: plan and journal do not hold together.
    """
    from reports.perfetto import Lane, Stretch, encode_lanes

    attempts = jobs(journal)
    origin = min((each.start for each in attempts), default=None)
    if origin is None:
        return encode_lanes([])
    runs = {run.number: run for run in plan.runs}
    voided = {(each.run, each.attempt) for each in journal if isinstance(each, Voided)}
    lanes: dict[int, list[Stretch]] = {}
    for each in attempts:
        if each.begun.run not in runs:
            raise RecordError(f"the journal tells of run {each.begun.run}, which the plan lacks", "restore the file")
        run = runs[each.begun.run]
        cell = plan.cell(run.cell)
        outcome = OUTCOME_WORDS[each.ended.outcome] if each.ended else "cut off"
        told: dict[str, int | str] = {
            "run": run.number, "attempt": each.begun.attempt, "block": run.block, "kernel": cell.kernel_release,
            "control": "yes" if cell.control else "no", "outcome": outcome, "began": each.begun.at,
        }  # fmt: skip
        if each.ended:
            told |= {"words": each.ended.words, "record": each.ended.record, "log": each.ended.log}
        if (each.begun.run, each.begun.attempt) in voided:
            told["voided"] = "its record was found broken later"
        control = " (control)" if cell.control else ""
        fate = "" if outcome == "passed" else f": {outcome}"
        name = f"{run.lab} on {cell.kernel_line}{control}{fate}"
        start, end = (round((at - origin).total_seconds() * 1e9) for at in (each.start, each.end))
        lanes.setdefault(each.job, []).append(Stretch(name, start, end, told))
    return encode_lanes([Lane("Machines", f"job {job + 1}", lanes[job]) for job in sorted(lanes)])


FORMAT = Format(
    "perfetto", "timelines of runs, and which attempt of the matrix ran when, for Perfetto's viewer", _write
)
