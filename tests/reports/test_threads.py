"""What the tool that watches threads says, and what does not pass for it."""

from __future__ import annotations

import dataclasses
from typing import Any

from reports.analysis import PhaseData
from reports.threads import threads, why_none

PHASE = PhaseData(name="kernel", exit_status=0, wall_seconds=1.0, workload_seconds=1.0)
SAID: dict[str, Any] = {
    "hits": 9, "total": 30, "states": {"0": 3, "1": 2, "256": 4}, "seen": {"101": 5, "102": 4}, "made": 1,
}  # fmt: skip


def of(**changes: Any) -> PhaseData:
    return dataclasses.replace(PHASE, tools={"bpftrace/threads": SAID | changes})


def test_threads_that_could_have_gone_on_are_told_from_those_that_slept() -> None:
    (found,) = threads(of()).values()

    assert (found.preempted, found.slept, len(found.seen), found.made) == (7, 2, 2, 1)


def test_what_is_no_document_of_the_tool_is_nothing_and_says_why() -> None:
    for changed in (of(states={"0": -1}), of(seen=[]), of(made="many"), of(error="no such probe")):
        assert threads(changed) == {}
        assert why_none(changed).startswith("bpftrace/threads: ")


def test_a_tool_that_did_not_run_says_so() -> None:
    assert threads(PHASE) == {}
    assert why_none(PHASE) == "threads did not run"
