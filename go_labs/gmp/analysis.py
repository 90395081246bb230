"""What a run of the gmp lab means: the metrics that ``lab.toml`` names, and the charts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bpf.trace import EventKind, Ran
from go_labs.evidence import Segment
from reports import charts, oracle, schedule, switches, timeline, waits
from reports.analysis import Analysis, Events, PhaseData, RunData
from reports.schema import Metric
from reports.shorthand import metric, table

ALONE, BURST, CONTROL = "alone: ", "burst: ", "thread: "
"""How scenes of the kernel section begin: one waits at a time, many park at once, a thread blocks."""

CONTROLS = {"thread: read": 0, "thread: nanosleep": 35}
"""System call that the thread of each control blocks in."""


NONE = "—"
"""In a cell: there is nothing of the kind, which is another thing than not to have measured it."""


def analyse(run: RunData) -> Analysis:
    """Return the lab's metrics and charts; what could not be measured is absent with its reason."""
    full = schedule.full(run.phase("traced"))
    drawn = [
        _funnel(run), _scene_table(run), _queue_table(run), _kernel_table(run), _idle_table(run), _order_table(run),
        _oracle_table(run), _reason_table(run), *_timelines(run, full), _latency(run),
    ]  # fmt: skip
    return Analysis(
        metrics=[
            *_switch(run),
            *_moves(run),
            *_queues(run),
            *_preempted(run),
            *_oracle(run),
            *_kernel(run),
            *_idle(run),
        ],
        charts=[chart for chart in drawn if chart is not None],
        timelines=[full] if full else [],
        notes=_notes(run),
    )


# ---- metrics ----


def _scene(phase: PhaseData, section: str, name: str) -> Segment | None:
    return next(iter(phase.segments(section, scene=name)), None)


def _parks(counters: dict[str, int]) -> int:
    """Return goroutines that parked, for whatever reason."""
    return sum(count for name, count in counters.items() if name.startswith("park:"))


def _traced(phase: PhaseData, section: str, name: str) -> dict[str, int] | None:
    """Return the traced counters of a scene, or None where it was not traced."""
    segment = _scene(phase, section, name)
    return None if segment is None or phase.trace is None else phase.counters(segment)


def _workload(phase: PhaseData, section: str, name: str, count: str) -> float | None:
    """Return what the workload counted in a scene, or None where it did not run."""
    segment = _scene(phase, section, name)
    return None if segment is None or count not in segment.counts else float(segment.counts[count])


FREELY, LOCKED = "one P", "one P, locked to threads"


def _switch(run: RunData) -> Iterable[Metric]:
    timed, traced = run.phase("timed"), run.phase("traced")
    for name, title, scene in (
        ("switch.goroutine_ns", "Time for a switch between goroutines", FREELY),
        ("switch.locked_ns", "Time for a switch between goroutines that are locked to threads", LOCKED),
    ):
        rounds = timed.samples("ns_per_round", "switch", scene=scene)
        yield metric(
            name, title, "time", timed, rounds[0] / 2 if rounds else None, "the section switch did not run",
            "wall time of ping-pong over an unbuffered channel, half a round", unit="ns",
        )  # fmt: skip
    for name, title, scene, meaning in (
        ("switch.per_park", "Thread switches for each park", FREELY, "two goroutines, one P"),
        ("switch.locked_per_park", "Thread switches for each park, locked to threads", LOCKED, "the control"),
    ):
        counters = _traced(traced, "switch", scene)
        parks = _parks(counters) if counters else 0
        share = counters.get("sched_switch", 0) / parks if counters and parks else None
        yield metric(name, title, "ratio", traced, share, "the section switch was not traced",
                     f"sched_switch over gopark; {meaning}", exact=True)  # fmt: skip


def _moves(run: RunData) -> Iterable[Metric]:
    timed, traced = run.phase("timed"), run.phase("traced")
    moved, rounds = (_workload(timed, "order", "P moves", count) for count in ("moved", "rounds"))
    yield metric(
        "p.moves_per_round", "Rounds in which the only P ran on another thread", "ratio", timed,
        moved / rounds if moved is not None and rounds else None, "the section order did not run",
        "one P: somebody ran on a thread while another was in read(2); thread ids by gettid", exact=True,
    )  # fmt: skip
    segment = _scene(traced, "order", "P moves")
    runs = traced.events_of([segment], EventKind.RUN) if segment else traced.events[:0]
    seen = segment is not None and traced.trace is not None
    yield metric(
        "p.threads", "Threads on which the only P ran goroutines", "count", traced,
        float(np.unique(runs["tid"][runs["value"] == 0]).size) if seen else None,
        "the section order was not traced", "distinct threads of the runs on P 0",
    )  # fmt: skip
    for name, title, counter, meaning in (
        ("p.moved", "Times that the P was on another thread than before", "p_moved", "execute on a P, by thread"),
        ("p.handoffs", "Times that the P was handed off", "handoff_p", "handoffp"),
    ):
        counters = _traced(traced, "order", "P moves")
        found = float(counters.get(counter, 0)) if counters is not None else None
        yield metric(name, title, "count", traced, found, "the section order was not traced", meaning, exact=True)


