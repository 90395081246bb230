"""What a lab's ``analysis.py`` is given, and what it gives back.

``analysis.py`` holds one pure function::

    from reports.analysis import Analysis, RunData

    def analyse(run: RunData) -> Analysis: ...

It opens no file and starts nothing: everything is in ``run``. Metrics that every lab has (``reports.metrics``) are
added by the caller; a name given in both is an error. Workload output has been validated and bounded, but its words
stay untrusted: they are escaped where they are shown.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bpf.gotrace import GoTrace, SegmentTrace
from bpf.plan import Plan
from bpf.trace import EVENT, EventKind, Trace
from go_labs.evidence import AttemptResult, HostShare, Provenance, Segment, WorkloadOutput
from go_labs.spec import Clock, Lab, Protocol
from reports.charts import AnyChart
from reports.schema import Metric
from reports.text import neutral
from reports.timeline import FullTimeline
from vm.errors import ConfigError

Events = npt.NDArray[np.void]
"""Array of :data:`bpf.trace.EVENT`."""


def no_events() -> Events:
    """Return an empty array of events."""
    return np.zeros(0, dtype=EVENT)


@dataclass(frozen=True, slots=True)
class PhaseData:
    """One phase, read and validated.

    :param error: why the phase has no (whole) result; empty where it has one.
    :param workload: what the workload printed, None where it failed.
    :param trace: what the loader left, None where nothing was attached or it failed.
    :param go_trace: what Go's own tracer saw in the process, None where the workload recorded nothing.
    :param events: empty where there is no trace.
    :param tools: JSON of each tool that ran beside the workload, by ``bcc/NAME`` or ``bpftrace/NAME``.
    :param tool_errors: why a tool has no result, by the same names.
    :param symbols: linked or runtime address → ``function file:line``, inlined frames innermost first.
    :param protocol: ``none`` where the program was no workload: it has no document and no segments by nature.
    :param remarks: what else a reader should know, a sentence each.
    :param host: what its machine got of the host's CPUs, None where that is not known.
    """

    name: str
    exit_status: int | None
    wall_seconds: float
    workload_seconds: float
    error: str = ""
    workload: WorkloadOutput | None = None
    trace: Trace | None = None
    plan: Plan | None = None
    go_trace: GoTrace | None = None
    events: Events = field(default_factory=no_events)
    tools: Mapping[str, Any] = field(default_factory=dict)
    tool_errors: Mapping[str, str] = field(default_factory=dict)
    symbols: Mapping[int, list[str]] = field(default_factory=dict)
    protocol: Protocol = "document"
    remarks: Sequence[str] = ()
    host: HostShare | None = None

    @property
    def host_wait_share(self) -> float | None:
        """Share of time that the machine's CPUs were ready and had none of the host's, over that and the time that they
        ran; None where that is not known."""
        busy = 0.0 if self.host is None else self.host.cpu_seconds + self.host.wait_seconds
        return self.host.wait_seconds / busy if self.host is not None and busy else None

    def segments(self, section: str | None = None, **parameters: str) -> list[Segment]:
        """Return segments of ``section`` (None: all) whose parameters equal ``parameters``, in the order they ran."""
        if self.workload is None:
            return []
        return [
            segment
            for segment in self.workload.segments
            if (section is None or segment.section == section)
            and all(segment.parameters.get(name) == value for name, value in parameters.items())
        ]

    def counters(self, segment: Segment) -> dict[str, int]:
        """Return the traced counters of ``segment``; one that is not there counted nothing."""
        return {} if self.trace is None else dict(self.trace.counters.get(segment.id, {}))

    def count(self, name: str, section: str | None = None, **parameters: str) -> int | None:
        """Return counter ``name`` summed over the segments that fit, or None where nothing was traced."""
        if self.trace is None or self.workload is None:
            return None
        return sum(self.counters(segment).get(name, 0) for segment in self.segments(section, **parameters))

    def go_traced(self, segment: Segment) -> SegmentTrace | None:
        """Return what Go's own tracer saw in ``segment``, or None where nothing of it was recorded."""
        return None if self.go_trace is None else self.go_trace.segments.get(segment.id)

    def events_of(self, segments: list[Segment] | None, kind: EventKind = EventKind.PARK) -> Events:
        """Return the events of ``kind`` that happened in ``segments`` (None: anywhere)."""
        chosen: Events = self.events[self.events["kind"] == kind]
        if segments is not None:
            chosen = chosen[np.isin(chosen["segment"], [segment.id for segment in segments])]
        return chosen

    def reason(self, number: int) -> str:
        """Return the runtime's words of wait reason ``number`` of this Go version; an unknown one stays a number."""
        known = [] if self.plan is None else self.plan.wait_reasons
        return known[number] if number < len(known) and known[number] else f"#{number}"

    def samples(self, name: str, section: str | None = None, **parameters: str) -> list[float]:
        """Return the samples ``name`` of all segments that fit, joined in the order they were taken."""
        return [value for segment in self.segments(section, **parameters) for value in segment.samples.get(name, [])]

    def frames(self, stack: int) -> list[str]:
        """Return the frames of stack number ``stack``, innermost first; an unknown address stays a number."""
        if self.trace is None or not 0 <= stack < len(self.trace.stacks):
            return []
        bias = self.trace.load_bias
        found: list[str] = []
        for address in self.trace.stacks[stack]:
            found += self.symbols.get(address) or self.symbols.get(address - bias) or [f"{address:#x}"]
        return found


