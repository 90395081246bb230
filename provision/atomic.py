"""Nothing half-made is ever seen: staging folders that are renamed when whole, and one builder at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vm.artefacts import disk
from vm.errors import SetupError

_PREFIX = ".part-"


@contextlib.contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """Give a new folder below ``parent`` to build in; it is gone afterwards unless it was renamed.

    What builders left that were killed is cleared first.

    :raises DiskFullError: no space is left.
    :raises SetupError: ``parent`` cannot be written to.
    """
    with disk(parent):
        _make(parent)
        _sweep(parent)
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def alone(parent: Path, name: str) -> Iterator[None]:
    """Hold the right to build ``name`` in ``parent``; waits for another process that does.

    The kernel lets go of the lock when the process ends, whatever ends it.

    :raises DiskFullError: no space is left.
    :raises SetupError: ``parent`` cannot be written to.
    """
    with disk(parent):
        _make(parent)
        stream = (parent / f".{name}.lock").open("a")
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _make(parent: Path) -> None:
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise SetupError(
            f"{parent} cannot be made: {error.strerror}", "set KMLAB_CACHE to a folder of yours"
        ) from error
    if not os.access(parent, os.W_OK | os.X_OK):
        raise SetupError(f"{parent} cannot be written to", "set KMLAB_CACHE to a folder of yours")


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)
