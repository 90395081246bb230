"""What a run of the gc lab means: the metrics that ``lab.toml`` names, and the charts. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from go_labs.evidence import Histogram, Segment
from reports import allocations, charts, flame, histograms, listing, pauses
from reports.allocations import Allocated, Frames
from reports.analysis import Analysis, PhaseData, RunData
from reports.schema import Metric, Point
from reports.shorthand import metric, table
from reports.text import neutral

MISUSED, WELL = "misused", "used well"
POOLS = (MISUSED, WELL)

ARTICLE_RATE = 5000
"""Requests per second of the article's second row."""

ARTICLE_BASE = ("12", "0.8", "14", "11.7")
"""The article's row at base load, of which it gives no rate: collections in 10 s, mean pause in ms, MB/s; and MB for
each collection, worked out of these."""

ARTICLE_LOADED = ("89", "12.3", "107", "12.0")
"""The same at 5 000 requests/s."""

TINY = "tiny"
"""Kind of the forced section that Go's heap profile leaves out in part."""


def analyse(run: RunData) -> Analysis:
    """Return the lab's metrics and charts; what could not be measured is absent with its reason."""
    metrics = [*_allocation(run), *_article(run), *_latency(run), *_equal(run), *listing.metrics(run)]
    drawn = [
        _requests(run), _article_table(run), _latency_table(run), _latencies(run), _sites(run), _forced_table(run),
        listing.programs_table(run), *_pauses(run), *_flames(run),
    ]  # fmt: skip
    return Analysis(metrics=metrics, charts=[chart for chart in drawn if chart is not None], notes=_notes(run))


# ---- the load, by pool and rate ----


def _rates(phase: PhaseData) -> list[int]:
    return sorted({int(segment.parameters["rate"]) for segment in phase.segments("load")})


def _load(phase: PhaseData, pool: str, rate: int) -> Segment | None:
    return next(iter(phase.segments("load", pool=pool, rate=str(rate))), None)


def _each(segment: Segment | None, count: str) -> float | None:
    """Return ``count`` for each request; None where there was none."""
    requests = 0 if segment is None else segment.counts.get("requests", 0)
    return None if segment is None or not requests else segment.counts.get(count, 0) / requests


def _over(top: float | None, bottom: float | None) -> float | None:
    return None if top is None or not bottom else top / bottom


def _allocation(run: RunData) -> Iterable[Metric]:
    timed = run.phase("timed")
    rates = _rates(timed)
    low, high = (rates[0], rates[-1]) if rates else (0, 0)
    lacking = "the section load did not run"
    names = {MISUSED: "misused", WELL: "well"}
    for pool in POOLS:
        for what, count, unit in (("bytes", "memstats_bytes", "B"), ("objects", "memstats_mallocs", "")):
            series = [
                Point(
                    parameters={"pool": pool, "rate": str(rate)},
                    value=value,
                    absent="" if value is not None else lacking,
                )
                for rate in rates
                for value in [_each(_load(timed, pool, rate), count)]
            ]
            yield metric(
                f"alloc.{names[pool]}_{what}", f"{what.capitalize()} that a request allocates, pool {pool}", "count",
                timed,
                _each(_load(timed, pool, high), count), lacking, f"runtime.MemStats, {high} requests/s", unit=unit,
                exact=True, series=series,
            )  # fmt: skip
    for what, count in (("bytes", "memstats_bytes"), ("objects", "memstats_mallocs")):
        yield metric(
            f"alloc.{what}_ratio", f"{what.capitalize()} for each request, pool misused against used well", "ratio",
            timed,
            _over(*(_each(_load(timed, pool, high), count) for pool in POOLS)), lacking,
            f"the same requests on the same schedule, {high}/s", unit="×", exact=True,
        )  # fmt: skip
    yield metric(
        "alloc.amplification", f"Bytes for each request, {high} against {low} requests/s", "ratio", timed,
        _over(*(_each(_load(timed, MISUSED, rate), "memstats_bytes") for rate in (high, low))), lacking,
        "pool misused: 1 where a higher load costs a request no more", unit="×", exact=True,
    )  # fmt: skip
    yield metric(
        "collections.ratio", "Collections for the same requests, pool misused against used well", "ratio", timed,
        _collection_ratio(*(_load(timed, pool, high) for pool in POOLS)), lacking,
        f"{high} requests/s; half a collection is added to each side, because the pool used well may need none",
        unit="×",
        exact=True,
    )  # fmt: skip
    missed = [_each(_load(timed, pool, high), "pool_misses") for pool in POOLS]
    yield metric(
        "pool.misuse", "Requests that find the misused pool empty, less those of the other", "ratio", timed,
        None if missed[0] is None or missed[1] is None else missed[0] - missed[1], lacking,
        "calls of the pool's New over requests", exact=True,
    )  # fmt: skip


