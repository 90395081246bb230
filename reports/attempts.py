"""A lab's attempts as metrics and as a table: what was tried, and what came of it in the words of whoever refused.

Pure. Each attempt of ``lab.toml`` has a metric ``attempt.ID``: 1 where it was possible, 0 where it was refused, absent
with the reason where it could not be tried, or where a control of its kind did not succeed either, so that a refusal
shows nothing.
"""

from __future__ import annotations

from go_labs.attempts import METRIC, parse
from go_labs.evidence import AttemptResult
from go_labs.spec import Attempt
from reports.analysis import RunData
from reports.charts import Cell, Column, Table
from reports.schema import Metric

PHASE = "attempts"
"""What stands for a phase: attempts are made before the first one, and nothing that a trace loses touches them."""


def metrics(run: RunData) -> list[Metric]:
    """Return ``attempt.ID`` of each attempt of the lab, in its order."""
    return [_metric(run, attempt) for attempt in run.lab.attempts]


def table(run: RunData) -> Table | None:
    """Return what was tried and what came of it, or None where the lab tries nothing."""
    if not run.lab.attempts:
        return None
    return Table(
        id="attempts",
        title="What was tried",
        caption="Tried once in this machine, before anything was run; the answers are those of the kernel, of bpftool, "
        "or of the workload's function table. A control must succeed: it shows that the way of trying works.",
        place="known",
        phase=PHASE,
        columns=[Column(title=title) for title in ("Tried", "What it shows", "Came of it", "Answer", "Beside it")],
        rows=[_row(run, attempt) for attempt in run.lab.attempts],
    )


def _metric(run: RunData, attempt: Attempt) -> Metric:
    result = run.attempts.get(attempt.id)
    absent = _untried(run, attempt) or _uncontrolled(run, attempt)
    refused = result is not None and not result.done
    return Metric(
        name=f"{METRIC}{attempt.id}",
        title=parse(attempt.what).title,
        unit="",
        kind="count",
        value=None if absent or result is None else float(result.done),
        absent=absent,
        phase=PHASE,
        exact=True,
        words=result.words if refused and result is not None and not absent else "",
        meaning=attempt.meaning,
    )


def _untried(run: RunData, attempt: Attempt) -> str:
    """Return why ``attempt`` has no result; empty where it has one."""
    result = run.attempts.get(attempt.id)
    if result is None:
        return run.attempts_error or run.error or "this run did not try it"
    if result.what != attempt.what:
        return f"this run tried {result.what} under that name"
    return f"it could not be tried: {result.untried}" if result.untried else ""


def _uncontrolled(run: RunData, attempt: Attempt) -> str:
    """Return which control takes the meaning from the refusal of ``attempt``; empty where none does."""
    if _done(run, attempt) or attempt.control:
        return ""
    kind = parse(attempt.what).kind
    for other in run.lab.attempts:
        if other.control and parse(other.what).kind == kind and not _done(run, other):
            return f"it was refused, and the control {other.what} did not succeed either: this shows nothing"
    return ""


def _done(run: RunData, attempt: Attempt) -> bool:
    result = run.attempts.get(attempt.id)
    return result is not None and result.done and not _untried(run, attempt)


def _row(run: RunData, attempt: Attempt) -> list[Cell]:
    result = run.attempts.get(attempt.id)
    untried = _untried(run, attempt)
    mark = " (control)" if attempt.control else ""
    if untried or result is None:
        return [attempt.what, attempt.meaning, f"not tried{mark}", untried, ""]
    came = "possible" if result.done else "refused"
    return [
        attempt.what,
        attempt.meaning,
        f"{came}{mark}",
        _uncontrolled(run, attempt) or result.words or ("yes" if result.done else "none"),
        _facts(result),
    ]


def _facts(result: AttemptResult) -> str:
    """Return the facts in words; a list is left out where the answer tells it."""
    shown = {
        name: ", ".join(value) if isinstance(value, list) else str(value)
        for name, value in result.facts.items()
        if not (isinstance(value, list) and result.words)
    }
    return "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())
