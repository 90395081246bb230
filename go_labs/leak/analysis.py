"""What a run of the leak lab means: the metrics that ``lab.toml`` names, and the charts. Pure.

The rule of growth (``reports.goroutines.growing``) is given rounds, places of creation and who is alive; the ids that the
planted goroutines said of themselves are only held against what it finds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bpf.gotrace import Goroutine
from bpf.trace import EventKind
from go_labs.evidence import Segment
from reports import charts
from reports.analysis import Analysis, PhaseData, RunData
from reports.goroutines import Life, growing, lives, most_alive
from reports.schema import Metric
from reports.shorthand import metric, table

ANSWERED = "answered"
"""Label of goroutines that begin at the place of a leak and end."""

PROFILE, COLLECTOR = "alive:", "collector:"
"""Counts of goroutines by function: of the goroutine profile, of Go's own leak profile."""

RUNNABLE = ("0", "256")
"""prev_state of a thread that could have gone on: TASK_RUNNING, and TASK_REPORT_MAX for one that was preempted
(``__trace_sched_switch_state`` in ``include/trace/events/sched.h``)."""

CONTROL, LEGITIMATE = "leaks.go", "static.go"
"""Files of ``testdata/static``: what is one, and what only lives long."""

LIBRARY = ("runtime.", "sync.", "time.", "internal/")
"""How functions begin that a goroutine waits in, but not for the program's own reasons."""

TRACER = "runtime/trace."
"""In the functions of runtime/trace's own goroutines, which are there because of the oracle."""

UNSEEN = 0.5
"""Share of a burst's height below which a look did not see it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the traced phase tells of leaks.

    :param planted: kind by goroutine id, as the workload said; ``reported``: ids that the rule of growth names.
    :param idle: ids that the rule of seconds names; ``alive``: all ids but those of the runtime and its tracer.
    :param round_of: number of the round by segment.
    """

    moment_ns: int
    seconds: float
    lives: Mapping[int, Life]
    planted: Mapping[int, str]
    reported: frozenset[int] = frozenset()
    idle: frozenset[int] = frozenset()
    alive: frozenset[int] = frozenset()
    round_of: Mapping[int, int] = field(default_factory=dict)

    @property
    def kinds(self) -> list[str]:
        """Kinds that were planted, in their order."""
        return list(dict.fromkeys(self.planted.values()))

    def of(self, kind: str) -> set[int]:
        """Ids of one kind."""
        return {goid for goid, found in self.planted.items() if found == kind}

    def functions(self, kind: str) -> set[str]:
        """Functions that the goroutines of one kind began with."""
        return {self.lives[goid].function for goid in self.of(kind) if goid in self.lives}


def analyse(run: RunData) -> Analysis:
    """Return the lab's metrics and charts; what could not be measured is absent with its reason."""
    traced = run.phase("traced")
    seen = _seen(traced)
    drawn = [
        _methods(run, traced, seen),
        _found(traced, seen),
        _growth(traced, seen),
        _false_alarms(traced, seen),
        _bursts(traced),
        _lives_table(traced),
        _sides_table(run),
        _vet_table(run),
        _stacks(traced, seen),
    ]
    return Analysis(
        metrics=[
            *_leaks(traced, seen),
            *_naive(traced, seen),
            *_oracles(traced, seen),
            *_peaks(traced),
            *_lives(traced),
            *_vet(run),
            *_sides(run.phase("kernel")),
        ],
        charts=[chart for chart in drawn if chart is not None],
        notes=_notes(run, traced),
    )


# ---- who leaked ----


def _rounds(phase: PhaseData) -> dict[int, list[Segment]]:
    """Return the segments of each round, in order."""
    found: dict[int, list[Segment]] = {}
    for segment in [*phase.segments("forced"), *phase.segments("work")]:
        found.setdefault(int(segment.parameters["round"]), []).append(segment)
    return dict(sorted(found.items()))