def _local(counters: dict[str, int]) -> int:
    """Return executes that can only have come from a local queue.

    Less what came from runnext, was stolen, or had been put on the global queue; at GOMAXPROCS=1 and with no file to
    wait for there is nothing else (``findRunnable`` of runtime/proc.go).
    """
    elsewhere = ("runnext", "stolen", "yield", "preempt")
    return counters.get("execute", 0) - sum(counters.get(name, 0) for name in elsewhere)


def _queues(run: RunData) -> Iterable[Metric]:
    timed, traced = run.phase("timed"), run.phase("traced")
    local = _traced(traced, "order", "local queue")
    out = _traced(traced, "order", "global queue")
    stolen = _traced(traced, "order", "stealing")
    lacking = "the section order was not traced"
    yield metric(
        "queue.local", "Runs from the local queue", "count", traced, None if local is None else float(_local(local)),
        lacking, "derived, one P: executes less runnext, stolen, and all that was put on the global queue", exact=True,
    )  # fmt: skip
    yield metric(
        "queue.global", "Takings from the global queue", "count", traced,
        None if out is None else float(out.get("global_got", 0)), lacking,
        "globrunqget or globrunqgetbatch that returned a goroutine, one P and one goroutine that yields", exact=True,
    )  # fmt: skip
    yield metric(
        "queue.stolen", "Steals", "count", traced, None if stolen is None else float(stolen.get("stolen", 0)), lacking,
        "runqsteal that returned a goroutine, two Ps", exact=True,
    )  # fmt: skip
    for name, title, scene, count, meaning in (
        ("queue.elsewhere", "Rounds in which a stolen goroutine ran", "stealing", "elsewhere",
         "on another thread, while its creator did not let go of its own"),
        ("queue.last_first", "Rounds in which the goroutine created last ran first", "local queue", "last_first",
         "runnext goes before the queue"),
        ("queue.in_order", "Rounds in which the others ran in their order", "local queue", "in_order",
         "the local queue is first in, first out"),
    ):  # fmt: skip
        found = _workload(timed, "order", scene, count)
        yield metric(name, title, "count", timed, found, "the section order did not run", meaning, exact=True)


def _preempted(run: RunData) -> Iterable[Metric]:
    timed, traced = run.phase("timed"), run.phase("traced")
    yield metric(
        "preempt.returned", "Times that a P was got back from a goroutine that calls nothing", "count", timed,
        _workload(timed, "order", "preemption", "returned"), "the section order did not run",
        "one P: returns of Gosched while the other one spun", exact=True,
    )  # fmt: skip
    counters, segment = _traced(traced, "order", "preemption"), _scene(traced, "order", "preemption")
    returned = _workload(traced, "order", "preemption", "returned")
    yield metric(
        "preempt.per_return", "Preemptions for each such time", "ratio", traced,
        counters.get("preempt", 0) / returned if counters is not None and returned else None,
        "the section order was not traced", "at least 1; the one who waits may be preempted, too", exact=True,
    )  # fmt: skip
    spinner = segment.goroutines.get("spinner", []) if segment else []
    runs = traced.events_of([segment], EventKind.RUN) if segment else traced.events[:0]
    chosen = (runs["reason"] == Ran.PREEMPTED) & np.isin(runs["goid"], np.array(spinner, dtype=np.uint64))
    yield metric(
        "preempt.spinner", "Runs of the spinning goroutine that were ended by force", "count", traced,
        float(chosen.sum()) if counters is not None else None, "the section order was not traced",
        "runs of that goroutine that ended in gopreempt_m",
    )  # fmt: skip


