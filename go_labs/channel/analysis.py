"""What a run of the channel lab means: the metrics that ``lab.toml`` names, and the charts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bpf.trace import EventKind
from go_labs.evidence import Segment
from reports import charts, waits
from reports.analysis import Analysis, Events, PhaseData, RunData
from reports.schema import Metric, Point
from reports.shorthand import metric, table
from reports.statistics import median

SEND, RECEIVE, SELECT = "park:chan send", "park:chan receive", "park:select"
WAITS = (SEND, RECEIVE, SELECT)

BUFFERED = ("send, full buffer", "receive, empty buffer")
"""Scenes of which the claim about contention speaks."""

PROFILE = {"waits_send": "block_chan_send", "waits_receive": "block_chan_receive", "waits_select": "block_select"}
"""The workload's count of forced waits, and that of Go's block profile."""


def analyse(run: RunData) -> Analysis:
    """Return the lab's metrics and charts; what could not be measured is absent with its reason."""
    drawn = [
        _scenes(run), _apart(run), _channels(run), _arguments(run), _ns_per_value(run), _oracle(run), *_waits(run),
    ]  # fmt: skip
    return Analysis(
        metrics=[*_contention(run), *_argument(run), *_queue(run), *_profile(run), *_forever(run), *_free(run)],
        charts=[chart for chart in drawn if chart is not None],
        notes=_notes(run),
    )


def _sum(phase: PhaseData, segments: Sequence[Segment], *names: str) -> int:
    return sum(phase.counters(segment).get(name, 0) for segment in segments for name in names)


def _forced(phase: PhaseData, scenes: Sequence[str] = ()) -> list[Segment]:
    """Return the forced segments of ``scenes`` (all where there are none named) that the trace speaks of."""
    if phase.trace is None:
        return []
    return [s for s in phase.segments("forced") if not scenes or s.parameters["scene"] in scenes]


# ---- metrics ----


def _contention(run: RunData) -> Iterable[Metric]:
    """Waits without contention, and contention without waits (claim 2.2-a)."""
    traced = run.phase("traced")
    segments = _forced(traced, BUFFERED)
    waited, slept = _sum(traced, segments, SEND, RECEIVE), _sum(traced, segments, "chan_lock_sleep")
    lacking = "no goroutine was seen to wait on a full or empty buffer"
    yield metric(
        "waits.forced", "Waits on a full or empty buffer", "count", traced, float(waited) if segments else None,
        lacking, "gopark of senders and receivers in the forced scenes", exact=True,
    )  # fmt: skip
    yield metric(
        "waits.lock_sleeps_per_wait", "Sleeps for the channel's lock for each of these waits", "ratio", traced,
        slept / waited if waited else None, lacking,
        f"lock2 called by a channel operation that went on to futexsleep: {slept} for {waited} waits", exact=True,
    )  # fmt: skip
    control = traced.segments("contended") if traced.trace is not None else []
    for name, title, counters, meaning in (
        ("control.lock_sleeps", "Sleeps for a channel's lock with nobody waiting", ("chan_lock_sleep",),
         "two goroutines that share a CPU, copying elements under the lock"),
        ("control.waits", "Waits on that channel", WAITS, "its buffer is never full and never empty"),
    ):  # fmt: skip
        found = float(_sum(traced, control, *counters)) if control else None
        yield metric(name, title, "count", traced, found, "the section contended was not traced", meaning, exact=True)


def _argument(run: RunData) -> Iterable[Metric]:
    """In which register the channel is (claim 2.2-c)."""
    traced = run.phase("traced")
    segments = _forced(traced)
    calls = sum(segment.counts.get("operations", 0) for segment in segments)
    for register, words in (("ax", "RAX, Go's first argument"), ("di", "RDI, PT_REGS_PARM1")):
        seen = _sum(traced, segments, f"chan_in_{register}")
        yield metric(
            f"argument.{register}_share", f"Calls with the channel in {words}", "share", traced,
            seen / calls if calls else None, "no call with a known channel was traced",
            f"{seen} of {calls} calls of chansend and chanrecv with a channel whose address the workload told",
            exact=True,
        )  # fmt: skip


