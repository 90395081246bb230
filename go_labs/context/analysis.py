"""What a run of the context lab means: the metrics that ``lab.toml`` names, and the charts. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from bpf.trace import ContextState, EventKind
from go_labs.evidence import Segment
from reports import charts, waits
from reports.analysis import Analysis, Events, PhaseData, RunData, no_events
from reports.checks import Check, steps
from reports.schema import Metric
from reports.shorthand import metric, table
from reports.statistics import median, quantiles

CALLERS = ["main.third", "main.second", "main.first"]
"""Functions through which the workload calls every cancellation, innermost first (``chain.go``)."""

CANCEL = "context.(*cancelCtx).cancel"

_WOKEN = re.compile(r"depth(\d+)_woken_ns")


@dataclass(frozen=True)
class Seen:
    """What the trace has of the contexts of one segment, by the paths that the workload gave them.

    :param cancels: of each context, in order of time; ``closes`` likewise, of done channels that the workload knows.
    :param parks: of goroutines that waited for one.
    """

    segment: Segment
    contexts: dict[int, str]
    channels: dict[int, str]
    cancels: dict[str, list[np.void]] = field(default_factory=lambda: defaultdict(list))
    closes: dict[str, list[np.void]] = field(default_factory=lambda: defaultdict(list))
    parks: dict[str, list[np.void]] = field(default_factory=lambda: defaultdict(list))

    def children(self, path: str) -> int:
        """Return how many children the workload says that a context has."""
        return self.segment.counts.get(f"children/{path}", 0)

    def done(self, path: str) -> int:
        """Return where its done channel lies, 0 where it has none."""
        return self.segment.addresses.get(f"done/{path}", 0)


def _read(phase: PhaseData) -> list[Seen]:
    found = []
    for segment in phase.segments():
        places: dict[str, dict[int, str]] = {"context": {}, "done": {}}
        for name, address in segment.addresses.items():
            what, _, path = name.partition("/")
            if path and what in places:
                places[what][address] = path
        if not places["context"]:
            continue
        seen = Seen(segment, places["context"], places["done"])
        for kind, by, into in (
            (EventKind.CANCEL, seen.contexts, seen.cancels),
            (EventKind.CLOSE, seen.channels, seen.closes),
            (EventKind.PARK, seen.channels, seen.parks),
        ):
            for event in np.sort(phase.events_of([segment], kind), order="start_ns"):
                path = by.get(int(event["address"]), "")
                if path:
                    into[path].append(event)
        found.append(seen)
    return found


def analyse(run: RunData) -> Analysis:
    """Return the lab's metrics and charts; what could not be measured is absent with its reason."""
    traced, timed = run.phase("traced"), run.phase("timed")
    seen = _read(traced) if traced.trace is not None else []
    functions = _functions(traced)
    checks = [*_closes(seen), *_order(seen, functions), *_contents(seen), *_stacks(seen, functions)]
    drawn = [
        steps(
            checks, name="order", title="The order of a cancellation", head="A context is, or", phase="traced",
            caption="What a context does according to the article, how often it was looked at, how often it was so.",
        ), _scenes(traced), _example(seen), *_delays(traced, timed, seen), _by_depth(timed, seen), waits.heat_map(
            traced, _joined(seen), name="waits-for-done", title="Waits for done channels",
            caption="Each cell counts waits that began in that moment (across) and lasted that long (up, logarithmic).",
        ), waits.stacks(
            traced, traced.events_of([s.segment for s in seen], EventKind.CLOSE), name="closers", title="Who closed",
            what="closes", limit=6,
            caption="Stacks at closechan, most frequent first: cancel calls itself once a level; who began is below.",
        ),
    ]  # fmt: skip
    return Analysis(
        metrics=[*(c.metric(traced, "no cancellation was traced") for c in checks), *_times(traced, timed, seen)],
        charts=[chart for chart in drawn if chart is not None],
    )


# ---- what is held against the workload's trees ----


