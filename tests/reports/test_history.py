"""History: the same lab and kernel over made-up matrices and single runs, and what must never stand in one series."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from go_labs import matrix
from reports import history, matrices, statistics, synthetic
from reports.history import History, Series
from vm.errors import UsageError

LAB = synthetic.lab_name(0)


def put(folder: Path, seed: int, created: str, *, plan: dict[str, Any] | None = None, **shape: Any) -> Path:
    """Write a made-up matrix that began at ``created``; ``plan`` changes what all of its runs share."""
    told = {"labs": 1, "kernels": ("5.10", "6.1"), "blocks": 8, "extra": 0, "points": 0, **shape}
    made = synthetic.write(folder, synthetic.Shape(seed=seed, **told))
    changed = plan or {}
    _edit(folder / matrix.PLAN, {"id": made.id, "created": created, **changed})
    shared = {"lock_digest", "go_version", "build"} & changed.keys()
    for run in folder.glob("runs/*/run.json"):
        data = json.loads(run.read_bytes())
        data["provenance"] |= {name: changed[name] for name in shared}
        data["provenance"] |= {"started": created, "finished": created}
        run.write_text(json.dumps(data))
    return folder


def _edit(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def on_host(folder: Path, host: dict[str, str]) -> Path:
    """Make a matrix one of another host."""
    lines = [json.loads(line) for line in (folder / matrix.JOURNAL).read_text().splitlines()]
    text = "".join(json.dumps(line | ({"host": host} if line["what"] == "opened" else {})) + "\n" for line in lines)
    (folder / matrix.JOURNAL).write_text(text)
    return folder


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Three matrices in a row: in the second Go is newer, in the third the lock, and 6.1 is slower."""
    ratios = {(LAB, "6.1"): 1.2}
    put(tmp_path / "c", 3, "2026-03-01T00:00:00+01:00", plan={"lock_digest": "ab" * 32, "go_version": "go1.28.0"},
        ratios=ratios)  # fmt: skip
    put(tmp_path / "a", 1, "2026-01-01T00:00:00+00:00")
    put(tmp_path / "b", 2, "2026-02-01T00:00:00+00:00", plan={"go_version": "go1.28.0"})
    return tmp_path


def only(found: History, kernel: str) -> Series:
    (series,) = [each for each in found.series if each.kernel == kernel]
    return series


def test_a_series_runs_through_matrices_in_order_of_time_and_marks_what_changed(house: Path) -> None:
    series = only(history.collect([house]), "6.1")

    assert [(point.source, point.changed) for point in series.points] == [
        ("synthetic-1", []), ("synthetic-2", ["Go"]), ("synthetic-3", ["lock"]),
    ]  # fmt: skip
    assert [point.at for point in series.points] == [
        "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00", "2026-02-28T23:00:00+00:00",
    ]  # fmt: skip
    assert [point.lock for point in series.points] == ["5e" * 6, "5e" * 6, "ab" * 6]
    assert [point.go_version for point in series.points] == ["go1.27.3", "go1.28.0", "go1.28.0"]
    assert (series.lab, series.metric, series.unit, series.clock) == (LAB, "cost.op_ns", "ns", "emulated")


def test_a_point_has_the_median_of_its_runs_with_interval_and_the_ratio_of_its_own_matrix(house: Path) -> None:
    point = only(history.collect([house]), "6.1").points[-1]
    compared = matrices.read(house / "c").comparison.labs[0].primary
    assert compared is not None
    values = [value.value for value in compared.values["6.1"]]

    assert (point.n, point.median, point.interval) == (8, *_estimate(values))
    assert point.ratio == pytest.approx(1.2, rel=0.03)
    assert (point.baseline, point.change) == ("5.10", "slower")
    assert point.ratio_interval is not None
    assert point.ratio_interval.low < point.ratio < point.ratio_interval.high


def _estimate(values: list[float]) -> tuple[float, Any]:
    found = statistics.median(values)
    return found.value, found.interval


def test_the_baseline_has_no_ratio_and_the_controls_runs_are_not_its_own(house: Path) -> None:
    points = only(history.collect([house]), "5.10").points

    assert [(point.n, point.ratio, point.change) for point in points] == [(8, None, None)] * 3


def test_a_value_is_never_held_against_one_of_another_clock_host_or_build(house: Path) -> None:
    put(house / "d", 4, "2026-04-01T00:00:00+00:00", clock="virtual")
    on_host(put(house / "e", 5, "2026-05-01T00:00:00+00:00"), {"cpu": "another one"})
    put(house / "f", 6, "2026-06-01T00:00:00+00:00", plan={"build": "pie"})
    found = [each for each in history.collect([house]).series if each.kernel == "6.1"]

    assert len(found) == 4
    assert sorted([point.source for point in each.points] for each in found) == [
        ["synthetic-1", "synthetic-2", "synthetic-3"], ["synthetic-4"], ["synthetic-5"], ["synthetic-6"],
    ]  # fmt: skip
    assert len({(each.clock, each.host, each.build) for each in found}) == 4
    assert all(point.changed == [] for each in found for point in each.points[:1])


