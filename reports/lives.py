"""Lives of goroutines from traced creations and ends, of any lab that uses the probe set ``goroutine``. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bpf.trace import EventKind
from go_labs.evidence import Segment
from reports import charts
from reports.analysis import Events, PhaseData

SITES = 12
"""Creation sites that are shown."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One wait of a goroutine, CLOCK_MONOTONIC in nanoseconds."""

    goid: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Life:
    """A goroutine's creation and end, CLOCK_MONOTONIC of the machine in nanoseconds."""

    created_ns: int
    ended_ns: int


def ids(events: Events) -> frozenset[int]:
    """Return the goroutines that ``events`` are about."""
    return frozenset(events["goid"].tolist())


def whole(phase: PhaseData, segments: list[Segment]) -> dict[int, Life]:
    """Return the lives that began and ended in ``segments``, by goroutine id."""
    made = phase.events_of(segments, EventKind.CREATE)
    gone = phase.events_of(segments, EventKind.END)
    ended = dict(zip(gone["goid"].tolist(), gone["start_ns"].tolist(), strict=True))
    pairs = zip(made["goid"].tolist(), made["start_ns"].tolist(), strict=True)
    return {goid: Life(at, ended[goid]) for goid, at in pairs if goid in ended}


def alive(lives: Mapping[int, Life], moments: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return how many of ``lives`` had begun and not ended at each of ``moments`` (nanoseconds)."""
    made = np.sort([life.created_ns for life in lives.values()])
    gone = np.sort([life.ended_ns for life in lives.values()])
    counts: npt.NDArray[np.int64] = np.searchsorted(made, moments, "right") - np.searchsorted(gone, moments, "right")
    return counts


def sites(phase: PhaseData, segments: Sequence[Segment]) -> charts.StackList | None:
    """Return where goroutines were created, the most frequent first; None where none was."""
    made = phase.events_of(list(segments), EventKind.CREATE)
    if made.size == 0:
        return None
    numbers, counts = np.unique(made["stack"], return_counts=True)
    found: dict[tuple[str, ...], int] = {}
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        frames = tuple(phase.frames(number))
        found[frames] = found.get(frames, 0) + count
    without = found.pop((), 0)
    heaviest = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:SITES]
    return charts.StackList(
        id="sites", title="Where goroutines were created",
        caption="What a goroutine runs, and the go statement that created it; the most frequent first.",
        place="stacks", phase=phase.name, what="creations",
        stacks=[charts.Stack(frames=list(frames), count=count) for frames, count in heaviest],
        total=int(made.size), without=without,
    )  # fmt: skip


def waits(phase: PhaseData, segment: Segment) -> list[Wait]:
    """Return the traced waits of all goroutines in ``segment`` that had ended."""
    parks = phase.events_of([segment])
    fields = (parks["goid"].tolist(), parks["start_ns"].tolist(), parks["duration_ns"].tolist())
    return [Wait(goid, start, start + duration) for goid, start, duration in zip(*fields, strict=True)]


def beyond(found: Iterable[Wait], threshold_ns: int) -> frozenset[int]:
    """Return the goroutines with a wait of at least ``threshold_ns``."""
    return frozenset(wait.goid for wait in found if wait.end_ns - wait.start_ns >= threshold_ns)


def unmatched(ones: Iterable[Wait], others: Iterable[Wait], threshold_ns: int) -> frozenset[int]:
    """Return goroutines with a wait beyond the threshold in ``ones`` that ``others`` do not have at all."""
    known: dict[int, list[Wait]] = {}
    for wait in others:
        known.setdefault(wait.goid, []).append(wait)
    return frozenset(
        one.goid
        for one in ones
        if one.end_ns - one.start_ns >= threshold_ns
        and not any(one.start_ns < other.end_ns and other.start_ns < one.end_ns for other in known.get(one.goid, []))
    )
