"""Starting QEMU so that it cannot outlive its owner, and ending it.

A run-owned QEMU is killed by the kernel when its parent ends, however that ends (PR_SET_PDEATHSIG, prctl(2)). Two
traps:

- The signal is sent when the *thread* that forked the child ends. So one thread that lives as long as the process
  forks them all.
- A parent that dies before the child has made its request is not noticed. So a shell between setpriv and QEMU compares
  its parent with the one that was meant, after the request was made.

A person-owned QEMU is a session of its own and makes no such request. Neither gets the terminal's Ctrl-C: who owns it
decides when it ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from vm.errors import QemuDiedError, SetupError

# $1: the parent that was meant; the rest: what to become.
_GUARD = 'parent=$1; shift; [ "$PPID" = "$parent" ] || exit 125; exec "$@"'


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for a later one of the same number.

    :param started: field 22 of ``/proc/PID/stat``, clock ticks since boot (proc(5)).
    """

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Return the identity of a process that lives, ``None`` of one that does not (a zombie does not)."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return ProcessId.of(self.pid) == self

    def kill(self, folder: Path) -> None:
        """Kill it if it is a QEMU that was started in ``folder``, and wait until it is gone."""
        if not self.alive or not _works_in(self.pid, folder):
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGKILL)
        for _ in range(1000):
            if not self.alive:
                return
            time.sleep(0.005)


def _works_in(pid: int, folder: Path) -> bool:
    """Tell whether the process's command line and current folder name the machine in ``folder``."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        current = os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115 - the folder may be gone: compared as text
    except OSError:
        return False
    return f"kmlab-{folder.name}".encode() in words and current.removesuffix(" (deleted)") == str(folder.resolve())


def find(folder: Path) -> ProcessId | None:
    """Return the QEMU that was started in ``folder``, also where nobody came to write its number down."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _works_in(int(entry.name), folder):
            return ProcessId.of(int(entry.name))
    return None


class _Spawner:
    """The one thread that forks children; it ends with the process."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._jobs = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._owner = 0

    def spawn(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._owner != os.getpid():  # the first time, and in a child that was forked off this process
                self._owner = os.getpid()
                self._jobs = queue.SimpleQueue()
                threading.Thread(target=self._work, args=(self._jobs,), name="kmlab-spawner", daemon=True).start()
        future: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((start, future))
        try:
            return future.result()
        except BaseException:  # Ctrl-C while waiting: the child may yet come to be
            future.add_done_callback(_end_unwanted)
            raise

    @staticmethod
    def _work(
        jobs: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]],
    ) -> None:
        while True:
            start, future = jobs.get()
            try:
                future.set_result(start())
            except BaseException as error:
                future.set_exception(error)


def _end_unwanted(future: Future[subprocess.Popen[bytes]]) -> None:
    if future.exception() is None:
        end(future.result())


_spawner = _Spawner()


def spawn(
    command: Sequence[str],
    folder: Path,
    *,
    environment: Mapping[str, str],
    descriptors: Sequence[int] = (),
    detached: bool = False,
) -> subprocess.Popen[bytes]:
    """Start QEMU in ``folder``; what it says goes to ``qemu.log`` there.

    :param environment: added to a small environment in the C locale.
    :param descriptors: what it inherits.
    :param detached: let it outlive this process.
    :raises SetupError: the program, or setpriv, is not there.
    """
    words = list(command)
    if not detached:
        words = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", _GUARD, "kmlab", str(os.getpid()), *words]
    variables = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **environment}

    def start() -> subprocess.Popen[bytes]:
        with (folder / "qemu.log").open("ab") as log:
            return subprocess.Popen(
                words,
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=tuple(descriptors),
                start_new_session=True,
            )

    try:
        return _spawner.spawn(start)
    except FileNotFoundError as error:
        raise SetupError(f"cannot start {words[0]}: it is not installed", "invoke doctor") from error


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a child and collect it. Its disks are thrown away, so there is nothing to shut down in order."""
    process.kill()
    process.wait()


@contextlib.contextmanager
def listening(folder: Path, names: Sequence[str]) -> Iterator[dict[str, int]]:
    """Make listening Unix sockets in ``folder`` for QEMU to inherit; the descriptors close at the end.

    ``sun_path`` has room for 108 bytes (unix(7)), fewer than a folder's path may have: the sockets are reached through
    the folder's descriptor.
    """
    with contextlib.ExitStack() as stack:
        descriptors = {}
        for name in names:
            (folder / name).unlink(missing_ok=True)
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            with short_path(folder, name) as path:
                sock.bind(path)
            (folder / name).chmod(0o600)
            sock.listen(1)
            descriptors[name] = sock.fileno()
        yield descriptors


@contextlib.contextmanager
def short_path(folder: Path, name: str) -> Iterator[str]:
    """Give a path of ``folder/name`` that always fits into ``sun_path``."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def died(folder: Path, status: int | None) -> QemuDiedError:
    """Return the error for a QEMU that ended by itself, with its last words."""
    error = QemuDiedError(f"QEMU ended by itself{_ending(status)}")
    with contextlib.suppress(OSError):
        words = (folder / "qemu.log").read_text("utf-8", "replace").strip().splitlines()[-3:]
        error = QemuDiedError(
            f"QEMU ended by itself{_ending(status)}: {' | '.join(words) or 'it said nothing'}",
            f"{folder / 'console.log'} has what the machine said last",
        )
    error.signal = -status if status is not None and status < 0 else 0
    return error


def _ending(status: int | None) -> str:
    if status is None:
        return ""
    return f" (signal {-status})" if status < 0 else f" (status {status})"