def _planted(segments: Iterable[Segment]) -> dict[int, str]:
    kinds = {label: None for segment in segments for label in segment.goroutines if label != ANSWERED}
    return {goid: kind for kind in kinds for segment in segments for goid in segment.goroutines.get(kind, [])}


def _seen(phase: PhaseData) -> Seen | None:
    """Return what the trace says at the end of ``settle``, or None where there is no trace or no such end."""
    settle = phase.segments("settle")
    if phase.trace is None or not settle or not phase.segments("forced"):
        return None
    moment, seconds = settle[0].end_ns, float(settle[0].parameters["idle"])
    known = lives(phase, moment)
    round_of = {segment.id: number for number, segments in _rounds(phase).items() for segment in segments}
    numbers = sorted(set(round_of.values()))
    born = {number: [life for life in known.values() if round_of.get(life.segment) == number] for number in numbers}
    leaking = growing(
        [[life.site for life in born[number]] for number in numbers],
        [Counter(life.site for life in born[number] if life.alive) for number in numbers],
    )
    alive = {g: life for g, life in known.items() if life.alive and not life.system and TRACER not in life.function}
    own = {goid for segment in phase.segments("lives") for ids in segment.goroutines.values() for goid in ids}
    return Seen(
        moment_ns=moment,
        seconds=seconds,
        lives=known,
        planted=_planted(phase.segments("forced")),
        reported=frozenset(g for g, life in alive.items() if life.site in leaking and life.segment in round_of),
        idle=frozenset(
            g for g, life in alive.items() if life.waiting and moment - life.rested_ns > seconds * 1e9 and g not in own
        ),
        alive=frozenset(alive),
        round_of=round_of,
    )


def _leaks(phase: PhaseData, seen: Seen | None) -> Iterable[Metric]:
    lacking = "no rounds were traced to their end"
    planted = set() if seen is None else set(seen.planted)
    named = set() if seen is None else set(seen.reported)
    explained = (
        0
        if seen is None
        else sum(bool(seen.lives[g].site and seen.lives[g].reason and seen.lives[g].stack) for g in named)
    )
    for name, title, value, meaning in (
        ("leak.planted", "Leaks planted", len(planted), "goroutines that said their ids before they were left"),
        ("leak.found", "Leaks found", len(planted & named), "planted ones that the rule of growth names, by id"),
        ("leak.missed", "Leaks not found", len(planted - named), "planted ones that it does not name"),
        ("leak.false_alarms", "Others called leaked", len(named - planted), "goroutines that may live"),
        ("leak.differences", "Differences between found and planted", len(named ^ planted), "ids of only one of them"),
        ("leak.explained", "Leaks with place, reason and stack", explained,
         "found ones of which creation site, wait reason and blocking stack are known"),
        ("leak.kinds", "Kinds of leaks planted", 0 if seen is None else len(seen.kinds), "ways to leak a goroutine"),
    ):  # fmt: skip
        yield metric(
            name, title, "count", phase, None if seen is None else float(value), lacking, meaning, unit="goroutines"
        )


def _naive(phase: PhaseData, seen: Seen | None) -> Iterable[Metric]:
    lacking = "no rounds were traced to their end"
    false = set() if seen is None else seen.idle - set(seen.planted)
    missed = set() if seen is None else set(seen.planted) - seen.idle
    seconds = "" if seen is None else f" for {seen.seconds:g} s"
    for name, title, value, meaning in (
        ("naive.false_alarms", "Called leaked by seconds, and may live", len(false),
         f"alive, not scheduled{seconds}, and not planted"),
        ("naive.missed", "Leaks that the rule of seconds misses", len(missed),
         f"planted, and scheduled within the last{seconds}"),
    ):  # fmt: skip
        yield metric(
            name, title, "count", phase, None if seen is None else float(value), lacking, meaning, unit="goroutines",
            timing=True,
        )  # fmt: skip


