"""Traces: which runs' timelines go out, and the matrix's own, read with Perfetto's own structs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent  # type: ignore[import-untyped]

from go_labs.matrix import Entry, Voided
from reports import exports, perfetto
from reports.exports import perfetto as export
from reports.timeline import FullTimeline, Runs
from tests.reports import compared
from vm.errors import RecordError

JOURNAL: list[Entry] = [
    compared.opened(0),
    compared.begun(1, 1), compared.begun(2, 2),
    compared.ended(1, 5, record="5.10-1"),
    compared.begun(3, 6),
    compared.ended(2, 7, "kernel_splat", words="BUG \x1b[2J"),
    # A kill -9 here; run 3 was cut off.
    compared.opened(30),
    compared.begun(3, 31), compared.ended(3, 33, record="6.1-1"),
    Voided(at=compared.at(34), run=1, attempt=1, words="no run.json"),
]  # fmt: skip

RUNS = [compared.run(1, "k1"), compared.run(2, "k4"), compared.run(3, "k2")]


def slices(data: bytes) -> dict[str, list[tuple[str, int, int, dict[str, int | str]]]]:
    """Track → name, start and end in minutes, and what is told of each of its slices."""
    trace = Trace()
    trace.ParseFromString(data)
    words: dict[tuple[str, int], str] = {}
    tracks: dict[int, str] = {}
    found: dict[str, list[Any]] = {}
    for packet in trace.packet:
        for table in ("event_names", "debug_annotation_names"):
            words |= {(table, each.iid): each.name for each in getattr(packet.interned_data, table)}
        strings = packet.interned_data.debug_annotation_string_values
        words |= {("strings", each.iid): each.str.decode() for each in strings}
        if packet.HasField("track_descriptor"):
            tracks[packet.track_descriptor.uuid] = packet.track_descriptor.name
        elif packet.HasField("track_event"):
            event = packet.track_event
            mine = found.setdefault(tracks[event.track_uuid], [])
            if event.type == TrackEvent.TYPE_SLICE_BEGIN:
                told = {
                    words["debug_annotation_names", each.name_iid]: words["strings", each.string_value_iid]
                    if each.string_value_iid
                    else each.int_value
                    for each in event.debug_annotations
                }
                mine.append((words["event_names", event.name_iid], packet.timestamp, None, told))
            else:
                name, start, _, told = mine[-1]
                mine[-1] = (name, start, packet.timestamp, told)
    minute = 60 * 10**9
    return {
        track: [(name, start // minute, end // minute, told) for name, start, end, told in each]
        for track, each in found.items()
    }


def test_attempts_lie_on_a_track_for_each_machine_at_once(tmp_path: Path) -> None:
    matrix = compared.write(tmp_path / "m", compared.plan(*RUNS), *JOURNAL)
    written = exports.write_all(compared.comparison(), matrix, tmp_path / "out", ["perfetto"])
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == ["perfetto/matrix.pftrace"]

    found = slices(written[0].read_bytes())
    assert {track: [each[:3] for each in lane] for track, lane in found.items()} == {
        "job 1": [("mutex on 5.10", 0, 4), ("mutex on 6.1: cut off", 5, 6), ("mutex on 6.1", 30, 32)],
        "job 2": [("mutex on 5.10 (control): kernel complained", 1, 6)],
    }
    first, second = found["job 1"][0][3], found["job 2"][0][3]
    assert (first["run"], first["attempt"], first["record"]) == (1, 1, "5.10-1")
    assert first["voided"] == "its record was found broken later"
    assert (second["control"], second["words"]) == ("yes", "BUG \\x1b[2J")


def test_a_matrix_that_never_began_has_no_trace(tmp_path: Path) -> None:
    matrix = compared.write(tmp_path / "m", compared.plan(*RUNS))

    assert exports.write_all(compared.comparison(), matrix, tmp_path / "out", ["perfetto"]) == []
    assert not (tmp_path / "out" / "perfetto").exists()


def test_a_journal_that_does_not_hold_together_is_told(tmp_path: Path) -> None:
    matrix = compared.write(tmp_path / "m", compared.plan(*RUNS), compared.begun(9, 1))
    with pytest.raises(RecordError, match="run 9, which the plan lacks"):
        exports.write_all(compared.comparison(), matrix, tmp_path / "out", ["perfetto"])


def timeline(folder: Path, *names: str) -> bytes:
    """A real timeline in the record ``folder``, under each name."""
    ints = [np.array(each, dtype=np.int64) for each in ([1000], [1400], [18], [301], [0], [0])]
    data = perfetto.encode(FullTimeline("schedule", Runs(*ints, reasons=("chan receive",)))).data
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.perfetto-trace").write_bytes(data)
    return data


def test_the_first_judged_run_with_a_timeline_stands_for_its_lab_and_kernel(tmp_path: Path) -> None:
    """On 6.1 runs 3 to 5 were judged, and 3 left none; on 7.3 no judged run did, and one that was only timed does."""
    claim = compared.claim(v6_1=("undecided", "confirmed", "undecided", "confirmed", "confirmed"))
    claim.verdicts["6.1"][:2] = []
    lab = compared.lab(claims=[claim])
    timeline(tmp_path / "m" / "runs" / "6.1-1", "schedule")
    data = timeline(tmp_path / "m" / "runs" / "6.1-4", "schedule")
    timeline(tmp_path / "m" / "runs" / "6.1-5", "schedule")
    timeline(tmp_path / "m" / "runs" / "7.3-5", "one", "two")
    written = exports.write_all(compared.comparison(lab), tmp_path / "m", tmp_path / "out", ["perfetto"])

    assert [path.name for path in written] == [
        "mutex-6.1.pftrace", "mutex-7.3-one.pftrace", "mutex-7.3-two.pftrace",
    ]  # fmt: skip
    assert written[0].read_bytes() == data
    assert written[0].samefile(tmp_path / "m" / "runs" / "6.1-4" / "schedule.perfetto-trace")


def test_exporting_again_leaves_nothing_temporary_beside_a_link(tmp_path: Path) -> None:
    """rename(2) does nothing where both names are links to one file."""
    timeline(tmp_path / "m" / "runs" / "6.1-1", "schedule")
    for _ in range(2):
        written = exports.write_all(compared.comparison(), tmp_path / "m", tmp_path / "out", ["perfetto"])
    assert list((tmp_path / "out" / "perfetto").iterdir()) == written


def test_where_no_link_can_be_made_the_trace_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = timeline(tmp_path / "m" / "runs" / "6.1-1", "schedule")

    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (path,) = exports.write_all(compared.comparison(), tmp_path / "m", tmp_path / "out", ["perfetto"])
    assert path.read_bytes() == data
    assert path.stat().st_nlink == 1


def test_a_link_in_a_record_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "runs" / "6.1-1"
    folder.mkdir(parents=True)
    (folder / "schedule.perfetto-trace").symlink_to("/etc/hostname")

    assert exports.write_all(compared.comparison(), tmp_path / "m", tmp_path / "out", ["perfetto"]) == []


def test_one_job_at_a_time_is_one_lane() -> None:
    one = [e for n in range(4) for e in (compared.begun(n, n), compared.ended(n, n + 1))]

    assert {each.job for each in export.jobs(one)} == {0}