def _collection_ratio(misused: Segment | None, well: Segment | None) -> float | None:
    if misused is None or well is None:
        return None
    return (misused.counts["memstats_collections"] + 0.5) / (well.counts["memstats_collections"] + 0.5)


def _seconds(segment: Segment) -> float:
    return max(segment.counts.get("elapsed_ns", 0), 1) / 1e9


def _pause_ms(segment: Segment | None) -> float | None:
    """Return the mean stop of the world for the collector, milliseconds; None where there was none."""
    stops = 0 if segment is None else segment.counts.get("runtime_pauses", 0)
    return None if segment is None or stops <= 0 else segment.counts["memstats_pause_ns"] / stops / 1e6


def _article(run: RunData) -> Iterable[Metric]:
    timed = run.phase("timed")
    segment = _load(timed, MISUSED, ARTICLE_RATE)
    lacking = f"{ARTICLE_RATE} requests/s were not offered: give rates that have it"
    paused = lacking if segment is None else "the world was not stopped for the collector"
    meaning = f"pool misused, {ARTICLE_RATE} requests/s offered"
    found: list[float | None] = [None, None]
    if segment is not None:
        seconds = _seconds(segment)
        found = [
            10 * segment.counts["memstats_collections"] / seconds,
            segment.counts["memstats_bytes"] / seconds / 1e6,
        ]
    yield metric(
        "article.collections", "Collections in 10 s", "rate", timed, found[0], lacking, meaning, unit="per 10 s"
    )
    yield metric(
        "article.pause", "Mean pause", "time", timed, _pause_ms(segment), paused, f"of each stop; {meaning}", unit="ms"
    )
    yield metric("article.allocation", "Allocation rate", "rate", timed, found[1], lacking, meaning, unit="MB/s")


def _latency(run: RunData) -> Iterable[Metric]:
    timed = run.phase("timed")
    for pool, name in ((MISUSED, "misused"), (WELL, "well")):
        found = [(rate, _percentile(_load(timed, pool, rate), "latency_ns", 0.99)) for rate in _rates(timed)]
        series = [
            Point(
                parameters={"rate": str(rate)},
                value=value,
                absent="" if value is not None else "no request was answered",
            )
            for rate, value in found
        ]
        yield metric(
            f"latency.{name}_p99", f"99th percentile of the latency, pool {pool}", "time", timed,
            found[-1][1] if found else None, "the section load did not run",
            "from the time at which a request was meant to be sent; highest load", unit="ns", series=series,
        )  # fmt: skip


def _histogram(segment: Segment | None, name: str) -> Histogram | None:
    return None if segment is None else segment.histograms.get(name)


def _percentile(segment: Segment | None, name: str, share: float) -> float | None:
    histogram = _histogram(segment, name)
    found = None if histogram is None else histograms.percentile(histogram, share)
    return None if found is None else float(found)


# ---- what must be equal ----


