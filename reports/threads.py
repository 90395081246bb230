"""What ``bpf/bpftrace/threads.bt`` saw of a program: its threads, and how they left a CPU. Pure."""

from __future__ import annotations

from reports.analysis import PhaseData
from reports.looks import Look, Natural, failures, looks_like

TOOL = "threads"
"""Name of the script."""

RUNNABLE = ("0", "256")
"""prev_state of a thread that could have gone on: TASK_RUNNING, and TASK_REPORT_MAX for one that was preempted
(``__trace_sched_switch_state`` in ``include/trace/events/sched.h``)."""


class Threads(Look, frozen=True, kw_only=True):
    """What the tool prints beside what all print.

    :param states: switches away from threads of the program, by prev_state; ``seen``: by thread.
    :param made: threads that were created.
    """

    states: dict[str, Natural]
    seen: dict[str, Natural]
    made: Natural

    @property
    def preempted(self) -> int:
        """Switches away from threads that could have gone on."""
        return sum(count for state, count in self.states.items() if state in RUNNABLE)

    @property
    def slept(self) -> int:
        """All other switches away from threads of the program."""
        return sum(self.states.values()) - self.preempted


def read(phase: PhaseData) -> Threads | None:
    """Return what the tool saw in ``phase``, or None where it saw nothing."""
    return next(iter(looks_like(phase, TOOL, Threads).values()), None)


def why_none(phase: PhaseData) -> str:
    """Return why it saw nothing."""
    return next(iter(failures(phase, TOOL, Threads).values()), f"{TOOL} did not run")