# ---- oracles ----


def _trace_goroutines(phase: PhaseData) -> dict[int, list[Goroutine]] | None:
    """Return what runtime/trace says of the goroutines created in each round, None where it is not whole."""
    found: dict[int, list[Goroutine]] = {}
    for number, segments in _rounds(phase).items():
        for segment in segments:
            trace = phase.go_traced(segment)
            if trace is None or not trace.whole or trace.goroutines_left_out:
                return None
            found.setdefault(number, []).extend(trace.goroutines)
    return found or None


def _trace_named(phase: PhaseData) -> set[int] | None:
    """Return what the rule of growth names where runtime/trace tells who lives."""
    rounds = _trace_goroutines(phase)
    if rounds is None:
        return None
    leaking = growing(
        [[each.site for each in rounds[number]] for number in rounds],
        [Counter(each.site for each in rounds[number] if not each.ended_ns) for number in rounds],
    )
    return {each.id for found in rounds.values() for each in found if not each.ended_ns and each.site in leaking}


def _profile(segment: Segment, prefix: str = PROFILE) -> Counter[str]:
    return Counter(
        {name.removeprefix(prefix): count for name, count in segment.counts.items() if name.startswith(prefix)}
    )


def _profile_growing(phase: PhaseData) -> set[str]:
    """Return the functions of which the goroutine profile has more after each round than after the one before."""
    counts = [_profile(segment) for segment in phase.segments("work")]
    if len(counts) < 3:
        return set()
    pairs = list(zip(counts, counts[1:], strict=False))
    return {function for function in counts[-1] if all(after[function] > before[function] for before, after in pairs)}


def _oracles(phase: PhaseData, seen: Seen | None) -> Iterable[Metric]:
    rounds = None if seen is None else _trace_goroutines(phase)
    differences = None
    if seen is not None and rounds is not None:
        theirs = {each.id for found in rounds.values() for each in found if not each.ended_ns}
        ours = {g for g, life in seen.lives.items() if life.segment in seen.round_of and life.alive}
        differences = float(len(theirs ^ ours))
    why = "runtime/trace has no whole recording of the rounds"
    if phase.go_trace is not None and phase.go_trace.problems:
        why = f"{why}: {phase.go_trace.problems[0]}"
    yield metric(
        "oracle.trace_differences", "Goroutines that only one of probes and runtime/trace sees alive", "count", phase,
        differences, why, "created in a round and alive at the end, by id", unit="goroutines",
    )  # fmt: skip
    found = None
    settle = phase.segments("settle")
    if seen is not None and settle:
        profile = _profile(settle[0])
        ours_by = Counter(seen.lives[g].function for g in seen.alive)
        functions = {life.function for life in seen.lives.values() if life.segment in seen.round_of}
        found = float(sum(profile[function] != ours_by[function] for function in functions))
    yield metric(
        "oracle.profile_differences", "Functions of which the goroutine profile has another number", "count", phase,
        found, "no goroutine profile was taken at the end of a trace",
        "functions that goroutines of the rounds began with", unit="functions",
    )  # fmt: skip
    share = None
    if seen is not None and seen.kinds:
        grown = _profile_growing(phase)
        share = sum(bool(seen.functions(kind) & grown) for kind in seen.kinds) / len(seen.kinds)
    yield metric(
        "profile.kinds_found", "Kinds of leaks that the goroutine profile shows", "share", phase, share,
        "no rounds were traced to their end", "those of whose function it has more after each round",
    )  # fmt: skip


