"""Run records: a staging folder becomes a record, and a record is read again.

A record is a folder below ``runs/``: ``run.json`` (``reports.schema``), everything that the run left, and the lab's
``lab.toml`` and ``analysis.py`` as they were used, below ``lab/``. It gets its name by one rename, so that a folder
that exists is whole; nothing is ever overwritten. ``report.html`` may be added and renewed: it says nothing that
``run.json`` does not hold.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from go_labs.evidence import Evidence
from go_labs.spec import LabFolder
from reports import attempts, schema, staging, verdicts, waits, whole
from reports import metrics as generic_metrics
from reports.analysis import Analysis, PhaseData, RunData, load, words
from reports.charts import AnyChart
from reports.schema import Artefact, LabNote, Metric, PhaseNote, Record
from reports.text import neutral
from reports.timeline import SUFFIX
from vm.errors import ConfigError, DiskFullError, LabError, RecordError
from vm.version import VERSION

RUN = "run.json"
"""The record proper."""

REPORT = "report.html"
"""The page, made from ``run.json`` alone."""

_TIMELINE = re.compile(r"[a-z][a-z0-9-]{0,63}")

_DERIVED = frozenset({RUN, REPORT})


def seal(folder_of_run: Path, folder: LabFolder, runs: Path) -> Path:
    """Analyse and judge what a run left, and make a record of it below ``runs``; return the record's folder.

    Until the last rename the staging folder keeps everything, so that a failure loses nothing.

    :param folder_of_run: staging folder, which becomes the record; it is gone afterwards.
    :raises RecordError: the evidence is missing or broken, or the record is there already.
    :raises ConfigError: the lab's criteria or its ``analysis.py`` do not hold together.
    :raises DiskFullError: no space is left.
    """
    with _told(folder_of_run):
        evidence, run = staging.read(folder_of_run, folder.lab)
        verdicts.check(folder.lab)
        analysis = analyse(run, folder)
        _copy_lab(folder, folder_of_run / "lab")
        analysis = _with_timelines(analysis, folder_of_run)
        name = record_name(evidence, (folder_of_run / staging.EVIDENCE).read_bytes())
        record = _record(name, evidence, run, analysis, artefacts(folder_of_run, evidence))
        _write(folder_of_run / RUN, schema.encode(record))
        read(folder_of_run)
        return _move(folder_of_run, runs / name)


@contextlib.contextmanager
def _told(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise DiskFullError(
                f"no space left while sealing {where}", "free some space; it is kept there until the next run"
            ) from error
        raise RecordError(f"{where} cannot be sealed: {error}", "what the run left is kept there") from error


def is_full(error: OSError) -> bool:
    """Whether ``error`` says that no space, or no more of one's own share of it, is left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def analyse(run: RunData, folder: LabFolder) -> Analysis:
    """Return generic metrics and the lab's own analysis, put together.

    :raises ConfigError: ``analysis.py`` fails, or gives a metric a generic name.
    """
    shared = generic_metrics.generic(run)
    if folder.analysis is None:
        charts = [chart for phase in generic_metrics.phases_with_trace(run) for chart in _charts(phase)]
        return Analysis(metrics=_clocked(shared, run), charts=[*_tried(run), *charts])
    function = load(folder.analysis)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout may be a document of ours
            own = function(run)
    except LabError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{folder.analysis} failed: {words(error)}", "mend it; what the run left is kept") from error
    if not isinstance(own, Analysis):
        raise ConfigError(
            f"{folder.analysis} gave {type(own).__name__}, not Analysis", "return reports.analysis.Analysis"
        )
    taken = {metric.name for metric in shared} & {metric.name for metric in own.metrics}
    if taken:
        raise ConfigError(
            f"{folder.analysis} gives metrics that every lab has: {', '.join(sorted(taken))}", "rename them"
        )
    metrics = _clocked([*own.metrics, *shared], run)
    return msgspec.structs.replace(own, metrics=metrics, charts=[*_tried(run), *own.charts])


def _tried(run: RunData) -> list[AnyChart]:
    tried = attempts.table(run)
    return [] if tried is None else [tried]


def _charts(phase: PhaseData) -> list[AnyChart]:
    return whole.charts(phase) if phase.protocol == "none" else waits.generic(phase)


