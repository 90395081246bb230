"""What a run of the leak lab means: the metrics that ``lab.toml`` names, and the charts. Pure.

The rules (``reports.leaks``) are given rounds, places of creation and who is alive; the ids that the planted goroutines
said of themselves are only held against what they find.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bpf.gotrace import Goroutine
from bpf.trace import EventKind
from go_labs.evidence import Segment
from reports import charts
from reports.analysis import Analysis, PhaseData, RunData
from reports.goroutines import most_alive, stacks
from reports.leaks import Rules, in_rounds, rising, rules
from reports.schema import Metric
from reports.shorthand import metric, table
from reports.threads import threads, why_none

ANSWERED = "answered"
"""Label of goroutines that begin at the place of a leak and end."""

PROFILE, COLLECTOR = "alive:", "collector:"
"""Counts of goroutines by function: of the goroutine profile, of Go's own leak profile."""

CONTROL, LEGITIMATE = "leaks.go", "static.go"
"""Files of ``testdata/static``: what is a leak, and what only lives long."""

UNSEEN = 0.5
"""Share of a burst's height below which a look did not see it."""

OWN = "main."
"""How the names of the workload's functions begin."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the rules say, and what was planted: kind by goroutine id, in the order of planting.

    :param others: goroutines that another section left behind on purpose.
    :param settled: the segment at whose end the rules were asked.
    """

    rules: Rules
    planted: Mapping[int, str]
    others: frozenset[int]
    settled: Segment

    @property
    def kinds(self) -> list[str]:
        """Kinds that were planted."""
        return list(dict.fromkeys(self.planted.values()))

    @property
    def idle(self) -> frozenset[int]:
        """Leaked by the rule of seconds, what another section left aside."""
        return self.rules.idle - self.others

    def of(self, kind: str) -> frozenset[int]:
        """Ids of one kind."""
        return frozenset(goid for goid, found in self.planted.items() if found == kind)


def analyse(run: RunData) -> Analysis:
    """Return the lab's metrics and charts; what could not be measured is absent with its reason."""
    traced, kernel = run.phase("traced"), run.phase("kernel")
    seen = _seen(traced)
    drawn: list[charts.AnyChart | None] = []
    if seen is not None:
        found = [seen.rules.lives[goid] for goid in sorted(seen.rules.grown)]
        caption = "Stacks of the last wait of the goroutines that the rule of growth names; innermost function on top."
        drawn = [_methods(run, traced, seen), _found(seen), _misled(seen), _growth(traced)]
        drawn.append(stacks(found, "leaked-stacks", "Where the leaked ones wait", caption))
    drawn += [_bursts_table(traced), _lives_table(traced), _sides_table(kernel), _vet_table(run)]
    return Analysis(
        metrics=[
            *_leaks(traced, seen),
            *_oracles(traced, seen),
            *_peaks(traced),
            *_lives(traced),
            *_vet(run),
            *_sides(kernel),
        ],
        charts=[chart for chart in drawn if chart is not None],
        notes=_notes(run, traced),
    )


# ---- who leaked ----


def _planted(segments: Iterable[Segment]) -> dict[int, str]:
    return {
        goid: label
        for segment in segments
        for label, ids in segment.goroutines.items()
        if label != ANSWERED
        for goid in ids
    }


def _seen(phase: PhaseData) -> Seen | None:
    """Return what the rules say at the end of ``settle``, or None where there is no trace or no such end."""
    settle, forced = phase.segments("settle"), phase.segments("forced")
    if phase.trace is None or not settle or not forced:
        return None
    return Seen(
        rules(phase, settle[0].end_ns, float(settle[0].parameters["idle"])),
        _planted(forced),
        frozenset(_planted(phase.segments("lives"))),
        settle[0],
    )


