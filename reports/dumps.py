"""Goroutine dumps at fixed intervals, matched to traced lives as the source article does it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from go_labs.evidence import Segment
from reports import lives
from reports.analysis import PhaseData
from reports.lives import Life

TOLERANCE_NS = 50_000_000
"""The article's window: beginning and end within 50 ms of the events (5e7 in its code)."""


@dataclass(frozen=True, slots=True)
class Dump:
    """One goroutine dump: when it began, how long it stopped the world, which goroutines it lists."""

    at_ns: int
    pause_ns: int
    ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Method:
    """Dumps matched to events as the article's code does it.

    :param seen: goroutines of the load that are in a dump at all.
    :param began: whose first dump lies within the tolerance of their creation; ``finished``: likewise the last and
        their end.
    :param matched: both.
    :param wrong: entries of dumps that the events know as not alive then, and the other way round.
    """

    segment: Segment
    lives: Mapping[int, Life]
    dumps: tuple[Dump, ...]
    seen: frozenset[int]
    began: frozenset[int]
    finished: frozenset[int]
    matched: frozenset[int]
    wrong: int


def method(traced: PhaseData, segment: Segment | None) -> Method | None:
    """Return what the dumps of ``segment`` say beside the events.

    A dump is a sample of ``dump_at_ns`` and of ``dump_ns``, and the list of goroutines ``dump-N``.
    None where there is no segment or no trace.
    """
    if segment is None or traced.trace is None:
        return None
    found = lives.whole(traced, [segment])
    dumps = tuple(
        Dump(int(at), int(pause), frozenset(segment.goroutines.get(f"dump-{number}", [])) & found.keys())
        for number, (at, pause) in enumerate(
            zip(segment.samples.get("dump_at_ns", []), segment.samples.get("dump_ns", []), strict=True)
        )
    )
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for dump in dumps:
        for goid in dump.ids:
            first.setdefault(goid, dump.at_ns)
            last[goid] = dump.at_ns
    began = frozenset(g for g, at in first.items() if abs(at - found[g].created_ns) < TOLERANCE_NS)
    finished = frozenset(g for g, at in last.items() if abs(at - found[g].ended_ns) < TOLERANCE_NS)
    wrong = sum(disagree(dump, found) for dump in dumps)
    return Method(segment, found, dumps, frozenset(first), began, finished, began & finished, wrong)


def disagree(dump: Dump, known: Mapping[int, Life]) -> int:
    """Count goroutines that lived through the whole dump and are not in it, and those in it that did not live then."""
    end = dump.at_ns + dump.pause_ns
    through = {g for g, life in known.items() if life.created_ns <= dump.at_ns and life.ended_ns >= end}
    touched = {g for g, life in known.items() if life.created_ns <= end and life.ended_ns >= dump.at_ns}
    return len(through - dump.ids) + len(dump.ids - touched)
