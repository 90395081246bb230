"""What a run of the mutex lab means: the metrics that ``lab.toml`` names, and the charts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from go_labs.evidence import Segment
from reports import charts, waits
from reports.analysis import Analysis, PhaseData, RunData
from reports.looks import failures, heat_map, looks, within
from reports.schema import Metric, Point
from reports.shorthand import metric, ratio, table
from reports.statistics import jain, median, share

PARKS = ("park_mutex", "park_rw_reader", "park_rw_writer")
LOCKS = {"mutex": "Mutex", "rwmutex": "RWMutex"}

TOOLS = {"mutex_lock": "kprobe:mutex_lock", "futex": "futex calls"}
"""The article's own tools, by the name of their scripts."""

LOCK_BYTES = {"mutex": 8, "rwmutex": 24}
"""Sizes of sync.Mutex and sync.RWMutex, Go 1.21 to 1.27."""

MOST_WAITING = 0.15
"""Share of time that CPUs may wait for the host's while the collector is judged. In 27 emulated runs on an idle host
it was 0.09 to 0.14 and the ratio 0.93 to 1.31; in 13 on a busy one 0.18 to 0.51 and 1.4 to 5.5."""

ARTICLE_THREADS = 16
"""The article's table is of 16 threads; with fewer CPUs goroutines take turns instead of running side by side."""

ARTICLE = {("mutex", "100"): 128, ("rwmutex", "100"): 22, ("mutex", "70"): 97, ("rwmutex", "70"): 141}
"""ns/op of the article's table, by lock and reader share."""


def analyse(run: RunData) -> Analysis:
    """Return the lab's metrics and charts; what could not be measured is absent with its reason."""
    metrics = [*_order(run), *_costs(run), *_article(run), *_futex(run), *_kernel(run), *_collector(run)]
    drawn = [
        _funnel(run), *_ns_per_op(run), _article_table(run), _collector_table(run), _kernel_table(run), _profile(run),
        *_waits(run), *_futex_heat(run), _order_table(run), _fairness(run), _starvation(run),
    ]  # fmt: skip
    return Analysis(metrics=metrics, charts=[chart for chart in drawn if chart is not None], notes=_notes(run))


# ---- metrics ----

ORDER = (
    ("overlap.rwmutex", "Readers inside an RWMutex at once", "rwmutex", "overlap", "inside_max",
     "four readers stay inside until all are there"),
    ("overlap.mutex", "Goroutines inside a Mutex at once", "mutex", "overlap", "inside_max",
     "the first of four stays until the others are seen parked"),
    ("order.mutex_overtakes_max", "Overtakes of a waiter of a Mutex, most in a row", "mutex", "overtaking",
     "overtakes_max", "times that one goroutine got the lock again ahead of a waiter of more than 1 ms"),
    ("order.reader_overtakes", "Readers that overtook a waiting writer", "rwmutex", "readers-after-writer", "overtakes",
     "readers that arrived after a writer was seen parked and got in before it"),
    ("order.batch_overtakes", "Readers that overtook a second waiting writer", "rwmutex", "readers-after-second-writer",
     "overtakes_max", "most in a round, of four that arrived after it"),
)  # fmt: skip
"""Metrics that the workload decides by order and counts alone: name, title, lock, scene, count, meaning."""


def _order(run: RunData) -> Iterable[Metric]:
    timed = run.phase("timed")
    for name, title, lock, scene, key, meaning in ORDER:
        counts = [segment.counts[key] for segment in timed.segments("order", lock=lock, scene=scene)]
        found = float(max(counts)) if counts else None
        yield metric(name, title, "count", timed, found, "the section order did not run", meaning, exact=True)