def _oracle(run: RunData) -> Iterable[Metric]:
    traced = run.phase("traced")
    compared = oracle.compare(traced, "oracle")
    recorded = 0 if traced.go_trace is None else len(traced.go_trace.segments)
    lacking = "no whole recording of runtime/trace is there" + (f", of {recorded} segments" if recorded else "")
    for name, title, found, meaning in (
        ("oracle.checked", "Numbers that Go's tracer was asked for", len(compared),
         "created, ended, yields and system calls against the probes, waits by reason against the workload"),
        ("oracle.mismatches", "Numbers in which it differs", sum(not each.equal for each in compared), "none may"),
    ):  # fmt: skip
        yield metric(name, title, "count", traced, float(found) if compared else None, lacking, meaning, exact=True)


def _lacking(phase: PhaseData) -> str:
    errors = "; ".join(f"{name}: {words}" for name, words in switches.why_none(phase).items())
    return f"no tool {switches.TOOL} left a result" + (f" ({errors})" if errors else "")


def _scenes(phase: PhaseData, start: str) -> list[Segment]:
    return [segment for segment in phase.segments("kernel") if segment.parameters["scene"].startswith(start)]


def _control(look: switches.Switches, segments: Sequence[Segment]) -> float:
    """Return how many of the known blockings of a thread the tool saw, in the worse scene."""
    return min(
        sum(n for (_, call), n in look.asleep(segment).items() if call == CONTROLS[segment.parameters["scene"]])
        / segment.counts["parks"]
        for segment in segments
    )


def _kernel(run: RunData) -> Iterable[Metric]:
    kernel = run.phase("kernel")
    seen = list(switches.switches(kernel).values())
    burst, single, control = (_scenes(kernel, start) for start in (BURST, ALONE, CONTROL))
    shares = [
        max(each) for each in zip(*([switches.share(look, scene) for scene in burst] for look in seen), strict=True)
    ]
    lacking = _lacking(kernel)
    yield metric(
        "kernel.burst_share", "Threads that fell asleep for each goroutine that parked", "ratio", kernel,
        min(shares) if shares else None, lacking,
        "in a burst, for the reason of which was seen least; most of any tool", exact=True,
    )  # fmt: skip
    yield metric(
        "kernel.reasons_told", "Wait reasons with a state and system call of their own", "count", kernel,
        float(max(switches.told(look, single) for look in seen)) if seen and single else None, lacking,
        f"of {len(single)}, one goroutine waiting at a time; most of any tool", exact=True,
    )  # fmt: skip
    yield metric(
        "kernel.control_share", "Blocking threads that the tools saw", "ratio", kernel,
        min(_control(look, control) for look in seen) if seen and control else None, lacking,
        "read and nanosleep of one thread; least of any tool", exact=True,
    )  # fmt: skip
    yield metric(
        "kernel.lost", "Updates that the tools lost", "count", kernel,
        float(max(sum(look.losses.values()) for look in seen)) if seen else None, lacking, "most of any tool",
        exact=True,
    )  # fmt: skip


def _idle(run: RunData) -> Iterable[Metric]:
    kernel = run.phase("kernel")
    sums = [(sum(look.idle.values()), sum(look.ran.values())) for look in switches.switches(kernel).values()]
    lacking = _lacking(kernel)
    yield metric(
        "idle.wakes", "Switches with prev_pid = 0 to a thread of the workload", "count", kernel,
        float(min(idle for idle, _ in sums)) if sums else None, lacking, "least of any tool", exact=True,
    )  # fmt: skip
    yield metric(
        "idle.ran_share", "Of these, threads that ran right after", "ratio", kernel,
        min(ran / idle for idle, ran in sums) if sums and all(idle for idle, _ in sums) else None, lacking,
        "the next that the thread did was to return from its system call; least of any tool", exact=True,
    )  # fmt: skip


# ---- charts ----


def _funnel(run: RunData) -> charts.Funnel | None:
    traced = run.phase("traced")
    counters = _traced(traced, "switch", FREELY)
    if counters is None:
        return None
    steps = (
        ("goroutine switches", counters.get("execute", 0), "execute"),
        ("parks", _parks(counters), "gopark, for whatever reason"),
        ("thread switches", counters.get("sched_switch", 0), "sched_switch of the workload's threads"),
        ("futex waits", counters.get("futex_wait", 0), "threads that found nothing to run"),
    )
    return charts.Funnel(
        id="funnel",
        title="From goroutine switches to the kernel",
        caption="Two goroutines hand a token to and fro on one P. What the kernel can see is the last two steps.",
        phase="traced",
        steps=[charts.Step(label=label, count=count, note=note) for label, count, note in steps],
    )


