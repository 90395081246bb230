"""The journal of a matrix, opened to be added to: by one process at a time, a whole line at a time, onto the disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from go_labs.matrix import JOURNAL, Entry, whole_length
from vm.errors import DiskFullError, UsageError


def now() -> str:
    """Return the time as the journal writes it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Journal:
    """``journal.jsonl`` of the matrix in ``folder``. A context manager that holds it against other processes."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / JOURNAL
        self._descriptor = -1
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Open it, and cut away a last line that was cut off.

        :raises UsageError: another process works on the matrix.
        """
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise UsageError(
                f"another process works on matrix {self._file.parent.name}", "wait for it, or end it first"
            ) from error
        os.ftruncate(descriptor, whole_length(self._file.read_bytes()))
        os.fsync(descriptor)
        _bring(self._file.parent)  # a new file's name is on the disk only with its folder
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            os.close(self._descriptor)
            self._descriptor = -1

    def add(self, entry: Entry) -> None:
        """Add a line; when this returns, it is on the disk.

        :raises DiskFullError: it could not be written, and is not there.
        """
        line = msgspec.json.encode(entry) + b"\n"
        with self._lock:
            before = os.fstat(self._descriptor).st_size
            try:
                written = os.write(self._descriptor, line)
                if written < len(line):  # a full disk may take a part
                    raise OSError(f"{written} of {len(line)} bytes were written")
                os.fsync(self._descriptor)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, before)
                raise DiskFullError(
                    f"the journal of the matrix cannot be written: {error}", "free some space, then --resume"
                ) from error


def settle(folder: Path) -> None:
    """Bring all files of ``folder`` and its own name to the disk, so that a power cut finds it whole or not at all.

    :raises OSError: the disk refused.
    """
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir()), folder.parent]
    for path in (*paths, *folders):
        _bring(path)


def _bring(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