# ---- peaks ----


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst: its true height by the trace, and the highest of the looks that fell into it."""

    length: str
    height: int
    looks: int
    seen: int

    @property
    def missed(self) -> bool:
        """Whether no look told of it."""
        return self.seen < UNSEEN * self.height


def _all_bursts(phase: PhaseData) -> list[Burst]:
    if phase.trace is None:
        return []
    return [
        Burst(
            segment.parameters["length"],
            most_alive(phase, segment),
            segment.counts.get("looks", 0),
            segment.counts.get("seen", 0),
        )
        for segment in phase.segments("peak")
    ]


def _peaks(phase: PhaseData) -> Iterable[Metric]:
    bursts = _all_bursts(phase)
    lacking = "no bursts were traced"

    def add(name: str, title: str, value: float, meaning: str, unit: str = "bursts") -> Metric:
        return metric(name, title, "count", phase, value if bursts else None, lacking, meaning, unit=unit, timing=True)

    missed = [burst for burst in bursts if burst.missed]
    wrong = [b for b in bursts if b.seen > b.height or (b.length == "long" and b.seen != b.height)]
    yield add("peak.bursts", "Bursts", len(bursts), "half of them short, half of them long")
    yield add("peak.missed", "Bursts that no look saw", len(missed), "traced, and no look saw half of their height")
    yield add("peak.looks_wrong", "Bursts of which a look told another height", len(wrong), "more than there was, or a "
              "long one not in full")  # fmt: skip
    yield add("peak.height", "Highest burst", max((b.height for b in bursts), default=0), "by the trace", "goroutines")


# ---- a defer that is left out ----


def _lived(phase: PhaseData, segment: Segment) -> dict[str, int] | None:
    """Return created, ended and alive at the end of the segment, by probes and by runtime/trace."""
    trace = phase.go_traced(segment)
    if trace is None or not trace.whole or phase.trace is None:
        return None
    created, ended = (phase.events_of([segment], kind).size for kind in (EventKind.CREATE, EventKind.END))
    return {
        "created": int(created),
        "ended": int(ended),
        "alive": int(created - ended),
        "trace_created": trace.created(),
        "trace_ended": trace.ended(),
        "trace_alive": sum(each.state != "ended" for each in trace.goroutines),
    }


def _lives(phase: PhaseData) -> Iterable[Metric]:
    lacking = "no pair of variants was traced from within and by probes"
    pairs = {
        variant: [_lived(phase, s) for s in phase.segments("lives", defer=variant)] for variant in ("with", "without")
    }
    rows = [row for found in pairs.values() for row in found]
    whole = [row for row in rows if row is not None]
    there = bool(rows) and len(whole) == len(rows)
    alive = {variant: sum(row["trace_alive"] for row in found if row is not None) for variant, found in pairs.items()}
    differing = sum(row[name] != row[f"trace_{name}"] for row in whole for name in ("created", "ended", "alive"))
    yield metric(
        "lives.longer_in_trace", "Goroutines that live on without the defer", "count", phase,
        float(alive["without"] - alive["with"]) if there else None, lacking,
        "alive at the end of the variant without it, less those with it, by runtime/trace", unit="goroutines",
    )  # fmt: skip
    yield metric(
        "lives.differences", "Counts of lives that differ between probes and runtime/trace", "count", phase,
        float(differing) if there else None, lacking, "created, ended and alive, by variant and size", unit="counts",
    )  # fmt: skip


# ---- static tools, the kernel's side ----


def _vet(run: RunData) -> Iterable[Metric]:
    nothing = PhaseData(name="", exit_status=None, wall_seconds=0.0, workload_seconds=0.0)
    for name, title, file, meaning in (
        ("vet.legitimate", "Complaints of goroutines that may live", LEGITIMATE,
         "by go vet, in a file with tickers and a server"),
        ("vet.control", "Complaints of what is a leak", CONTROL,
         "by go vet, in a file with a lost cancel function and a forgotten ticker loop"),
    ):  # fmt: skip
        found = None if run.vet is None else float(sum(note.file == file for note in run.vet))
        yield metric(
            name, title, "count", nothing, found, "this run has no words of go vet", meaning, unit="complaints",
            exact=True,
        )  # fmt: skip


def _tool(phase: PhaseData) -> Mapping[str, Any] | None:
    """Return what the kernel-side tool saw, None where it failed or its shape is another."""
    output = phase.tools.get("bpftrace/threads")
    if not isinstance(output, dict) or output.get("error"):
        return None
    good = all(isinstance(output.get(name), dict) for name in ("states", "seen")) and isinstance(
        output.get("made"), int
    )
    counts = [*output["states"].values(), *output["seen"].values()] if good else [None]
    return output if all(isinstance(count, int) and count >= 0 for count in counts) else None


def _named_by_trace(phase: PhaseData) -> list[Goroutine] | None:
    """Return the planted goroutines that runtime/trace names with place and reason at the end of their segment."""
    planted = _planted(phase.segments("forced"))
    found: list[Goroutine] = []
    for segment in phase.segments("forced"):
        trace = phase.go_traced(segment)
        if trace is None or not trace.whole:
            return None
        found += [g for g in trace.goroutines if g.id in planted and g.site and g.state == "waiting" and g.reason]
    return found if planted else None


def _sides(phase: PhaseData) -> Iterable[Metric]:
    tool, named = _tool(phase), _named_by_trace(phase)
    why = phase.tool_errors.get("bpftrace/threads", "the kernel-side tool saw nothing")
    threads = None if tool is None else float(len(tool["seen"]))
    preempted = None if tool is None else float(sum(tool["states"].get(state, 0) for state in RUNNABLE))
    beyond = None if named is None or threads is None else max(0.0, len(named) - threads)
    for name, title, value, lacking, meaning, unit in (
        ("sides.threads", "Threads that the kernel's side saw", threads, why, "sched_switch, by thread", "threads"),
        ("sides.named", "Leaked goroutines that runtime/trace names", None if named is None else float(len(named)),
         "runtime/trace has no whole recording", "with id, place of creation and wait reason", "goroutines"),
        ("sides.only_trace", "Leaked goroutines beyond threads", beyond, why,
         "named by runtime/trace, less one for each thread that was seen", "goroutines"),
        ("sides.only_kernel", "CPUs taken from a thread", preempted, why,
         "switches away from threads that could have gone on", "switches"),
    ):  # fmt: skip
        yield metric(name, title, "count", phase, value, lacking, meaning, unit=unit)


# ---- charts ----


def _methods(run: RunData, phase: PhaseData, seen: Seen | None) -> charts.Table | None:
    if seen is None:
        return None
    settle, collector = phase.segments("settle"), phase.segments("collector")
    profile, grown = _profile(settle[0]), _profile_growing(phase)
    from_within = _trace_named(phase)
    lacking = charts.Absent(why=f"{run.provenance.go_version} has no goroutineleak profile")
    leaked = None
    if collector and not collector[0].counts.get("absent"):
        leaked = _profile(collector[0], COLLECTOR)

    def row(title: str, ids: set[int], functions: set[str], planted: charts.Cell) -> list[charts.Cell]:
        return [
            title,
            planted,
            len(ids & seen.reported),
            None if from_within is None else len(ids & from_within),
            len(ids & seen.idle),
            sum(profile[function] for function in functions & grown),
            lacking if leaked is None else sum(leaked[function] for function in functions),
        ]

    rows = [row(kind, seen.of(kind), seen.functions(kind), len(seen.of(kind))) for kind in seen.kinds]
    functions = {function for kind in seen.kinds for function in seen.functions(kind)}
    others = {life.function for life in seen.lives.values() if life.segment in seen.round_of} - functions
    rows.append(row("goroutines that may live, called leaked", set(seen.alive) - set(seen.planted), others, ""))
    columns = ("Kind", "Planted", "Growth, by probes", "Growth, by runtime/trace", f"Idle for {seen.seconds:g} s",
               "Goroutine profile", "Go's leak profile")  # fmt: skip
    return table(
        "methods", "What each way of looking finds",
        "Goroutines by kind. Growth: created in rounds, of which each left some alive. Profiles know functions and no "
        "ids; Go's leak profile finds waits for what nothing else can reach.",
        "traced", "happened", dict.fromkeys(columns, ""), rows,
    )  # fmt: skip


def _user_frame(stack: Sequence[str]) -> str:
    """Return the innermost frame that is not of the runtime, sync or time: where the program waits."""
    return next((frame for frame in stack if not frame.startswith(LIBRARY)), stack[0] if stack else "")


def _found(phase: PhaseData, seen: Seen | None) -> charts.Table | None:
    if seen is None:
        return None
    rows: Counter[tuple[str, ...]] = Counter()
    for goid in seen.reported:
        life = seen.lives[goid]
        kind = seen.planted.get(goid, "not planted")
        rows[(kind, life.site, life.reason, _user_frame(life.stack))] += 1
    return table(
        "found", "What was found", "Goroutines that the rule of growth names, by place of creation.", "traced", "happened",
        dict.fromkeys(("Kind", "Goroutines", "Created at", "Waits for", "Waits at"), ""),
        [[kind, count, site, reason, at] for (kind, site, reason, at), count in sorted(rows.items())],
    )  # fmt: skip


def _growth(phase: PhaseData, seen: Seen | None) -> charts.Lines | None:
    work = phase.segments("work")
    if not work or seen is None:
        return None
    rounds = _rounds(phase)
    planted, line = 0, []
    for number, segments in rounds.items():
        planted += len(_planted(segments))
        line.append(charts.LinePoint(x=number + 1, y=planted))
    count = [charts.LinePoint(x=int(s.parameters["round"]) + 1, y=s.counts.get("goroutines", 0)) for s in work]
    return charts.Lines(
        id="growth", title="Goroutines from round to round", place="time", phase="traced",
        caption="runtime.NumGoroutine after each round, and what had been planted by then: the rest may live.",
        x_title="round", y_title="goroutines",
        lines=[charts.Line(name="NumGoroutine", points=count), charts.Line(name="planted", points=line)],
    )  # fmt: skip


def _false_alarms(phase: PhaseData, seen: Seen | None) -> charts.Table | None:
    if seen is None:
        return None
    rows: Counter[tuple[str, ...]] = Counter()
    for goid in seen.alive:
        life, planted, idle = seen.lives[goid], goid in seen.planted, goid in seen.idle
        if planted != idle and (planted or goid not in seen.planted):
            words = "a leak, missed" if planted else "may live, called leaked"
            rows[(life.function, words, seen.planted.get(goid, ""), life.reason)] += 1
    return table(
        "naive", f"Where {seen.seconds:g} seconds without scheduling mislead",
        "Alive at the end. A loop that nobody needs is scheduled at every tick; a server that nobody calls is not.",
        "traced", "happened", dict.fromkeys(("Function", "What", "Kind", "Goroutines", "Waits for"), ""),
        [[function, words, kind, count, reason] for (function, words, kind, reason), count in sorted(rows.items())],
    )  # fmt: skip


def _bursts(phase: PhaseData) -> charts.Table | None:
    rows: list[list[charts.Cell]] = []
    bursts = _all_bursts(phase)
    for length in dict.fromkeys(burst.length for burst in bursts):
        of = [burst for burst in bursts if burst.length == length]
        heights = sorted({burst.height for burst in of})
        rows.append(
            [length, len(of), ", ".join(map(str, heights)), sum(b.looks for b in of), max(b.seen for b in of),
             sum(b.missed for b in of)]
        )  # fmt: skip
    return table(
        "bursts", "Bursts, and looks at runtime.NumGoroutine",
        "Short ones last a tenth of the time between two looks, long ones three times as long; they begin at random.",
        "traced", "happened",
        dict.fromkeys(("Length", "Bursts", "Height, by the trace", "Looks", "Highest look", "Not seen"), ""), rows,
    )  # fmt: skip


def _lives_table(phase: PhaseData) -> charts.Table | None:
    rows: list[list[charts.Cell]] = []
    for segment in phase.segments("lives"):
        row, trace = _lived(phase, segment), phase.go_traced(segment)
        if row is None or trace is None:
            continue
        reasons = sorted({each.reason for each in trace.goroutines if each.state == "waiting"})
        rows.append(
            [f"{segment.parameters['defer']} defer, {segment.parameters['size']}", *row.values(), ", ".join(reasons)]
        )
    columns = ("Variant", "Created", "Ended", "Alive", "Created, runtime/trace", "Ended, runtime/trace",
               "Alive, runtime/trace", "It waits for")  # fmt: skip
    return table(
        "lives", "The same work with a defer and without", "Every second worker returns early. By probes, then by Go's own "
        "tracer.", "traced", "happened", dict.fromkeys(columns, ""), rows,
    )  # fmt: skip


def _sides_table(run: RunData) -> charts.Table | None:
    phase = run.phase("kernel")
    tool, named = _tool(phase), _named_by_trace(phase)
    if tool is None or named is None:
        return None
    reasons = Counter(each.reason for each in named)
    states: Counter[str] = Counter()
    for state, count in tool["states"].items():
        states["could have gone on" if state in RUNNABLE else "slept"] += count
    rows: list[list[charts.Cell]] = [
        ["leaked goroutines", len(named), "none: a thread has no goroutine id"],
        ["what they wait for", ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())), "nothing"],
        ["threads", "numbers, no life of theirs", len(tool["seen"])],
        ["threads created", "nothing", tool["made"]],
        ["threads left a CPU", "nothing", ", ".join(f"{words} {count}" for words, count in sorted(states.items()))],
    ]
    return table(
        "sides", "What either side sees of the same program", "runtime/trace recorded within the program, bpftrace outside.",
        "kernel", "happened", dict.fromkeys(("", "runtime/trace", "sched_switch, task_newtask"), ""), rows,
    )  # fmt: skip


def _vet_table(run: RunData) -> charts.Table | None:
    if run.vet is None:
        return None
    rows: list[list[charts.Cell]] = [[f"{note.file}:{note.line}", note.words] for note in run.vet]
    rows.append([LEGITIMATE, f"{sum(note.file == LEGITIMATE for note in run.vet)} complaints"])
    return table(
        "vet", "What go vet says", f"{LEGITIMATE} has goroutines that may live (tickers, a server), {CONTROL} what is a leak.",
        "traced", "known", dict.fromkeys(("Where", "Words"), ""), rows,
    )  # fmt: skip


def _stacks(phase: PhaseData, seen: Seen | None) -> charts.StackList | None:
    if seen is None:
        return None
    stacks = Counter(tuple(seen.lives[goid].stack) for goid in seen.reported)
    without = stacks.pop((), 0)
    heaviest = sorted(stacks.items(), key=lambda item: (-item[1], item[0]))[:16]
    return charts.StackList(
        id="leaked-stacks", title="Where the leaked ones wait", place="stacks", phase="traced", what="goroutines",
        caption="Stacks of the last wait of the goroutines that the rule of growth names; innermost function on top.",
        stacks=[charts.Stack(frames=list(frames), count=count) for frames, count in heaviest],
        total=len(seen.reported), without=without,
    )  # fmt: skip


def _notes(run: RunData, phase: PhaseData) -> list[str]:
    found = [
        "The rule of growth knows places and rounds. A program that starts a goroutine in every round on purpose, and keeps "
        "each, would be reported; a leak that happened in fewer than three rounds would not."
    ]
    if any(segment.counts.get("absent") for segment in phase.segments("collector")):
        found.append(
            f"{run.provenance.go_version} has no goroutineleak profile: Go 1.27 has it, 1.26 with "
            "GOEXPERIMENT=goroutineleakprofile."
        )
    return found
