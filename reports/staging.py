"""Reading what a run left: the staging folder of ``provision`` → :class:`~reports.analysis.RunData`.

Everything here came out of a machine. It is bounded in size, validated in shape, and a phase whose files do not hold
together becomes a phase with an error: the rest of the run is kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bpf import gotrace
from bpf import plan as plans
from bpf import trace as traces
from go_labs.evidence import (
    EVIDENCE_SCHEMA,
    AttemptResult,
    Attempts,
    Evidence,
    PhaseEvidence,
    Segment,
    WorkloadOutput,
)
from go_labs.spec import Lab
from reports import histograms
from reports.analysis import CompilerNote, Events, PhaseData, RunData, no_events
from reports.text import neutral
from vm.errors import LabError, OutputError, RecordError

T = TypeVar("T")

EVIDENCE = "evidence.json"
"""Name of the one file that a staging folder must have."""

MAXIMUM_JSON = 64 * 2**20
"""Bytes of one JSON file out of a machine."""

MAXIMUM_EVENTS = 768 * 2**20
"""Bytes of ``events.bin``: 16 million records."""

MAXIMUM_LOG = 4 * 2**20
"""Bytes of the kernel's log that are looked at."""

MAXIMUM_ATTEMPTS = 2 * 2**20
"""Bytes of ``attempts.json``."""

MAXIMUM_WORDS = 400
"""Characters that are kept of the answer to an attempt."""

MAXIMUM_STRING = 500
"""Characters of one name or value that a workload prints."""

MAXIMUM_SAMPLES = 1_000_000
"""Samples in one workload output."""


def read(staging: Path, lab: Lab) -> tuple[Evidence, RunData]:
    """Read the staging folder of a run of ``lab``.

    :raises RecordError: ``evidence.json`` is missing, broken, of another schema or lab, or names a file outside.
    """
    evidence = read_evidence(staging / EVIDENCE)
    if evidence.lab != lab.name:
        raise RecordError(f"{staging} is of lab {evidence.lab!r}, not {lab.name!r}", "give the folder of that lab")
    for name in _names(evidence):
        _inside(staging, name)
    phases = {phase.name: _phase(staging, evidence.files, phase, lab.name) for phase in evidence.phases}
    log = _log(staging, evidence.files.get("kernel_log"))
    attempts, attempts_error = _attempts(staging, evidence.files.get("attempts"))
    run = RunData(
        lab=lab,
        provenance=evidence.provenance,
        phases=phases,
        facts=evidence.facts,
        kernel_log=log,
        attempts=attempts,
        attempts_error=attempts_error,
        compiler=compiler_notes(_log(staging, evidence.files.get("compiler"))),
        vet=compiler_notes(_log(staging, evidence.files.get("vet"))) if "vet" in evidence.files else None,
    )
    return evidence, run


_COMPILER_NOTE = re.compile(r"(?P<file>[^:]+\.go):(?P<line>\d+):\d+: (?P<words>.+)")


def compiler_notes(lines: Sequence[str]) -> list[CompilerNote]:
    """Return what the compiler or ``go vet`` said of which line; lines of another form (``# package``) are left out."""
    found = []
    for line in lines:
        match = _COMPILER_NOTE.fullmatch(line)
        if match:
            words = neutral(match["words"], limit=MAXIMUM_STRING)
            found.append(CompilerNote(file=neutral(Path(match["file"]).name), line=int(match["line"]), words=words))
    return found


def read_evidence(path: Path) -> Evidence:
    """Read ``evidence.json``.

    :raises RecordError: it is missing, does not fit, or has another schema.
    """
    try:
        evidence = msgspec.json.decode(_bounded(path, MAXIMUM_JSON), type=Evidence)
    except (OSError, OutputError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} is no evidence of a run: {error}", "run the lab again") from error
    if evidence.schema != EVIDENCE_SCHEMA:
        raise RecordError(
            f"{path} has schema {evidence.schema}; this program reads {EVIDENCE_SCHEMA}", "run the lab again"
        )
    if len({phase.name for phase in evidence.phases}) != len(evidence.phases):
        raise RecordError(f"{path} has a phase twice", "run the lab again")
    return evidence


