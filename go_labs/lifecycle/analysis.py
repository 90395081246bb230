"""What a run of the lifecycle lab means: the metrics that ``lab.toml`` names, and the charts. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bpf.gotrace import SegmentTrace
from bpf.trace import EventKind, MemorySample
from go_labs.evidence import Segment
from reports import charts, dumps, lives, memory, statistics, waits
from reports.analysis import Analysis, PhaseData, RunData
from reports.dumps import Method
from reports.schema import Metric
from reports.shorthand import metric, ratio, table
from reports.statistics import median

ARTICLE = {"created": "0.0014%", "waited": "0.018%", "panicked": "0%"}
"""The article's table: deviations as it prints them."""

ARTICLE_CREATED = 1_842_917
"""Goroutines that the article's dumps are said to have counted."""

ARTICLE_SECONDS, ARTICLE_DUMP = 3 * 3600, 30
"""Length of the article's test, and its pause between dumps, seconds."""

MEMORY_CAPTION = (
    "Resident sets of the loader and the traced program from its start on. The forced sections come first; the soak is "
    "the last and, where it was long, nearly all of it."
)

WAIT_LOSSES = ("ring_full", "expired", "map_full", "goid_failed")
"""Losses of the probes, each of which can cost one wait its record."""

Ids = frozenset[int]


def analyse(run: RunData) -> Analysis:
    """Return the lab's metrics and charts; what could not be measured is absent with its reason."""
    traced = run.phase("traced")
    check = _cross_check(traced, _threshold_ns(run))
    method = dumps.method(traced, _one(traced, "table"))
    metrics = [
        *_table_metrics(traced, check), *_forced_metrics(traced), *_dump_metrics(traced, method), *_churn(run),
        *_soak(traced),
    ]  # fmt: skip
    drawn = [
        _table(run, traced, check), _forced_table(traced), _method_table(traced, method), _alive(traced, method),
        _lives(traced, method), _lengths(traced), memory.chart(traced, MEMORY_CAPTION), _soak_table(traced),
        lives.sites(traced, traced.segments()[1:]),
    ]  # fmt: skip
    return Analysis(
        metrics=metrics, charts=[chart for chart in drawn if chart is not None], notes=_notes(run, traced, method)
    )


def _threshold_ns(run: RunData) -> int:
    """Return the threshold of the run, from its options."""
    return round(float(run.provenance.options["threshold"]) * 1e9)


def _one(phase: PhaseData, section: str) -> Segment | None:
    return next(iter(phase.segments(section)), None)


# ---- the cross-check: traced events against Go's own tracer ----


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the cross-check, sets of goroutine ids where both sources know them.

    :param oracle: None where Go's tracer does not record such a thing; ``differ`` then too.
    :param lost: of ``differ``, at most so many are explained by losses that the probes counted.
    """

    name: str
    title: str
    workload: int
    oracle: int | None
    traced: int
    differ: int | None
    lost: int = 0

    @property
    def deviation(self) -> float | None:
        """Goroutines that only one of the two has, less counted losses, as a share of those that Go's tracer has."""
        if self.differ is None or self.oracle is None:
            return None
        return max(0, self.differ - self.lost) / max(1, self.oracle)


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """The load that all sources looked at.

    :param astride: goroutines of which both have the wait, on either side of the threshold.
    """

    segment: Segment
    seen: SegmentTrace
    rows: tuple[Row, ...]
    events_lost: int
    astride: int


