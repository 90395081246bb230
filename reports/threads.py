"""What ``bpftrace/threads`` saw of a program from the kernel's side: its threads, and how they left a CPU. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec

from reports.analysis import PhaseData
from reports.text import neutral

TOOL = "bpftrace/threads"

RUNNABLE = ("0", "256")
"""prev_state of a thread that could have gone on: TASK_RUNNING, and TASK_REPORT_MAX for one that was preempted
(``__trace_sched_switch_state`` in ``include/trace/events/sched.h``)."""

Natural = Annotated[int, msgspec.Meta(ge=0)]


class Threads(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the tool's JSON that counts.

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


def read(phase: PhaseData) -> Threads | str:
    """Return what the tool saw in ``phase``, or why it saw nothing."""
    output = phase.tools.get(TOOL)
    if output is None:
        return phase.tool_errors.get(TOOL, f"{TOOL} did not run")
    if isinstance(output, dict) and output.get("error"):
        return neutral(str(output["error"]), limit=300)
    try:
        return msgspec.convert(output, Threads)
    except msgspec.ValidationError as error:
        return f"its output has another shape: {error}"
