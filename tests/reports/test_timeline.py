"""From arrays of runs to the window that is drawn, and to the file that a trace viewer opens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (  # type: ignore[import-untyped]
    Trace,
    TracePacket,
    TrackEvent,
)

from reports import chart_checks, perfetto, timeline, timeline_plot
from reports.charts import Category, Lane, Mark, Slice, Timeline
from reports.timeline import FullTimeline, Instants, Runs


def runs(rows: list[tuple[int, ...]], reasons: tuple[str, ...] = ("chan receive",)) -> Runs:
    """Runs from rows of start, end, goroutine, thread, P and reason."""
    start, end, goid, tid, proc, reason = np.array(rows, dtype=np.int64).reshape(-1, 6).T
    return Runs(start, end, goid, tid, proc, reason, reasons)


TWO = [
    (1000, 1400, 18, 301, 0, 0),
    (1500, 1900, 19, 301, 0, 0),
    (1000, 1900, 20, 302, 1, -1),
    (2000, 2100, 18, 302, -1, 0),
]
"""Goroutines 18 and 19 on P 0, 20 on P 1, and once 18 on a P that nobody knows."""


def chart(rows: list[tuple[int, ...]], **more: Any) -> Timeline:
    found = timeline.chart(runs(rows), name="t", title="", phase="traced", **more)
    assert found is not None
    assert list(chart_checks.problems(found)) == []
    return found


def test_a_run_stands_in_the_row_of_its_p_and_in_that_of_its_thread() -> None:
    found = chart(TWO)
    rows = {lane.label: [(item.start, item.duration, item.category) for item in lane.slices] for lane in found.lanes}
    assert [lane.group for lane in found.lanes] == ["Ps", "Ps", "Ms (threads)", "Ms (threads)"]
    assert [category.name for category in found.categories] == ["G 20", "G 18", "G 19"]  # by how long they ran
    assert found.seconds == 1.1e-6
    assert rows == {
        "P 0": [(0, 4e-7, 1), (5e-7, 4e-7, 2)],
        "P 1": [(0, 9e-7, 0)],
        "M 301": [(0, 4e-7, 1), (5e-7, 4e-7, 2)],
        "M 302": [(0, 9e-7, 0), (1e-6, 1e-7, 1)],
    }
    assert (found.omitted, found.outside, found.joined, found.overlapping) == (1, 0, 0, 0)  # the unknown P


def test_the_window_is_the_shortest_in_which_so_many_begin_and_the_rest_is_counted() -> None:
    sparse = [(start, start + 10, 18, 301, 0, 0) for start in range(0, 100_000, 1000)]
    dense = [(start, start + 10, 19, 301, 0, 0) for start in range(100_000, 101_000, 50)]
    found = chart(sparse + dense, wanted=10, names={19: "producer"}, marks={"in": 100_100, "out": 5})
    assert found.seconds == 500e-9
    assert found.outside == 110
    assert [category.name for category in found.categories] == ["producer"]
    assert [(mark.label, mark.x) for mark in found.marks] == [("in", 1e-7)]
    assert found.origin == "100\u00a0µs after the first slice"


def test_a_slice_that_began_before_the_window_is_cut_at_its_edge() -> None:
    found = chart(TWO, window_ns=(1200, 1300))
    assert [(item.start, item.duration) for lane in found.lanes for item in lane.slices] == [(0, 1e-7)] * 4
    assert found.outside == 2


def test_what_nobody_can_tell_apart_is_joined_and_counted() -> None:
    rows = [(start, start + 9, 18, 301, 0, 0) for start in range(0, 50_000, 10)]
    found = chart(rows, wanted=10_000)
    assert [len(lane.slices) for lane in found.lanes] == [1, 1]
    assert found.joined == 2 * 4999


def test_two_things_at_once_on_one_p_are_told() -> None:
    found = chart([(0, 100, 18, 301, 0, 0), (50, 90, 19, 302, 0, 0)])
    assert found.overlapping == 1
    assert found.lanes[0].slices[0].duration == 5e-8
    assert found.lanes[1].slices[0].duration == 1e-7


def test_thousands_of_slices_on_hundreds_of_threads_are_bounded_and_every_one_is_accounted_for() -> None:
    random = np.random.default_rng(5)
    rows = [
        (n * 100, n * 100 + int(random.integers(1, 100)), int(random.integers(18, 400)), 300 + n % 200, n % 4, 0)
        for n in range(9000)
    ]
    found = chart(rows, wanted=9000)
    drawn = sum(len(lane.slices) for lane in found.lanes)
    assert drawn <= chart_checks.SLICES
    assert drawn + found.joined + found.omitted == 2 * 9000
    assert len(found.lanes) == 4 + chart_checks.LANES // 2
    assert len(found.categories) == chart_checks.CATEGORIES
    assert found.categories[-1] == Category(name="375 other goroutines", rest=True)
    plot = timeline_plot.timeline_plot(found)
    assert sum(len(paint.path) for row in plot.rows for paint in row.paints) < 600_000


def test_nothing_that_ran_is_no_timeline() -> None:
    assert timeline.chart(runs([]), name="t", title="", phase="traced") is None
    assert timeline.chart(runs(TWO), name="t", title="", phase="traced", window_ns=(9000, 9100)) is None


@pytest.mark.parametrize(
    ("row", "problem"),
    [((10, 9, 18, 301, 0, 0), "ends before it starts"), ((1, 2, 18, 301, 0, 1), "reason without a name")],
)
def test_runs_that_cannot_be_are_refused(row: tuple[int, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        runs([row])


def test_arrays_of_different_lengths_are_refused() -> None:
    one, two = np.zeros(1, dtype=np.int64), np.zeros(2, dtype=np.int64)
    with pytest.raises(ValueError, match="one length"):
        Runs(one, one, two, one, one, one, ["why"])
    with pytest.raises(ValueError, match="kind or detail without a name"):
        Instants(one, one, one + 1, one - 1, ["created"])


def drawn(*names: str, slices: list[Slice]) -> timeline_plot.TimelinePlot:
    categories = [Category(name=name, rest=name == "rest") for name in names]
    lanes = [Lane(label="P 0", group="Ps", slices=slices)]
    marks = [Mark(x=0.5, label="half"), Mark(x=2.0, label="later")]
    return timeline_plot.timeline_plot(
        Timeline(
            id="t", title="", caption="", phase="traced", seconds=1.0, origin="", lanes=lanes, categories=categories,
            marks=marks,
        )
    )  # fmt: skip


def test_each_category_has_a_form_of_its_own() -> None:
    names = [f"G {number}" for number in range(chart_checks.CATEGORIES)]
    plot = drawn(*names, "rest", slices=[])
    assert len({key.paint.path for key in plot.keys}) == len(names) + 1
    assert [key.paint.colour for key in plot.keys] == [0, 1, 2, 3, 4, 5, 0, 1, None]


def test_a_lane_has_one_path_for_each_category_and_a_thin_slice_is_seen() -> None:
    plot = drawn(
        "a", "b", slices=[Slice(0.0, 0.25, 0, "a"), Slice(0.3, 1e-9, 1), Slice(0.5, 0.25, 0), Slice(0.75, 0.25, 0)]
    )
    assert [paint.path for paint in plot.rows[0].paints] == [
        "M0.0 0h250.0v100h-250.0zM500.0 0h500.0v100h-500.0z",  # the last two touch and are one stretch
        "M300.0 0h0.5v50h-0.5z",
    ]
    assert [(label.left, label.width, label.text) for label in plot.rows[0].labels] == [(0.0, 25.0, "a")]
    assert [mark.at for mark in plot.marks] == [50.0]
    assert plot.sums[0].cells == ("750\u00a0ms in 3", "1\u00a0ns in 1")
    assert plot.longest[0].took == "250\u00a0ms"
    assert plot.rows[0].words == "P 0: 4 slices, busy 75%"


def test_a_full_timeline_comes_back_from_perfettos_own_format() -> None:
    """Every run is a slice on its P and on its thread, every instant stands on its group's track, in order of time."""
    time, goid, kind, detail = (np.array(v, dtype=np.int64) for v in ([1400, 900], [18, 19], [1, 0], [0, -1]))
    instants = Instants(time, goid, kind, detail, ["created", "parked"], ["chan receive"])
    written = perfetto.encode(FullTimeline("timeline", runs(TWO), instants, {18: "main.worker \x1b[2J"}))
    trace = Trace()
    trace.ParseFromString(written.data)
    words: dict[str, dict[int, str]] = {"event_names": {}, "debug_annotation_names": {}}
    values: dict[int, str] = {}
    tracks: dict[int, str] = {}
    parents: dict[str, str] = {}
    slices: dict[str, list[list[int]]] = {}
    names: list[str] = []
    happened: list[tuple[str, int, str]] = []
    annotated: list[dict[str, int | str]] = []
    for packet in trace.packet:
        assert packet.trusted_packet_sequence_id == 1
        for table, known in words.items():
            known.update({entry.iid: entry.name for entry in getattr(packet.interned_data, table)})
        values |= {entry.iid: entry.str.decode() for entry in packet.interned_data.debug_annotation_string_values}
        if packet.HasField("track_descriptor"):
            described = packet.track_descriptor
            tracks[described.uuid] = described.name
            parents[described.name] = tracks.get(described.parent_uuid, "")
        if not packet.HasField("track_event"):
            continue
        event = packet.track_event
        track = tracks[event.track_uuid]
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            slices.setdefault(track, []).append([packet.timestamp])
            names.append(words["event_names"][event.name_iid])
            annotated.append(
                {
                    words["debug_annotation_names"][a.name_iid]: (
                        a.int_value if a.HasField("int_value") else values[a.string_value_iid]
                    )
                    for a in event.debug_annotations
                }
            )
        elif event.type == TrackEvent.TYPE_SLICE_END:
            slices[track][-1].append(packet.timestamp)
        else:
            happened.append((track, packet.timestamp, words["event_names"][event.name_iid]))
    assert trace.packet[0].sequence_flags == TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
    assert slices == {
        "P 0": [[1000, 1400], [1500, 1900]],
        "P 1": [[1000, 1900]],
        "M 301": [[1000, 1400], [1500, 1900]],
        "M 302": [[1000, 1900], [2000, 2100]],
    }
    assert (written.slices, written.instants, written.overlapping, written.omitted) == (7, 2, 0, 0)
    assert names == ["G 18", "G 19", "G 20", "G 18", "G 19", "G 20", "G 18"]
    assert annotated[0] == {"M": 301, "P": 0, "ended by": "chan receive", "group": "main.worker \\x1b[2J"}
    assert annotated[-1]["P"] == annotated[2]["ended by"] == "not known"
    assert happened == [("goroutines", 900, "created"), ("main.worker \\x1b[2J", 1400, "parked: chan receive")]
    assert (parents["P 0"], parents["M 301"], parents["goroutines"]) == ("Ps", "Ms (threads)", "Groups of goroutines")


def test_a_trace_is_cut_where_it_contradicts_itself_or_is_too_long_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [(0, 100, 18, 301, 0, 0), (50, 90, 19, 302, 0, 0), (200, 210, 18, 301, 0, 0)]
    monkeypatch.setattr(perfetto, "MAXIMUM", 2)
    written = perfetto.encode(FullTimeline("timeline", runs(rows)))
    assert (written.slices, written.overlapping, written.omitted) == (4, 1, 1)