def _cross_check(traced: PhaseData, threshold_ns: int) -> CrossCheck | None:
    segment = _one(traced, "table")
    seen = None if segment is None else traced.go_traced(segment)
    if segment is None or seen is None or traced.trace is None:
        return None
    counters = traced.counters(segment)
    made, ended = (lives.ids(traced.events_of([segment], kind)) for kind in (EventKind.CREATE, EventKind.END))
    theirs = frozenset(each.id for each in seen.goroutines)
    own = frozenset(each.id for each in seen.goroutines if each.goroutine_class == "user")
    gone = frozenset(each.id for each in seen.goroutines if each.ended_ns)
    our_waits = [wait for wait in lives.waits(traced, segment) if wait.goid in own]
    their_waits = [
        lives.Wait(wait.goroutine, wait.start_ns, wait.end_ns) for wait in seen.waits if wait.goroutine in own
    ]
    long, theirs_long = (lives.beyond(found, threshold_ns) for found in (our_waits, their_waits))
    only = lives.unmatched(our_waits, their_waits, threshold_ns) | lives.unmatched(their_waits, our_waits, threshold_ns)
    missed = sum(traced.trace.losses.get(name, 0) for name in WAIT_LOSSES)
    counts = segment.counts
    rows = (
        Row("created", "created", counts["created"], seen.created(), counters["created"], len(made ^ theirs)),
        Row("ended", "ended", counts["ended"], seen.ended(), counters["ended"], len((ended & theirs) ^ gone)),
        Row(
            "waited",
            "waited beyond the threshold",
            counts["held"],
            len(theirs_long),
            len(long),
            len(only),
            missed,
        ),
        Row("panicked", "panicked", counts["panics"], None, counters["panics"], None),
    )
    lost = counters["created"] - len(made) + counters["ended"] - len(ended)
    return CrossCheck(segment, seen, rows, lost, len((long ^ theirs_long) - only))


def _table_metrics(traced: PhaseData, check: CrossCheck | None) -> Iterable[Metric]:
    lacking = "the section table was not traced, or Go's own trace of it is not there"
    worst = None
    if check is not None:
        worst = max(row.deviation for row in check.rows if row.deviation is not None)
    yield metric(
        "table.deviation", "Deviation of traced events from Go's tracer", "share", traced, worst, lacking,
        "goroutines that only one of the two has, as a share; the worst of created, ended, waited beyond the threshold",
        exact=True,
    )  # fmt: skip
    panics = None if check is None else next(abs(r.traced - r.workload) for r in check.rows if r.name == "panicked")
    yield metric(
        "table.panics_difference", "Panics that only one side has", "count", traced, panics, lacking,
        "the workload's own recoveries against traced calls of gopanic; Go's tracer does not record panics", exact=True,
    )  # fmt: skip
    yield metric(
        "table.events_lost", "Creations and ends without an event", "count", traced,
        None if check is None else check.events_lost, lacking, "counters against recorded events", exact=True,
    )  # fmt: skip
    yield metric(
        "table.oracle_whole", "Go's trace is whole", "count", traced,
        None if check is None else int(_whole(check.seen)), lacking,
        "1: all of the load was recorded and read, and nothing was left out of its lists", exact=True,
    )  # fmt: skip


def _whole(seen: SegmentTrace) -> bool:
    return seen.whole and not seen.goroutines_left_out and not seen.waits_left_out


def _forced_metrics(traced: PhaseData) -> Iterable[Metric]:
    rows = list(_forced_rows(traced))
    yield metric(
        "forced.oracle_mismatches", "Forced counts that Go's tracer has otherwise", "count", traced,
        sum(ours != theirs for _, _, ours, theirs in rows) if rows else None,
        "no forced section was traced by Go, too",
        "created, ended and waits to send of each forced segment, traced by probes and by Go itself", exact=True,
    )  # fmt: skip


def _forced_rows(traced: PhaseData) -> Iterable[tuple[Segment, str, int, int]]:
    """Give segment, what is counted, the probes' count and that of Go's tracer."""
    for segment in traced.segments("forced"):
        seen = traced.go_traced(segment)
        if seen is None or traced.trace is None:
            continue
        counters = traced.counters(segment)
        yield segment, "created", counters.get("created", 0), seen.created()
        yield segment, "ended", counters.get("ended", 0), seen.ended()
        yield segment, "waited to send", counters.get("park:chan send", 0), seen.blocked().get("chan send", 0)


# ---- the article's own method ----