@dataclass(frozen=True, slots=True)
class CompilerNote:
    """One line of the compiler's: its ``words`` on line ``line`` of ``file``, which is named without its folder."""

    file: str
    line: int
    words: str


@dataclass(frozen=True, slots=True)
class RunData:
    """All that a run left, read and validated; ``kernel_log`` is the machine's, by line, untrusted.

    :param attempts: what came of the lab's attempts, by id; ``attempts_error``: why there are none.
    :param compiler: the compiler's words on the workload, where the lab wants them.
    :param vet: what ``go vet`` found, each with its analyzer in front; None where nothing was asked of it.
    """

    lab: Lab
    provenance: Provenance
    phases: Mapping[str, PhaseData]
    facts: Mapping[str, Any] = field(default_factory=dict)
    kernel_log: Sequence[str] = ()
    attempts: Mapping[str, AttemptResult] = field(default_factory=dict)
    attempts_error: str = ""
    compiler: Sequence[CompilerNote] = ()
    vet: Sequence[CompilerNote] | None = None

    @property
    def clock(self) -> Clock:
        """What a second in the machine was."""
        return self.provenance.clock

    def phase(self, name: str) -> PhaseData:
        """Return phase ``name``; a phase that did not run has ``error`` set and nothing else."""
        why = f": {self.error}" if self.error else ""
        missing = PhaseData(
            name=name, exit_status=None, wall_seconds=0.0, workload_seconds=0.0, error=f"phase {name} did not run{why}"
        )
        return self.phases.get(name, missing)

    @property
    def error(self) -> str:
        """What ended the run early, in words; empty where nothing did."""
        error = self.facts.get("error")
        return neutral(str(error.get("message", error)), limit=240) if isinstance(error, dict) else ""


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """What a lab makes of a run.

    :param metrics: named as ``lab.toml`` names them in criteria and gates.
    :param notes: plain sentences for the reader, about what the figures can and cannot say.
    :param timelines: written into the record as files for a trace viewer.
    """

    metrics: list[Metric] = []
    charts: list[AnyChart] = []
    notes: list[str] = []
    timelines: list[FullTimeline] = []


def load(path: Path) -> Callable[[RunData], Analysis]:
    """Return ``analyse`` of the file ``path``, which is run as a module of its own.

    :raises ConfigError: it cannot be imported, or has no such function.
    """
    name = f"_lab_analysis_{path.parent.name}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file", "analysis.py holds `def analyse(run: RunData) -> Analysis`")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and msgspec look up annotations there
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout may be a document of ours
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{path} cannot be imported: {words(error)}", "mend it, then run again") from error
    analyse = getattr(module, "analyse", None)
    if not callable(analyse):
        raise ConfigError(
            f"{path} has no function analyse", "analysis.py holds `def analyse(run: RunData) -> Analysis`"
        )
    found: Callable[[RunData], Analysis] = analyse
    return found


def words(error: BaseException) -> str:
    """Return what a lab's own code failed with, in one line."""
    return neutral(f"{type(error).__name__}: {' '.join(str(error).split())}", limit=300)