def _queue(run: RunData) -> Iterable[Metric]:
    """What state channels are in when goroutines park on them (claim 2.2-e)."""
    traced = run.phase("traced")
    forced = _forced(traced)
    everywhere = traced.segments() if traced.trace is not None else []
    lacking = "no goroutine was seen to park on a channel"
    for name, counter, title, segments, where in (
        ("queue.last_share", "chan_park_last", "Parks of a goroutine that is the last in the queue", forced, "forced"),
        ("queue.held_share", "chan_park_held", "Parks while the channel's lock is held", forced, "forced"),
        ("queue.all_last_share", "chan_park_last", "The same in all sections", everywhere, "all"),
        ("queue.all_held_share", "chan_park_held", "The same in all sections, the lock", everywhere, "all"),
    ):
        parks, seen = _sum(traced, segments, SEND, RECEIVE), _sum(traced, segments, counter)
        yield metric(
            name, title, "share", traced, seen / parks if parks else None, lacking,
            f"{seen} of {parks} parks for a send or a receive, {where} sections", exact=True,
        )  # fmt: skip
    entered = _sum(traced, forced, "chan_send", "chan_recv", "chan_send_try", "chan_recv_try")
    yield metric(
        "queue.entry_held", "Operations that began while the lock was held", "count", traced,
        float(_sum(traced, forced, "chan_entry_held")) if entered else None, "no channel operation was traced",
        f"of {entered} in forced scenes, where none can", exact=True,
    )  # fmt: skip


def _profile(run: RunData) -> Iterable[Metric]:
    profiled = run.phase("profiled")
    segments = profiled.segments("forced")
    wrong = [
        segment
        for segment in segments
        if segment.counts.get("block_other")
        or any(segment.counts.get(mine) != segment.counts.get(gos) for mine, gos in PROFILE.items())
    ]
    yield metric(
        "profile.mismatches", "Forced segments whose waits Go's block profile counts otherwise", "count", profiled,
        float(len(wrong)) if segments else None, "the forced section was not profiled",
        f"of {len(segments)} segments: sends, receives, selects, and none of another kind", exact=True,
    )  # fmt: skip


def _still_waiting(traced: PhaseData) -> Events:
    return traced.events_of(_forced(traced, ["nil channel"]), EventKind.WAITING)


def _forever(run: RunData) -> Iterable[Metric]:
    traced = run.phase("traced")
    segments = _forced(traced, ["nil channel"])
    planned = sum(segment.counts.get("waits_forever", 0) for segment in segments)
    yield metric(
        "forever.missing", "Waits on nil channels that the trace does not show as never ended", "count", traced,
        float(planned - len(_still_waiting(traced))) if planned else None, "no wait on a nil channel was traced",
        f"of {planned}: sends, receives, and selects without a case",
    )  # fmt: skip


def _usual(segments: Sequence[Segment]) -> Segment | None:
    """Return the configuration that stands for free use: what is nearest to 4 producers and a buffer of 16."""

    def distance(segment: Segment) -> tuple[int, int]:
        return abs(int(segment.parameters["pairs"]) - 4), abs(int(segment.parameters["buffer"]) - 16)

    return min(segments, key=distance, default=None)


def _words(segment: Segment | None) -> str:
    if segment is None:
        return ""
    return f"{segment.parameters['pairs']} producers and consumers, buffer {segment.parameters['buffer']}"