def _dump_metrics(traced: PhaseData, method: Method | None) -> Iterable[Metric]:
    lacking = "the section table was not traced"
    total = 0 if method is None else len(method.lives)

    def share(ids: Ids | None) -> float | None:
        return len(ids) / total if ids is not None and total else None

    for name, title, found, meaning in (
        ("dumps.matched_share", "Goroutines that dumps and events agree on within 50 ms",
         share(method.matched if method else None),
         "of all created and ended: beginning and end within the article's tolerance"),
        ("dumps.seen_share", "Goroutines that are in a dump at all", share(method.seen if method else None),
         "of all created and ended; the others lived between two dumps"),
    ):  # fmt: skip
        yield metric(name, title, "share", traced, found, lacking, meaning, exact=True)
    for name, title, count, meaning in (
        ("dumps.made", "Dumps made", len(method.dumps) if method else None, "during the load"),
        ("dumps.wrong", "Entries of dumps that the events deny", method.wrong if method else None,
         "goroutines listed that did not live then, and goroutines that lived through the dump and are not listed"),
    ):  # fmt: skip
        yield metric(name, title, "count", traced, count, lacking, meaning, exact=True)
    pauses = [dump.pause_ns for dump in method.dumps] if method else []
    yield metric(
        "dumps.longest_pause", "Longest pause by a dump", "time", traced, max(pauses, default=None), lacking,
        "the world stands still while a dump is made", unit="ns",
    )  # fmt: skip


# ---- speed, and the soak ----


def _churn(run: RunData) -> Iterable[Metric]:
    timed, traced = run.phase("timed"), run.phase("traced")
    bare, probed = (phase.samples("ns_per_life", "churn") for phase in (timed, traced))
    lacking = "the section churn did not run"
    yield metric(
        "churn.ns", "Time for a goroutine's whole life", "time", timed, median(bare) if bare else None, lacking,
        "created, parked, woken, ended, as fast as it goes; nothing attached", unit="ns",
    )  # fmt: skip
    yield metric(
        "churn.traced_ns", "The same under full lifecycle tracing", "time", traced,
        median(probed) if probed else None, lacking, "creation, every park and run, and the end recorded", unit="ns",
    )  # fmt: skip
    yield metric(
        "churn.slowdown", "Slowdown of a life by tracing", "ratio", traced,
        ratio(probed, bare), lacking, "traced over bare, in the order of the repetitions", unit="×", timing=True,
    )  # fmt: skip


SOAK_ROWS = (("created", "created"), ("ended", "ended"), ("panics", "panicked"))


def _soak(traced: PhaseData) -> Iterable[Metric]:
    segment = _one(traced, "soak")
    lacking = "the soak was not traced"
    differ = None
    if segment is not None and traced.trace is not None:
        counters = traced.counters(segment)
        differ = sum(abs(counters[name] - _known(segment, name)) for name, _ in SOAK_ROWS)
    yield metric(
        "soak.difference", "Counts of the soak that differ", "count", traced, differ, lacking,
        "created, ended and panicked: traced counters against the runtime's or the workload's own count", exact=True,
    )  # fmt: skip
    seconds = None if segment is None else (segment.end_ns - segment.start_ns) / 1e9
    yield metric("soak.seconds", "Length of the soak", "time", traced, seconds, lacking, "in the machine", unit="s")
    samples = _soak_samples(traced, segment)
    sides: tuple[tuple[memory.Who, str], ...] = (("tracer", "the loader"), ("target", "the traced program"))
    for who, words in sides:
        found = memory.growth(samples, who)
        yield metric(
            f"soak.{who}_growth", f"Growth of {words}'s memory", "count", traced, found,
            lacking if segment is None else "too few samples of memory; a longer soak has them",
            f"resident set, last tenth against the first after {memory.SETTLING_SECONDS:g} s or a third of the soak",
            unit="KiB", exact=True,
        )  # fmt: skip


def _known(segment: Segment, name: str) -> int:
    """Return what the runtime says, where it says it (Go 1.26 and newer), else what the workload counted."""
    counted = segment.counts.get(name, 0)
    return segment.counts.get("metric_created", counted) if name == "created" else counted


def _soak_samples(traced: PhaseData, segment: Segment | None) -> list[MemorySample]:
    """Return the samples of memory that were taken during the soak, the last of the sections."""
    if segment is None or traced.trace is None or traced.trace.target_seconds is None:
        return []
    begin = traced.trace.target_seconds - (segment.end_ns - segment.start_ns) / 1e9
    return [sample for sample in traced.trace.memory if sample.seconds >= begin]


# ---- charts ----


