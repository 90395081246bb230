"""The journal of a matrix: whatever ends a process, what is written there is true, and the rest has not happened."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from go_labs import matrix
from go_labs.matrix import JOURNAL, Begun, Entry, Opened, Voided
from provision.matrix.journal import Journal, settle
from tests.provision.matrices import AT, ended
from vm.errors import DiskFullError, RecordError, UsageError
from vm.paths import REPOSITORY

ENTRIES: list[Entry] = [
    Opened(at=AT, pid=4711, jobs=2, host={"cpu": "a “quoted” CPU"}, load={"load1": 0.5}),
    Begun(at=AT, run=1, attempt=1),
    ended(1, "gate_failed", words="line one\nline two", gates=["host pressure"]),
    Begun(at=AT, run=1, attempt=2),
    Voided(at=AT, run=1, attempt=1, words="a hash is another"),
    ended(1, attempt=2, record="20261126T120000Z-mutex-6.1-abcd"),
]


def written(folder: Path, entries: list[Entry]) -> bytes:
    with Journal(folder) as journal:
        for entry in entries:
            journal.add(entry)
    return (folder / JOURNAL).read_bytes()


def test_what_was_added_is_read_again_over_several_openings(tmp_path: Path) -> None:
    assert matrix.read_journal(tmp_path) == []
    written(tmp_path, ENTRIES[:2])
    written(tmp_path, [])
    written(tmp_path, ENTRIES[2:])

    assert matrix.read_journal(tmp_path) == ENTRIES


def test_a_last_line_that_was_cut_anywhere_has_not_happened_and_is_cut_away(tmp_path: Path) -> None:
    whole = written(tmp_path, ENTRIES)
    before = whole.rfind(b"\n", 0, len(whole) - 1) + 1
    file = tmp_path / JOURNAL

    for length in range(before, len(whole)):
        for rest in (b"", b"\0" * 7, b"\0" * 7 + b"\n"):
            if length == len(whole) - 1 and rest == b"":
                continue  # below: whole but for its line feed
            file.write_bytes(whole[:length] + rest)
            assert matrix.read_journal(tmp_path) == ENTRIES[:-1], (length, rest)
            assert written(tmp_path, ENTRIES[-1:]) == whole, (length, rest)

    file.write_bytes(whole[:-1])
    assert matrix.read_journal(tmp_path) == ENTRIES[:-1]
    assert written(tmp_path, ENTRIES[-1:]) == whole


@pytest.mark.parametrize("data", [b"", b"\n", b"{", b"\0\0", b"\0\n"])
def test_a_journal_of_which_nothing_is_whole_is_empty(data: bytes, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(data)

    assert matrix.read_journal(tmp_path) == []
    written(tmp_path, ENTRIES[:1])
    assert matrix.read_journal(tmp_path) == ENTRIES[:1]


def test_a_broken_line_before_the_last_is_an_error_that_names_it(tmp_path: Path) -> None:
    lines = written(tmp_path, ENTRIES).splitlines(keepends=True)
    (tmp_path / JOURNAL).write_bytes(b"".join([*lines[:2], lines[2][:20] + b"\n", *lines[3:]]))

    with pytest.raises(RecordError, match="line 3 is broken") as refused:
        matrix.read_journal(tmp_path)

    assert refused.value.hint


HOLD = """
import sys
from pathlib import Path
from provision.matrix.journal import Journal
with Journal(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_one_ends_or_is_killed(tmp_path: Path) -> None:
    for kill in (False, True):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"

        with pytest.raises(UsageError, match="another process works on matrix") as refused, Journal(tmp_path):
            pass
        assert "wait for it" in refused.value.hint

        if kill:
            holder.kill()
        holder.stdin.close()
        holder.wait(30)
        holder.stdout.close()
        written(tmp_path, ENTRIES[:1])


def test_a_refused_opening_changes_nothing(tmp_path: Path) -> None:
    written(tmp_path, ENTRIES)
    with Journal(tmp_path), (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"half')
        file.flush()
        with pytest.raises(UsageError), Journal(tmp_path):
            pass
        assert (tmp_path / JOURNAL).read_bytes().endswith(b'{"half')


@pytest.mark.parametrize("taken", [0, 1, 30])
def test_a_full_disk_leaves_the_journal_whole(taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def part(descriptor: int, data: bytes) -> int:
        if taken == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:taken])

    with Journal(tmp_path) as journal:
        journal.add(ENTRIES[0])
        with monkeypatch.context() as full:
            full.setattr(os, "write", part)
            with pytest.raises(DiskFullError) as refused:
                journal.add(ENTRIES[2])
        assert matrix.read_journal(tmp_path) == ENTRIES[:1]
        assert (tmp_path / JOURNAL).read_bytes().endswith(b"\n")
        assert "--resume" in refused.value.hint

        journal.add(ENTRIES[1])  # somebody made room
    assert matrix.read_journal(tmp_path) == ENTRIES[:2]


def test_a_line_that_the_disk_did_not_take_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Journal(tmp_path) as journal:
        journal.add(ENTRIES[0])
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", refuse)
            with pytest.raises(DiskFullError, match="Input/output error"):
                journal.add(ENTRIES[1])
    assert matrix.read_journal(tmp_path) == ENTRIES[:1]


def test_an_entry_is_on_the_disk_before_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    with Journal(tmp_path) as journal:
        monkeypatch.setattr(os, "fsync", fsync)
        for entry in ENTRIES:
            journal.add(entry)
            assert synced[-1] == (tmp_path / JOURNAL).stat().st_size


def test_the_name_of_a_new_journal_is_brought_to_the_disk_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", fsync)
    with Journal(tmp_path):
        assert synced == [str(tmp_path / JOURNAL), str(tmp_path)]


def test_settling_reaches_every_file_and_folder_and_the_name_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "record"
    (record / "timed").mkdir(parents=True)
    (record / "run.json").write_text("{}")
    (record / "timed" / "workload.json").write_text("{}")
    (record / "link").symlink_to("nowhere")
    synced: set[str] = set()
    monkeypatch.setattr(os, "fsync", lambda fd: synced.add(str(Path(f"/proc/self/fd/{fd}").readlink())))

    settle(record)

    parts = (record / "run.json", record / "timed", record / "timed" / "workload.json", record, tmp_path)
    assert synced == {str(path) for path in parts}


def test_several_threads_write_whole_lines(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        threads = [
            threading.Thread(target=lambda n=n: [journal.add(Begun(at=AT, run=n, attempt=a)) for a in range(20)])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    entries = matrix.read_journal(tmp_path)
    assert all(isinstance(entry, Begun) for entry in entries)
    assert {(e.run, e.attempt) for e in entries if isinstance(e, Begun)} == {
        (n, a) for n in range(4) for a in range(20)
    }
    assert len(entries) == 80
