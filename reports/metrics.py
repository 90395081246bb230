"""Metrics that every lab has, from the protocol alone; gates of ``lab.toml`` name them.

=========================  ============================================================================================
``forced.checked``         exact counts of forced sections that could be held against the trace
``forced.mismatches``      how many of them differ
``selftest.goids``         goroutine ids that the workload said and the probe read, both
``selftest.mismatches``    ids that only one of the two has
``losses.total``           records and counts that a traced phase says it lost
``losses.counts``          those among them that leave a counter short
``events.recorded``        records in ``events.bin``
``probe.hits``             hits of all probes
``probe.threads``          threads of the target that hit a probe
``probe.missing``          probes that the plan could not place
``probe.pp_ns``            cost of one hit at a pp point, calibrated on this machine; ``probe.entry_ns`` at an entry
``probe.cost_share``       hits × their cost, as a share of the CPU time that the machine had in the traced phase
``attempt.ID``             1 where the lab's attempt ID was possible, 0 where it was refused (``reports.attempts``)
``host.wait_share``        share of time that the machine waited for a CPU of the host (``reports.surroundings``)
``guest.stolen_share``     share of its CPU time that was stolen from the guest
``phases.failed``          phases without a whole result
``kernel.splats``          warnings, oopses, stalls and the like in the kernel's log
=========================  ============================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from bpf.trace import ProbeCost
from reports import attempts, surroundings
from reports.analysis import PhaseData, RunData
from reports.schema import Equality, Kind, Loss, Metric

LOSS_MEANING: Mapping[str, str] = {
    "ring_full": "event records that found the ring buffer full; counters are not touched by it",
    "map_full": "updates that a full BPF map refused",
    "stack_failed": "stacks that could not be read or kept; their waits are counted",
    "stack_truncated": "stacks that are deeper than what is kept; the innermost frames are there",
    "goid_failed": "goroutines whose id could not be read",
    "address_unknown": "waits whose lock is not known, because the call before was not seen",
    "expired": "waits whose end was not seen before the same goroutine waited again",
    "segment_invalid": "marks with a number that no segment has",
    "field_failed": "fields of a goroutine, P, context or channel that could not be read",
    "events_omitted": "records beyond those that events.bin may have; counters are not touched by it",
    "missed": "runs of a program that the kernel left out, because another one held the CPU",
}
"""What the loader's losses mean (``bpf/src/shared.h``); one that is not listed is shown with its name alone."""

EVENT_ONLY_LOSSES = frozenset({"ring_full", "stack_failed", "stack_truncated", "expired", "events_omitted"})
"""Losses of records and stacks, which leave the counters in the kernel whole: a wait whose end was not seen was counted
when it began."""

SPLAT = re.compile(
    r"\b(WARNING: CPU: \d|WARNING: .*\bat .*, CPU#\d|"
    r"BUG:|Oops\b|Kernel panic|general protection fault|rcu: INFO: .*stall|soft lockup|"
    r"hung_task|blocked for more than \d+ seconds|Out of memory:|KASAN|KFENCE|KCSAN|UBSAN|lockdep|refcount_t: |"
    r"list_(?:add|del) corruption|suspicious RCU usage|possible circular locking|unable to handle)"
)
"""What a kernel prints when something went wrong in it (``panic.c``, whose WARNING is another line from 6.19 on,
``rcu/tree_stall.h``, ``mm/oom_kill.c``,
``lib/refcount.c``, ``lib/list_debug.c``, ``locking/lockdep.c``)."""


def phases_with_trace(run: RunData) -> list[PhaseData]:
    """Return the phases that were traced, in order."""
    return [phase for phase in run.phases.values() if phase.trace is not None]


def losses(run: RunData) -> list[Loss]:
    """Return every loss that a trace counted, zeros too."""
    return [
        Loss(phase=phase.name, name=name, count=count, meaning=LOSS_MEANING.get(name, ""))
        for phase in phases_with_trace(run)
        if phase.trace is not None
        for name, count in sorted(phase.trace.losses.items())
    ]


def equality(run: RunData) -> list[Equality]:
    """Return each exact count of each traced segment that states one, beside what the trace counted.

    Where no phase could be traced, the expected counts stand alone.
    """
    phases = phases_with_trace(run) or [run.phase("traced")]
    return [
        Equality(
            segment=segment.id,
            parameters=segment.parameters,
            counter=counter,
            expected=expected,
            traced=None if phase.trace is None else phase.counters(segment).get(counter, 0),
            lost=0 if phase.trace is None else phase.trace.lost,
        )
        for phase in phases
        for segment in phase.segments()
        for counter, expected in sorted(segment.expected.items())
    ]


def generic(run: RunData) -> list[Metric]:
    """Return the metrics of the table above; what could not be measured has its reason."""
    return [
        *_forced(run),
        *_self_test(run),
        *_probes(run),
        *attempts.metrics(run),
        *surroundings.metrics(run),
        _failed(run),
        _splats(run),
    ]


def _reason(run: RunData, what: str) -> str:
    errors = [f"phase {phase.name}: {phase.error}" for phase in run.phases.values() if phase.error]
    return f"{what} ({'; '.join(errors)})" if errors else what


def _forced(run: RunData) -> Iterable[Metric]:
    rows = [row for row in equality(run) if row.traced is not None]
    absent = "" if rows else _reason(run, "no forced section was traced")
    yield Metric(
        name="forced.checked",
        title="Exact counts checked",
        unit="counts",
        kind="count",
        value=float(len(rows)),
        phase="traced",
        exact=True,
        meaning="known numbers of the forced sections that were held against the trace",
    )
    yield Metric(
        name="forced.mismatches",
        title="Exact counts that differ",
        unit="counts",
        kind="count",
        value=None if absent else float(sum(not row.equal for row in rows)),
        absent=absent,
        n=len(rows),
        phase="traced",
        exact=True,
        meaning="forced counts whose trace has another number",
    )


