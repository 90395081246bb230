"""A comparison on a terminal: the verdict on each lab and kernel, and what the run could have shown at all."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports import compare_words
from reports.comparison import Change, Comparison, Effect, LabComparison
from reports.html import CLOCK_TAGS
from reports.text import neutral, relative, relative_interval

STYLES: Mapping[Change, str] = {
    "slower": "bold red",
    "faster": "bold green",
    "higher": "bold blue",
    "lower": "bold blue",
    "equivalent": "",
    "undecided": "yellow",
}

COLUMN = 22
"""Columns of a terminal that a kernel takes; kernels that do not fit go on in a further table."""

LAB = 16
"""Columns for the lab."""


def print_comparison(comparison: Comparison, file: IO[str], width: int) -> None:
    """Print labs by kernels, the baseline against itself, what could have been found, and what does not count.

    A table in colours on a terminal (without where NO_COLOR is set); else a plain line for each lab and kernel.

    :param width: columns of the terminal.
    """
    terminal = file.isatty()
    colour = terminal and not os.environ.get("NO_COLOR")
    console = Console(file=file, no_color=not colour, highlight=False, width=width, soft_wrap=True)
    tag = CLOCK_TAGS[comparison.clock]
    _say(console, f"{comparison.name}: {' '.join(compare_words.summary(comparison))}", width if terminal else 0)
    if not comparison.chosen:
        _say(console, compare_words.AFTERWARDS, width if terminal else 0)
    console.print()
    if terminal:
        _tables(console, comparison, tag, width)
    else:
        _lines(console, comparison, tag)
    _resolution(console, comparison, width if terminal else 0)
    _rest(console, comparison, width if terminal else 0)


def _say(console: Console, words: str, width: int) -> None:
    for line in textwrap.wrap(neutral(words), max(40, width - 1)) if width else [neutral(words)]:
        console.print(Text(line))


def _tables(console: Console, comparison: Comparison, tag: str, width: int) -> None:
    lines = [kernel.line for kernel in comparison.kernels if kernel.line != comparison.baseline]
    per_table = max(1, (width - LAB) // COLUMN)
    for start in range(0, max(1, len(lines)), per_table):
        shown = lines[start : start + per_table]
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("lab", overflow="fold", min_width=LAB - 4)
        for line in shown:
            table.add_column(neutral(line), overflow="fold")
        for lab in comparison.labs:
            table.add_row(_head(lab, tag), *(_cell(comparison, lab, line) for line in shown))
        console.print(table, soft_wrap=False)
        console.print()


def _head(lab: LabComparison, tag: str) -> Text:
    found = Text().append(neutral(lab.lab), style="bold")
    if lab.primary is not None:
        found.append(f"\n{neutral(lab.primary.metric)}{f', {tag}' if tag and lab.primary.timing else ''}", style="dim")
    return found


def _effect(lab: LabComparison, line: str) -> Effect | None:
    return next((effect for effect in compare_words.effects(lab) if effect.kernel == line), None)


def _cell(comparison: Comparison, lab: LabComparison, line: str) -> Text:
    effect = _effect(lab, line)
    if effect is None:
        return Text(neutral(compare_words.why_nothing(comparison, lab, line)), style="dim")
    found = Text().append(effect.change, style=STYLES[effect.change])
    found.append(f"\n{_figures(effect)}", style="" if effect.ratio is not None else "dim")
    return found


def _figures(effect: Effect) -> str:
    if effect.ratio is None:
        return neutral(effect.absent)
    return f"{relative(effect.ratio)} {relative_interval(effect.interval)}".strip()


def _lines(console: Console, comparison: Comparison, tag: str) -> None:
    """Print a line for each lab and kernel: fields apart by two spaces, for those who search with grep."""
    for lab in comparison.labs:
        mark = f" ({tag})" if tag and lab.primary is not None and lab.primary.timing else ""
        metric = "" if lab.primary is None else f"  {lab.primary.metric}{mark}"
        for kernel in comparison.kernels:
            if kernel.line == comparison.baseline:
                continue
            effect = _effect(lab, kernel.line)
            words = compare_words.why_nothing(comparison, lab, kernel.line) if effect is None else effect.words
            figures = "" if effect is None or effect.ratio is None else f"{_figures(effect)}  n={effect.n}  "
            console.print(Text(neutral(f"{lab.lab}  {kernel.line}{metric}  {figures}{words}")))


def _resolution(console: Console, comparison: Comparison, width: int) -> None:
    if comparison.control is not None:
        _say(console, f"A/A: {comparison.control.words}", width)
    else:
        _say(console, "A/A: no second run of the baseline counts: nothing shows how often this run cries wolf.", width)
    _say(console, (
        f"blocks: {comparison.blocks}; {comparison.blocks_needed} are needed to establish any difference after "
        "correction"
    ), width)  # fmt: skip
    for lab in comparison.labs:
        if not compare_words.effects(lab):
            continue
        least = compare_words.detectable(lab)
        found = "differences" if least is None else f"differences from {relative(1 + least, sign=False)}"
        could = "not established, however large, on some kernel" if least is None else "found four times out of five"
        _say(console, f"{lab.lab}: {found} are {could}", width)


def _rest(console: Console, comparison: Comparison, width: int) -> None:
    kinds = compare_words.excluded_kinds(comparison)
    _say(console, f"runs: {comparison.passed} of {comparison.planned} passed", width)
    if kinds:
        _say(console, f"not counted: {compare_words.excluded_words(kinds)}; the page lists each with its reason", width)
    for note in comparison.notes:
        _say(console, f"note: {note}", width)
    _say(console, f"clock: {compare_words.CLOCK_NAMES[comparison.clock]}", width)
    if CLOCK_TAGS[comparison.clock]:
        _say(console, compare_words.CLOCK_SENTENCES[comparison.clock], width)
