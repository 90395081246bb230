"""The one place where errors become words and an exit status. No traceback reaches a person.

Every task of ``tasks.py`` runs inside :func:`framed`:

- a :class:`~vm.errors.LabError` is printed as ``error: …`` and ``hint: …`` on stderr, and its class gives the status;
- Ctrl-C, SIGTERM and SIGHUP unwind the program, so that everything it started is ended, and give 130, 143 and 129;
- a full disk is told as such wherever it is met;
- anything else is a defect: its traceback goes to a log, whose path is printed, and the status is 70;
- a reader that went away (``| head``) ends the program quietly with 141, as the shell would.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import ParamSpec, TypeVar

from vm.errors import DiskFullError, Interrupted, LabError
from vm.paths import Layout

EXIT_DEFECT = LabError.exit_code
EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE

SSH_OFFSET = 200
"""What ``invoke ssh`` adds to the code of its own failures, so that a remote status is never mistaken for one."""

P = ParamSpec("P")
T = TypeVar("T")
StatusOf = Callable[[int], int]


class Signalled(Interrupted):
    """A signal asked the program to end.

    :param number: of the signal; the exit status is 128 more, as in a shell.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}", "what was finished is kept")
        self.number = number


def ssh_status(code: int) -> int:
    """Return the status with which ``invoke ssh`` tells its own failure ``code``: 200 more, 254 at most.

    Codes of signals (128 and up) stay as they are, because they are what a shell expects.
    """
    return code if code >= 128 else min(SSH_OFFSET + code, 254)


def show(message: str, hint: str = "") -> None:
    """Print an error and what to do next on stderr."""
    red, end = ("\x1b[31m", "\x1b[0m") if use_colour(sys.stderr.isatty()) else ("", "")
    print(f"{red}error:{end} {_printable(message)}", file=sys.stderr)
    if hint:
        print(f"hint: {_printable(hint)}", file=sys.stderr)


def use_colour(terminal: bool) -> bool:
    """Return whether colours are wanted: a terminal, and NO_COLOR is not set (to anything but the empty string)."""
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def status_of(error: BaseException, logs: Path) -> int:
    """Print ``error`` and return the exit status that it stands for.

    :param logs: folder that a defect's traceback is written to.
    """
    if isinstance(error, Signalled):
        show(error.message, error.hint)
        return 128 + error.number
    if isinstance(error, LabError):
        show(error.message, error.hint)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        show("interrupted", "what was finished is kept; run the same command again to go on")
        return Interrupted.exit_code
    if isinstance(error, BrokenPipeError) or _reader_gone(error):
        return EXIT_BROKEN_PIPE
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        show(f"no space left{f' for {error.filename}' if error.filename else ''}", "free some, or see images.clean")
        return DiskFullError.exit_code
    return _defect(error, logs)


def framed(function: Callable[P, T], *, status: StatusOf = lambda code: code) -> Callable[P, T]:
    """Wrap a task, so that it ends with an exit status and words instead of a traceback.

    :param status: translates the status of a failure (see :func:`ssh_status`).
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with signals():
                result = function(*args, **kwargs)
            sys.stdout.flush()
        except BaseException as error:
            if isinstance(error, SystemExit) and not _reader_gone(error):
                _flush()
                raise
            code = status(status_of(error, Layout.from_environment().logs))
            _flush()
            raise SystemExit(code) from None
        return result

    return call


def _reader_gone(error: BaseException) -> bool:
    """Tell whether ``error`` is Rich's own end, status 1, for a reader that went away."""
    return isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Make Ctrl-C, SIGTERM and SIGHUP exceptions for the length of the block.

    Once one is under way, further ones are ignored, so that the clean-up it set off is finished; the third one
    in a row ends the program all the same.
    """
    seen = 0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            os.write(2, b"cleaning up; once more to stop at once\n")
            return
        if seen > 2:
            os._exit(128 + number)
        # The exception may come while a thread is being started, which then fails in a way that Python can only print.
        sys.unraisablehook = lambda _: None
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Signalled(number)

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {}
    hook = sys.unraisablehook
    for number in wanted:
        # Under nohup, or in the background of a script, a signal is ignored on purpose.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def _flush() -> None:
    """Flush stdout; where its reader is gone, point it elsewhere, so that Python's own exit does not complain."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _defect(error: BaseException, logs: Path) -> int:
    text = "".join(traceback.format_exception(error))
    path = logs / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
    hint = f"the details are in {path}"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        path.write_text(f"command: {sys.argv}\n\n{text}", encoding="utf-8")
    except OSError as second:
        hint = f"its log could not be written ({second.strerror}); the last line was: {text.strip().splitlines()[-1]}"
    show(f"the lab itself failed: {type(error).__name__}: {error}", hint)
    return EXIT_DEFECT


def _printable(text: str) -> str:
    """Keep escape sequences of untrusted output out of the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