def _scene_table(run: RunData) -> charts.Table | None:
    traced = run.phase("traced")
    rows: list[list[charts.Cell]] = []
    for segment in [*traced.segments("switch"), *traced.segments("free")]:
        if traced.trace is None:
            break
        counters, p = traced.counters(segment), segment.parameters
        rows.append([
            f"{p['scene']} ({segment.section})", int(p["procs"]), counters.get("execute", 0), _parks(counters),
            counters.get("preempt", 0), counters.get("enter_syscall", 0), counters.get("sched_switch", 0),
            segment.counts.get("thread_switches"), counters.get("futex_wait", 0), counters.get("p_moved", 0),
        ])  # fmt: skip
    return table(
        "scenes", "Goroutine switches against thread switches",
        "Counted by probes. Beside sched_switch stands the kernel's own account (getrusage), which covers a little "
        "more than the segment.",
        "traced", "happened",
        {"Scene": "", "Ps": "", "Goroutine switches": "", "Parks": "", "Preempted": "", "System calls (Go's)": "",
         "Thread switches": "", "By getrusage": "", "Futex waits": "", "P moved": ""},
        rows,
    )  # fmt: skip


def _queue_table(run: RunData) -> charts.Table | None:
    traced = run.phase("traced")
    rows: list[list[charts.Cell]] = []
    for segment in [*traced.segments("order"), *traced.segments("free")]:
        if traced.trace is None:
            break
        c = traced.counters(segment)
        known = segment.parameters["procs"] == "1" and segment.parameters["scene"] != "P moves"
        rows.append([
            f"{segment.parameters['scene']} ({segment.section})", c.get("execute", 0), c.get("runnext", 0),
            c.get("local_put", 0), c.get("local_overflow", 0), c.get("yield", 0) + c.get("preempt", 0),
            c.get("global_got", 0), c.get("stolen", 0), _local(c) if known and not c.get("local_overflow") else None,
        ])  # fmt: skip
    return table(
        "queues", "Where goroutines waited to run",
        "Put and taken, by queue. The look at the global queue in every 61st round is inlined from Go 1.25 on: what it "
        "takes is not in the column. Runs from the local queue are derived, where nothing else can have given one.",
        "traced", "happened",
        {"Scene": "", "Runs": "", "From runnext": "", "Put on local": "", "Local was full": "", "Put on global": "",
         "Taken from global": "", "Stolen": "", "From local": ""},
        rows,
    )  # fmt: skip


def _order_table(run: RunData) -> charts.Table | None:
    rows: list[list[charts.Cell]] = []
    for name in ("timed", "traced"):
        for segment in run.phase(name).segments("order"):
            words = ", ".join(
                f"{key.replace('_', ' ')} {count}"
                for key, count in segment.counts.items()
                if key not in ("rounds", "yields", "thread_switches")
            )
            rows.append([segment.parameters["scene"], name, segment.counts.get("rounds", NONE), words or NONE])
    return table(
        "order", "What the order of things says", "The workload's own counts: no probe is needed for these.", "timed",
        "known", {"Scene": "", "Phase": "", "Rounds": "", "Seen": ""}, rows,
    )  # fmt: skip


def _oracle_table(run: RunData) -> charts.Table | None:
    grouped: dict[str, list[oracle.Comparison]] = {}
    for each in oracle.compare(run.phase("traced"), "oracle"):
        grouped.setdefault(each.what, []).append(each)

    def total(numbers: Iterable[int | None]) -> int | str:
        known = [number for number in numbers if number is not None]
        return sum(known) if known else NONE

    rows: list[list[charts.Cell]] = [
        [what, sum(each.traced for each in group), total(each.probes for each in group),
         total(each.known for each in group), f"{sum(each.equal for each in group)} of {len(group)}"]
        for what, group in grouped.items()
    ]  # fmt: skip
    return table(
        "oracle", "Go's own tracer beside the probes",
        "runtime/trace recorded in the traced process. Waits are those of the program's own goroutines, by the trace's "
        "word; the other quantities are of all goroutines. Sums over the scenes; each scene is compared by itself.",
        "traced", "known",
        {"What": "", "Go's tracer": "", "Probes": "", "Known": "", "Scenes equal": ""}, rows,
    )  # fmt: skip