def _equal(run: RunData) -> Iterable[Metric]:
    traced, profiled = run.phase("traced"), run.phase("profiled")
    pairs = list(_oracle(traced))
    lacking = "nothing was traced"
    yield metric(
        "oracle.checked", "Counts held against the runtime's own", "count", traced,
        float(len(pairs)) if pairs else None, lacking,
        "allocations, collections and pauses of every segment", exact=True,
    )  # fmt: skip
    yield metric(
        "oracle.mismatches", "Counts that differ from the runtime's own", "count", traced,
        float(sum(ours != theirs for ours, theirs in pairs)) if pairs else None, lacking,
        "MemStats and the runtime's histogram of pauses, read inside the traced process", exact=True,
    )  # fmt: skip
    rows = _places(traced, profiled)
    sites = [row for row in rows if row.traced is not None]
    yield metric(
        "sites.mismatches", "Places whose allocations are not those known", "count", traced,
        float(sum(row.traced != row.known for row in sites)) if sites else None, lacking,
        "objects and bytes by the function that allocated, from the stacks of the probes",
    )  # fmt: skip
    entries = [row for row in rows if row.profiled is not None and row.kind != TINY]
    yield metric(
        "profile.mismatches", "Places whose objects Go's heap profile counts otherwise", "count", profiled,
        float(sum(row.profiled is not None and row.profiled.objects != row.known.objects for row in entries))
        if entries else None,
        "nothing was profiled", "tiny objects left out, which that profile counts in part", exact=True,
    )  # fmt: skip
    tiny = [row for row in rows if row.profiled is not None and row.kind == TINY]
    known = sum(row.known.objects for row in tiny)
    yield metric(
        "profile.tiny_share", "Tiny objects that Go's heap profile has", "share", profiled,
        sum(row.profiled.objects for row in tiny if row.profiled) / known if known else None, "nothing was profiled",
        "of those known; one that fits into a block that is there already is not sampled (mallocgc, "
        "runtime/malloc.go)", exact=True,
    )  # fmt: skip


def _oracle(traced: PhaseData) -> Iterable[tuple[int, int]]:
    """Return pairs of what the probes and what the runtime counted, of each segment that read it."""
    if traced.trace is None:
        return
    for segment in traced.segments():
        if "memstats_mallocs" not in segment.counts:
            continue
        counters = traced.counters(segment)
        yield counters.get("malloc", 0), segment.counts["memstats_mallocs"]
        yield counters.get("collections", 0), segment.counts["memstats_collections"]
        yield len(pauses.of_collector(traced, [segment])), segment.counts.get("runtime_pauses", 0)


class _Place:
    """One kind of the forced section: what is known, what the probes saw there, what Go's profile has."""

    def __init__(self, traced: PhaseData, profiled: PhaseData, segment: Segment) -> None:
        site, count = segment.parameters["site"], segment.expected["malloc"]
        self.kind, self.site = segment.parameters["kind"], site
        self.known = Allocated(count, segment.expected["malloc_bytes"])
        self.memstats = segment.counts.get("memstats_mallocs")
        theirs = profiled.segments("forced", kind=self.kind, objects=segment.parameters["objects"])
        self.traced = None if traced.trace is None else allocations.at(allocations.traced(traced, [segment]), site)
        self.profiled = None if not theirs else allocations.at(allocations.profiled(profiled, theirs), site)


def _places(traced: PhaseData, profiled: PhaseData) -> list[_Place]:
    segments = traced.segments("forced") or profiled.segments("forced")
    return [_Place(traced, profiled, segment) for segment in segments if "site" in segment.parameters]


# ---- tables and charts ----


def _requests(run: RunData) -> charts.Table | None:
    timed = run.phase("timed")
    rows: list[list[charts.Cell]] = []
    for rate in _rates(timed):
        for pool in POOLS:
            segment = _load(timed, pool, rate)
            if segment is None or not segment.counts.get("requests"):
                continue
            counts, requests = segment.counts, segment.counts["requests"]
            rows.append([
                f"{pool}, {rate}/s", requests, round(requests / _seconds(segment)),
                round(100 * counts["pool_misses"] / requests, 2),
                round(counts["memstats_bytes"] / requests), round(counts["memstats_mallocs"] / requests, 2),
                counts["memstats_collections"], _megabytes(counts),
            ])  # fmt: skip
    return table(
        "requests", "What the same requests cost, by pool",
        "Both pools answer the same requests on the same schedule. A collection comes after so many bytes, whatever "
        "the rate: the last column differs little.",
        "timed", "happened",
        {"Pool, offered": "", "Requests": "", "Per second": "", "Pool empty (%)": "", "Bytes each": "",
         "Objects each": "", "Collections": "", "MB per collection": ""},
        rows,
    )  # fmt: skip


def _megabytes(counts: dict[str, int]) -> charts.Cell:
    if not counts["memstats_collections"]:
        return charts.Absent(why="no collection")
    return round(counts["memstats_bytes"] / counts["memstats_collections"] / 1e6, 1)