def _self_test(run: RunData) -> Iterable[Metric]:
    said: set[int] = set()
    read: set[int] = set()
    for phase in phases_with_trace(run):
        if phase.workload is not None and phase.trace is not None:
            said |= set(phase.workload.self_test.goids)
            read |= set(phase.trace.self_test.goids)
    absent = "" if said else _reason(run, "no goroutine said its id in a traced phase")
    yield Metric(
        name="selftest.goids",
        title="Goroutine ids read right",
        unit="ids",
        kind="count",
        value=None if absent else float(len(said & read)),
        absent=absent,
        phase="traced",
        exact=True,
        meaning="goroutines whose own word and the probe's reading agree",
    )
    yield Metric(
        name="selftest.mismatches",
        title="Goroutine ids read wrong",
        unit="ids",
        kind="count",
        value=None if absent else float(len(said ^ read)),
        absent=absent,
        phase="traced",
        exact=True,
        meaning="ids that only the goroutines or only the probe have: an offset is wrong",
    )


def probe_cost_ns(phase: PhaseData) -> float | None:
    """Return nanoseconds that all probe hits of ``phase`` added, from the calibration; None where nothing was traced.

    A probe that the plan does not place (a mark, say) is charged as a pp point.
    """
    if phase.trace is None:
        return None
    points = {} if phase.plan is None else {probe.id: probe.point for probe in phase.plan.probes}
    return sum(hits * _cost_at(phase.trace.cost, points.get(probe, "pp")) for probe, hits in phase.trace.hits.items())


def _cost_at(cost: ProbeCost, point: str) -> float:
    if point == "ret":
        # A RET is stepped like an entry, so the entry's cost stands in where RET was not calibrated.
        return cost.entry_ns if cost.ret_ns is None else cost.ret_ns
    return cost.entry_ns if point == "entry" else cost.pp_ns


def _probes(run: RunData) -> Iterable[Metric]:
    phases = phases_with_trace(run)
    traces = [phase.trace for phase in phases if phase.trace is not None]
    absent = "" if traces else _reason(run, "nothing was traced")

    def add(name: str, title: str, unit: str, kind: Kind, value: float, meaning: str, *, exact: bool = False) -> Metric:
        return Metric(
            name=name,
            title=title,
            unit=unit,
            kind=kind,
            value=None if absent else value,
            absent=absent,
            phase="traced",
            timing=name == "probe.cost_share",
            exact=exact,
            meaning=meaning,
        )

    lost = float(sum(trace.lost for trace in traces))
    yield add(
        "losses.total", "Lost while tracing", "records", "count", lost, "what the trace says it missed", exact=True
    )
    short = float(sum(count for t in traces for name, count in t.losses.items() if name not in EVENT_ONLY_LOSSES))
    yield add(
        "losses.counts", "Counts lost while tracing", "counts", "count", short, "what left a counter short", exact=True
    )
    recorded = float(sum(trace.events for trace in traces))
    yield add("events.recorded", "Events recorded", "events", "count", recorded, "waits with start, length and stack")
    hits = float(sum(sum(trace.hits.values()) for trace in traces))
    yield add("probe.hits", "Probe hits", "hits", "count", hits, "times that a probe fired in the target", exact=True)
    threads = float(max((trace.threads for trace in traces), default=0))
    yield add(
        "probe.threads",
        "Threads seen",
        "threads",
        "count",
        threads,
        "threads of the target that hit a probe",
        exact=True,
    )
    missing = float(sum(len(phase.plan.missing) for phase in phases if phase.plan is not None))
    yield add(
        "probe.missing", "Probes not placed", "probes", "count", missing, "optional probes without a place", exact=True
    )
    pp = max((trace.cost.pp_ns for trace in traces), default=0.0)
    yield add("probe.pp_ns", "Cost of a hit at a pp point", "ns", "time", pp, "calibrated on this machine")
    entry = max((trace.cost.entry_ns for trace in traces), default=0.0)
    yield add("probe.entry_ns", "Cost of a hit at an entry", "ns", "time", entry, "calibrated on this machine")
    cost = sum(probe_cost_ns(phase) or 0.0 for phase in phases)
    available = sum(phase.workload_seconds for phase in phases) * 1e9 * max(1, run.provenance.cpus)
    cost_share = cost / available if available > 0 else 0.0
    yield add(
        "probe.cost_share",
        "Share of CPU time spent in probes",
        "",
        "share",
        cost_share,
        "hits × calibrated cost, over the workload's length × CPUs",
    )


def _failed(run: RunData) -> Metric:
    planned = [phase.name for phase in run.lab.phases]
    failed = [name for name in planned if run.phase(name).error]
    return Metric(
        name="phases.failed",
        title="Phases that failed",
        unit="phases",
        kind="count",
        value=float(len(failed)),
        meaning=f"{', '.join(failed)} failed" if failed else "all phases ended with a whole result",
        exact=True,
    )


def _splats(run: RunData) -> Metric:
    found = [line for line in run.kernel_log if SPLAT.search(line)]
    absent = "" if run.kernel_log else "the kernel's log was not brought back"
    return Metric(
        name="kernel.splats",
        title="Complaints in the kernel's log",
        unit="lines",
        kind="count",
        value=None if absent else float(len(found)),
        absent=absent,
        meaning=f"the first: {found[0][:200]}" if found else "warnings, oopses, stalls, lack of memory",
        exact=True,
    )
