"""Running a build's child processes: their last words become the error, nothing outlives an interruption."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from vm.errors import BuildError, DiskFullError, Interrupted, SetupError

_WORDS = 12
"""Lines of a failed child's output that its error shows."""
KEPT = ("PATH", "HOME", "TMPDIR", "USER", "LOGNAME")
"""Variables that a child gets; locale, proxies and the like would be the host's."""


class Stop:
    """Ends builds that run in threads: Ctrl-C reaches only the main thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[bytes]] = set()

    def check(self) -> None:
        """Raise :class:`~vm.errors.Interrupted` if builds are to end."""
        if self._event.is_set():
            raise Interrupted("interrupted", "What was fetched and finished is kept; run the command again.")

    @contextlib.contextmanager
    def watching(self, child: subprocess.Popen[bytes]) -> Iterator[None]:
        """Let :meth:`now` end ``child`` while the block runs."""
        with self._lock:
            self._children.add(child)
            if self._event.is_set():  # since the caller's check: nobody else will end this child
                _signal_group(child, signal.SIGTERM)
        try:
            yield
        finally:
            with self._lock:
                self._children.discard(child)

    def now(self) -> None:
        """End every child and let every build raise at its next check."""
        self._event.set()
        with self._lock:
            for child in self._children:
                _signal_group(child, signal.SIGTERM)

    def reset(self) -> None:
        """Let builds run again."""
        self._event.clear()


STOP = Stop()
"""Of this process: builds share one machine and one Ctrl-C."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables of a build's child: few, in the C.UTF-8 locale and UTC."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    path = kept.get("PATH", "")
    kept["PATH"] = ":".join([*filter(None, [path]), *(p for p in ("/usr/sbin", "/sbin") if p not in path.split(":"))])
    return kept | {"LC_ALL": "C.UTF-8", "TZ": "UTC0"} | dict(extra or {})


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    feed: Callable[[IO[bytes]], object] | None = None,
    output: Path | None = None,
    cwd: Path | None = None,
    dies_with_us: bool = False,
    words_to: Callable[[bytes], object] | None = None,
) -> bytes:
    """Run a child to its end and return its standard output.

    :param environment: added to :func:`environment`.
    :param feed: writes the child's standard input; called in this thread.
    :param dies_with_us: a SIGTERM for the child if this process is killed: for one that would go on for long.
    :param output: a file that gets the child's standard output instead.
    :param words_to: takes what a child that went well said on its standard error.
    :raises BuildError: it failed; the message names it, the hint has its last words.
    :raises DiskFullError: it failed because no space is left.
    :raises SetupError: there is no such program. :raises Interrupted: builds are to end.
    """
    STOP.check()
    words = [str(word) for word in command]
    name = name_of(words)
    if dies_with_us and shutil.which(words[0]) and (setpriv := shutil.which("setpriv")):
        words = [setpriv, "--pdeathsig", "TERM", "--", *words]
    with contextlib.ExitStack() as stack:
        target: IO[bytes] | int = stack.enter_context(output.open("wb")) if output else subprocess.PIPE
        try:
            child = subprocess.Popen(
                words,
                stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                stdout=target,
                stderr=subprocess.PIPE,
                env=_environment(environment),
                cwd=cwd,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            hint = f"Run ./setup.sh, or install the package of {name}."
            raise SetupError(f"{name} is not installed", hint) from error
        stack.enter_context(child)
        stack.enter_context(STOP.watching(child))
        try:
            if feed and child.stdin is not None:
                # The child says little before it has read everything, far less than a pipe holds.
                with contextlib.suppress(BrokenPipeError):
                    feed(child.stdin)
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.close()
                child.stdin = None
            said, errors = child.communicate()
        except BaseException:
            kill_group(child)
            raise
    STOP.check()
    if child.returncode != 0:
        raise failure(name, child.returncode, errors)
    if words_to is not None:
        words_to(errors)
    return said or b""


_environment = environment


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """End a child that leads its own session, and all that it started; a moment to clean up, then by force."""
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        _signal_group(child, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)
            return


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)


def name_of(words: Sequence[str]) -> str:
    """Return what a person calls the program of an argument vector; looks behind ``ld.so``."""
    if "--argv0" in words[:6]:
        return words[words.index("--argv0") + 1]
    return Path(words[0]).name


def failure(name: str, status: int, errors: bytes) -> BuildError | DiskFullError:
    """Return the error of a child that failed: a full disk is told from other reasons by the child's words."""
    text = errors.decode("utf-8", "replace").strip()
    last = "\n".join(text.splitlines()[-_WORDS:])
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return DiskFullError(
            f"{name} found no space left on the disk",
            "Free some, run invoke images.clean, or set KMLAB_CACHE or TMPDIR.",
        )
    ended = f"was ended by signal {-status}" if status < 0 else f"failed with status {status}"
    return BuildError(f"{name} {ended}", f"Its last words:\n{last}" if last else "It said nothing.")
