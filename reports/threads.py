"""What ``bpf/bpftrace/threads.bt`` and ``bpf/bcc/threads.py`` saw of a program's threads. Pure."""

from __future__ import annotations

from reports.analysis import PhaseData
from reports.looks import Look, Natural, failures, looks_like

TOOL = "threads"
"""Name of the scripts."""

RUNNABLE = ("0", "256")
"""prev_state of a thread that could have gone on: TASK_RUNNING, and TASK_REPORT_MAX for one that was preempted
(``__trace_sched_switch_state`` in ``include/trace/events/sched.h``)."""


class Threads(Look, frozen=True, kw_only=True):
    """What such a tool prints beside what all print.

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


def threads(phase: PhaseData) -> dict[str, Threads]:
    """Return what the tools saw in ``phase``, by tool; one that saw nothing is not there."""
    return looks_like(phase, TOOL, Threads)


def why_none(phase: PhaseData) -> str:
    """Return why none of them saw anything."""
    words = [f"{tool}: {why}" for tool, why in sorted(failures(phase, TOOL, Threads).items())]
    return "; ".join(words) or f"{TOOL} did not run"
