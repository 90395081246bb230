"""Recordings of runtime/trace that a phase left: summarised once, large ones dropped, broken ones told of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bpf import build, gotrace
from go_labs.evidence import PhaseEvidence
from provision import gotraces
from tests.bpf import traces
from vm.paths import Layout

RECORDING = traces.FIXTURES / "go-1-1.27.3.trace"


@pytest.fixture(scope="module")
def tool() -> Path:
    return build.gotrace(Layout.from_environment())


def left(staging: Path, *names: str) -> PhaseEvidence:
    """A phase that left a recording under each of ``names``."""
    (staging / "traced").mkdir()
    for name in names:
        shutil.copyfile(RECORDING, staging / "traced" / name)
    files = {name: f"traced/{name}" for name in names}
    return PhaseEvidence(name="traced", exit_status=0, wall_seconds=1.0, workload_seconds=0.9, files=files)


@pytest.mark.build
def test_recordings_become_one_summary_and_stay(tmp_path: Path, tool: Path) -> None:
    evidence = gotraces.summarised(left(tmp_path, "go-2.trace", "go-10.trace", "stderr"), tmp_path, tool)
    assert evidence.files["go_trace"] == "traced/go-trace.json"
    assert set(evidence.files) == {"go-2.trace", "go-10.trace", "stderr", "go_trace"}
    assert evidence.go_traces_dropped == 0
    summary = gotrace.read(tmp_path / evidence.files["go_trace"])
    assert {each.name for each in summary.traces} == {"go-2.trace", "go-10.trace"}
    assert summary.segments[1].created() == 200


@pytest.mark.build
def test_a_large_recording_is_summarised_and_dropped(
    tmp_path: Path, tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gotraces, "KEPT_BYTES", RECORDING.stat().st_size - 1)
    evidence = gotraces.summarised(left(tmp_path, "go-1.trace"), tmp_path, tool)
    assert evidence.go_traces_dropped == 1
    assert "go-1.trace" not in evidence.files
    assert [path.name for path in (tmp_path / "traced").iterdir()] == ["go-trace.json"]
    assert gotrace.read(tmp_path / "traced/go-trace.json").segments[1].ended() == 97


def test_a_phase_without_recordings_stays_as_it_is(tmp_path: Path) -> None:
    evidence = left(tmp_path, "go-x.trace", "go-1.trace.json", "workload")
    assert gotraces.summarised(evidence, tmp_path, tmp_path / "no such program") is evidence


def test_a_file_of_the_workload_is_not_taken_for_a_summary(tmp_path: Path) -> None:
    evidence = left(tmp_path, "go-trace.json")
    assert "go_trace" not in gotraces.summarised(evidence, tmp_path, tmp_path / "no such program").files


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no memory >&2; exit 2", "failed with status 2"),
        ("echo '{}'", "no summary of Go's traces"),
        ("kill -9 $$", "gotrace was ended by signal 9"),
        ("exec sleep 60", "took more than 1 s"),
    ],
)
def test_a_summary_that_fails_is_told_for_each_recording(
    tmp_path: Path, script: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gotraces, "SECONDS", 1)
    tool = tmp_path / "tool"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    evidence = gotraces.summarised(left(tmp_path, "go-1.trace", "go-2.trace"), tmp_path, tool)
    summary = gotrace.read(tmp_path / evidence.files["go_trace"])
    assert [each.whole for each in summary.traces] == [False, False]
    assert all(words in each.error for each in summary.traces)
    assert summary.segments == {}
    assert "go-1.trace" in evidence.files