def _closes(seen: list[Seen]) -> Iterator[Check]:
    contexts = [(s, path) for s in seen for path in s.contexts.values()]
    silent = sum(bool(s.cancels[path]) and not s.closes[path] for s, path in contexts)
    channels = [(s, path) for s in seen for path in s.channels.values()]
    closes = [(s, path, event) for s in seen for path, events in s.closes.items() for event in events]
    yield Check(
        "close.silent", "Contexts that were cancelled and closed nothing", silent, len(contexts),
        "nobody had asked for their done channel before",
    )  # fmt: skip
    repeated = sum(len(s.closes[path]) > 1 for s, path in channels)
    yield Check(
        "close.repeated", "Done channels that closed more than once", repeated, len(channels),
        "also where eight goroutines cancel at once, and where a cancellation is repeated",
    )  # fmt: skip
    unseen = sum(not s.closes[path] for s, path in channels)
    yield Check(
        "close.unseen", "Done channels whose close the probe did not see", unseen, len(channels),
        "channels of the workload's contexts, each of which was cancelled",
    )  # fmt: skip
    wrong = sum(s.contexts.get(int(event["object"])) != path for s, path, event in closes)
    yield Check(
        "close.misassigned", "Closes that were taken for another context's", wrong, len(closes),
        "the context whose field done holds the channel, against the workload's",
    )  # fmt: skip


def _order(seen: list[Seen], functions: Callable[[int], list[str]]) -> Iterator[Check]:
    own = [event for s in seen for events in s.closes.values() for event in events]
    n = len(own)
    yield Check("order.closes", "Closes at which the context was looked into", n, n, "closes of done channels")
    for name, title, state, step in (
        ("order.unlocked", "Closes without the context's lock", ContextState.LOCKED, "locked before it closes"),
        ("order.unmarked", "Closes before the context was marked", ContextState.MARKED, "marked before it closes"),
    ):
        without = sum(not int(event["value"]) & state for event in own)
        yield Check(name, title, without, n, "read from the context while closechan is entered", step)
    first = nested = 0
    for s in seen:
        for path, events in s.cancels.items():
            for event in events:
                if functions(int(event["stack"])).count(CANCEL) < 2:
                    continue  # Not from a parent's cancel.
                nested += 1
                above = s.closes[path.rpartition(".")[0]]
                first += not any(c["goid"] == event["goid"] and c["start_ns"] <= event["start_ns"] for c in above)
    title = "Contexts that their parent's cancel cancelled"
    yield Check("order.children", title, nested, nested, "cancel is on the stack of cancel")
    yield Check(
        "order.children_first", "Children cancelled before their parent's channel closed", first, nested,
        "entry of the child's cancel against the parent's close, on one goroutine",
        "closes before it cancels its children",
    )  # fmt: skip
    parks = [(s.closes[path], park) for s in seen for path, events in s.parks.items() for park in events]
    early = sum(not any(c["start_ns"] <= _end(park) for c in closes) for closes, park in parks)
    n = len(parks)
    yield Check("order.wakeups", "Goroutines that waited for a done channel", n, n, "parked on it, and ran again")
    yield Check(
        "order.woken_first", "Waiters that ran again before the probe saw the close", early, n,
        "end of the wait against the close of its channel", "closes before anyone who waits runs",
    )  # fmt: skip


def _end(event: np.void) -> int:
    return int(event["start_ns"]) + int(event["duration_ns"])


def _contents(seen: list[Seen]) -> Iterator[Check]:
    wrong = checked = channels = channels_wrong = 0
    kinds: set[int] = set()
    for s in seen:
        shared = s.segment.addresses.get("closedchan", 0)
        for path, events in s.cancels.items():
            for n, event in enumerate(events):
                # Who comes later finds the map gone and a channel there; of several at once, no one knows the first.
                if s.segment.parameters.get("scene") != "concurrent" or len(events) == 1:
                    expected = 0 if n else s.children(path)
                    checked += 1
                    wrong += int(event["value"]) != expected
                    kinds.add(expected)
                channels += 1
                channels_wrong += int(event["object"]) != (s.done(path) or (shared if n else 0))
    yield Check(
        "children.wrong", "Contexts whose children were counted otherwise", wrong, checked,
        "length of the map children at the entry of cancel, against the workload's tree",
    )  # fmt: skip
    yield Check("children.kinds", "Different numbers of children", len(kinds), checked, "that the trees have")
    yield Check(
        "done.wrong", "Contexts whose done channel was read otherwise", channels_wrong, channels,
        "second word of the field done at the entry of cancel, against the workload's address",
    )  # fmt: skip


def _stacks(seen: list[Seen], functions: Callable[[int], list[str]]) -> Iterator[Check]:
    events = [e for s in seen for group in (s.cancels, s.closes) for found in group.values() for e in found]
    without = sum(not _has_callers(functions(int(event["stack"]))) for event in events)
    yield Check(
        "stack.without_callers", "Stacks without the known chain of callers", without, len(events),
        "main.third, second and first one after another, at each cancel and each close",
    )  # fmt: skip