def _costs(run: RunData) -> Iterable[Metric]:
    timed = run.phase("timed")
    write, rw_write, rw_read = (
        timed.samples("ns_per_op", "cost", lock=lock, access=access)
        for lock, access in (("mutex", "write"), ("rwmutex", "write"), ("rwmutex", "read"))
    )
    for name, title, other in (
        ("cost.write_ratio", "Uncontended write, RWMutex against Mutex", rw_write),
        ("cost.read_ratio", "Uncontended read of an RWMutex against a Mutex", rw_read),
    ):
        yield metric(
            name, title, "ratio", timed, ratio(other, write), "the section cost did not run",
            "one goroutine, neighbours in time as pairs", unit="×", timing=True,
        )  # fmt: skip
    for lock, title in LOCKS.items():
        segments = timed.segments("free", lock=lock)
        chosen = _contended(segments)
        values = chosen.samples.get("ns_per_op", []) if chosen else []
        yield metric(
            f"contended.{lock}_ns", f"Time for each acquisition, {title}", "time", timed,
            median(values) if values else None, "free contention did not run",
            f"wall time over all acquisitions; {_words(chosen)}", unit="ns/op", series=[_point(s) for s in segments],
        )  # fmt: skip


def _shortest(phase: PhaseData) -> str:
    """Return the shortest critical section that was measured."""
    return str(min((int(segment.parameters["length"]) for segment in phase.segments("free")), default=0))


def _contended(segments: Sequence[Segment]) -> Segment | None:
    """Return the configuration that stands for the lab: what is nearest to 4 goroutines, half of them readers."""

    def distance(segment: Segment) -> tuple[int, int]:
        return abs(int(segment.parameters["goroutines"]) - 4), abs(int(segment.parameters["readers"]) - 50)

    return min(segments, key=distance, default=None)


def _words(segment: Segment | None) -> str:
    if segment is None:
        return ""
    p = segment.parameters
    return f"{p['goroutines']} goroutines, {p['readers']}% readers, length {p['length']}"


def _point(segment: Segment) -> Point:
    values = segment.samples.get("ns_per_op", [])
    if not values:
        return Point(parameters=segment.parameters, value=None, absent="no repetition acquired the lock")
    found = median(values)
    return Point(parameters=segment.parameters, value=found.value, interval=found.interval, n=found.n)


def _samples(phase: PhaseData, lock: str, goroutines: str, readers: str) -> list[float]:
    """Return ns/op of one configuration with the shortest critical section, in the order of its repetitions."""
    length = _shortest(phase)
    return phase.samples("ns_per_op", "free", lock=lock, goroutines=goroutines, readers=readers, length=length)


def _article(run: RunData) -> Iterable[Metric]:
    timed, cpus = run.phase("timed"), run.provenance.cpus
    few = run.clock == "kvm" and cpus < ARTICLE_THREADS
    for name, title, readers, top, bottom in (
        ("article.read_gain", "Mutex against RWMutex, reading only", "100", "mutex", "rwmutex"),
        ("article.mixed_loss", "RWMutex against Mutex, 30% writes", "70", "rwmutex", "mutex"),
    ):
        found = (
            None if few else ratio(*(_samples(timed, lock, str(ARTICLE_THREADS), readers) for lock in (top, bottom)))
        )
        lacking = f"no repetition with 16 goroutines and {readers}% readers"
        if few:
            lacking = f"16 threads need 16 CPUs, this machine has {cpus}"
        meaning = f"16 goroutines on {cpus} CPUs, pairs of repetitions"
        yield metric(name, title, "ratio", timed, found, lacking, meaning, unit="×", timing=True)


def _parks(phase: PhaseData, section: str | None = None) -> int:
    return sum(phase.count(name, section) or 0 for name in PARKS)


def _futex(run: RunData) -> Iterable[Metric]:
    traced = run.phase("traced")
    parks, on_lock = _parks(traced), traced.count("futex_on_lock") or 0
    lacking = "no goroutine was seen to park on a lock"
    yield metric(
        "futex.lock_share", "Waits for a lock that a futex call on that lock shows", "share", traced,
        share(min(on_lock, parks), parks) if parks else None, lacking,
        "futex calls on a word of a lock that has a waiter, over parks on locks", exact=True,
    )  # fmt: skip
    free, calls = _parks(traced, "free"), traced.count("futex_wait", "free") or 0
    yield metric(
        "futex.waits_per_park", "Futex waits for each goroutine that parked", "ratio", traced,
        calls / free if free else None, lacking,
        "free contention, futex waits of the whole process", unit="×", exact=True,
    )  # fmt: skip