def _clocked(metrics: list[Metric], run: RunData) -> list[Metric]:
    return [msgspec.structs.replace(metric, clock=metric.clock or run.clock) for metric in metrics]


def record_name(evidence: Evidence, raw: bytes) -> str:
    """Return ``<UTC time>-<lab>-<kernel line>-<short id>``; the id is of the evidence, so one run has one name.

    :raises RecordError: the start is no ISO 8601 time with an offset.
    """
    try:
        started = datetime.fromisoformat(evidence.provenance.started)
    except ValueError as error:
        raise RecordError(f"the run's start is no time: {neutral(evidence.provenance.started)}", "") from error
    if started.tzinfo is None:
        raise RecordError(f"the run's start has no offset: {evidence.provenance.started}", "write it in UTC")
    stamp = started.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    short = hashlib.sha256(raw).hexdigest()[:8]
    return "-".join(_plain(part) for part in (stamp, evidence.lab, evidence.provenance.kernel_line, short))


def _plain(part: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "._") else "_" for char in part)[:64]


def artefacts(folder: Path, evidence: Evidence) -> list[Artefact]:
    """Return every file of ``folder`` with role, size and SHA-256, sorted by path.

    :raises RecordError: something in it is neither a file nor a folder.
    """
    roles = {name: role for role, name in evidence.files.items()}
    for phase in evidence.phases:
        roles |= {name: f"{phase.name}: {role}" for role, name in phase.files.items()}
    found: list[Artefact] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name in _DERIVED or (path.is_dir() and not path.is_symlink()):
            continue
        if path.is_symlink() or not path.is_file():
            raise RecordError(f"{neutral(name)} is neither a file nor a folder", "a record holds plain files only")
        role = roles.get(name) or _role(name)
        found.append(Artefact(path=name, role=role, size=path.stat().st_size, sha256=sha256(path)))
    return found


def _role(name: str) -> str:
    if name.endswith(SUFFIX):
        return "timeline for a trace viewer"
    return "evidence" if name == staging.EVIDENCE else "the lab" if name.startswith("lab/") else ""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(name: str, evidence: Evidence, run: RunData, analysis: Analysis, files: list[Artefact]) -> Record:
    lab = run.lab
    losses = generic_metrics.losses(run)
    results = verdicts.gates(lab, analysis.metrics)
    return Record(
        schema=schema.SCHEMA,
        id=name,
        product_version=VERSION,
        lab=LabNote(
            name=lab.name,
            title=lab.title,
            section=lab.section,
            question=lab.question,
            primary=lab.primary,
            oracle=lab.oracle,
            program=all(phase.protocol == "none" for phase in lab.phases),
        ),
        provenance=evidence.provenance,
        phases=[_phase_note(phase) for phase in _phases(run)],
        metrics=analysis.metrics,
        losses=losses,
        equality=generic_metrics.equality(run),
        gates=results,
        verdicts=verdicts.judge(lab, analysis.metrics, results, losses, run.clock),
        charts=analysis.charts,
        notes=_notes(run) + analysis.notes,
        timings=evidence.timings,
        artefacts=files,
    )


def _notes(run: RunData) -> list[str]:
    """Return what a reader should know of how the run went."""
    remarks = [f"Phase {phase.name}: {remark}." for phase in run.phases.values() for remark in phase.remarks]
    return ([f"The run ended early: {run.error}"] if run.error else []) + remarks


def _phases(run: RunData) -> list[PhaseData]:
    """Return the phases that were planned, those that never ran too, and then any other."""
    planned = [phase.name for phase in run.lab.phases]
    return [run.phase(name) for name in planned] + [p for name, p in run.phases.items() if name not in planned]


def _phase_note(phase: PhaseData) -> PhaseNote:
    trace = phase.trace
    return PhaseNote(
        name=phase.name,
        exit_status=phase.exit_status,
        wall_seconds=phase.wall_seconds,
        workload_seconds=phase.workload_seconds,
        error=phase.error,
        segments=len(phase.segments()),
        counters={} if trace is None else {str(number): counts for number, counts in trace.counters.items()},
        hits={} if trace is None else dict(trace.hits),
        missing={} if phase.plan is None else {probe.id: probe.why for probe in phase.plan.missing},
        host=phase.host,
    )