def _functions(phase: PhaseData) -> Callable[[int], list[str]]:
    return cache(lambda stack: [frame.split(" ")[0] for frame in phase.frames(stack)])


def _has_callers(names: list[str]) -> bool:
    return any(names[i : i + len(CALLERS)] == CALLERS for i in range(len(names)))


# ---- delays ----


def _depth(path: str) -> int:
    return path.rpartition("/")[2].count(".")


def _root(path: str) -> str:
    head, slash, _ = path.rpartition("/")
    return f"{head}{slash}0"


def _measured(seen: list[Seen], shape: str, what: str) -> dict[int, list[float]]:
    """Return ns from the entry of the root's cancel to the close, or to a waiter's run, by depth."""
    found: dict[int, list[float]] = defaultdict(list)
    for s in seen:
        if s.segment.section != "delay" or s.segment.parameters["shape"] != shape:
            continue
        for path, events in (s.closes if what == "closed" else s.parks).items():
            for event in events:
                began = s.cancels[_root(path)]
                if began:
                    at = _end(event) if what == "woken" else int(event["start_ns"])
                    found[_depth(path)].append(float(at - int(began[0]["start_ns"])))
    return dict(sorted(found.items()))


def _woken(timed: PhaseData, shape: str) -> dict[int, list[float]]:
    """Return ns from before the root's cancel to a waiter's first instruction, by depth, as the workload measured."""
    found: dict[int, list[float]] = defaultdict(list)
    for segment in timed.segments("delay", shape=shape):
        for name, values in segment.samples.items():
            if match := _WOKEN.fullmatch(name):
                found[int(match[1])] += values
    return dict(sorted(found.items()))


def _times(traced: PhaseData, timed: PhaseData, seen: list[Seen]) -> Iterable[Metric]:
    woken, closed = _woken(timed, "chain"), _measured(seen, "chain", "closed")
    last, deepest = (depths[max(depths)] if depths else [] for depths in (woken, closed))
    returned = timed.samples("returned_ns", "delay", shape="chain")
    own = "from before the root's cancel, by the workload's own clock, nothing attached; median over rounds"
    probed = "from the entry of the root's cancel, two probe hits a level included; median over rounds"
    for name, title, phase, values, meaning in (
        ("delay.woken_root_ns", "Until who waits at the root runs", timed, woken.get(0, []), own),
        ("delay.woken_deepest_ns", "Until who waits at the end of the chain runs", timed, last, own),
        ("delay.closed_deepest_ns", "Until the channel at the end of the chain closes", traced, deepest, probed),
        ("delay.returned_ns", "Until the chain's cancel returns", timed, returned, own),
    ):
        found = median(values) if values else None
        yield metric(name, title, "time", phase, found, "the section delay did not run", meaning, unit="ns")


# ---- charts ----


SCENES = {
    "cancel": "cancelled once",
    "repeated": "cancelled four times",
    "concurrent": "eight cancel at once",
    "pruned": "every other leaf first",
    "late": "contexts below a cancelled one",
}
ASKED = {"nobody": "nobody", "leaves": "for the leaves", "waiters": "one waits for each"}


def _scenes(traced: PhaseData) -> charts.Table | None:
    if traced.trace is None:
        return None
    sums: dict[tuple[str, str, str], list[int]] = {}
    for segment in traced.segments("forced"):
        p, counts, counters = segment.parameters, segment.counts, traced.counters(segment)
        key = (SCENES.get(p["scene"], p["scene"]), p["layers"], ASKED.get(p["done"], p["done"]))
        found = [counters.get(name, 0) for name in ("cancel", "close", "park:chan receive")]
        row = sums.setdefault(key, [0] * 5)
        for i, value in enumerate([counts["contexts"], counts["asked"], *found]):
            row[i] += value
    names = ("Scene", "Layers", "Done asked", "Contexts", "Done channels", "cancel", "closechan", "Waits")
    return table(
        "scenes", "What closes",
        "Contexts and done channels by the workload, beside traced calls of cancel and closechan and waits; all "
        "shapes and sizes together. A context with children has a done channel, because making a child asks for it.",
        "traced", "happened", dict.fromkeys(names, ""), [[*key, *row] for key, row in sums.items()],
    )  # fmt: skip


LONGEST = 24
"""Contexts in the table of one cancellation."""


