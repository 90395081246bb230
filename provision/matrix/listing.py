"""A plan, and how a matrix ended, for a terminal and for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from go_labs.matrix import OUTCOME_WORDS, PLAN, MatrixPlan
from provision import cli
from provision.matrix.estimate import Estimate
from provision.matrix.work import Summary
from vm.errors import UsageError
from vm.progress import span

SHOWN = 12
"""Runs of the order that a terminal shows; --json has all."""


def plan_document(plan: MatrixPlan, expected: Estimate, at_once: int, jobs: int, outlook: object) -> dict[str, Any]:
    """Return a plan for machines: ``plan`` as it would be written, ``expected`` (seconds, bytes, known runs), ``jobs``,
    ``outlook`` (what its repeats can detect)."""
    return {
        "schema": 1,
        "plan": msgspec.to_builtins(plan),
        "expected": {
            "seconds": expected.total / at_once,
            "bytes": expected.bytes,
            "runs": len(expected.seconds),
            "known_runs": expected.known,
        },
        "jobs": jobs,
        "outlook": msgspec.to_builtins(outlook),
    }


def show_plan(
    plan: MatrixPlan, expected: Estimate, at_once: int, jobs: int, free: int, words: Mapping[str, str]
) -> None:
    """Print what would be run, how long it takes, what it leaves, and what it can find.

    :param at_once: of ``jobs`` machines, those that are at work at once (``work.effective_jobs``).
    :param free: bytes that are free where the matrix would lie. :param words: lab → what its repeats can detect.
    """
    lines = {cell.id: cell.kernel_line for cell in plan.cells}
    base = plan.cell(plan.baseline).kernel_line
    kernels = ", ".join(dict.fromkeys(cell.kernel_line for cell in plan.cells if not cell.control))
    whole = "" if plan.judged == plan.repeats else f", {plan.judged} of them with all phases"
    print(f"{len(plan.labs)} labs × {len(plan.cells) - 1} kernels ({kernels}) × {plan.repeats} repeats{whole}")
    print(f"baseline {base}, which runs a second time under another name; clock: {plan.clock}; seed {plan.seed}")
    rows = []
    for lab in plan.labs:
        runs = [run for run in plan.runs if run.lab == lab.name]
        seconds = sum(expected.seconds.get(run.number, 0.0) for run in runs)
        rows.append((lab.name, lab.primary, str(len(runs)), span(seconds / at_once), words.get(lab.name, "-")))
    cli.print_table(("lab", "compared by", "runs", "expected", "what the repeats can find"), rows)
    if len(plan.cells) == 2:
        print("one kernel: it is compared with nothing but itself")
    for each in plan.unfit:
        print(f"not run: {each.lab} on {lines[each.cell]}: {each.why}")
    print("order:")
    for run in plan.runs[:SHOWN]:
        phases = "" if run.judged else ", timed phase alone"
        print(f"  {run.number}. repeat {run.block}: {run.lab} on {lines[run.cell]}{phases}")
    if len(plan.runs) > SHOWN:
        print(f"  … and {len(plan.runs) - SHOWN} more (--json has all)")
    known = expected.known, len(expected.seconds)
    source = "from earlier runs" if known[0] == known[1] else f"from earlier runs for {known[0]} of {known[1]}"
    print(
        f"expected: {span(expected.total / at_once)} with {jobs} at once, {source}; "
        f"{cli.human_size(expected.bytes)} of {cli.human_size(free)} that are free"
    )
    print("nothing was started")


def summary_document(done: Summary) -> dict[str, Any]:
    """Return how a matrix ended, for machines."""
    return {
        "schema": 1,
        "matrix": done.plan.id,
        "path": str(done.folder),
        "planned": len(done.plan.runs),
        "done": done.done,
        "passed": done.passed,
        "failed": dict(done.failed),
        "retried": done.retried,
    }


def summary_words(done: Summary) -> str:
    """Return how a matrix ended, in a line."""
    words = f"{done.passed} of {len(done.plan.runs)} runs passed"
    if done.failed:
        words += "; " + ", ".join(f"{count} {OUTCOME_WORDS[name]}" for name, count in sorted(done.failed.items()))
    if done.retried:
        words += f"; {done.retried} were tried twice"
    return words


def given_paths(texts: Sequence[str], matrices: Path) -> list[Path]:
    """Return the folders that a person means: paths, or names of matrices.

    :raises UsageError: one is not there.
    """
    found = []
    for text in texts:
        path = Path(text).expanduser()
        found.append(matrices / text if "/" not in text and not path.exists() else path)
        if not found[-1].exists():
            names = sorted((each.name for each in matrices.glob("*/") if (each / PLAN).is_file()), reverse=True)
            hint = cli.suggestion(text, names[:5]) if names else f"no matrix is in {matrices} yet"
            raise UsageError(f"there is no {found[-1]}", hint)
    return found
