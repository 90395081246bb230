"""Which goroutines have leaked, by several rules, of a workload that works in rounds. Pure.

A round is every segment of one number in the parameter ``round``. No rule is told what was planted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bpf.gotrace import Goroutine
from go_labs.evidence import Segment
from reports.analysis import PhaseData
from reports.goroutines import Life, lives

TRACER = "runtime/trace."
"""In the functions of runtime/trace's own goroutines, which are there because of the oracle."""

OTHERS = ("runtime", "tracer")
"""Goroutines in runtime/trace that are not the program's own."""

LEAST = 3
"""Rounds that a place must have created goroutines in, before it can be said to leak."""


def growing(
    rounds: Sequence[Iterable[str]], survivors: Sequence[Mapping[str, int]], least: int = LEAST
) -> frozenset[str]:
    """Return the places of creation that leak: there were ``least`` rounds or more in which such a place created
    goroutines, and each of them left some alive.

    What is started once, or by load until a bound is reached, was created in few rounds; what is replaced leaves only
    its last one; what works and ends leaves none.

    :param rounds: the places that created goroutines, round by round; ``survivors``: how many of each round's are alive
        after all of them.
    """
    active: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for created, alive in zip(rounds, survivors, strict=True):
        places = set(created)
        active.update(places)
        left.update(place for place in places if alive.get(place))
    return frozenset(place for place, count in active.items() if count >= least and left[place] == count)


@dataclass(frozen=True, slots=True)
class Rules:
    """What was alive at a moment, and which of it has leaked by which rule; sets are of goroutine ids.

    :param lives: by id; ``alive``: those that the program itself has, without the runtime's and its tracer's.
    :param born: those that were created in a round; ``grown``: leaked by the rule of growth.
    :param idle: leaked by the rule of seconds: alive, and not scheduled for ``seconds``.
    :param traced_alive: by runtime/trace, of those created in a round; ``traced_grown``: leaked by the rule of growth
        on what it recorded. None where no whole recording is there.
    """

    seconds: float
    lives: Mapping[int, Life]
    alive: frozenset[int]
    born: frozenset[int]
    grown: frozenset[int]
    idle: frozenset[int]
    traced_alive: frozenset[int] | None
    traced_grown: frozenset[int] | None

    def functions(self, ids: Iterable[int]) -> frozenset[str]:
        """Return the functions that those goroutines began with."""
        return frozenset(self.lives[goid].function for goid in ids if goid in self.lives)


def in_rounds(segments: Iterable[Segment]) -> dict[int, list[Segment]]:
    """Return the segments of each round, by its number and in order."""
    found: dict[int, list[Segment]] = {}
    for segment in segments:
        if segment.parameters.get("round", "").isdecimal():
            found.setdefault(int(segment.parameters["round"]), []).append(segment)
    return dict(sorted(found.items()))


def rules(phase: PhaseData, moment_ns: int, seconds: float) -> Rules:
    """Return who has leaked at ``moment_ns`` (CLOCK_MONOTONIC), after all rounds of ``phase``."""
    rounds = in_rounds(phase.segments())
    known = lives(phase, moment_ns)
    number = {segment.id: index for index, segments in rounds.items() for segment in segments}
    born = [[life for life in known.values() if number.get(life.segment) == index] for index in rounds]
    places = growing(
        [[life.site for life in each] for each in born],
        [Counter(life.site for life in each if life.alive) for each in born],
    )
    alive = {g: life for g, life in known.items() if life.alive and not life.system and TRACER not in life.function}
    ids = frozenset(life.goid for each in born for life in each)
    traced = _traced(phase, rounds)
    return Rules(
        seconds=seconds,
        lives=known,
        alive=frozenset(alive),
        born=ids,
        grown=frozenset(g for g, life in alive.items() if g in ids and life.site in places),
        idle=frozenset(g for g, life in alive.items() if life.waiting and moment_ns - life.rested_ns > seconds * 1e9),
        traced_alive=None if traced is None else frozenset(g.id for each in traced for g in each if not g.ended_ns),
        traced_grown=None if traced is None else _grown(traced),
    )


def rising(counts: Sequence[Mapping[str, int]]) -> frozenset[str]:
    """Return the functions of which a goroutine profile after each round has more than that before; none of fewer than
    :data:`LEAST` profiles."""
    if len(counts) < LEAST:
        return frozenset()
    return frozenset(
        function for function in counts[-1] if all(b.get(function, 0) > a.get(function, 0) for a, b in pairwise(counts))
    )


def _traced(phase: PhaseData, rounds: Mapping[int, list[Segment]]) -> list[list[Goroutine]] | None:
    found: list[list[Goroutine]] = []
    for segments in rounds.values():
        traces = [phase.go_traced(segment) for segment in segments]
        if any(trace is None or not trace.whole or trace.goroutines_left_out for trace in traces):
            return None
        made = [each for trace in traces if trace is not None for each in trace.goroutines]
        found.append([each for each in made if each.goroutine_class not in OTHERS])
    return found or None


def _grown(rounds: Sequence[Sequence[Goroutine]]) -> frozenset[int]:
    places = growing(
        [[each.site for each in found] for found in rounds],
        [Counter(each.site for each in found if not each.ended_ns) for found in rounds],
    )
    return frozenset(each.id for found in rounds for each in found if not each.ended_ns and each.site in places)