def _names(evidence: Evidence) -> list[str]:
    return [*evidence.files.values(), *(name for phase in evidence.phases for name in phase.files.values())]


def _inside(staging: Path, name: str) -> None:
    path = staging / name
    if path.is_symlink() or not path.resolve().is_relative_to(staging.resolve()):
        raise RecordError(f"{EVIDENCE} names {neutral(name)}, which lies outside the folder", "run the lab again")
    if not path.is_file():
        raise RecordError(f"{EVIDENCE} names {neutral(name)}, which is not there", "run the lab again")


def _bounded(path: Path, maximum: int) -> bytes:
    size = path.stat().st_size
    if size > maximum:
        raise OutputError(f"{path.name} has {size} bytes, more than {maximum}", "let the workload print less")
    return path.read_bytes()


def _log(staging: Path, name: str | None) -> list[str]:
    if name is None:
        return []
    with (staging / name).open("rb") as file:
        return file.read(MAXIMUM_LOG).decode("utf-8", "replace").splitlines()


def _attempts(staging: Path, name: str | None) -> tuple[dict[str, AttemptResult], str]:
    """Return results by attempt, made safe to show, and why there are none where the file does not hold together."""
    if name is None:
        return {}, ""
    try:
        found = msgspec.json.decode(_bounded(staging / name, MAXIMUM_ATTEMPTS), type=Attempts)
    except (OutputError, OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        return {}, neutral(f"{name} holds no results of attempts: {error}")
    return {result.id: _neutral_attempt(result) for result in found.attempts}, ""


def _neutral_attempt(result: AttemptResult) -> AttemptResult:
    def safe(value: int | str | list[str]) -> int | str | list[str]:
        if isinstance(value, list):
            return [neutral(each, limit=100) for each in value[:100]]
        return value if isinstance(value, int) else neutral(value, limit=100)

    return msgspec.structs.replace(
        result,
        what=neutral(result.what, MAXIMUM_WORDS),
        words=neutral(result.words, MAXIMUM_WORDS),
        facts={neutral(name, limit=100): safe(value) for name, value in list(result.facts.items())[:20]},
        untried=neutral(result.untried, MAXIMUM_WORDS),
    )


def _phase(staging: Path, shared: dict[str, str], evidence: PhaseEvidence, lab: str) -> PhaseData:
    """Read one phase; what does not hold together is told in ``error``, and what does is kept.

    :param shared: files of the whole run; its plan and symbols serve each phase that has none of its own.
    """
    problems = [neutral(evidence.error)] if evidence.error else []
    if not evidence.error and evidence.exit_status not in (0, None):
        problems.append(f"the workload ended with status {evidence.exit_status}")
    common = {role: name for role, name in shared.items() if role in ("plan", "symbols")}
    files = {role: staging / name for role, name in (common | evidence.files).items()}

    def attempt(role: str, reader: Callable[[Path], T]) -> T | None:
        if role not in files:
            return None
        try:
            return reader(files[role])
        except (LabError, OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            # A phase that failed has said why; that its document is not whole is no news.
            if role != "workload" or not evidence.error:
                whose = "" if isinstance(error, LabError) else f"{files[role].name}: "
                problems.append(neutral(f"{whose}{error}"))
            return None

    workload = attempt("workload", lambda path: read_workload(path, lab))
    trace = attempt("trace", _trace)
    events: Events | None = None if trace is None else attempt("events", lambda path: _events(path, trace))
    go_trace = attempt("go_trace", gotrace.read)
    plan, symbols = attempt("plan", plans.read), attempt("symbols", _symbols)  # before the problems are joined
    if workload is None and not problems and evidence.protocol == "document":
        problems.append("the workload left no output")
    tools, tool_errors = _tools(files)
    return PhaseData(
        name=evidence.name,
        exit_status=evidence.exit_status,
        wall_seconds=evidence.wall_seconds,
        workload_seconds=evidence.workload_seconds,
        error="; ".join(problems),
        workload=workload,
        trace=trace,
        plan=plan,
        go_trace=go_trace,
        events=no_events() if events is None else events,
        tools=tools,
        tool_errors=tool_errors,
        symbols=symbols or {},
        protocol=evidence.protocol,
        remarks=[neutral(remark) for remark in evidence.remarks],
    )


def _trace(path: Path) -> traces.Trace:
    _bounded(path, MAXIMUM_JSON)
    return traces.read(path)


def _events(path: Path, trace: traces.Trace) -> Events:
    if path.stat().st_size > MAXIMUM_EVENTS:
        raise OutputError(f"{path.name} is larger than {MAXIMUM_EVENTS} bytes", "trace a shorter run")
    return traces.read_events(path, trace)


def _symbols(path: Path) -> dict[int, list[str]]:
    found = msgspec.json.decode(_bounded(path, MAXIMUM_JSON), type=dict[int, list[str]])
    return {address: [frame[:MAXIMUM_STRING] for frame in frames] for address, frames in found.items()}


def _tools(files: dict[str, Path]) -> tuple[dict[str, Any], dict[str, str]]:
    tools: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for role, path in files.items():
        kind, _, name = role.partition(":")
        if kind != "tool":
            continue
        try:
            data = _bounded(path, MAXIMUM_JSON)
            if data.strip():
                tools[name] = msgspec.json.decode(data)
            else:
                errors[name] = "it printed nothing"
        except (OutputError, OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            errors[name] = neutral(f"{path.name} is no output of a tool: {error}")
    return tools, errors


def read_workload(path: Path, lab: str) -> WorkloadOutput:
    """Read and bound the document that a workload printed.

    :raises OutputError: it is too large, is not JSON, does not fit, or does not hold together.
    """
    hint = "docs/labs.md describes what a workload prints"
    try:
        output = msgspec.json.decode(_bounded(path, MAXIMUM_JSON), type=WorkloadOutput)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise OutputError(f"the workload's output is not what the protocol asks for: {error}", hint) from error
    problem = next(iter(_workload_problems(output, lab)), None)
    if problem is not None:
        raise OutputError(f"the workload's output does not hold together: {problem}", hint)
    return output


def _workload_problems(output: WorkloadOutput, lab: str) -> list[str]:
    problems: list[str] = []
    if output.lab != lab:
        problems.append(f"it is of lab {output.lab!r}")
    ids = [segment.id for segment in output.segments]
    if len(set(ids)) != len(ids) or any(not 1 <= number <= traces.SELF_TEST for number in ids):
        problems.append("segment ids are not unique numbers of 1 to 511")
    samples = sum(len(values) for segment in output.segments for values in segment.samples.values())
    goroutines = sum(len(ids) for segment in output.segments for ids in segment.goroutines.values())
    if samples + goroutines > MAXIMUM_SAMPLES:
        problems.append(f"it has more than {MAXIMUM_SAMPLES} samples and goroutines")
    for segment in output.segments:
        problems += _segment_problems(segment)
    stacks = [*(entry.frames for entry in output.profile), *(entry.frames for entry in output.heap)]
    texts = [output.lab, output.go, *output.metrics, *(frame for frames in stacks for frame in frames)]
    if any(len(text) > MAXIMUM_STRING for text in texts):
        problems.append(f"a name is longer than {MAXIMUM_STRING} characters")
    return problems


def _segment_problems(segment: Segment) -> list[str]:
    problems: list[str] = []
    if segment.end_ns < segment.start_ns:
        problems.append(f"segment {segment.id} ends before it starts")
    if any(value < 0 for value in (*segment.counts.values(), *segment.expected.values())):
        problems.append(f"segment {segment.id} has a negative count")
    if any(not math.isfinite(value) for values in segment.samples.values() for value in values):
        problems.append(f"segment {segment.id} has a sample that is not finite")
    texts = [segment.section, *segment.parameters, *segment.parameters.values(), *segment.counts, *segment.samples]
    if any(not histograms.possible(histogram) for histogram in segment.histograms.values()):
        problems.append(f"segment {segment.id} has a histogram with counts or buckets that cannot be")
    texts += [*segment.expected, *segment.addresses, *segment.goroutines, *segment.histograms]
    if any(len(text) > MAXIMUM_STRING for text in texts):
        problems.append(f"segment {segment.id} has a name longer than {MAXIMUM_STRING} characters")
    return problems