def _copy_lab(folder: LabFolder, target: Path) -> None:
    target.mkdir(exist_ok=True)
    if folder.program is not None:
        (target / "lab.json").write_bytes(msgspec.json.format(msgspec.json.encode(folder.lab), indent=1))
        return
    shutil.copyfile(folder.path / "lab.toml", target / "lab.toml")
    if folder.analysis is not None:
        shutil.copyfile(folder.analysis, target / "analysis.py")


def _with_timelines(analysis: Analysis, folder: Path) -> Analysis:
    """Write the full timelines of ``analysis`` into ``folder``; what a file lacks or had to cut is told in a note.

    :raises ConfigError: a timeline's name is no plain word, or is there twice.
    """
    if not analysis.timelines:
        return analysis
    from reports import perfetto  # its protos take time to import, which a record without a timeline does not pay

    notes = list(analysis.notes)
    taken: set[str] = set()
    for full in analysis.timelines:
        if not _TIMELINE.fullmatch(full.name) or full.name in taken:
            raise ConfigError(
                f"the analysis names a timeline {full.name!r}", "lower-case letters, digits and -, each name once"
            )
        taken.add(full.name)
        written = perfetto.encode(full)
        _write(folder / full.path, written.data)
        for count, cut in (
            (written.overlapping, "slices overlapped the next one on their track and were cut there"),
            (written.omitted, "later runs and instants were left out"),
        ):
            if count:
                notes.append(f"{full.path}: {count} {cut}.")
    return msgspec.structs.replace(analysis, notes=notes)


def _write(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary name, bring it to the disk, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _move(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise RecordError(f"the record {target.name} is there already", f"nothing was overwritten; {source} is kept")
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.parent / f".{target.name}.{os.getpid()}"
        try:
            shutil.copytree(source, beside)
            read(beside)
            beside.rename(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(source, ignore_errors=True)
    return target


def read(path: Path, *, verify: bool = True) -> Record:
    """Read the record in folder ``path``.

    :param verify: also compare size and SHA-256 of every artefact.
    :raises RecordError: it is missing, broken, of another schema, or an artefact is not what it was.
    """
    file = path / RUN
    if not path.is_dir():
        raise RecordError(f"there is no run record {path}", "`invoke lab` makes one; records lie in runs/")
    try:
        record = schema.decode(file.read_bytes(), str(file))
    except OSError as error:
        raise RecordError(
            f"{path} has no {RUN}: {error.strerror}", "a record is a folder with run.json in it"
        ) from error
    if verify:
        for artefact in record.artefacts:
            _verify(path, artefact)
    return record


def is_left_of_one(folder: Path) -> bool:
    """Tell whether ``folder`` is a record, or what is left of a broken one: exports, beside records, are neither."""
    return (folder / RUN).exists() or (folder / staging.EVIDENCE).exists()


WHOLE = "`invoke report` checks a record as a whole"
"""Hint where a record was read in part."""

_Part = TypeVar("_Part", bound=msgspec.Struct)


def brief(folder: Path, kind: type[_Part]) -> _Part:
    """Return those fields of ``run.json`` in ``folder`` that ``kind`` has; the rest is passed over, nothing is hashed.

    :param kind: a struct with a field ``schema``.
    :raises RecordError: it is missing, broken, or of another schema.
    """
    try:
        data = (folder / RUN).read_bytes()
    except OSError as error:
        raise RecordError(f"no {RUN}: {error.strerror}", WHOLE) from error
    try:
        found = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{RUN} is no run record: {error}", WHOLE) from error
    version = getattr(found, "schema", None)
    if version != schema.SCHEMA:
        raise RecordError(f"{RUN} has schema {version}; this program reads schema {schema.SCHEMA}", WHOLE)
    return found


def _verify(path: Path, artefact: Artefact) -> None:
    file = path / artefact.path
    hint = "the record was changed after the run; restore the file, or run the lab again"
    if not file.is_file():
        raise RecordError(f"{path.name}: {neutral(artefact.path)} is missing", hint)
    if file.stat().st_size != artefact.size or sha256(file) != artefact.sha256:
        raise RecordError(f"{path.name}: {neutral(artefact.path)} is not the file that was sealed", hint)
