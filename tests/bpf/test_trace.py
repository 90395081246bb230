from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpf import trace as traces
from bpf.trace import EVENT, EventKind
from vm.errors import OutputError

DOCUMENT: dict[str, Any] = {
    "schema": 2,
    "pid": 412,
    "exit_status": 0,
    "load_bias": 0,
    "threads": 5,
    "counters": {"0": {"slow": 2}, "7": {"slow": 64, "park_mutex": 64}},
    "losses": {"ring_full": 3, "map_full": 0, "expired": 1},
    "hits": {"mutex.slow": 66},
    "programs": {"go_park": {"run_ns": 1234, "run_count": 5}},
    "cost": {"pp_ns": 3300.5, "entry_ns": 30000.0, "calls": 2000},
    "self_test": {"goids": [18, 19, 20]},
    "stacks": [[4831300, 4701926]],
    "load_seconds": 0.2,
    "attach_seconds": 0.1,
    "calibrate_seconds": 0.3,
    "events": 2,
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "trace.json"
    path.write_text(json.dumps(DOCUMENT | changes))
    return path


def events(**changes: int) -> np.ndarray[Any, np.dtype[np.void]]:
    found = np.zeros(2, dtype=EVENT)
    found["kind"] = EventKind.PARK
    found["stack"] = -1
    for name, value in changes.items():
        found[name] = value
    return found


def test_a_record_has_the_64_bytes_that_the_loader_writes() -> None:
    assert EVENT.itemsize == 64
    assert {name: field[1] for name, field in (EVENT.fields or {}).items()} == {
        "start_ns": 0,
        "duration_ns": 8,
        "address": 16,
        "object": 24,
        "value": 32,
        "goid": 40,
        "stack": 48,
        "tid": 52,
        "segment": 56,
        "kind": 58,
        "reason": 59,
        "pad": 60,
    }


def test_segments_are_numbers_and_losses_add_up(tmp_path: Path) -> None:
    trace = traces.read(write(tmp_path))

    assert trace.counters[7]["slow"] == 64
    assert trace.lost == 4


def test_events_come_back_as_they_were_written(tmp_path: Path) -> None:
    trace = traces.read(write(tmp_path))
    path = tmp_path / "events.bin"
    path.write_bytes(events(start_ns=1 << 40, stack=0, goid=7).tobytes())

    read = traces.read_events(path, trace)

    assert read["start_ns"].tolist() == [1 << 40, 1 << 40]
    assert read["stack"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 1}, "schema"),
        ({"counters": {"seven": {}}}, "counters"),
        ({"hits": {"mutex.slow": "many"}}, "hits"),
        ({"stacks": [["0x10"]]}, "stacks"),
        ({"cost": None}, "cost"),
    ],
)
def test_a_document_that_does_not_fit_names_the_field(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(OutputError, match=words):
        traces.read(write(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null"])
def test_what_is_no_document_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(content)

    with pytest.raises(OutputError, match="is no trace"):
        traces.read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    trace = traces.read(write(tmp_path))

    with pytest.raises(OutputError):
        traces.read(tmp_path / "absent.json")
    with pytest.raises(OutputError):
        traces.read_events(tmp_path / "absent.bin", trace)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (events().tobytes()[:-1], "127 bytes"),
        (events(stack=1).tobytes(), "names a stack"),
        (events(stack=-2).tobytes(), "names a stack"),
        (events(kind=99).tobytes(), "unknown kind"),
    ],
)
def test_events_that_do_not_fit_the_trace_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    trace = traces.read(write(tmp_path))
    path = tmp_path / "events.bin"
    path.write_bytes(content)

    with pytest.raises(OutputError, match=words):
        traces.read_events(path, trace)
