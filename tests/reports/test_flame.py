"""Stacks made into a bounded tree, and two profiles held against each other."""

from __future__ import annotations

import numpy as np
import pytest

from reports import chart_checks, flame, flame_plot
from reports.charts import Flame

STACKS = {
    ("main.main", "main.serve", "json.Unmarshal"): 600.0,
    ("main.main", "main.serve"): 100.0,
    ("main.main", "main.walk", "main.walk", "main.walk"): 200.0,
    ("runtime.gcBgMarkWorker",): 60.0,
}


def made(stacks: flame.Stacks, unit: str = "bytes", **more: float) -> Flame:
    found = flame.flame(stacks, name="f", title="", caption="", phase="profiled", unit=unit, **more)  # type: ignore[arg-type]
    assert found is not None
    assert list(chart_checks.problems(found)) == []
    return found


def test_a_box_is_as_wide_as_what_passes_through_it_and_stands_below_its_caller() -> None:
    plot = flame_plot.flame_plot(made(STACKS, without=40.0))
    assert [(box.label, box.left, box.width, box.row) for box in plot.boxes[:2]] == [
        ("main.main", 0.0, 90.0, 0),
        ("runtime.gcBgMarkWorker", 90.0, 6.0, 0),  # 4% have no stack
    ]
    at = {(box.label, box.row): (box.left, box.width) for box in plot.boxes}
    assert at["main.serve", 1] == (0.0, 70.0)
    assert at["json.Unmarshal", 2] == (0.0, 60.0)
    assert at["main.walk", 3] == (70.0, 20.0)
    assert plot.rows == 4
    assert plot.boxes[0].words == "main.main: 900\u00a0bytes, 90%"


def test_boxes_are_stronger_the_more_is_their_own_and_narrow_ones_have_no_label() -> None:
    plot = flame_plot.flame_plot(made({("a", "b"): 90.0, ("a",): 10.0, ("c",): 900.0, ("a", "d"): 1.0}))
    shades = {box.words.split(":")[0]: box.shade for box in plot.boxes}
    assert shades == {"a": 2, "b": 3, "c": 3, "d": 3}
    assert [box.label for box in plot.boxes if box.words.startswith("d:")] == [""]


def test_a_function_that_calls_itself_counts_once_in_a_stack() -> None:
    functions = {function.name: (function.self_value, function.total) for function in made(STACKS).functions}
    assert functions["main.walk"] == (200.0, 200.0)
    assert functions["main.serve"] == (100.0, 700.0)
    assert functions["main.main"] == (0.0, 900.0)
    assert next(iter(functions)) == "json.Unmarshal"


def test_times_in_a_flame_graph_say_whose_clock_it_was() -> None:
    chart = made({("a",): 2e6}, unit="ns")
    assert chart.timing
    assert flame_plot.flame_plot(chart, "emulated").boxes[0].words == "a: 2\u00a0ms (emulated), 100%"
    assert not made(STACKS).timing
    assert flame_plot.amount(3 * 2**20, "bytes") == "3\u00a0MiB"


@pytest.mark.parametrize("limit", [1, 7, 50, 600])
def test_a_tree_of_thousands_is_folded_and_no_weight_is_lost(limit: int) -> None:
    random = np.random.default_rng(2)
    stacks: dict[tuple[str, ...], float] = {}
    for _ in range(3000):
        frames = tuple(f"f{number}" for number in random.integers(0, 6, int(random.integers(1, 12))))
        stacks[frames] = stacks.get(frames, 0.0) + float(random.exponential())
    found = made(stacks, limit=limit)
    assert len(found.nodes) <= limit
    assert sum(node.value for node in found.nodes if node.parent < 0) == pytest.approx(sum(stacks.values()))
    whole = {frames[:depth] for frames in stacks for depth in range(1, len(frames) + 1)}
    own = sum(not node.folded for node in found.nodes)
    assert own + sum(node.folded for node in found.nodes) == len(whole)


def test_a_stack_of_a_thousand_calls_is_folded_too() -> None:
    found = made({tuple(f"f{number}" for number in range(1000)): 1.0})
    assert len(found.nodes) == chart_checks.DEPTH
    assert found.nodes[-1].folded == 1000 - chart_checks.DEPTH + 1
    assert flame_plot.flame_plot(found).rows == chart_checks.DEPTH


def test_nothing_is_no_flame_graph_and_less_than_nothing_is_refused() -> None:
    assert flame.flame({}, name="f", title="", caption="", phase="profiled", unit="bytes") is None
    with pytest.raises(ValueError, match="weighs -1"):
        made({("a",): -1.0})


def test_frames_of_a_trace_become_functions_outermost_first() -> None:
    frames = ["main.f[go.shape.struct { x int }] main.go:7", "main.main main.go:3", "0x1234"]
    assert flame.functions_only(frames) == ("0x1234", "main.main", "main.f[go.shape.struct { x int }]")


def test_two_profiles_are_compared_by_share_whatever_their_units() -> None:
    left = {("main", "a"): 750.0, ("main", "b"): 250.0}
    right = {("main", "a"): 2.0, ("main", "c"): 2.0}
    found = flame.difference(
        left, right, names=("Go", "BPF"), units=("ns", "samples"), name="d", title="", caption="", phase="profiled"
    )
    assert list(chart_checks.problems(found)) == []
    assert found.distance == pytest.approx(0.5)
    assert (found.left.total, found.right.total) == (1000.0, 4.0)
    rows = flame_plot.difference_rows(found)
    assert [(row.name, row.left_self, row.right_self, row.points) for row in rows] == [
        ("a", "75%", "50%", "−25.00"),
        ("c", "0%", "50%", "+50.00"),
        ("b", "25%", "0%", "−25.00"),
        ("main", "0%", "0%", "±0.00"),
    ]
    assert (rows[0].left, rows[0].right, rows[3].left_total) == (100.0, 66.67, "100%")


def test_an_empty_profile_is_compared_with_nothing() -> None:
    found = flame.difference(
        {("a",): 1.0}, {}, names=("Go", "BPF"), units=("ns", "ns"), name="d", title="", caption="", phase="profiled"
    )
    assert (found.distance, found.functions) == (None, [])