def _leaks(phase: PhaseData, seen: Seen | None) -> Iterable[Metric]:
    lacking = "no rounds were traced to their end"
    figures: dict[str, float] = {}
    seconds = "the last seconds"
    if seen is not None:
        planted, named, known = frozenset(seen.planted), seen.rules.grown, seen.rules.lives
        seconds = f"{seen.rules.seconds:g} s"
        figures = {
            "leak.planted": len(planted),
            "leak.kinds": len(seen.kinds),
            "leak.found": len(planted & named),
            "leak.missed": len(planted - named),
            "leak.false_alarms": len(named - planted),
            "leak.differences": len(named ^ planted),
            "leak.explained": sum(bool(known[g].site and known[g].reason and known[g].stack) for g in named),
            "naive.false_alarms": len(seen.idle - planted),
            "naive.missed": len(planted - seen.idle),
        }
    for name, title, meaning in (
        ("leak.planted", "Leaks planted", "goroutines that said their ids before they were left"),
        ("leak.kinds", "Kinds of leaks planted", "ways to leak a goroutine"),
        ("leak.found", "Leaks found", "planted ones that the rule of growth names, by id"),
        ("leak.missed", "Leaks not found", "planted ones that it does not name"),
        ("leak.false_alarms", "Others called leaked", "goroutines that may live and that it names"),
        ("leak.differences", "Differences between found and planted", "ids of only one of them"),
        ("leak.explained", "Leaks with place, reason and stack", "of which all three are known"),
        ("naive.false_alarms", "Called leaked by seconds, and may live", f"not scheduled for {seconds}, not planted"),
        ("naive.missed", "Leaks that the rule of seconds misses", f"planted, and scheduled within {seconds}"),
    ):
        unit = "kinds" if name == "leak.kinds" else "goroutines"
        timing = name.startswith("naive")
        yield metric(name, title, "count", phase, figures.get(name), lacking, meaning, unit=unit, timing=timing)


# ---- oracles ----


def _profile(segment: Segment, prefix: str = PROFILE) -> Counter[str]:
    return Counter(
        {name.removeprefix(prefix): count for name, count in segment.counts.items() if name.startswith(prefix)}
    )


def _rising(phase: PhaseData) -> frozenset[str]:
    """Return the functions of which the goroutine profile has more after each round."""
    return rising([_profile(segment) for segment in phase.segments("work")])


def _oracles(phase: PhaseData, seen: Seen | None) -> Iterable[Metric]:
    differences = functions = share = None
    if seen is not None:
        alive = seen.rules.alive & seen.rules.born
        if seen.rules.traced_alive is not None:
            differences = float(len(seen.rules.traced_alive ^ alive))
        profile = _profile(seen.settled)
        counted = Counter(seen.rules.lives[goid].function for goid in seen.rules.alive)
        own = [name for name in seen.rules.functions(seen.rules.born) if name.startswith(OWN)]
        functions = float(sum(profile[name] != counted[name] for name in own))
        if seen.kinds:
            grown = _rising(phase)
            share = sum(bool(seen.rules.functions(seen.of(kind)) & grown) for kind in seen.kinds) / len(seen.kinds)
    problems = [] if phase.go_trace is None else phase.go_trace.problems[:1]
    yield metric(
        "oracle.trace_differences", "Goroutines that only one of probes and runtime/trace sees alive", "count", phase,
        differences, ": ".join(["runtime/trace has no whole recording of the rounds", *problems]),
        "created in a round and alive at the end, by id", unit="goroutines",
    )  # fmt: skip
    yield metric(
        "oracle.profile_differences", "Functions of which the goroutine profile has another number", "count", phase,
        functions, "no goroutine profile was taken at the end of a trace",
        "the program's own that goroutines of the rounds began with; a profile leaves out wrappers, as net/http's "
        "goroutines have", unit="functions",
    )  # fmt: skip
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

    @property
    def wrong(self) -> bool:
        """Whether a look told of more than there was, or of a long one not in full."""
        return self.seen > self.height or (self.length == "long" and self.seen != self.height)


def _bursts(phase: PhaseData) -> list[Burst]:
    if phase.trace is None:
        return []
    return [
        Burst(s.parameters["length"], most_alive(phase, s), s.counts.get("looks", 0), s.counts.get("seen", 0))
        for s in phase.segments("peak")
    ]