def _table(run: RunData, traced: PhaseData, check: CrossCheck | None) -> charts.Table | None:
    if check is None:
        return None
    absent = charts.Absent(why="Go's tracer does not record it")
    created = check.segment.counts.get("metric_created")
    rows: list[list[charts.Cell]] = [
        [
            row.title, row.workload, absent if row.oracle is None else row.oracle,
            created if row.name == "created" and created is not None else None, row.traced,
            abs(row.traced - row.workload) if row.differ is None else row.differ, ARTICLE.get(row.name),
        ]
        for row in check.rows
    ]  # fmt: skip
    seconds = (check.segment.end_ns - check.segment.start_ns) / 1e9
    return table(
        "cross-check", "The article's table, with sources that can be held against each other",
        f"{seconds:.1f} s of a mixed load. The goroutines that only one of Go's tracer and the probes has are counted "
        "one by one; where Go's tracer has nothing, the workload's own count stands. The threshold is "
        f"{run.provenance.options['threshold']} s. The workload's count of long waits is of those that it held on "
        "purpose. The runtime's own count includes its own goroutines. "
        f"{check.astride} goroutines have a wait that both know, on either side of the threshold: the probe stands at "
        "the beginning of gopark, Go's tracer a little later. Losses explain at most "
        f"{check.rows[2].lost} waits that differ.",
        traced.name, "happened",
        {"Goroutines": "", "Workload": "", "Go's tracer": "", "Runtime's own count": "", "Traced": "", "Differ": "",
         "Article: deviation": ""},
        rows,
    )  # fmt: skip


def _forced_table(traced: PhaseData) -> charts.Table | None:
    rows: dict[tuple[str, str], list[charts.Cell]] = {}
    for segment, _what, ours, theirs in _forced_rows(traced):
        life, n = segment.parameters["life"], segment.parameters["goroutines"]
        row = rows.setdefault((life, n), [life, int(n)])
        row += [ours, theirs]
    return table(
        "forced-oracle", "Known numbers, and what both tracers counted",
        "Each kind of life in known numbers; probes and Go's own tracer looked at the same goroutines.",
        traced.name, "known",
        {"Life": "", "Goroutines": "", "Created: probes": "", "Go": "", "Ended: probes": "", "Go ": "",
         "Waited: probes": "", "Go  ": ""},
        list(rows.values()),
    )  # fmt: skip


def _method_table(traced: PhaseData, method: Method | None) -> charts.Table | None:
    if method is None or not method.lives:
        return None
    total = len(method.lives)
    every = method.segment.parameters.get("dump", "?")
    pauses = [dump.pause_ns for dump in method.dumps]

    def line(words: str, count: int, why: str) -> list[charts.Cell]:
        return [words, count, f"{100 * count / total:.3g}%", why]

    rows = [
        line("created and ended, by the events", total, "each exactly once"),
        line("in no dump", total - len(method.seen), "lived between two dumps"),
        line("in a dump, beginning off by 50 ms or more", len(method.seen - method.began),
             "a dump tells that a goroutine is there, not since when"),
        line("in a dump, end off by 50 ms or more", len(method.seen - method.finished),
             "nor when it will be gone"),
        line("matched: beginning and end within 50 ms", len(method.matched), "what the article's code accepts"),
    ]  # fmt: skip
    return table(
        "dumps", "The article's own method on the same goroutines",
        f"{len(method.dumps)} dumps, one each {every} (the article: 30 s), matched by goroutine id. Each stopped the "
        "world, for "
        f"{max(pauses, default=0) / 1e6:.1f} ms at most, in which no goroutine ran. Where a dump and the events speak "
        f"of the same moment they disagree on {method.wrong} goroutines.",
        traced.name, "happened", {"Goroutines": "", "Number": "", "Share": "", "Why": ""}, rows,
    )  # fmt: skip


