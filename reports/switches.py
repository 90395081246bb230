"""What ``bpf/bpftrace/sched_switch.bt`` and ``bpf/bcc/sched_switch.py`` saw while a workload said what it did. Pure.

A scene is a segment of the kernel phase whose count ``parks`` says how often goroutines (or a thread) waited in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from go_labs.evidence import Segment
from reports.analysis import PhaseData
from reports.looks import Look, failures, looks_like

TOOL = "sched_switch"
"""Name of the scripts."""

CALLS = {-1: "none", 0: "read", 1: "write", 24: "sched_yield", 35: "nanosleep", 202: "futex", 232: "epoll_wait",
         233: "epoll_ctl", 281: "epoll_pwait", 293: "pipe2", 441: "epoll_pwait2"}  # fmt: skip
"""System calls of x86-64 by number (arch/x86/entry/syscalls/syscall_64.tbl); -1 where a thread is in none."""

ASLEEP = 1 | 2
"""TASK_INTERRUPTIBLE and TASK_UNINTERRUPTIBLE, include/linux/sched.h; the tracepoint has them in every kernel."""

STATES = {1: "S", 2: "D"}
"""Letters of these states as the tracepoint prints them, include/trace/events/sched.h."""

MATCH, OTHERS = 0.9, 0.5
"""Shares of waits: threads sleep in a state and system call for most of one reason's, and for few of all others'."""


class Switches(Look, frozen=True, kw_only=True):
    """What such a tool prints beside what all print.

    :param left: threads that left a CPU: segment, prev_state, system call (-1: none), number.
    :param idle: by segment: such a thread was next where prev_pid was 0. :param ran: it returned from its system call
        next. :param again: it left again before. :param to_idle: such a thread left and the CPU fell idle.
    """

    left: list[tuple[int, int, int, int]]
    idle: dict[str, int]
    ran: dict[str, int]
    again: dict[str, int]
    to_idle: dict[str, int]

    def asleep(self, segment: Segment) -> dict[tuple[int, int], int]:
        """Return threads that fell asleep in ``segment``, by state and system call."""
        return {(state, call): n for where, state, call, n in self.left if where == segment.id and state & ASLEEP}


def switches(phase: PhaseData) -> dict[str, Switches]:
    """Return what the tools saw, by tool."""
    return looks_like(phase, TOOL, Switches)


def why_none(phase: PhaseData) -> dict[str, str]:
    """Return why tools saw nothing, by tool."""
    return failures(phase, TOOL, Switches)


def share(look: Switches, segment: Segment) -> float:
    """Return threads that fell asleep for each wait of a scene."""
    return sum(look.asleep(segment).values()) / segment.counts["parks"]


def told(look: Switches, scenes: Sequence[Segment]) -> int:
    """Return how many scenes have a state and system call of their own."""
    shares = [
        {key: n / segment.counts["parks"] for key, n in look.asleep(segment).items()} for segment in scenes
    ]  # fmt: skip

    def own(index: int, key: tuple[int, int]) -> bool:
        others = (other.get(key, 0.0) for number, other in enumerate(shares) if number != index)
        return shares[index][key] >= MATCH and all(share < OTHERS for share in others)

    return sum(any(own(index, key) for key in share) for index, share in enumerate(shares))


def words(key: tuple[int, int]) -> str:
    """Return a state and a system call in words: ``S in futex``."""
    state, call = key
    return f"{STATES.get(state, hex(state))} in {CALLS.get(call, f'call {call}')}"
