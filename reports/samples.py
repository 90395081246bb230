"""What a comparison reads of a record: partial structs, so that hundreds of records take seconds. Nothing is hashed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from go_labs.evidence import Histogram, Provenance
from go_labs.spec import TIMED
from reports import histograms, record, staging
from reports.schema import Kind, Outcome
from vm.errors import RecordError


class LabBrief(msgspec.Struct, frozen=True, kw_only=True):
    """Which lab a record is of, and the metric that its kernels are compared by."""

    name: str
    title: str
    section: str
    primary: str


class MetricBrief(msgspec.Struct, frozen=True, kw_only=True):
    """A figure without its series; fields as in :class:`reports.schema.Metric`."""

    name: str
    title: str
    unit: str
    kind: Kind
    value: float | None = None
    absent: str = ""
    phase: str = ""
    timing: bool = False
    meaning: str = ""


class VerdictBrief(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict with its sentence."""

    claim: str
    text: str
    outcome: Outcome
    sentence: str


class GateBrief(msgspec.Struct, frozen=True, kw_only=True):
    """A gate and whether it held."""

    name: str
    passed: bool | None


class PhaseBrief(msgspec.Struct, frozen=True, kw_only=True):
    """A phase and why it has no whole result, where it has none."""

    name: str
    error: str = ""


class Brief(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison reads of ``run.json``; the rest is passed over."""

    schema: int
    id: str
    lab: LabBrief
    provenance: Provenance
    phases: list[PhaseBrief]
    metrics: list[MetricBrief]
    gates: list[GateBrief]
    verdicts: list[VerdictBrief]


class _Share(msgspec.Struct, frozen=True):
    neighbours: int = 0


class _Phase(msgspec.Struct, frozen=True):
    name: str
    files: dict[str, str] = {}
    host: _Share | None = None


class _Evidence(msgspec.Struct, frozen=True):
    phases: list[_Phase] = []


class _Segment(msgspec.Struct, frozen=True):
    parameters: dict[str, str] = {}
    histograms: dict[str, Histogram] = {}


class _Workload(msgspec.Struct, frozen=True):
    segments: list[_Segment] = []


@dataclass(frozen=True, slots=True)
class Sample:
    """A run: one boot, and so one value of each metric.

    :param repeat: what pairs it with other kernels of its host; ``number``: the same as a number, 0 without one.
    :param control: it is the baseline's second time. :param judged: all its phases ran, so that its verdicts count.
    :param neighbours: machines of the same matrix that could use its cores in the timed phase.
    :param workload: document of the timed phase, None where there is none.
    """

    path: Path
    brief: Brief
    metrics: dict[str, MetricBrief]
    repeat: str
    number: int
    cell: str
    control: bool
    judged: bool
    neighbours: int
    workload: Path | None

    @property
    def lab(self) -> str:
        """Name of the lab."""
        return self.brief.lab.name

    @property
    def line(self) -> str:
        """Kernel line."""
        return self.brief.provenance.kernel_line

    @property
    def host(self) -> tuple[tuple[str, str], ...]:
        """What tells hosts apart."""
        return tuple(sorted(self.brief.provenance.host.items()))


def read(
    folder: Path,
    *,
    repeat: str = "",
    number: int = 0,
    cell: str = "",
    control: bool = False,
    judged: bool | None = None,
) -> Sample:
    """Read the record in ``folder``.

    :param judged: None: whether all phases have a whole result.
    :raises RecordError: it is missing, broken or of another schema.
    """
    brief = record.brief(folder, Brief)
    timed = _timed(folder)
    name = None if timed is None else timed.files.get("workload")
    return Sample(
        path=folder,
        brief=brief,
        metrics={metric.name: metric for metric in brief.metrics},
        repeat=repeat,
        number=number,
        cell=cell,
        control=control,
        judged=not any(phase.error for phase in brief.phases) if judged is None else judged,
        neighbours=0 if timed is None or timed.host is None else timed.host.neighbours,
        workload=None if name is None or not _inside(name) else folder / name,
    )


def _timed(folder: Path) -> _Phase | None:
    """Return the timed phase of the evidence; a record whose evidence cannot be read says nothing of its host."""
    try:
        evidence = msgspec.json.decode((folder / staging.EVIDENCE).read_bytes(), type=_Evidence)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return next((phase for phase in evidence.phases if phase.name == TIMED), None)


def _inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/")


@dataclass(frozen=True, slots=True)
class Latencies:
    """A histogram that a workload recorded under fixed parameters."""

    name: str
    parameters: dict[str, str]
    histogram: Histogram


def latencies(sample: Sample) -> Iterator[Latencies]:
    """Give the histograms of durations (named with ``_ns``) that the timed phase of a run left.

    :raises RecordError: the workload's document cannot be read, or has a histogram that cannot be.
    """
    if sample.workload is None:
        return
    try:
        with sample.workload.open("rb") as file:
            if os.fstat(file.fileno()).st_size > staging.MAXIMUM_JSON:
                raise RecordError(f"{sample.workload.name} is too large", record.WHOLE)
            found = msgspec.json.decode(file.read(), type=_Workload)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{sample.workload.name} cannot be read: {error}", record.WHOLE) from error
    for segment in found.segments:
        for name, histogram in segment.histograms.items():
            if not histograms.possible(histogram):
                raise RecordError(f"{sample.workload.name} has a histogram {name} that cannot be", record.WHOLE)
            if name.endswith("_ns"):
                yield Latencies(name, segment.parameters, histogram)


def hosts(samples: Iterable[Sample]) -> dict[tuple[tuple[str, str], ...], str]:
    """Return a letter for each host, in the order in which they first ran: ``A``, ``B`` …"""
    found = dict.fromkeys(sample.host for sample in sorted(samples, key=lambda s: s.brief.provenance.started))
    return {host: _letter(number) for number, host in enumerate(found)}


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"H{number + 1}"
