"""From the events of the scheduler's probes to a full timeline."""

from __future__ import annotations

import msgspec
import numpy as np

from bpf.trace import EVENT, EventKind, Ran, Trace
from reports import perfetto, schedule, timeline
from reports.analysis import PhaseData
from tests.reports import made

CHAN = 14


def events(*rows: dict[str, int]) -> np.ndarray:
    found = np.zeros(len(rows), dtype=EVENT)
    for index, row in enumerate(rows):
        for name, value in row.items():
            found[name][index] = value
    return found


RECORDED = events(
    {"kind": EventKind.CREATE, "start_ns": 100, "goid": 18, "value": 1, "stack": 0},
    {"kind": EventKind.CREATE, "start_ns": 110, "goid": 19, "value": 1, "stack": -1},
    {"kind": EventKind.RUN, "start_ns": 200, "duration_ns": 50, "goid": 18, "tid": 301, "value": 1, "reason": CHAN,
     "object": 60},
    {"kind": EventKind.PARK, "start_ns": 250, "duration_ns": 400, "goid": 18, "reason": CHAN},
    {"kind": EventKind.STEAL, "start_ns": 260, "goid": 19, "value": 0},
    {"kind": EventKind.RUN, "start_ns": 300, "duration_ns": 70, "goid": 19, "tid": 302, "value": 0,
     "reason": Ran.EXITED},
    {"kind": EventKind.END, "start_ns": 370, "duration_ns": 260, "goid": 19},
)  # fmt: skip


def phase(recorded: np.ndarray) -> PhaseData:
    trace = msgspec.convert(made.trace([], len(recorded)), Trace)
    symbols = {4096: ["main.worker main.go:9"], 8192: ["main.main main.go:3"], 12288: ["runtime.goexit asm.s:1"]}
    return PhaseData("traced", 0, 1.0, 1.0, trace=trace, events=recorded, symbols=symbols)


def test_runs_become_slices_and_everything_else_a_moment() -> None:
    full = schedule.full(phase(RECORDED))
    assert full is not None
    runs, instants = full.runs, full.instants
    assert instants is not None
    assert [runs.start_ns.tolist(), runs.end_ns.tolist(), runs.proc.tolist()] == [[200, 300], [250, 370], [1, 0]]
    assert [runs.reasons[reason] for reason in runs.reason] == [f"#{CHAN}", "exited"]
    moments = zip(instants.time_ns, instants.goid, instants.kind, instants.detail, strict=True)
    assert [(t, g, instants.kinds[k], d >= 0 and instants.details[d]) for t, g, k, d in moments] == [
        (100, 18, "created", False),
        (110, 19, "created", False),
        (250, 18, "parked", f"#{CHAN}"),
        (260, 19, "stolen", False),
        (370, 19, "ended", False),
        (140, 18, "made ready", False),
    ]
    assert full.groups == {18: "main.worker"}  # the stack of 19 was lost


def test_the_same_timeline_is_drawn_and_written() -> None:
    full = schedule.full(phase(RECORDED))
    assert full is not None
    chart = timeline.chart(full.runs, name="s", title="", phase="traced", names=full.groups)
    assert chart is not None
    assert [lane.label for lane in chart.lanes] == ["P 0", "P 1", "M 301", "M 302"]
    assert [category.name for category in chart.categories] == ["G 19", "main.worker"]
    written = perfetto.encode(full)
    assert (written.slices, written.instants, written.overlapping) == (4, 6, 0)


def test_a_phase_without_runs_has_no_schedule() -> None:
    assert schedule.full(phase(RECORDED[:2])) is None