def _article_table(run: RunData) -> charts.Table | None:
    timed = run.phase("timed")
    rows: list[list[charts.Cell]] = [
        ["Article, base load", *ARTICLE_BASE],
        [f"Article, {ARTICLE_RATE} requests/s", *ARTICLE_LOADED],
    ]
    for pool in POOLS:
        segment = _load(timed, pool, ARTICLE_RATE)
        if segment is None:
            continue
        counts, seconds, pause = segment.counts, _seconds(segment), _pause_ms(segment)
        rows.append([
            f"Here, {ARTICLE_RATE} requests/s offered, {pool}", round(10 * counts["memstats_collections"] / seconds, 1),
            charts.Absent(why="no pause") if pause is None else pause,
            round(counts["memstats_bytes"] / seconds / 1e6, 2), _megabytes(counts),
        ])  # fmt: skip
    if len(rows) == 2:
        return None
    columns = [
        charts.Column(title="Whose"), charts.Column(title="Collections in 10 s", timing=True),
        charts.Column(title="Mean pause", unit="ms", timing=True),
        charts.Column(title="Allocated, MB/s", timing=True), charts.Column(title="MB per collection"),
    ]  # fmt: skip
    return charts.Table(
        id="article",
        title="The article's table beside this machine's",
        caption="The article compares base load with 5 000 requests/s of the same service; a pause here is one stop of "
        "the world. Rates here are of what the machine answered.",
        phase="timed",
        timing=True,
        columns=columns,
        rows=rows,
    )


SHARES = {"Median": 0.5, "99%": 0.99, "99.9%": 0.999}


def _latency_table(run: RunData) -> charts.Table | None:
    timed = run.phase("timed")
    rows: list[list[charts.Cell]] = [
        [f"{pool}, {rate}/s", *(_percentile(segment, "latency_ns", share) for share in SHARES.values()),
         _percentile(segment, "service_ns", 0.99), _percentile(segment, "late_ns", 0.99)]
        for rate in _rates(timed)
        for pool in POOLS
        for segment in [_load(timed, pool, rate)]
        if segment is not None
    ]  # fmt: skip
    return table(
        "latency", "How long a request took",
        "From the time at which it was meant to be sent to its answer. Beside it what a closed loop would have called "
        "latency (99% of the time from its beginning), and how late it began (99%). From histograms that know a value "
        "to 3%.",
        "timed", "time",
        {"Pool, offered": "", **dict.fromkeys(SHARES, "ns"), "Closed loop, 99%": "ns", "Late, 99%": "ns"}, rows,
    )  # fmt: skip


def _latencies(run: RunData) -> charts.Ecdf | None:
    timed = run.phase("timed")
    rates = _rates(timed)
    groups = {
        f"{pool}, {rate}/s": _histogram(_load(timed, pool, rate), "latency_ns")
        for rate in dict.fromkeys([*rates[:1], *rates[-1:]])
        for pool in POOLS
    }
    return histograms.distribution(
        "timed", groups, what="requests", name="latency-distribution",
        title="Latency from the intended time of sending",
        caption="Share of requests that were answered within the time on the axis (logarithmic); lowest and highest "
        "load.",
        x_title="latency",
    )  # fmt: skip


def _sites(run: RunData) -> charts.Table | None:
    """Who allocates how much for each request: the probes beside Go's heap profile."""
    traced, profiled = run.phase("traced"), run.phase("profiled")
    rows: list[list[charts.Cell]] = []
    for pool in POOLS:
        ours, theirs = traced.segments("load", pool=pool), profiled.segments("load", pool=pool)
        requests, others = (sum(s.counts.get("requests", 0) for s in side) for side in (ours, theirs))
        if not requests:
            continue
        known = dict(allocations.by_function(allocations.profiled(profiled, theirs)))
        for function, amount in allocations.by_function(allocations.traced(traced, ours))[:6]:
            other = known.get(function, allocations.NOTHING)
            rows.append([
                pool, neutral(function), round(amount.objects / requests, 3), round(amount.bytes / requests, 1),
                round(other.objects / others, 3) if others else None, round(other.bytes / others,
                1) if others else None,
            ])  # fmt: skip
    return table(
        "sites", "Who allocates, for each request",
        "By the function of the program that allocated itself. The probes have the bytes that were asked for, Go's "
        "heap profile those of the size class, and not all of the tiny objects.",
        "traced", "stacks",
        {"Pool": "", "Function": "", "Objects": "", "Bytes asked for": "", "Objects, Go's profile": "",
        "Bytes of the class, Go's": ""},
        rows,
    )  # fmt: skip