def _peaks(phase: PhaseData) -> Iterable[Metric]:
    bursts = _bursts(phase)
    for name, title, value, meaning in (
        ("peak.bursts", "Bursts", len(bursts), "half of them short, half of them long"),
        ("peak.missed", "Bursts that no look saw", sum(burst.missed for burst in bursts),
         "traced, and no look at runtime.NumGoroutine saw half of their height"),
        ("peak.looks_wrong", "Bursts of which a look told another height", sum(burst.wrong for burst in bursts),
         "more than there was, or a long one not in full"),
    ):  # fmt: skip
        found = float(value) if bursts else None
        yield metric(name, title, "count", phase, found, "no bursts were traced", meaning, unit="bursts", timing=True)


# ---- a defer that is left out ----


def _lived(phase: PhaseData, segment: Segment) -> dict[str, int] | None:
    """Return created, ended and alive at the end of the segment, by probes and then by runtime/trace."""
    trace = phase.go_traced(segment)
    if trace is None or not trace.whole or phase.trace is None:
        return None
    created, ended = (int(phase.events_of([segment], kind).size) for kind in (EventKind.CREATE, EventKind.END))
    found = {"created": created, "ended": ended, "alive": created - ended}
    alive = sum(each.state != "ended" for each in trace.goroutines)
    return found | {"trace_created": trace.created(), "trace_ended": trace.ended(), "trace_alive": alive}


def _lives(phase: PhaseData) -> Iterable[Metric]:
    pairs = [(s.parameters["defer"], _lived(phase, s)) for s in phase.segments("lives")]
    whole = [(variant, row) for variant, row in pairs if row is not None]
    longer = sum(row["trace_alive"] * (1 if variant == "without" else -1) for variant, row in whole)
    names = ("created", "ended", "alive")
    differing = sum(row[name] != row[f"trace_{name}"] for _, row in whole for name in names)
    for name, title, value, meaning, unit in (
        ("lives.longer_in_trace", "Goroutines that live on without the defer", longer,
         "alive at the end of the variant without it, less those with it, by runtime/trace", "goroutines"),
        ("lives.differences", "Counts of lives that differ between probes and runtime/trace", differing,
         "created, ended and alive, by variant and size", "counts"),
    ):  # fmt: skip
        found = float(value) if pairs and len(whole) == len(pairs) else None
        lacking = "no pair of variants was traced from within and by probes"
        yield metric(name, title, "count", phase, found, lacking, meaning, unit=unit)


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
        lacking = "this run has no words of go vet"
        yield metric(name, title, "count", nothing, found, lacking, meaning, unit="complaints", exact=True)


def _named(phase: PhaseData) -> list[Goroutine] | None:
    """Return the planted goroutines that runtime/trace names with place and reason at the end of their segment."""
    forced = phase.segments("forced")
    planted = _planted(forced)
    traces = [phase.go_traced(segment) for segment in forced]
    if not planted or any(trace is None or not trace.whole for trace in traces):
        return None
    made = [each for trace in traces if trace is not None for each in trace.goroutines]
    return [each for each in made if each.id in planted and each.site and each.state == "waiting" and each.reason]


def _sides(phase: PhaseData) -> Iterable[Metric]:
    tools, named = list(threads(phase).values()), _named(phase)
    why = why_none(phase)
    figures: dict[str, float] = {}
    if tools:
        # Of two tools, for each side what tells less for it.
        figures["sides.threads"] = seen = max(len(tool.seen) for tool in tools)
        figures["sides.only_kernel"] = min(tool.preempted for tool in tools)
        if named is not None:
            figures["sides.only_trace"] = max(0, len(named) - seen)
    if named is not None:
        figures["sides.named"] = len(named)
    for name, title, lacking, meaning, unit in (
        ("sides.threads", "Threads that the kernel's side saw", why, "sched_switch, by thread", "threads"),
        ("sides.named", "Leaked goroutines that runtime/trace names", "runtime/trace has no whole recording",
         "with id, place of creation and wait reason", "goroutines"),
        ("sides.only_trace", "Leaked goroutines beyond threads", "no whole recording" if tools else why,
         "named by runtime/trace, less one for each thread that was seen", "goroutines"),
        ("sides.only_kernel", "CPUs taken from a thread", why, "switches away from threads that could have gone on",
         "switches"),
    ):  # fmt: skip
        yield metric(name, title, "count", phase, figures.get(name), lacking, meaning, unit=unit)