def _collector(run: RunData) -> Iterable[Metric]:
    """Pairs of segments that differ in whether the collector may run (claim 2.4-e)."""
    profiled = run.phase("profiled")
    waited = profiled.host_wait_share
    yield metric(
        "gc.host_wait_share", "Share of time that the machine waited for a CPU of the host, beside the collector",
        "share", profiled, waited, "the machine's process was not looked at",
        f"by the host's clock; above {MOST_WAITING:.0%} the ratio of waits is the host's doing",
    )  # fmt: skip
    pairs, lacking = ratio(*_pairs(profiled)), "no pair of segments was profiled"
    if pairs is not None and waited is not None and waited > MOST_WAITING and run.clock != "virtual":
        lacking = (f"it came out as {pairs.value:.2f}×, and the machine waited {waited:.0%} of its time for a CPU of "
                   "the host: whoever holds a lock and has no CPU is waited for")  # fmt: skip
        pairs = None
    yield metric(
        "gc.wait_ratio", "Waits for a lock with the collector on, against off", "ratio", profiled, pairs, lacking,
        "contentions per 1 000 acquisitions, each counted by Go's mutex profile; nothing was attached, because "
        "probes on the slow path keep a contended lock contended; half a contention is added to each side", unit="×",
        exact=True,
    )  # fmt: skip
    for name, title, collector, choose in (
        ("gc.collections_min", "Collections in each half that allows them, at least", "on", min),
        ("gc.collections_off", "Collections in each half without, at most", "off", max),
    ):
        collections = [segment.counts["collections"] for segment in profiled.segments("gc", collector=collector)]
        found = float(choose(collections)) if collections else None
        meaning = "collections that ended during the segment"
        yield metric(name, title, "count", profiled, found, "the section gc did not run", meaning, exact=True)


def _pairs(phase: PhaseData) -> tuple[list[float], list[float]]:
    """Return contentions per 1 000 acquisitions with the collector on and off, pair by pair.

    Half a contention is added to each count, so that a pair with none on one side keeps its weight (Haldane 1956).
    """
    found: dict[str, dict[str, float]] = {}
    for segment in phase.segments("gc"):
        attempts = segment.counts.get("attempts", 0)
        if attempts:
            rate = 1000 * (segment.counts.get("profile_contentions", 0) + 0.5) / attempts
            found.setdefault(segment.parameters["pair"], {})[segment.parameters["collector"]] = rate
    whole = [pair for pair in found.values() if len(pair) == 2]
    return [pair["on"] for pair in whole], [pair["off"] for pair in whole]


def _locks(phase: PhaseData) -> list[tuple[int, int]]:
    """Return address and size of each lock that the segments of ``phase`` used."""
    return [(start, LOCK_BYTES[name]) for segment in phase.segments() for name, start in segment.addresses.items()]


def _kernel(run: RunData) -> Iterable[Metric]:
    """What the article's own tools saw while goroutines waited on known locks (claims 2.4-c, 2.4-d)."""
    kernel = run.phase("kernel")
    waited = [segment.counts["waiters"] for segment in kernel.segments("kernel", contention="forced")]
    yield metric(
        "kernel.waits", "Goroutines that waited on a known lock", "count", kernel,
        float(sum(waited)) if waited else None, "the section kernel did not run",
        "seen parked by the workload while the tools were attached", exact=True,
    )  # fmt: skip
    for what, title in TOOLS.items():
        seen = list(looks(kernel, what).values())
        errors = "; ".join(f"{name}: {words}" for name, words in failures(kernel, what).items())
        lacking = f"no tool {what} left a result" + (f" ({errors})" if errors else "")
        for name, words, values, meaning in (
            ("control", "in the whole machine", [look.total for look in seen], "shows that the tool counts"),
            ("hits", "in the workload", [look.hits for look in seen], "whatever they were about"),
            ("on_go_locks", "on Go locks", [within(look, _locks(kernel)) for look in seen],
             "the address lies in a lock that goroutines waited for"),
            ("lost", "without an address", [look.addresses_lost for look in seen], "the tool could not keep it"),
        ):  # fmt: skip
            found = float(max(values)) if values else None
            full = f"kernel.{what}_{name}"
            yield metric(
                full, f"{title} {words}", "count", kernel, found, lacking, f"most of any tool; {meaning}", exact=True
            )


