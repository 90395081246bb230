"""The ledger: every claim of the labs, and the latest verdict on it for each kernel line, with the run behind it.

Reading is cheap on purpose: of each ``run.json`` only what the ledger shows is decoded, and no artefact is hashed
(``invoke report`` does both). A record that cannot be read is left out, counted and named, never guessed at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from go_labs import spec
from go_labs.evidence import Provenance
from go_labs.spec import Claim, Lab
from reports import record
from reports.schema import Clock, Outcome
from reports.text import neutral
from vm import kernels as kernel_names
from vm.errors import RecordError, UsageError
from vm.model import Lock


class JudgedBy(msgspec.Struct, frozen=True, kw_only=True):
    """A criterion, as it was when the verdict was made."""

    metric: str
    confirm: str
    refute: str


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict of a record, as far as the ledger shows it."""

    claim: str
    text: str
    outcome: Outcome
    sentence: str
    criteria: list[JudgedBy]


class LabName(msgspec.Struct, frozen=True, kw_only=True):
    """Which lab a record is of."""

    name: str


class Brief(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger reads of ``run.json``; the rest is passed over."""

    schema: int
    id: str
    lab: LabName
    provenance: Provenance
    verdicts: list[Judged]


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """A folder below ``runs/`` that is no record that can be read, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Run:
    """A record that was read.

    :param finished: when it ended; the latest run counts.
    """

    path: Path
    brief: Brief
    finished: datetime


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """The latest verdict on a claim for a kernel line.

    :param record: id of the run behind it; ``path`` is its folder, ``report`` its page, empty where it has none.
    :param options: of the workload, those that were not the lab's defaults; ``full``: they are those of ``--full``.
    :param reworded: whether text or criteria of the claim are others by now than when the verdict was made.
    """

    outcome: Outcome
    sentence: str
    record: str
    path: str
    report: str
    finished: str
    kernel_release: str
    go_version: str
    clock: Clock
    options: dict[str, str]
    full: bool
    reworded: bool


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A claim of a lab, and its verdict by kernel line; None where it was not run."""

    claim: str
    lab: str
    title: str
    section: str
    text: str
    verdicts: dict[str, Cell | None]


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of it.

    :param kernels: lines, in the order of the columns.
    :param records: how many were read, of any lab.
    """

    kernels: list[str]
    claims: list[Row]
    records: int
    broken: list[Broken]


@dataclass(frozen=True, slots=True)
class Found:
    """What lies below ``runs/``."""

    runs: list[Run]
    broken: list[Broken]


def collect(runs: Path) -> Found:
    """Read every record below ``runs``; hidden folders are runs under way, files are none of ours."""
    good: list[Run] = []
    broken: list[Broken] = []
    folders = sorted(path for path in runs.glob("*") if path.is_dir() and not path.name.startswith("."))
    for folder in folders:
        try:
            good.append(read(folder))
        except RecordError as error:
            broken.append(Broken(name=neutral(folder.name), why=neutral(error.message)))
    return Found(good, broken)


def read(folder: Path) -> Run:
    """Read of the record in ``folder`` what the ledger shows.

    :raises RecordError: it is missing, broken, of another schema, or does not say when it ended.
    """
    brief = record.brief(folder, Brief)
    try:
        finished = datetime.fromisoformat(brief.provenance.finished)
    except ValueError as error:
        raise RecordError(f"{record.RUN} ended at no time: {brief.provenance.finished!r}", record.WHOLE) from error
    if finished.tzinfo is None:
        raise RecordError(f"{record.RUN} ended at a time without an offset: {brief.provenance.finished}", record.WHOLE)
    return Run(folder, brief, finished.astimezone(UTC))


def choose_labs(names: Sequence[str]) -> list[Lab]:
    """Return the labs called so, or in folders called so; all of the repository where none is named.

    :raises UsageError: no such lab. :raises ConfigError: its ``lab.toml`` does not hold together.
    """
    return [spec.find(name).lab for name in names or spec.names()]


def choose_lines(names: Sequence[str], found: Found, lock: Lock) -> list[str]:
    """Return the kernel lines that ``names`` mean: lines or releases of the lock, or what records have.

    Where none is named: the default lines, and every other one that a record has.

    :raises UsageError: a name is neither.
    """
    recorded = {run.brief.provenance.kernel_line for run in found.runs}
    if not names:
        return sorted({*kernel_names.defaults(lock.kernels), *recorded}, key=line_key)
    lines = [name if name in recorded else kernel_names.resolve(name, lock).line for name in names]
    if len(set(lines)) < len(lines):
        raise UsageError(f"--kernel {','.join(names)} names one kernel twice", f"it means {', '.join(lines)}")
    return lines


def line_key(line: str) -> tuple[int, tuple[int, ...], str]:
    """Order lines by number, kernels of one's own after them by name."""
    try:
        return 0, kernel_names.sort_key(line), line
    except ValueError:
        return 1, (), line


def make(labs: Iterable[Lab], lines: Sequence[str], found: Found) -> Ledger:
    """Return the ledger of ``labs`` and ``lines``: for each claim and line the run that ended last. Pure.

    A run with counted instructions stands in only where there is none with a second's clock: it does not renew one.
    """
    latest: dict[tuple[str, str, str], tuple[Run, Judged]] = {}

    def rank(run: Run) -> tuple[bool, datetime, str]:
        return run.brief.provenance.clock != "virtual", run.finished, run.brief.id

    for run in sorted(found.runs, key=rank):
        for judged in run.brief.verdicts:
            latest[judged.claim, run.brief.lab.name, run.brief.provenance.kernel_line] = run, judged
    rows = [
        Row(
            claim=claim.id,
            lab=lab.name,
            title=lab.title,
            section=lab.section,
            text=claim.text,
            verdicts={line: _cell(latest.get((claim.id, lab.name, line)), claim, lab) for line in lines},
        )
        for lab in labs
        for claim in lab.claims
    ]
    rows.sort(key=lambda row: (_natural(row.section), row.lab, _natural(row.claim)))
    return Ledger(kernels=list(lines), claims=rows, records=len(found.runs), broken=found.broken)


def _natural(text: str) -> list[tuple[int, str]]:
    """Order 2.10 after 2.9, what has no number last."""
    return [(int(part) if part.isdecimal() else 2**31, part) for part in text.replace("-", ".").split(".")]


def _cell(found: tuple[Run, Judged] | None, claim: Claim, lab: Lab) -> Cell | None:
    if found is None:
        return None
    run, judged = found
    provenance = run.brief.provenance
    page = run.path / record.REPORT
    other = changed(provenance.options, lab)
    return Cell(
        outcome=judged.outcome,
        sentence=judged.sentence,
        record=run.brief.id,
        path=str(run.path),
        report=str(page) if page.is_file() else "",
        finished=provenance.finished,
        kernel_release=provenance.kernel_release,
        go_version=provenance.go_version,
        clock=provenance.clock,
        options=other,
        full=other != {} and other == full_sweep(lab),
        reworded=_reworded(judged, claim),
    )


def changed(options: Mapping[str, str], lab: Lab) -> dict[str, str]:
    """Return those of a run's options that are not the defaults of ``lab`` as it is now."""
    defaults = {name: option.default for name, option in lab.options.items()}
    return {name: value for name, value in options.items() if defaults.get(name) != value}


def full_sweep(lab: Lab) -> dict[str, str]:
    """Return the options that ``--full`` changes, with its values."""
    options = lab.options.items()
    return {name: option.full for name, option in options if option.full is not None and option.full != option.default}


def _reworded(judged: Judged, claim: Claim) -> bool:
    then = [(criterion.metric, criterion.confirm, criterion.refute) for criterion in judged.criteria]
    now = [(criterion.metric, criterion.confirm, criterion.refute) for criterion in claim.criteria]
    return judged.text != claim.text or then != now


def document(ledger: Ledger) -> dict[str, Any]:
    """Return the ledger for machines.

    Keys: ``schema`` (1), ``kernels``, ``claims`` (claim, lab, title, section, text, ``verdicts``: kernel line → what
    :class:`Cell` has, or null where it was not run), ``records``, ``broken`` (name, why).
    """
    return {"schema": 1, **msgspec.structs.asdict(ledger)}