# ---- charts ----


def _methods(run: RunData, phase: PhaseData, seen: Seen) -> charts.Table | None:
    profile, grown, known = _profile(seen.settled), _rising(phase), seen.rules
    lacking: charts.Cell = charts.Absent(why=f"{run.provenance.go_version} has no goroutineleak profile")
    collector = [_profile(s, COLLECTOR) for s in phase.segments("collector") if not s.counts.get("absent")]

    def row(title: str, ids: frozenset[int], functions: frozenset[str], planted: charts.Cell) -> list[charts.Cell]:
        traced = None if known.traced_grown is None else len(ids & known.traced_grown)
        found = [len(ids & known.grown), traced, len(ids & seen.idle), sum(profile[f] for f in functions & grown)]
        return [title, planted, *found, sum(collector[0][f] for f in functions) if collector else lacking]

    planted = frozenset(seen.planted)
    rows = [row(kind, seen.of(kind), known.functions(seen.of(kind)), len(seen.of(kind))) for kind in seen.kinds]
    rest = known.functions(known.alive - seen.others) - known.functions(planted)
    rows.append(row("may live, called leaked", known.alive - planted, rest, ""))
    columns = ("Kind", "Planted", "Growth, by probes", "Growth, by runtime/trace", f"Idle for {known.seconds:g} s",
               "Goroutine profile", "Go's leak profile")  # fmt: skip
    return table(
        "methods", "What each way of looking finds",
        "Goroutines by kind. Growth: rounds created some there, and each left some alive. Profiles know functions "
        "and no ids; Go's leak profile finds waits for what nothing else can reach.",
        "traced", "happened", dict.fromkeys(columns, ""), rows,
    )  # fmt: skip


def _found(seen: Seen) -> charts.Table | None:
    rows: Counter[tuple[str, ...]] = Counter()
    for goid in seen.rules.grown:
        life = seen.rules.lives[goid]
        rows[(seen.planted.get(goid, "not planted"), life.site, life.reason, life.waits_at)] += 1
    return table(
        "found", "What was found", "Goroutines that the rule of growth names, by place of creation.", "traced",
        "happened", dict.fromkeys(("Kind", "Goroutines", "Created at", "Waits for", "Waits at"), ""),
        [[kind, count, *rest] for (kind, *rest), count in sorted(rows.items())],
    )  # fmt: skip


def _misled(seen: Seen) -> charts.Table | None:
    rows: Counter[tuple[str, ...]] = Counter()
    for goid in (frozenset(seen.planted) ^ seen.idle) & seen.rules.alive:
        life, kind = seen.rules.lives[goid], seen.planted.get(goid, "")
        rows[("a leak, missed" if kind else "may live, called leaked", life.site, life.function, life.reason)] += 1
    return table(
        "naive", f"Where {seen.rules.seconds:g} seconds without scheduling mislead",
        "A loop that nobody needs is scheduled at every tick; a server that nobody calls is not.", "traced", "happened",
        dict.fromkeys(("What", "Goroutines", "Created at", "Function", "Waits for"), ""),
        [[words, count, *rest] for (words, *rest), count in sorted(rows.items())],
    )  # fmt: skip


def _growth(phase: PhaseData) -> charts.Lines:
    planted, line = 0, []
    for number, segments in in_rounds(phase.segments("forced")).items():
        planted += len(_planted(segments))
        line.append(charts.LinePoint(x=number + 1, y=planted))
    count = [
        charts.LinePoint(x=int(segment.parameters["round"]) + 1, y=segment.counts.get("goroutines", 0))
        for segment in phase.segments("work")
    ]
    return charts.Lines(
        id="growth", title="Goroutines from round to round", place="time", phase="traced",
        caption="runtime.NumGoroutine after each round, and what had been planted by then: the rest may live.",
        x_title="round", y_title="goroutines",
        lines=[charts.Line(name="NumGoroutine", points=count), charts.Line(name="planted", points=line)],
    )  # fmt: skip