def _free(run: RunData) -> Iterable[Metric]:
    timed, traced = run.phase("timed"), run.phase("traced")
    segments = timed.segments("free")
    chosen = _usual(segments)
    values = chosen.samples.get("ns_per_value", []) if chosen else []
    yield metric(
        "free.ns_per_value", "Time for each value through a channel", "time", timed,
        median(values) if values else None, "free use did not run",
        f"wall time over all values; {_words(chosen)}", unit="ns/op", series=[_point(s) for s in segments],
    )  # fmt: skip
    usual = _usual(traced.segments("free")) if traced.trace is not None else None
    sent = 0 if usual is None else usual.counts.get("values", 0)
    for name, title, counters in (
        ("free.waits_per_value", "Waits for each value", (SEND, RECEIVE)),
        ("free.lock_sleeps_per_value", "Sleeps for the channel's lock for each value", ("chan_lock_sleep",)),
        ("free.handoffs_per_value", "Values that went straight to or from one who waited",
         ("handoff_send", "handoff_recv")),
    ):  # fmt: skip
        found = _sum(traced, [usual], *counters) / sent if usual is not None and sent else None
        yield metric(
            name, title, "ratio", traced, found, "free use was not traced",
            f"{_words(usual)}; under probes, some of which lie within the lock", exact=True,
        )  # fmt: skip


def _point(segment: Segment) -> Point:
    found = median(segment.samples["ns_per_value"])
    return Point(parameters=segment.parameters, value=found.value, interval=found.interval, n=found.n)


# ---- charts ----


def _scenes(run: RunData) -> charts.Table | None:
    traced = run.phase("traced")
    rows: list[list[charts.Cell]] = []
    kinds = dict.fromkeys((s.parameters["scene"], s.parameters["arrive"]) for s in _forced(traced))
    for scene, arrive in kinds:
        chosen = [s for s in _forced(traced, [scene]) if s.parameters["arrive"] == arrive]
        waited = sum(count for s in chosen for name, count in traced.counters(s).items() if name in WAITS)
        rows.append([
            scene, f"{chosen[0].parameters['processors']}, {arrive}",
            _sum(traced, chosen, "chan_send", "chan_recv", "chan_send_try", "chan_recv_try", "select", "select_try",
                 "close"),
            waited,
            sum(s.counts.get("waits_forever", 0) for s in chosen),
            _sum(traced, chosen, "handoff_send"), _sum(traced, chosen, "handoff_recv"),
            _sum(traced, chosen, "chan_lock"), _sum(traced, chosen, "chan_lock_sleep"),
        ])  # fmt: skip
    return table(
        "scenes", "Known numbers of waits",
        "Forced scenes, all sizes together; every number is what the workload planned. The channel's lock is taken by "
        "each operation, and nobody ever has to sleep for it. Given: straight to a receiver that waited; taken: from a "
        "sender that waited.",
        "traced", "happened",
        {"Scene": "", "Ps": "", "Operations": "", "Waits": "", "Never ended": "", "Given": "",
         "Taken": "", "Lock taken": "", "Slept": ""},
        rows,
    )  # fmt: skip


def _apart(run: RunData) -> charts.Table | None:
    """Waits and contention of every kind of use, side by side."""
    traced = run.phase("traced")
    if traced.trace is None:
        return None
    groups: dict[str, list[Segment]] = {
        "forced, full or empty buffer": _forced(traced, BUFFERED),
        "contended, never full or empty": traced.segments("contended"),
        "pipeline": traced.segments("pipeline"),
    }
    for segment in traced.segments("free"):
        groups[f"free, {_words(segment)}"] = [segment]
    rows: list[list[charts.Cell]] = []
    for title, segments in groups.items():
        taken = _sum(traced, segments, "chan_lock")
        if not taken:
            continue
        waited, slept = _sum(traced, segments, *WAITS), _sum(traced, segments, "chan_lock_sleep")
        rows.append([title, taken, waited, slept, round(1000 * waited / taken, 3), round(1000 * slept / taken, 3)])
    return table(
        "apart", "Waiting and contention, apart",
        "How often a channel's lock was taken, how often a goroutine parked on a channel, and how often a thread slept "
        "for such a lock. The probes themselves lie partly within the lock, so that free contention is higher here "
        "than without them.",
        "traced", "happened",
        {"Use": "", "Lock taken": "", "Waits": "", "Lock sleeps": "", "Waits per 1 000 taken": "",
         "Lock sleeps per 1 000 taken": ""},
        rows,
    )  # fmt: skip


