"""Progress of long work, on stderr: a bar at a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)

FIRST_WORD = 10.0
"""Seconds that something may last before its progress is shown."""


class Reporter(Protocol):
    """What a download tells of itself. Called from several threads."""

    def begin(self, what: str, total: int) -> None:
        """Say that ``what`` starts and has ``total`` bytes."""

    def advance(self, size: int) -> None:
        """Say that ``size`` more bytes are there; negative where bytes had to be thrown away."""

    def note(self, text: str) -> None:
        """Say something that a person should know, a line."""

    def end(self) -> None:
        """Say that what began is over, whether it succeeded or not."""


class Silent:
    """Says nothing, keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def begin(self, what: str, total: int) -> None:
        """Ignore the start."""

    def advance(self, size: int) -> None:
        """Ignore bytes."""

    def note(self, text: str) -> None:
        """Keep ``text``."""
        self.notes.append(text)

    def end(self) -> None:
        """Ignore the end."""


class Bars:
    """A bar for a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console
        )
        self._task: TaskID | None = None

    def begin(self, what: str, total: int) -> None:
        """Draw a bar of ``total`` bytes."""
        self._progress.start()
        self._task = self._progress.add_task(what, total=total)

    def advance(self, size: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.advance(self._task, size)

    def note(self, text: str) -> None:
        """Print ``text`` above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def end(self) -> None:
        """Leave the bar as it is and give the terminal back."""
        self._progress.stop()


class Lines:
    """Plain lines for logs: the start, then at most one every ``interval`` seconds, then the end."""

    def __init__(self, stream: TextIO, interval: float = 5.0) -> None:
        self._stream = stream
        self._interval = interval
        self._lock = threading.Lock()
        self._what = ""
        self._total = self._done = 0
        self._began = self._said = 0.0

    def begin(self, what: str, total: int) -> None:
        """Print what starts."""
        with self._lock:
            self._what, self._total, self._done = what, total, 0
            self._began = self._said = time.monotonic()
            self._print(f"{what}: {_mega(total)} MB")

    def advance(self, size: int) -> None:
        """Count, and print now and then."""
        with self._lock:
            self._done += size
            now = time.monotonic()
            if now - self._said >= self._interval:
                self._said = now
                self._print(f"{self._what}: {_mega(self._done)} of {_mega(self._total)} MB")

    def note(self, text: str) -> None:
        """Print ``text``."""
        with self._lock:
            self._print(text)

    def end(self) -> None:
        """Print how far it came and how long it took."""
        with self._lock:
            seconds = time.monotonic() - self._began
            self._print(f"{self._what}: {_mega(self._done)} of {_mega(self._total)} MB after {seconds:.0f} s")

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def _mega(size: int) -> str:
    return f"{size / 1e6:.1f}"


def to_stderr() -> Reporter:
    """Return what suits stderr as it is: bars at a terminal, plain lines elsewhere."""
    console = Console(stderr=True)
    return Bars(console) if console.is_terminal else Lines(sys.stderr)


@contextmanager
def quiet() -> Iterator[None]:
    """Let :func:`waiting` show nothing within the block, in this thread: somebody else shows how things stand."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


@contextmanager
def waiting(
    what: str, expected: float = 0.0, *, stream: TextIO | None = None, after: float = FIRST_WORD
) -> Iterator[None]:
    """Show how long ``what`` has lasted while the block runs: a clock at a terminal, else lines that become rarer.

    Nothing is shown of what is over within ``after`` seconds.

    :param expected: seconds that it takes, about; 0 where nobody knows.
    :param stream: where to; stderr by default.
    """
    if _quiet.get():
        yield
        return
    over = threading.Event()
    console = Console(file=stream, stderr=stream is None)
    show = _clock if console.is_terminal else _lines
    watcher = threading.Thread(target=show, args=(console, what, expected, after, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _clock(console: Console, what: str, expected: float, after: float, over: threading.Event) -> None:
    began = time.monotonic()
    if over.wait(after):
        return
    of = f"of about {span(expected)}" if expected else ""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn(of))
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(what, total=expected or None)
        shown.tasks[0].start_time = shown.get_time() - (time.monotonic() - began)
        while True:
            shown.update(task, completed=min(time.monotonic() - began, expected or 0.0))
            if over.wait(0.5):
                return


def _lines(console: Console, what: str, expected: float, after: float, over: threading.Event) -> None:
    began = time.monotonic()
    of = f" of about {span(expected)}" if expected else ""
    pause = after
    while not over.wait(pause):
        lasted = time.monotonic() - began
        console.print(f"{what}: {span(lasted)}{of}", markup=False, highlight=False, soft_wrap=True)
        pause = max(after, lasted / 10)


def span(seconds: float) -> str:
    """Return a length of time in words: ``40 s``, ``2 min 5 s``, ``3 h 0 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