def _bursts_table(phase: PhaseData) -> charts.Table | None:
    rows: list[list[charts.Cell]] = []
    bursts = _bursts(phase)
    for length in dict.fromkeys(burst.length for burst in bursts):
        of = [burst for burst in bursts if burst.length == length]
        heights = ", ".join(map(str, sorted({burst.height for burst in of})))
        looks, missed = sum(burst.looks for burst in of), sum(burst.missed for burst in of)
        rows.append([length, len(of), heights, looks, max(burst.seen for burst in of), missed])
    columns = ("Length", "Bursts", "Height, by the trace", "Looks", "Highest look", "Not seen")
    return table(
        "bursts", "Bursts, and looks at runtime.NumGoroutine",
        "Short ones last a tenth of the time between two looks, long ones three times as long; they begin at random.",
        "traced", "happened", dict.fromkeys(columns, ""), rows,
    )  # fmt: skip


def _lives_table(phase: PhaseData) -> charts.Table | None:
    rows: list[list[charts.Cell]] = []
    for segment in phase.segments("lives"):
        row, trace = _lived(phase, segment), phase.go_traced(segment)
        if row is not None and trace is not None:
            reasons = sorted({each.reason for each in trace.goroutines if each.state == "waiting"})
            variant = f"{segment.parameters['defer']} defer, {segment.parameters['size']}"
            rows.append([variant, *row.values(), ", ".join(reasons)])
    columns = ("Variant", "Created", "Ended", "Alive", "Created, runtime/trace", "Ended, runtime/trace",
               "Alive, runtime/trace", "It waits for")  # fmt: skip
    return table(
        "lives", "The same work with a defer and without",
        "Every second worker returns early; they are twice the number. By probes, then by Go's tracer.",
        "traced", "happened", dict.fromkeys(columns, ""), rows,
    )  # fmt: skip


def _sides_table(phase: PhaseData) -> charts.Table | None:
    tools, named = threads(phase), _named(phase)
    if not tools or named is None:
        return None
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(Counter(g.reason for g in named).items()))
    rows: list[list[charts.Cell]] = [
        ["leaked goroutines", len(named), *("none: a thread has no goroutine id" for _ in tools)],
        ["what they wait for", reasons, *("nothing of it" for _ in tools)],
        ["threads", "their numbers", *(len(tool.seen) for tool in tools.values())],
        ["threads created", "nothing of it", *(tool.made for tool in tools.values())],
        ["CPUs taken from a thread", "nothing of it", *(tool.preempted for tool in tools.values())],
        ["threads that fell asleep", "nothing of it", *(tool.slept for tool in tools.values())],
    ]
    return table(
        "sides", "What either side sees of the same program",
        "runtime/trace recorded within it; the tools watch sched_switch and task_newtask.", "kernel", "happened",
        dict.fromkeys(("What", "runtime/trace", *tools), ""), rows,
    )  # fmt: skip


def _vet_table(run: RunData) -> charts.Table | None:
    rows: list[list[charts.Cell]] = [[f"{note.file}:{note.line}", note.words] for note in run.vet or ()]
    if run.vet is not None and not any(note.file == LEGITIMATE for note in run.vet):
        rows.append([LEGITIMATE, "no complaint"])
    return table(
        "vet", "What go vet says",
        f"{LEGITIMATE} has goroutines that may live (tickers, a server), {CONTROL} what is a leak.",
        "traced", "known", dict.fromkeys(("Where", "Words"), ""), rows,
    )  # fmt: skip


def _notes(run: RunData, phase: PhaseData) -> list[str]:
    found = [
        "The rule of growth knows places and rounds. A program that starts a goroutine in every round on purpose and "
        "keeps each would be reported; a leak that happened in fewer than three rounds would not."
    ]
    if any(segment.counts.get("absent") for segment in phase.segments("collector")):
        found.append(
            f"{run.provenance.go_version} has no goroutineleak profile: Go 1.27 has it, 1.26 with "
            "GOEXPERIMENT=goroutineleakprofile."
        )
    return found
