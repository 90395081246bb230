"""What ``bcc/prog_list`` found: programs of which it is known whether they ran, in ``bpftool prog list``. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from reports.analysis import RunData
from reports.charts import Cell, Table
from reports.looks import failures
from reports.schema import Metric
from reports.shorthand import metric, table
from reports.text import neutral

TOOL = "bcc/prog_list"

IDENTITY = frozenset({"id", "name", "tag", "loaded_at", "pids"})
"""Words of an entry that say which program it is, and nothing of how it fares."""

LONGEST = 300
"""Characters of an entry that are shown."""


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One program.

    :param hits: how often it ran, by its own count.
    :param words: its entry in the list; empty where it is not in it. ``counted``: from a second list, taken while the
        kernel kept statistics and after more runs.
    """

    name: str
    attached: bool
    hits: int
    listed: bool
    words: dict[str, Any]
    counted: dict[str, Any] = {}


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the tool's document that counts."""

    programs: list[Program]


def programs(run: RunData) -> dict[str, Program]:
    """Return the programs by name; empty where the tool left nothing usable."""
    try:
        found = msgspec.convert(run.phase("kernel").tools.get(TOOL), Listing)
    except msgspec.ValidationError:
        return {}
    return {program.name: program for program in found.programs}


def apart(one: Program | None, other: Program | None, which: str) -> list[str] | None:
    """Return the words (``words`` or ``counted``) in which two entries differ; None where one is not listed."""
    if one is None or other is None or not one.listed or not other.listed:
        return None
    left, right = (getattr(program, which) for program in (one, other))
    keys = (left.keys() | right.keys()) - IDENTITY
    return sorted(key for key in keys if left.get(key) != right.get(key))


def metrics(run: RunData) -> Iterable[Metric]:
    """Return whether the compared programs ran, and in how many words the list tells them apart."""
    kernel, found = run.phase("kernel"), programs(run)
    errors = "; ".join(failures(kernel, "prog_list").values())
    lacking = f"{TOOL} left no result" + (f" ({errors})" if errors and not found else "")
    ran, never = found.get("listed_running"), found.get("listed_waiting")
    for name, program, what in (
        ("running", ran, "a system call that is made"),
        ("waiting", never, "one that nobody makes"),
    ):
        yield metric(
            f"prog_list.{name}_hits", f"Runs of the program attached to {what}", "count", kernel,
            None if program is None else float(program.hits), lacking, "its own count", exact=True,
        )  # fmt: skip
    for name, which, when in (
        ("told_apart", "words", "as the article calls it"),
        ("told_apart_counted", "counted", "with kernel.bpf_stats_enabled set"),
    ):
        words = apart(ran, never, which)
        yield metric(
            f"prog_list.{name}", "Words of the list that tell a program that ran from one that did not", "count",
            kernel,
            None if words is None else float(len(words)), lacking,
            f"bpftool prog list, {when}, less what names a program: {neutral(', '.join(words or [])) or 'none'}",
            exact=True,
        )  # fmt: skip


def programs_table(run: RunData) -> Table | None:
    """Return each program beside its entry, or None where the tool left nothing."""
    rows: list[list[Cell]] = [
        [
            neutral(program.name),
            "yes" if program.attached else "no",
            program.hits,
            "yes" if program.listed else "no",
            neutral(", ".join(f"{key} {program.words[key]}" for key in sorted(program.words)), LONGEST),
            neutral(f"run_cnt {program.counted['run_cnt']}") if "run_cnt" in program.counted else "no count",
        ]
        for program in programs(run).values()
    ]
    return table(
        "prog-list", "What bpftool prog list says, and of what",
        "Three programs of the same instructions, asked for while the workload ran. The last column is from a second "
        "list, taken after ten more calls with kernel.bpf_stats_enabled set, which is off by default.",
        "kernel", "known",
        {"Program": "", "Attached": "", "Runs": "", "Listed": "", "The list's words": "", "With statistics": ""}, rows,
    )  # fmt: skip
