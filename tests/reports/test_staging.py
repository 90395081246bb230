"""What a machine left is believed in nothing: each way to be wrong gives a phase with an error, or a clear refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports import staging
from tests.reports import made
from vm.errors import RecordError


def read(root: Path, name: str) -> Any:
    return staging.read(root, made.folder().lab)[1].phase(name)


def test_phases_are_read_with_segments_counters_events_and_frames(tmp_path: Path) -> None:
    phase = read(made.staging(tmp_path / "s", count=500), "traced")
    assert phase.error == ""
    assert [segment.parameters["goroutines"] for segment in phase.segments("forced")] == ["4", "16", "64"]
    assert phase.count("park_mutex", "forced") == 84
    assert phase.count("park_mutex", "free", lock="mutex", goroutines="16") == 271
    assert phase.events.size == 500
    assert phase.events_of(phase.segments("forced")).size + phase.events_of(phase.segments("free")).size == 500
    assert phase.frames(1) == [made.STACK[0], made.STACK[2]]
    assert phase.frames(-1) == []


def test_a_pie_binary_is_looked_up_by_its_linked_addresses(tmp_path: Path) -> None:
    root = made.staging(tmp_path / "s")

    def move(trace: dict[str, Any]) -> None:
        trace["load_bias"] = 0x550000
        trace["stacks"] = [[address + 0x550000 for address in stack] for stack in trace["stacks"]]

    made.change(root / "traced/trace.json", move)
    assert read(root, "traced").frames(0) == made.STACK


def test_an_address_that_nobody_knows_stays_a_number(tmp_path: Path) -> None:
    root = made.staging(tmp_path / "s")
    made.change(root / "traced/trace.json", lambda trace: trace["stacks"].append([0xDEAD]))
    assert read(root, "traced").frames(2) == ["0xdead"]


def test_tool_output_is_found_by_its_name(tmp_path: Path) -> None:
    root = made.staging(tmp_path / "s")
    assert read(root, "kernel").tools == {"bcc/futex": {"calls": 32}}
    (root / "kernel/tool-bcc-futex.json").write_text("Traceback (most recent call last):")
    phase = read(root, "kernel")
    assert phase.tools == {}
    assert "is no output of a tool" in phase.tool_errors["bcc/futex"]
    assert phase.error == ""


def go_traced(root: Path, data: bytes) -> Any:
    """The traced phase of ``root`` with ``data`` as the summary of Go's own traces."""
    (root / "traced/go-trace.json").write_bytes(data)
    made.change(root / "evidence.json", lambda e: e["phases"][1]["files"].update(go_trace="traced/go-trace.json"))
    return read(root, "traced")


def test_what_gos_own_tracer_saw_is_found_by_segment(tmp_path: Path) -> None:
    counts = {"user": {"created": 100, "ended": 97, "blocked": {"chan receive": 100}}}
    phase = go_traced(made.staging(tmp_path / "s"), made.go_trace(2, counts))
    assert phase.error == ""
    four, sixteen, _ = phase.segments("forced")
    assert phase.go_traced(four) is None
    assert phase.go_traced(sixteen).created() == 100
    assert phase.go_traced(sixteen).blocked("user") == {"chan receive": 100}


def test_a_phase_that_recorded_nothing_has_no_trace_of_go(tmp_path: Path) -> None:
    phase = read(made.staging(tmp_path / "s"), "traced")
    assert phase.go_trace is None
    assert phase.go_traced(phase.segments("forced")[0]) is None


@pytest.mark.parametrize("data", [b"", b"{}", made.go_trace(2, {"user": {"created": -1}}), made.go_trace(600, {})])
def test_a_broken_summary_of_gos_traces_is_an_error_of_its_phase(tmp_path: Path, data: bytes) -> None:
    phase = go_traced(made.staging(tmp_path / "s"), data)
    assert "summary of Go's traces" in phase.error
    assert phase.go_trace is None
    assert phase.count("park_mutex", "forced") == 84


def test_a_phase_that_did_not_run_says_so(tmp_path: Path) -> None:
    phase = read(made.staging(tmp_path / "s"), "profiled")
    assert phase.error == "phase profiled did not run"
    assert phase.count("park_mutex") is None


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("traced/workload.json", truncate, "not what the protocol asks for"),
        ("traced/workload.json", lambda _: b"", "not what the protocol asks for"),
        ("traced/workload.json", lambda data: data.replace(b'"queue"', b'"other"', 1), "it is of lab 'other'"),
        ("traced/workload.json", lambda data: data.replace(b'"id":2', b'"id":1', 1), "not unique numbers"),
        ("traced/workload.json", lambda data: data.replace(b'"id":2', b'"id":512', 1), "not unique numbers"),
        ("traced/workload.json", lambda data: data.replace(b'"slow":16', b'"slow":-16', 1), "negative count"),
        ("traced/workload.json", lambda data: data.replace(b'"slow"', b'"' + b"s" * 501 + b'"', 1), "longer than 500"),
        ("traced/workload.json", lambda data: data.replace(b'"end_ns":1150', b'"end_ns":1', 1), "ends before"),
        ("traced/trace.json", truncate, "no trace of the loader"),
        ("traced/symbols.json", truncate, "symbols.json: "),
        ("traced/events.bin", lambda data: data[:-1], "events need"),
    ],
)
def test_broken_output_makes_a_phase_with_an_error(
    tmp_path: Path, file: str, edit: Callable[[bytes], bytes], message: str
) -> None:
    root = made.staging(tmp_path / "s")
    changed = edit((root / file).read_bytes())
    assert changed != (root / file).read_bytes()
    (root / file).write_bytes(changed)
    assert message in read(root, "traced").error
    assert read(root, "timed").error == ""


def test_an_error_out_of_a_machine_cannot_move_the_cursor(tmp_path: Path) -> None:
    root = made.staging(tmp_path / "s")
    made.change(root / "evidence.json", lambda e: e["phases"][0].update(error="gone \x1b[2J\x1b]0;title\x07 now"))
    assert read(root, "timed").error == "gone \\x1b[2J\\x1b]0;title\\x07 now"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = made.staging(tmp_path / "s")
    made.change(root / "traced/trace.json", lambda trace: trace["stacks"].extend([[1] * 100] * 100))
    monkeypatch.setattr(staging, "MAXIMUM_JSON", 20_000)
    assert "more than 20000" in read(root, "traced").error


@pytest.mark.parametrize("name", ["../outside.json", "/etc/hostname"])
def test_evidence_that_names_a_file_outside_is_refused(tmp_path: Path, name: str) -> None:
    root = made.staging(tmp_path / "s")
    (tmp_path / "outside.json").write_text("{}")
    made.change(root / "evidence.json", lambda e: e["phases"][0]["files"].update(workload=name))
    with pytest.raises(RecordError, match="lies outside"):
        read(root, "timed")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda e: e.update(schema=2), "schema 2"),
        (lambda e: e.pop("provenance"), "provenance"),
        (lambda e: e["phases"].append(e["phases"][0]), "a phase twice"),
        (lambda e: e["files"].update(console="nowhere.log"), "which is not there"),
    ],
)
def test_evidence_that_does_not_hold_together_is_refused(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    root = made.staging(tmp_path / "s")
    made.change(root / "evidence.json", edit)
    with pytest.raises(RecordError, match=message):
        read(root, "timed")


def test_a_folder_without_evidence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no evidence of a run"):
        staging.read(tmp_path, made.folder().lab)
