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

    :param waited: seconds that it waited for its turn before it began; once it is over, those also that it waited for
        others afterwards.
    :param share: what it got; None before its end, and where the machine's process cannot be looked at.
    """

    waited: float = 0.0
    share: HostShare | None = None


Around = Callable[[Phase, Machine], AbstractContextManager[Watch]]
"""What surrounds a phase: it may wait for its turn before, and says afterwards what the machine got."""

Threads = Mapping[int, tuple[int, int]]
"""Thread → nanoseconds that it ran, and that it waited for a CPU."""


def threads(machine: Machine) -> Threads:
    """Return what the threads of a machine's CPUs got so far; empty where they cannot be told.

    QEMU's other threads are left out: on a host with no more CPUs than the guest they wait for these by nature.
    """
    found = {}
    for thread in machine.cpu_threads:
        with contextlib.suppress(OSError, ValueError):
            ran, waited, _ = Path(f"/proc/{thread}/schedstat").read_text().split()
            found[thread] = int(ran), int(waited)
    return found


def children() -> set[int]:
    """Return the processes that this one started and that still run (``/proc/PID/task/TID/children``, proc(5)); empty
    where the host's kernel does not tell."""
    found: set[int] = set()
    for task in _tasks(os.getpid()):
        with contextlib.suppress(OSError):
            found |= {int(word) for word in (task / "children").read_text().split()}
    return found


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir()) if pid else []
    except OSError:
        return []


@contextlib.contextmanager
def alone(_phase: Phase, machine: Machine) -> Iterator[Watch]:
    """Watch a phase of a machine that shares the host with nobody whom this program started."""
    watch = Watch()
    before = threads(machine)
    yield watch
    watch.share = share(before, threads(machine), sorted(os.sched_getaffinity(0)), 0)


def share(before: Threads, after: Threads, cores: list[int], neighbours: int) -> HostShare | None:
    """Return what lies between two readings; None where they are not of the same threads (a reset gave it others)."""
    if not before or before.keys() != after.keys():
        return None
    ran, waited = (sum(after[thread][n] - before[thread][n] for thread in before) / 1e9 for n in (0, 1))
    return HostShare(cores=cores, neighbours=neighbours, cpu_seconds=ran, wait_seconds=waited)


def pin(pid: int, cores: set[int]) -> None:
    """Let all threads of a process run on ``cores`` alone (sched_setaffinity(2)); threads that end just then are passed
    over."""
    for task in _tasks(pid):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(task.name), cores)