def _alive(traced: PhaseData, method: Method | None) -> charts.Lines | None:
    """Goroutines alive over time by the events, and in each dump."""
    if method is None or not method.lives:
        return None
    begin = min(life.created_ns for life in method.lives.values())
    end = max(life.ended_ns for life in method.lives.values())
    moments = np.linspace(begin, end, 200)
    alive = lives.alive(method.lives, moments)
    return charts.Lines(
        id="alive",
        title="Goroutines alive",
        caption="By the events at every moment, and by the dumps where one was made: right, and blind in between.",
        place="time",
        phase=traced.name,
        timing=True,
        x_title="Time since the first creation (s)",
        y_title="Goroutines alive",
        lines=[
            charts.Line(
                name="events",
                points=[
                    charts.LinePoint(x=float(at - begin) / 1e9, y=float(count))
                    for at, count in zip(moments, alive, strict=True)
                ],
            ),
            charts.Line(
                name="dumps",
                points=[charts.LinePoint(x=(d.at_ns - begin) / 1e9, y=float(len(d.ids))) for d in method.dumps],
            ),
        ],
    )


def _lives(traced: PhaseData, method: Method | None) -> charts.HeatMap | None:
    if method is None:
        return None
    ends = traced.events_of([method.segment], EventKind.END).copy()
    ends["start_ns"] -= ends["duration_ns"]
    return waits.heat_map(
        traced, ends, name="lives", title="Lives over time, and the dumps",
        caption="Each cell counts goroutines created in that moment (across) that lived that long (up, logarithmic). "
        "The lines are dumps: what lies between two of them and is shorter than the pause is in none.",
        marks={f"dump {number + 1}": dump.at_ns for number, dump in enumerate(method.dumps)},
    )  # fmt: skip


def _lengths(traced: PhaseData) -> charts.Ecdf | None:
    series = []
    for title, section in (("mixed load", "table"), ("soak", "soak"), ("as fast as they go", "churn")):
        ends = traced.events_of(traced.segments(section), EventKind.END)
        lengths = ends["duration_ns"][ends["duration_ns"] > 0]
        if lengths.size:
            x, p = statistics.ecdf(lengths)
            series.append(charts.EcdfSeries(name=title, n=int(lengths.size), x=x, p=p))
    if not series:
        return None
    return charts.Ecdf(
        id="lengths", title="How long goroutines lived",
        caption="Share of goroutines that had ended within the time on the axis.",
        place="time", phase=traced.name, timing=True, x_title="life", series=series,
    )  # fmt: skip


def _soak_table(traced: PhaseData) -> charts.Table | None:
    segment = _one(traced, "soak")
    if segment is None or traced.trace is None:
        return None
    counters = traced.counters(segment)
    rows: list[list[charts.Cell]] = [
        [title, segment.counts.get(name, 0), segment.counts.get("metric_created") if name == "created" else None,
         counters[name], abs(counters[name] - _known(segment, name))]
        for name, title in SOAK_ROWS
    ]  # fmt: skip
    seconds = (segment.end_ns - segment.start_ns) / 1e9
    omitted = traced.trace.losses.get("events_omitted", 0)
    return table(
        "soak", "The soak, counted twice",
        f"{seconds:.0f} s at {segment.parameters['rate']} goroutines a second; the article's test ran for "
        f"{ARTICLE_SECONDS} s. Counters hold all of it; {omitted} records were not kept, which bounds the file.",
        traced.name, "happened",
        {"Goroutines": "", "Workload": "", "Runtime's own count": "", "Traced": "", "Differ": ""}, rows,
    )  # fmt: skip


def _notes(run: RunData, traced: PhaseData, method: Method | None) -> list[str]:
    """Return what the figures can and cannot say."""
    made = ARTICLE_SECONDS // ARTICLE_DUMP
    created = ARTICLE_CREATED
    notes = [
        f"The article's {made} dumps could only list {created:,} goroutines if each showed {created // made:,} that "
        f"the one before did not: goroutines would have to live about {ARTICLE_DUMP} s each.",
        "A panic that nobody recovers ends the whole process, so that all panics counted here were recovered.",
        f"Dumps were made each {run.provenance.options['dump']} s, not each {ARTICLE_DUMP} s: they see more than the "
        "article's could. A dump tells how long a goroutine has waited in whole minutes only.",
    ]
    if method is not None and "metric_created" not in method.segment.counts:
        notes.append(
            f"{run.provenance.go_version} has no /sched/goroutines-created:goroutines; Go 1.26 and newer have."
        )
    if traced.trace is not None and traced.trace.losses.get("events_omitted"):
        notes.append("Records beyond the bound were counted and not kept; charts show the first part of the soak.")
    return notes
