"""What of the host's CPUs a machine got during a phase, and what it had to wait for: the host's pressure as the machine
felt it.

Load averages and PSI speak of the whole host; that a machine's own threads were ready to run and had no CPU is what
moves its figures. Each thread has both numbers (``/proc/PID/task/TID/schedstat``,
Documentation/scheduler/sched-stats.rst).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from go_labs.evidence import HostShare
from go_labs.spec import Phase
from vm.machine import Machine


@dataclass(slots=True)
class Watch:
    """A phase that is watched.

    :param waited: seconds that it waited for its turn before it began.
    :param share: what it got; None before its end, and where the machine's process cannot be looked at.
    """

    waited: float = 0.0
    share: HostShare | None = None


Around = Callable[[Phase, Machine], AbstractContextManager[Watch]]
"""What surrounds a phase: it may wait for its turn before, and says afterwards what the machine got."""

Threads = Mapping[int, tuple[int, int]]
"""Thread → nanoseconds that it ran, and that it waited for a CPU."""


def threads(pid: int) -> Threads:
    """Return what the threads of process ``pid`` got so far; empty where there is none, or the kernel does not tell."""
    found = {}
    for task in _tasks(pid):
        with contextlib.suppress(OSError, ValueError):
            ran, waited, _ = (task / "schedstat").read_text().split()
            found[int(task.name)] = int(ran), int(waited)
    return found


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir()) if pid else []
    except OSError:
        return []


def between(before: Threads, after: Threads) -> tuple[float, float]:
    """Return seconds that threads ran and waited between two readings; those that ended meanwhile are not in it."""
    ran = sum(values[0] - before.get(thread, (0, 0))[0] for thread, values in after.items())
    waited = sum(values[1] - before.get(thread, (0, 0))[1] for thread, values in after.items())
    return ran / 1e9, waited / 1e9


@contextlib.contextmanager
def alone(_phase: Phase, machine: Machine) -> Iterator[Watch]:
    """Watch a phase of a machine that shares the host with nobody whom this program started."""
    watch = Watch()
    pid, cores = machine.pid, sorted(os.sched_getaffinity(0))
    before = threads(pid)
    yield watch
    watch.share = share(pid, before, threads(pid), cores, 0)


def share(pid: int, before: Threads, after: Threads, cores: list[int], neighbours: int) -> HostShare | None:
    """Return what lies between two readings of ``pid``; None where one of them is empty (a reset gave it another
    process)."""
    if not pid or not before or not after:
        return None
    ran, waited = between(before, after)
    return HostShare(cores=cores, neighbours=neighbours, cpu_seconds=ran, wait_seconds=waited)


def pin(pid: int, cores: set[int]) -> None:
    """Let all threads of a process run on ``cores`` alone (sched_setaffinity(2)); threads that end just then are passed
    over."""
    for task in _tasks(pid):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(task.name), cores)