CHANNELS = {"jobs": "buffer of 8", "results": "unbuffered", "quit": "closed at the end"}
"""The pipeline's channels."""


def _named(traced: PhaseData) -> list[tuple[str, int, list[Segment]]]:
    """Return each named channel of the pipeline: name, address, segments."""
    return [(name, at, [segment]) for segment in traced.segments("pipeline") for name, at in segment.addresses.items()]


def _on(events: Events, address: int) -> Events:
    found: Events = events[events["address"] == address]
    return found


def _by_reason(traced: PhaseData, events: Events, words: str) -> Events:
    numbers = [number for number in np.unique(events["reason"]).tolist() if traced.reason(number) == words]
    found: Events = events[np.isin(events["reason"], numbers)]
    return found


def _channels(run: RunData) -> charts.Table | None:
    """What happened on each channel of the pipeline."""
    traced = run.phase("traced")
    if traced.trace is None:
        return None
    rows: list[list[charts.Cell]] = []
    for name, at, segments in _named(traced):
        parks = _on(traced.events_of(segments), at)
        sleeps = _on(traced.events_of(segments, EventKind.LOCK_SLEEP), at)
        rows.append(_channel(name, CHANNELS.get(name, ""), traced, parks, len(sleeps)))
    for segment in traced.segments("pipeline"):
        chosen = _by_reason(traced, traced.events_of([segment]), "select")
        rows.append(_channel("jobs or quit", "select", traced, chosen, None))
    return table(
        "channels", "Channel by channel",
        "The pipeline: one source, four workers that select, one sink. A wait in a select is on all its channels at "
        "once, so that it has a row of its own.",
        "traced", "happened",
        {"Channel": "", "Kind": "", "Waits to send": "", "Waits to receive": "", "Waits in select": "",
         "Lock sleeps": "", "Median wait": "ns", "Longest wait": "ns"},
        rows,
    )  # fmt: skip


def _channel(name: str, kind: str, traced: PhaseData, parks: Events, sleeps: int | None) -> list[charts.Cell]:
    counts = [len(_by_reason(traced, parks, words)) for words in ("chan send", "chan receive", "select")]
    durations = parks["duration_ns"]
    return [
        name, kind, *counts, sleeps,
        float(np.median(durations)) if len(durations) else None, int(durations.max()) if len(durations) else None,
    ]  # fmt: skip


def _arguments(run: RunData) -> charts.Table | None:
    traced = run.phase("traced")
    rows: list[list[charts.Cell]] = []
    for scene in dict.fromkeys(s.parameters["scene"] for s in _forced(traced)):
        chosen = _forced(traced, [scene])
        calls = sum(s.counts.get("operations", 0) for s in chosen)
        if calls:
            rows.append([scene, calls, _sum(traced, chosen, "chan_in_ax"), _sum(traced, chosen, "chan_in_di")])
    return table(
        "arguments", "Where the channel is when chansend and chanrecv are called",
        "The workload tells the address of one channel and knows how often it is used.", "traced", "known",
        {"Scene": "", "Calls with that channel": "", "In RAX": "", "In RDI (PT_REGS_PARM1)": ""}, rows,
    )  # fmt: skip