def _forced_table(run: RunData) -> charts.Table | None:
    rows: list[list[charts.Cell]] = [
        [
            place.kind, place.known.objects, place.traced.objects if place.traced else None, place.memstats,
            place.profiled.objects if place.profiled else None, place.known.bytes,
            place.traced.bytes if place.traced else None, place.profiled.bytes if place.profiled else None,
        ]
        for place in _places(run.phase("traced"), run.phase("profiled"))
    ]  # fmt: skip
    return table(
        "places", "Known allocations at known places",
        "What the probes counted at the place itself, what MemStats counted in the same process, and Go's heap "
        "profile with every "
        "allocation sampled, from a run of its own.",
        "traced", "known",
        {"Kind": "", "Objects": "", "Probes": "", "MemStats": "", "Heap profile": "", "Bytes": "", "Bytes, probes": "",
         "Bytes, heap profile": ""},
        rows,
    )  # fmt: skip


def _pauses(run: RunData) -> Iterable[charts.AnyChart | None]:
    traced = run.phase("traced")
    segments = traced.segments("load")
    marks = {f"{segment.parameters['pool']}, {segment.parameters['rate']}/s": segment.start_ns for segment in segments}
    highest = _rates(traced)[-1:]
    groups = {pool: segment for rate in highest for pool in POOLS for segment in [_load(traced, pool, rate)] if segment}
    yield pauses.heat_map(traced, segments, marks)
    yield pauses.distribution(traced, {pool: traced.segments("load", pool=pool) for pool in POOLS})
    yield pauses.collections(traced, groups, f"Collections over time, {', '.join(map(str, highest))} requests/s")


def _stacks(phase: PhaseData, pool: str, *, probes: bool) -> dict[Frames, Allocated]:
    segments = phase.segments("load", pool=pool)
    return allocations.traced(phase, segments) if probes else allocations.profiled(phase, segments)


def _flames(run: RunData) -> Iterable[charts.Flame | charts.FlameDifference | None]:
    traced, profiled = run.phase("traced"), run.phase("profiled")
    ours = {pool: allocations.weights(_stacks(traced, pool, probes=True)) for pool in POOLS}
    theirs = allocations.weights(_stacks(profiled, MISUSED, probes=False))
    unread = ours[MISUSED].pop((), 0.0)
    yield flame.flame(
        ours[MISUSED], name="flame-probes", title="Allocations with the pool misused, from BPF stacks",
        caption="Objects by stack, all loads; callers above what they call. Every allocation is counted.",
        phase="traced",
        unit="objects", without=unread,
    )  # fmt: skip
    yield flame.flame(
        theirs, name="flame-profile", title="The same from Go's own heap profile",
        caption="Every allocation sampled, in a run of its own. A tiny object that fits into a block that is there is "
        "not in it.",
        phase="profiled", unit="objects",
    )  # fmt: skip
    if ours[MISUSED] and theirs:
        yield flame.difference(
            ours[MISUSED], theirs, names=("BPF stacks", "Go's heap profile"), units=("objects", "objects"),
            name="flame-difference",
            title="Where BPF stacks and Go's profile differ",
            caption="Shares of the objects, function by function, pool misused.",
            phase="traced",
        )  # fmt: skip
    if ours[MISUSED] and ours[WELL]:
        yield flame.difference(
            ours[MISUSED], ours[WELL], names=("pool misused", "pool used well"), units=("objects", "objects"),
            name="flame-pools",
            title="What the missing Put changes",
            caption="Shares of the objects, function by function, both from BPF stacks.",
            phase="traced",
        )  # fmt: skip


def _notes(run: RunData) -> list[str]:
    """Return what the figures can and cannot say."""
    notes = [
        "How much a page weighs is this lab's choice, so the ratio of bytes is not the article's to compare with; "
        "that there is one, and "
        "that collections follow it, is.",
        "The article's two rows have about one collection for each 12 MB, both: its figures show more load, not more "
        "cost for each request.",
        "Latency counts from the time at which a request was meant to be sent, so that a service which falls behind "
        "cannot hide it.",
    ]
    left_out = sum(phase.workload.heap_left_out for phase in run.phases.values() if phase.workload is not None)
    if left_out:
        notes.append(f"{left_out} stacks of Go's heap profile were left out, the lightest; the document holds 4096.")
    return notes