# ---- charts ----


def _funnel(run: RunData) -> charts.Funnel | None:
    traced = run.phase("traced")
    segments = traced.segments("free")
    if traced.trace is None or not segments:
        return None

    def traced_sum(*names: str) -> int:
        return sum(traced.counters(segment).get(name, 0) for segment in segments for name in names)

    return charts.Funnel(
        id="funnel",
        title="From an attempt to the kernel",
        caption="Free contention, both locks and all reader shares together. Each step is what is left of the last.",
        phase="traced",
        steps=[
            charts.Step(label="attempts", count=sum(segment.counts.get("attempts", 0) for segment in segments),
                        note="the workload's own count"),
            charts.Step(label="slow path", count=traced_sum("slow", "sem_rw_reader", "sem_rw_writer"),
                        note="lockSlow, and RWMutex waiting for readers or a writer"),
            charts.Step(label="semaphore", count=traced_sum("sem"), note="semacquire1 for a lock"),
            charts.Step(label="parked", count=traced_sum(*PARKS), note="gopark with a lock's wait reason"),
            charts.Step(label="futex wait", count=traced_sum("futex_wait"), note="of any thread, for any reason"),
            charts.Step(label="futex on the lock", count=traced_sum("futex_on_lock"),
                        note="on a word of a contended lock"),
        ],
    )  # fmt: skip


def _ns_per_op(run: RunData) -> Iterable[charts.Lines]:
    """One chart per number of goroutines: ns/op over the reader share."""
    timed = run.phase("timed")
    numbers = sorted({int(segment.parameters["goroutines"]) for segment in timed.segments("free")})
    lengths = sorted({int(segment.parameters["length"]) for segment in timed.segments("free")})
    for goroutines in numbers:
        lines = []
        for length in lengths:
            for lock, title in LOCKS.items():
                name = title if len(lengths) == 1 else f"{title}, length {length}"
                segments = timed.segments("free", lock=lock, goroutines=str(goroutines), length=str(length))
                lines.append(charts.Line(name=name, points=_line(segments)))
        yield charts.Lines(
            id=f"ns-per-op-{goroutines}",
            title=f"Time for each acquisition, {goroutines} goroutine{'s' if goroutines > 1 else ''}",
            caption="Wall time over all acquisitions, median of the repetitions with its 95% interval.",
            phase="timed",
            timing=True,
            x_title="Reader share (%)",
            y_title="Time for each acquisition",
            y_unit="ns",
            lines=[line for line in lines if line.points],
        )


def _line(segments: Sequence[Segment]) -> list[charts.LinePoint]:
    points = []
    for segment in sorted(segments, key=lambda s: int(s.parameters["readers"])):
        point = _point(segment)
        if point.value is not None:
            low, high = (point.interval.low, point.interval.high) if point.interval else (None, None)
            points.append(charts.LinePoint(x=float(segment.parameters["readers"]), y=point.value, low=low, high=high))
    return points


def _article_table(run: RunData) -> charts.Table | None:
    timed = run.phase("timed")
    rows: list[list[charts.Cell]] = []
    for (lock, readers), says in ARTICLE.items():
        found = _samples(timed, lock, str(ARTICLE_THREADS), readers)
        load = "reading only" if readers == "100" else "30% writes"
        rows.append([LOCKS[lock], load, str(says), median(found).value if found else None])
    return table(
        "article", "The article's table beside this machine's",
        f"16 goroutines; the article has 16 threads, this machine {run.provenance.cpus} CPUs.", "timed", "happened",
        {"Lock": "", "Load": "", "Article (ns/op)": "", "Here": "ns/op"}, rows,
    )  # fmt: skip


SCENES = {
    "overlap": "inside at once",
    "overtaking": "a greedy goroutine against one waiter",
    "readers-after-writer": "readers after a waiting writer",
    "readers-after-second-writer": "readers after a second waiting writer",
}