def _reason_table(run: RunData) -> charts.Table | None:
    traced = run.phase("traced")
    if traced.trace is None or traced.plan is None:
        return None
    rows: list[list[charts.Cell]] = []
    everything = traced.trace.counters.values()
    for number, words in enumerate(traced.plan.wait_reasons):
        if not words:
            continue
        name = f"park:{words}"
        forced = traced.segments("forced")
        known = sum(segment.expected.get(name, 0) for segment in forced)
        counted = sum(traced.counters(segment).get(name, 0) for segment in forced if name in segment.expected)
        total = sum(counters.get(name, 0) for counters in everything)
        rows.append([words, number, known or NONE, counted if known else NONE, total])
    return table(
        "reasons", "Wait reasons of this Go version",
        f"{traced.plan.binary.go_version}. Known: how often the forced scenes made goroutines wait for it.", "traced",
        "known", {"Reason": "", "Number": "", "Known": "", "Traced": "", "In the whole run": ""}, rows,
    )  # fmt: skip


def _kernel_table(run: RunData) -> charts.Table | None:
    kernel = run.phase("kernel")
    rows: list[list[charts.Cell]] = []
    for tool, look in switches.switches(kernel).items():
        for segment in kernel.segments("kernel"):
            left = sorted(look.asleep(segment).items(), key=lambda item: -item[1])
            words = ", ".join(f"{n} × {switches.words(key)}" for key, n in left[:4]) or NONE
            rows.append([segment.parameters["scene"], tool, segment.counts["parks"], sum(n for _, n in left), words])
    return table(
        "kernel-side", "What sched_switch shows while goroutines wait for known reasons",
        "Threads of the workload that fell asleep, by state and the system call they were in. Waits are the "
        "workload's own number.",
        "kernel", "happened", {"Scene": "", "Tool": "", "Waits": "", "Threads asleep": "", "In": ""}, rows,
    )  # fmt: skip


def _idle_table(run: RunData) -> charts.Table | None:
    kernel = run.phase("kernel")
    rows: list[list[charts.Cell]] = [
        [tool, sum(look.idle.values()), sum(look.ran.values()), sum(look.again.values()), sum(look.to_idle.values()),
         None]
        for tool, look in switches.switches(kernel).items()
    ]  # fmt: skip
    rows += [[tool, None, None, None, None, words] for tool, words in switches.why_none(kernel).items()]
    return table(
        "idle", "Threads beside prev_pid = 0",
        "A thread of the workload was next where the idle task left; what it did then. The last column but one is the "
        "other way round: a thread left and the CPU fell idle.",
        "kernel", "happened",
        {"Tool": "", "prev_pid = 0": "", "Then returned": "", "Then left again": "", "Left to idle": "", "Error": ""},
        rows,
    )  # fmt: skip


def _latency(run: RunData) -> charts.Ecdf | None:
    traced = run.phase("traced")

    def latency(segments: list[Segment]) -> Events:
        runs = traced.events_of(segments, EventKind.RUN).copy()
        runs["duration_ns"] = runs["object"]
        return runs

    groups = {segment.parameters["scene"]: latency([segment]) for segment in traced.segments("free")}
    return waits.distribution(
        traced, groups, name="latency", title="From ready to running",
        caption="Share of the runs that began within the time on the axis (logarithmic) after ready; under probes. "
        "Goroutines that yield or are preempted do not pass through ready and are not in it.",
    )  # fmt: skip


WINDOW_NS = 100_000_000
"""What is drawn of a scene, at most."""


def _timelines(run: RunData, full: timeline.FullTimeline | None) -> Iterable[charts.Timeline | None]:
    if full is None:
        return
    traced = run.phase("traced")
    for section, scene, title in (
        ("order", "P moves", "One P on several threads"),
        ("order", "preemption", "A goroutine that calls nothing gives way by force"),
        ("free", "netpoll", "Goroutines that wait for the network"),
        ("free", "system calls", "Goroutines in system calls"),
    ):
        segment = _scene(traced, section, scene)
        if segment is None:
            continue
        yield timeline.chart(
            full.runs, name=f"timeline-{scene.replace(' ', '-').lower()}", title=title, phase="traced",
            caption="A goroutine in a system call has no bar: it keeps its thread, and its P goes on with others.",
            origin=f"the scene {scene}", trace=full.path,
            window_ns=(segment.start_ns, min(segment.end_ns, segment.start_ns + WINDOW_NS)),
        )  # fmt: skip


def _notes(run: RunData) -> list[str]:
    """Return what the figures can and cannot say."""
    notes = ["Mixed loads have no true number: only forced scenes must be equal."]
    plan = run.phase("traced").plan
    if plan is not None and any(probe.symbol == "runtime.globrunqgetbatch" for probe in plan.probes):
        notes.append(
            "This Go version inlines the look at the global queue in every 61st round: what it takes is not seen."
        )
    return notes