def test_options_of_a_lab_that_change_are_marked(house: Path) -> None:
    plan = json.loads((house / "b" / matrix.PLAN).read_bytes())
    plan["labs"][0]["options"] = {"rounds": "20"}
    (house / "b" / matrix.PLAN).write_text(json.dumps(plan))

    points = only(history.collect([house]), "6.1").points
    assert [point.changed for point in points] == [[], ["Go", "options"], ["lock", "options"]]


def test_single_runs_stand_among_matrices_of_the_same_host_and_clock(house: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    origin = next(path for path in sorted((house / "a" / "runs").iterdir()) if LAB in path.name)
    for name, change in (("alone", None), ("of-a-matrix", "keep")):
        data = json.loads((origin / "run.json").read_bytes())
        data["id"] = name
        data["provenance"] |= {"kernel_line": "6.1", "started": "2026-02-10T00:00:00+00:00"}
        data["provenance"]["place"] = data["provenance"]["place"] if change else None
        (runs / name).mkdir(parents=True)
        (runs / name / "run.json").write_text(json.dumps(data))
    found = history.collect([house / "a", house / "b", house / "c", runs])
    series = only(found, "6.1")

    assert (found.matrices, found.runs) == (3, 1), "what belongs to a matrix is told with it"
    assert [(point.source, point.matrix, point.n) for point in series.points] == [
        ("synthetic-1", True, 8), ("synthetic-2", True, 8), ("alone", False, 1), ("synthetic-3", True, 8),
    ]  # fmt: skip
    single = series.points[2]
    assert (single.interval, single.ratio) == (None, None)
    assert single.median == next(m["value"] for m in data["metrics"] if m["name"] == "cost.op_ns")


def test_labs_and_kernels_can_be_chosen(house: Path) -> None:
    assert {each.kernel for each in history.collect([house], kernels=["6.1"]).series} == {"6.1"}
    assert {each.kernel for each in history.collect([house], [LAB], ["5.10.0-0-synthetic"]).series} == {"5.10"}
    assert history.collect([house], ["mutex"]).series == []


def test_a_matrix_named_twice_counts_once(house: Path) -> None:
    assert history.collect([house, house / "a", house]).matrices == 3


def test_what_cannot_be_read_is_left_out_and_named(house: Path) -> None:
    (house / "b" / matrix.PLAN).write_text('{"schema": 9}')
    (house / "notes").mkdir()
    found = history.collect([house])

    assert found.matrices == 2
    assert [each.name for each in found.broken] == ["b", "notes"]
    assert "has schema 9; this program reads 1" in found.broken[0].why


def test_a_path_that_is_no_folder_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        history.collect([tmp_path / "nowhere"])


def test_for_machines_there_is_a_document(house: Path) -> None:
    found = history.collect([house])
    document = json.loads(json.dumps(history.document(found)))

    assert document.pop("schema") == 1
    assert msgspec.convert(document, History) == found


def test_on_a_terminal_every_series_is_a_table_that_names_clock_and_host(house: Path) -> None:
    found = history.collect([house])
    out = io.StringIO()
    history.print_history(found, out, 180)
    text = out.getvalue()

    assert text.count("; clock emulated, host ") == 2
    assert "2026-02-28 23:00" in text
    (slower,) = [line for line in text.splitlines() if "slower" in line]
    assert re.search(r" 1\.\d+ \[1\.\d+, 1\.\d+\] × 5\.10 ", slower)
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if "synthetic-3" in line]
    assert all(line.rstrip().endswith("lock") for line in lines)


def test_on_a_narrow_terminal_nothing_is_left_out(house: Path) -> None:
    out = io.StringIO()
    history.print_history(history.collect([house], kernels=["6.1"]), out, 60)
    last = out.getvalue().rstrip().splitlines()[-2:]

    assert last[0] == "2026-02-28 23:00  synthetic-3, lock abababababab, Go 1.28.0"
    value, ratio = r"\d+\sns \[\d+\sns, \d+\sns\]", r"1\.\d+ \[1\.\d+, 1\.\d+\]"
    assert re.fullmatch(rf"  n 8, {value}, {ratio} × 5\.10 slower, changed: lock", last[1])


def test_hosts_are_told_apart_by_what_they_say_and_not_by_its_order() -> None:
    one, other = {"cpu": "a", "cpus": "2"}, {"cpu": "b", "cpus": "2"}

    assert matrices.host_name(one) == matrices.host_name(dict(reversed(one.items())), one)
    assert matrices.host_name(one, other) == matrices.host_name(other, one)
    assert len({matrices.host_name(one), matrices.host_name(other), matrices.host_name(one, other)}) == 3