def _order_table(run: RunData) -> charts.Table | None:
    rows: list[list[charts.Cell]] = [
        [
            SCENES.get(segment.parameters["scene"], segment.parameters["scene"]),
            LOCKS.get(segment.parameters["lock"], segment.parameters["lock"]),
            segment.counts.get("rounds"),
            segment.counts.get("inside_max"),
            None if "inside_max" in segment.counts else segment.counts.get("overtakes"),
            None if "inside_max" in segment.counts else segment.counts.get("overtakes_max"),
        ]
        for segment in run.phase("timed").segments("order")
    ]
    return table(
        "order", "Who gets in before whom",
        "Decided by the order of acquisitions, not by time: later arrivals wait until earlier ones are seen parked.",
        "timed", "fairness",
        {"Scene": "", "Lock": "", "Rounds": "", "Inside at once": "", "Overtakes": "", "Most in a round": ""}, rows,
    )  # fmt: skip


def _waits(run: RunData) -> Iterable[charts.AnyChart | None]:
    """Charts of the recorded waits: over time, their distribution, the stacks."""
    traced = run.phase("traced")
    events = traced.events_of(None)
    events = events[events["segment"] > 0]
    firsts: dict[str, int] = {}
    for segment in traced.segments():
        firsts.setdefault(segment.section, segment.start_ns)
    yield waits.heat_map(traced, events, marks=firsts)
    groups = {f"{title}, free": traced.segments("free", lock=lock) for lock, title in LOCKS.items()}
    for segment in traced.segments("starve"):
        p = segment.parameters
        groups[f"one {p['waiter']} among {p['others']}, {LOCKS.get(p['lock'], p['lock'])}"] = [segment]
    yield waits.distribution(traced, {name: traced.events_of(segments) for name, segments in groups.items()})
    yield waits.stacks(traced, events, name="waiters")


def _longest(traced: PhaseData, segments: list[Segment]) -> int | None:
    """Return the longest wait that was recorded in ``segments``, nanoseconds."""
    durations = traced.events_of(segments)["duration_ns"]
    return int(durations.max()) if len(durations) else None


def _fairness(run: RunData) -> charts.Table | None:
    """Shares of the goroutines under free contention, shortest critical section."""
    timed, traced = run.phase("timed"), run.phase("traced")
    rows: list[list[charts.Cell]] = []
    for segment in timed.segments("free", length=_shortest(timed)):
        shares = segment.samples.get("acquired", [])
        if len(shares) < 2 or not any(shares):
            continue
        p = segment.parameters
        rows.append([
            LOCKS.get(p["lock"], p["lock"]), int(p["goroutines"]), int(p["readers"]), round(jain(shares), 3),
            round(min(shares) / max(shares), 3), _longest(traced, traced.segments("free", **segment.parameters)),
        ])  # fmt: skip
    return table(
        "fairness", "Shares of the goroutines",
        "Jain's index over the acquisitions of each goroutine (1: all equal), the smallest share over the largest, and "
        "the longest wait of any goroutine in the traced phase.",
        "timed", "fairness",
        {"Lock": "", "Goroutines": "", "Readers (%)": "", "Jain's index": "", "Least / most": "", "Longest wait": "ns"},
        rows,
    )  # fmt: skip


def _starvation(run: RunData) -> charts.Table | None:
    rows: list[list[charts.Cell]] = []
    for segment in run.phase("timed").segments("starve"):
        p, counts, waited = segment.parameters, segment.counts, segment.samples.get("wait_ns", [])
        rows.append([
            f"one {p['waiter']} among {int(p['goroutines']) - 1} {p['others']}", LOCKS.get(p["lock"], p["lock"]),
            counts.get("acquired"), counts.get("others_acquired"), median(waited).value if waited else None,
            counts.get("longest_wait_ns"),
        ])  # fmt: skip
    return table(
        "starvation", "One against others that lock again at once",
        "How often the one got the lock while the others did, and how long it waited for it.", "timed", "fairness",
        {"Scene": "", "Lock": "", "The one": "", "The others": "", "Median wait": "ns", "Longest wait": "ns"}, rows,
    )  # fmt: skip


