"""Recordings of runtime/trace → exact counts by segment, on real recordings of old and new formats."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bpf import build, gotrace
from bpf.gotrace import GoTrace
from provision import toolchains
from tests.bpf import traces
from vm.errors import OutputError
from vm.paths import Layout

FORMATS = {"1.21.13": "1.21", "1.22.10": "1.22", "1.24.11": "1.23", "1.27.3": "1.26"}


@pytest.fixture(scope="module")
def tool() -> Path:
    return build.gotrace(Layout.from_environment())


def summarise(tool: Path, *paths: Path) -> GoTrace:
    made = subprocess.run([tool, *paths], capture_output=True, check=True, timeout=60)
    return gotrace.decode(made.stdout)


def recorded(version: str, into: Path) -> list[Path]:
    """Copy the recordings of ``version`` to the names that a workload gives them."""
    return [Path(shutil.copyfile(traces.FIXTURES / f"go-{n}-{version}.trace", into / f"go-{n}.trace")) for n in (1, 2)]


@pytest.fixture(params=FORMATS)
def summary(request: pytest.FixtureRequest, tool: Path, tmp_path: Path) -> GoTrace:
    made = summarise(tool, *recorded(request.param, tmp_path))
    assert {each.format for each in made.traces} == {FORMATS[request.param]}
    return made


@pytest.mark.build
def test_each_recording_is_whole_and_its_segments_are_known(summary: GoTrace) -> None:
    assert [(each.name, each.segments) for each in summary.traces] == [("go-1.trace", [1, 2]), ("go-2.trace", [2])]
    assert summary.problems == []
    assert [(s.entered, s.left, s.whole) for s in summary.segments.values()] == [(1, 1, True), (2, 2, True)]


@pytest.mark.build
def test_a_hundred_goroutines_are_created_97_end_and_3_stay_blocked(summary: GoTrace) -> None:
    segment = summary.segments[1]
    assert (segment.created(), segment.created("user"), segment.ended()) == (100, 100, 97)
    assert segment.blocked("user")["chan receive"] == 100
    staying = [each for each in segment.goroutines if each.state != "ended"]
    assert [(each.state, each.reason, each.ended_ns) for each in staying] == [("waiting", "chan receive", 0)] * 3
    assert len(segment.goroutines) == len({each.id for each in segment.goroutines}) == 100


@pytest.mark.build
def test_every_goroutine_is_known_by_start_creation_site_and_creator(summary: GoTrace) -> None:
    known = {(each.goroutine_class, each.start, each.site, each.parent) for each in summary.segments[1].goroutines}
    line = (traces.PLANTED / "main.go").read_text().splitlines().index("\t\tgo waiting(release)") + 1
    assert known == {("user", "main.waiting", f"main.planted kmlab-planted/main.go:{line}", 1)}


@pytest.mark.build
def test_times_lie_within_the_segment(summary: GoTrace) -> None:
    for segment in summary.segments.values():
        times = [each.created_ns for each in segment.goroutines]
        times += [time for each in segment.stretches for time in (each.start_ns, each.end_ns)]
        times += [pause.start_ns for pause in segment.pauses]
        times += [time for wait in segment.waits for time in (wait.start_ns, wait.woken_ns, wait.end_ns)]
        assert segment.start_ns <= min(times) <= max(times) <= segment.end_ns
    assert all(g.ended_ns == 0 or g.ended_ns > g.created_ns for g in summary.segments[1].goroutines)


@pytest.mark.build
def test_every_goroutine_ran_first_to_block_and_those_let_go_a_second_time(summary: GoTrace) -> None:
    segment = summary.segments[1]
    ended = {each.id: each.state == "ended" for each in segment.goroutines}
    runs = dict.fromkeys(ended, 0)
    for stretch in segment.stretches:
        if stretch.goroutine in runs:
            runs[stretch.goroutine] += 1
    assert runs == {number: 2 if done else 1 for number, done in ended.items()}
    assert {stretch.proc for stretch in segment.stretches} <= {0, 1}
    assert min(stretch.thread for stretch in segment.stretches) >= 0


@pytest.mark.build
def test_a_wait_is_of_one_that_was_let_go_and_listed_once(summary: GoTrace) -> None:
    segment = summary.segments[1]
    gone = {each.id for each in segment.goroutines if each.state == "ended"}
    waited = [wait.goroutine for wait in segment.waits if wait.reason == "chan receive"]
    assert len(waited) == len(set(waited))
    assert set(waited) <= gone
    assert min(wait.duration_ns for wait in segment.waits) >= 1_000_000


@pytest.mark.build
def test_entries_of_a_segment_in_two_recordings_are_added(summary: GoTrace) -> None:
    segment = summary.segments[2]
    assert segment.stopped("user") == {"runtime.Gosched": 14}
    assert (segment.syscalls("user"), segment.running("user"), segment.created()) == (20, 14, 0)


@pytest.mark.build
@pytest.mark.parametrize("version", sorted(set(toolchains.versions()) - set(FORMATS)))
def test_a_version_without_a_recording_of_its_own_is_recorded_now(tool: Path, tmp_path: Path, version: str) -> None:
    traces.record(version, tmp_path)
    made = summarise(tool, *sorted(tmp_path.iterdir()))
    assert made.problems == []
    planted, called = made.segments[1], made.segments[2]
    assert (planted.created(), planted.ended(), planted.blocked("user")["chan receive"]) == (100, 97, 100)
    assert (called.stopped("user")["runtime.Gosched"], called.syscalls("user")) == (14, 20)


@pytest.mark.build
def test_dumps_of_all_stacks_stop_the_world(summary: GoTrace) -> None:
    pauses = summary.segments[1].pauses
    assert pauses
    assert {pause.kind.replace("goroutines", "goroutine") for pause in pauses} == {"all goroutine stack trace"}
    assert all(pause.duration_ns > 0 for pause in pauses)


@pytest.mark.build
@pytest.mark.parametrize(("version", "clock"), [("1.21.13", "mark"), ("1.24.11", "mark"), ("1.27.3", "snapshot")])
def test_a_summary_says_what_set_its_clock(tool: Path, tmp_path: Path, version: str, clock: str) -> None:
    made = summarise(tool, *recorded(version, tmp_path))
    assert [each.clock for each in made.traces] == [clock, clock]
    assert made.segments[1].clock == clock


@pytest.mark.build
@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99])
def test_a_recording_that_was_cut_is_not_whole_and_says_why(
    tool: Path, tmp_path: Path, version: str, share: float
) -> None:
    path, _ = recorded(version, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    made = summarise(tool, path)
    (told,) = made.traces
    assert not told.whole
    assert told.error
    assert made.problems == [f"go-1.trace: {told.error}"]
    assert not any(segment.whole for segment in made.segments.values())


@pytest.mark.build
def test_a_recording_whose_end_was_dropped_counts_but_is_not_whole(tool: Path, tmp_path: Path) -> None:
    path, _ = recorded("1.27.3", tmp_path)
    made = summarise(tool, path.rename(tmp_path / "go-1-part.trace"))
    assert made.segments[1].created() == 100
    assert not made.segments[1].whole
    assert made.problems == ["go-1-part.trace: it is not whole"]


@pytest.mark.build
@pytest.mark.parametrize(
    ("data", "unsupported", "words"),
    [
        (b"go 1.99 trace\0\0\0" + b"\1" * 64, True, "unsupported"),
        (b"\x7fELF" + b"\0" * 100, False, "not a Go execution trace"),
        (b"go 1.26 trace\0\0\0" + bytes(range(256)) * 40, False, ""),
        (b"go 1.21 trace\0\0\0" + bytes(range(256)) * 40, False, ""),
    ],
)
def test_what_is_no_recording_is_told_of(
    tool: Path, tmp_path: Path, data: bytes, unsupported: bool, words: str
) -> None:
    path = tmp_path / "go-1.trace"
    path.write_bytes(data)
    (told,) = summarise(tool, path).traces
    assert not told.whole
    assert words in told.error
    assert bool(told.unsupported) == unsupported


@pytest.mark.build
def test_one_broken_recording_leaves_the_others_whole(tool: Path, tmp_path: Path) -> None:
    first, second = recorded("1.24.11", tmp_path)
    first.write_bytes(b"")
    made = summarise(tool, first, second, tmp_path / "go-3.trace")
    assert [each.whole for each in made.traces] == [False, True, False]
    assert made.segments[2].syscalls("user") == 10


@pytest.mark.build
def test_the_summarisers_own_tests_pass() -> None:
    done = subprocess.run(
        [build.go_command(), "test", "-count=1", "./..."], cwd=build.GOTRACE, capture_output=True, text=True,
        check=False, env={**os.environ, "CGO_ENABLED": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok")


def document(**changes: Any) -> bytes:
    """A small document, with ``changes`` to its one segment."""
    segment = {
        "entered": 1, "left": 1, "whole": True, "clock": "snapshot", "start_ns": 5, "end_ns": 9,
        "counts": {"user": {"created": 3, "blocked": {"select": 2}}, "tracer": {"blocked": {"select": 1}}},
        "procs": {"started": 0, "stopped": 0, "taken": 0}, "ranges": {}, "pauses": [], "pauses_left_out": 0,
        "goroutines": [], "goroutines_left_out": 0, "stretches": [[1, 0, 7, 5, 9]], "stretches_left_out": 0,
    }  # fmt: skip
    return msgspec.json.encode({"schema": 1, "traces": [], "segments": {"1": segment | changes}})


def test_counts_are_read_by_class_or_all_together() -> None:
    segment = gotrace.decode(document()).segments[1]
    assert segment.blocked() == {"select": 3}
    assert segment.blocked("user", "runtime") == {"select": 2}
    assert segment.stopped() == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"entered": -1},
        {"clock": "sundial"},
        {"counts": {"kernel": {}}},
        {"counts": {"user": {"blocked": {"r" * 501: 1}}}},
        {"ranges": {"GC": -2}},
        {"stretches": [[1, 0, 7, 9, 5]]},
        {"stretches": [[1, 0]]},
        {"waits": [{"goroutine": 1, "reason": "select", "start_ns": 5, "woken_ns": 4, "end_ns": 9}]},
        {"stretches": [[1, 0, 7, 5, 9]] * 20_001},
        {"pauses": None},
    ],
)
def test_a_document_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(OutputError, match="summary of Go's traces"):
        gotrace.decode(document(**changes))


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", document().replace(b'"1":{', b'"512":{')])
def test_what_is_no_document_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "go-trace.json"
    path.write_bytes(data)
    with pytest.raises(OutputError, match="summary of Go's traces"):
        gotrace.read(path)


def test_a_document_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "go-trace.json"
    path.write_bytes(document())
    monkeypatch.setattr(gotrace, "MAXIMUM_BYTES", 100)
    with pytest.raises(OutputError, match="more than 100"):
        gotrace.read(path)