def _oracle(run: RunData) -> charts.Table | None:
    """Waits as the workload, Go's block profile and the trace count them."""
    traced, profiled = run.phase("traced"), run.phase("profiled")
    rows: list[list[charts.Cell]] = []
    for segment in profiled.segments("forced"):
        seen = traced.segments("forced", **segment.parameters) if traced.trace is not None else []
        planned, counted, parked = (
            sum(segment.counts.get(name, 0) for name in PROFILE),
            sum(segment.counts.get(name, 0) for name in PROFILE.values()),
            _sum(traced, seen, *WAITS) if seen else None,
        )
        p = segment.parameters
        rows.append([
            p["scene"], f"{p['processors']}, {p['arrive']}", int(p["goroutines"]), planned, counted, parked,
            "yes" if planned == counted == parked else "NO",
        ])  # fmt: skip
    for segment in profiled.segments("pipeline"):
        counted = sum(segment.counts.get(name, 0) for name in PROFILE.values())
        waited = _sum(traced, traced.segments("pipeline"), *WAITS) if traced.trace is not None else None
        rows.append(["pipeline", "", None, None, counted, waited, "free: two runs, two numbers"])
    return table(
        "oracle", "Waits, counted three times",
        "By the workload's plan, by Go's block profile in a run without probes, and by the trace in another.",
        "profiled", "known",
        {"Scene": "", "Ps": "", "Goroutines": "", "Planned": "", "Block profile": "", "Trace": "", "Equal": ""}, rows,
    )  # fmt: skip


def _ns_per_value(run: RunData) -> charts.Lines | None:
    timed = run.phase("timed")
    lines = []
    for pairs in sorted({int(segment.parameters["pairs"]) for segment in timed.segments("free")}):
        segments = sorted(timed.segments("free", pairs=str(pairs)), key=lambda s: int(s.parameters["buffer"]))
        points = []
        for segment in segments:
            point = _point(segment)
            low, high = (point.interval.low, point.interval.high) if point.interval else (None, None)
            if point.value is not None:
                x = float(segment.parameters["buffer"])
                points.append(charts.LinePoint(x=x, y=point.value, low=low, high=high))
        lines.append(charts.Line(name=f"{pairs} producer{'s' if pairs > 1 else ''}", points=points))
    if not lines:
        return None
    return charts.Lines(
        id="ns-per-value",
        title="Time for each value through one channel",
        caption="Wall time over all values, as many consumers as producers; median of the repetitions with its 95% "
        "interval.",
        phase="timed",
        timing=True,
        x_title="Buffer",
        y_title="Time for each value",
        y_unit="ns",
        lines=lines,
    )


def _waits(run: RunData) -> Iterable[charts.AnyChart | None]:
    """Charts of the recorded waits: over time, their distribution, the stacks; and the stacks of lock sleeps."""
    traced = run.phase("traced")
    events = traced.events_of(None)
    events = events[events["segment"] > 0]
    firsts: dict[str, int] = {}
    for segment in traced.segments():
        firsts.setdefault(segment.section, segment.start_ns)
    yield waits.heat_map(traced, events, marks=firsts)
    groups = {}
    for name, at, segments in _named(traced):
        groups[f"pipeline, {name}"] = _on(traced.events_of(segments), at)
    groups["pipeline, select"] = _by_reason(traced, traced.events_of(traced.segments("pipeline")), "select")
    for segment in traced.segments("free"):
        if segment.parameters["pairs"] == (_usual(traced.segments("free")) or segment).parameters["pairs"]:
            groups[f"free, buffer {segment.parameters['buffer']}"] = traced.events_of([segment])
    yield waits.distribution(traced, groups)
    yield waits.stacks(traced, events, name="waiters")
    yield waits.stacks(
        traced, traced.events_of(None, EventKind.LOCK_SLEEP), name="lock-sleepers", limit=6,
        title="Where threads slept for a channel's lock",
        caption="Stacks of the goroutines whose thread slept, the most frequent first; how long is not recorded.",
    )  # fmt: skip


def _notes(run: RunData) -> list[str]:
    if run.phase("traced").trace is None:
        return []
    return [
        "Some probes lie where a channel's lock is held (gopark of a waiter, and the direct hand-off), so a traced run "
        "contends more than one without probes; forced counts do not depend on it.",
    ]