def _collector_table(run: RunData) -> charts.Table | None:
    rows: list[list[charts.Cell]] = []
    for segment in run.phase("profiled").segments("gc"):
        attempts = segment.counts.get("attempts", 0)
        waits = segment.counts.get("profile_contentions", 0)
        speed = segment.samples.get("ns_per_op", [])
        rows.append([
            int(segment.parameters["pair"]) + 1, segment.parameters["collector"], segment.counts.get("collections"),
            attempts, waits, round(1000 * waits / attempts, 3) if attempts else None,
            median(speed).value if speed else None,
        ])  # fmt: skip
    return table(
        "collector", "The collector and contention, in pairs",
        "Four goroutines allocate while they hold a Mutex; the halves of a pair run in turn, in random order.",
        "profiled", "happened",
        {"Pair": "", "Collector": "", "Collections": "", "Acquisitions": "", "Contentions": "", "Per 1 000": "",
         "Each": "ns/op"},
        rows,
    )  # fmt: skip


def _profile(run: RunData) -> charts.Table | None:
    """What Go's own mutex profile says of the forced waits."""
    rows: list[list[charts.Cell]] = [
        [
            f"{segment.counts.get('waiters')} {segment.parameters['waiters']}",
            LOCKS.get(segment.parameters["lock"], segment.parameters["lock"]),
            segment.counts.get("waiters"),
            segment.counts.get("profile_contentions"),
            segment.counts.get("profile_delay_ns"),
            round(1e9 * sum(segment.samples.get("runtime_wait_s", []))),
        ]
        for segment in run.phase("profiled").segments("forced")
    ]
    return table(
        "profile", "Go's own instruments on the forced waits",
        "The mutex profile at fraction 1, and /sync/mutex/wait/total:seconds, which is sampled: an estimate "
        "that misses short waits.",
        "profiled", "known",
        {"Waiters": "", "Lock": "", "Known": "", "Profile": "", "Waited, profile": "ns", "Waited, sampled": "ns"},
        rows,
    )  # fmt: skip


def _kernel_table(run: RunData) -> charts.Table | None:
    kernel = run.phase("kernel")
    waited = sum(segment.counts.get("waiters", 0) for segment in kernel.segments("kernel"))
    rows: list[list[charts.Cell]] = [
        [name, look.total, look.hits, within(look, _locks(kernel)), None]
        for what in TOOLS
        for name, look in looks(kernel, what).items()
    ]
    rows += [[name, None, None, None, words] for what in TOOLS for name, words in failures(kernel, what).items()]
    return table(
        "kernel-side", "What the kernel side sees",
        f"The article's tools while {waited} goroutines waited on known locks, and while others contended freely.",
        "kernel", "happened", {"Tool": "", "In the machine": "", "In the workload": "", "On Go locks": "", "Error": ""},
        rows,
    )  # fmt: skip


def _futex_heat(run: RunData) -> Iterable[charts.HeatMap | None]:
    """The article's heat map, from futex calls: of threads that found nothing to run."""
    kernel = run.phase("kernel")
    for tool, look in looks(kernel, "futex").items():
        yield heat_map(
            kernel, tool, look, f"The article's heat map, by {tool}",
            "Futex waits of the workload's threads. Set it beside the waits of the goroutines above.",
        )  # fmt: skip


def _notes(run: RunData) -> list[str]:
    """Return what the figures can and cannot say."""
    notes = [
        "Free contention has no true number: two equal runs differ. Only forced sections must be equal.",
        "Waits in charts were recorded under probes; each hit costs what the calibration says.",
    ]
    cpus = run.provenance.cpus
    if cpus < ARTICLE_THREADS:
        notes.append(
            f"The article's table is of 16 threads; this machine has {cpus} CPUs, so its goroutines took turns."
        )
    left_out = sum(s.counts.get("samples_left_out", 0) for phase in run.phases.values() for s in phase.segments())
    if left_out:
        notes.append(f"{left_out} samples of the workload were left out, beyond 4096 in a list; counts include them.")
    return notes