def _example(seen: list[Seen]) -> charts.Table | None:
    """One tree, context by context, in the order in which their cancel was entered."""
    chosen = [
        s for s in seen
        if s.segment.parameters.get("done") == "waiters" and s.segment.parameters.get("layers") == "mixed"
        and s.segment.parameters.get("shape") == "tree" and len(s.contexts) <= LONGEST and s.cancels["0"]
    ]  # fmt: skip
    if not chosen:
        return None
    s = max(chosen, key=lambda one: len(one.contexts))
    origin = int(s.cancels["0"][0]["start_ns"])
    rows: list[list[charts.Cell]] = []
    entered = {path: events[0] for path, events in s.cancels.items() if events}
    for path, cancel in sorted(entered.items(), key=lambda item: int(item[1]["start_ns"])):
        closes, parks = s.closes[path], s.parks[path]
        state = ContextState(int(closes[0]["value"])) if closes else None
        rows.append(
            [
                "· " * _depth(path) + path,
                int(cancel["value"]),
                int(cancel["start_ns"]) - origin,
                int(closes[0]["start_ns"]) - origin if closes else charts.Absent(why="nothing closed"),
                "" if state is None else "yes" if ContextState.LOCKED in state else "NO",
                "" if state is None else "yes" if ContextState.MARKED in state else "NO",
                _end(parks[0]) - origin if parks else None,
            ]
        )
    return table(
        "one-cancellation", "One cancellation, context by context",
        "A tree with a waiter for each context, timers at odd depths and values between, in the order in which cancel "
        "was entered: the order of children is a map's, another each time. Times since the root's cancel, the probes' "
        "own cost included.",
        "traced", "time",
        {"Context": "", "Children": "", "Cancel entered": "ns", "Channel closes": "ns", "Locked": "", "Marked": "",
         "Waiter runs": "ns"},
        rows,
    )  # fmt: skip


SHAPES = ("chain", "tree", "star")


def _delays(traced: PhaseData, timed: PhaseData, seen: list[Seen]) -> Iterator[charts.QuantileBoxes]:
    since = "Time from the entry of the root's cancel until"
    depths = "by depth of the context; the probes' own cost included."
    for name, title, caption, phase, found in (
        ("woken-untraced", "Until who waits runs",
         "Time from before the root's cancel until the goroutine that waits runs, by depth of its context; measured by "
         "the workload, nothing attached.", timed, {shape: _woken(timed, shape) for shape in SHAPES}),
        ("closed-by-depth", "Traced: until its channel closes", f"{since} its channel closes, {depths}", traced,
         {shape: _measured(seen, shape, "closed") for shape in SHAPES}),
        ("woken-by-depth", "Traced: until who waits for it runs", f"{since} who waits for it runs, {depths}", traced,
         {shape: _measured(seen, shape, "woken") for shape in SHAPES}),
    ):  # fmt: skip
        samples = {f"{shape}, depth {d}": v for shape, values in found.items() for d, v in values.items() if v}
        if samples:
            yield charts.QuantileBoxes(
                id=name, title=title, caption=caption, place="time", phase=phase.name, timing=True, what="contexts",
                unit="ns", log=min(map(min, samples.values())) > 0,
                groups=[quantiles(label, values) for label, values in samples.items()],
            )  # fmt: skip


def _by_depth(timed: PhaseData, seen: list[Seen]) -> charts.Lines | None:
    lines = []
    for name, depths in (
        ("close, traced", _measured(seen, "chain", "closed")),
        ("waiter, traced", _measured(seen, "chain", "woken")),
        ("waiter, nothing attached", _woken(timed, "chain")),
    ):
        points = []
        for depth, values in depths.items():
            found = median(values)
            low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
            points.append(charts.LinePoint(x=float(depth), y=found.value, low=low, high=high))
        if points:
            lines.append(charts.Line(name=name, points=points))
    if not lines:
        return None
    return charts.Lines(
        id="delay-by-depth",
        title="How a cancellation goes down a chain",
        caption="Median time from the root's cancellation, by depth of the context in the chain, with its interval.",
        place="time",
        phase="traced" if seen else "timed",
        timing=True,
        x_title="depth",
        y_title="time",
        y_unit="ns",
        lines=lines,
    )


def _joined(seen: list[Seen]) -> Events:
    parks = [park for s in seen for events in s.parks.values() for park in events]
    return np.array(parks, dtype=no_events().dtype) if parks else no_events()
