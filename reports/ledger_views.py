"""The ledger on a terminal, and as one page without script."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO
from urllib.parse import quote

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports import html
from reports.html import CLOCK_TAGS, environment
from reports.ledger import Cell, Ledger, Row
from reports.schema import OUTCOMES, Outcome
from reports.summary import STYLES
from reports.text import OUTCOME_WORDS, neutral
from vm.errors import RecordError

PAGE = "claims.html"
"""Name of the page below ``runs/``."""

NOT_RUN = "not run"

SHORT: Mapping[Outcome, str] = {**OUTCOME_WORDS, "not_testable": "not testable"}
"""Verdicts as the columns of a terminal have room for them; a line below has the whole words."""

COLUMN = 14
"""Columns of a terminal that a kernel takes."""


# ---- terminal ----


def print_ledger(ledger: Ledger, file: IO[str], width: int) -> None:
    """Print each claim with a column per kernel line, and then the runs that the verdicts are from.

    :param width: columns of the terminal; kernels that do not fit go on in further lines.
    """
    colour = file.isatty() and not os.environ.get("NO_COLOR")
    console = Console(file=file, no_color=not colour, highlight=False, width=width, soft_wrap=True)
    indent = max((len(neutral(row.claim)) for row in ledger.claims), default=0) + 2
    per_line = max(1, (width - indent) // COLUMN)
    stretches = [ledger.kernels[i : i + per_line] for i in range(0, len(ledger.kernels), per_line)]
    for lab, rows in groupby(ledger.claims, key=lambda row: (row.lab, row.section, row.title)):
        console.print(Text(neutral(_heading(*lab)), style="bold"))
        for lines in stretches:
            console.print(Text(f"{'':{indent}}" + _columns(lines), style="dim"))
        for row in rows:
            _print_row(console, row, stretches, indent, width)
        console.print()
    _print_runs(console, ledger)


def _heading(lab: str, section: str, title: str) -> str:
    return f"{lab}, section {section}: {title}" if section else f"{lab}: {title}"


def _columns(words: Sequence[str]) -> str:
    return "".join(f"{neutral(word, COLUMN - 2):{COLUMN}}" for word in words).rstrip()


def _print_row(console: Console, row: Row, stretches: Sequence[Sequence[str]], indent: int, width: int) -> None:
    for number, lines in enumerate(stretches):
        line = Text(f"{neutral(row.claim) if number == 0 else '':{indent}}")
        for name in lines:
            cell = row.verdicts[name]
            word = NOT_RUN if cell is None else SHORT[cell.outcome] + ("*" if remarks(cell) else "")
            line.append(f"{word:{COLUMN}}", style="dim" if cell is None else STYLES[cell.outcome])
        line.rstrip()
        console.print(line)
    for words in textwrap.wrap(neutral(row.text), max(20, width - indent - 1)):
        console.print(Text(" " * indent + words))


def _print_runs(console: Console, ledger: Ledger) -> None:
    runs = list(runs_behind(ledger))
    if not runs:
        console.print("no run of these labs is there; `invoke lab NAME --kernel LINE` makes one", markup=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("lab", "kernel", "Go", "clock", "run behind the verdicts", "*"):
        table.add_column(name, overflow="fold", no_wrap=name != "*")
    for run in runs:
        words = "; ".join([*([f"only {', '.join(run.claims)}"] if run.some else []), *remarks(run.cell)])
        cells = (run.lab, run.line, run.cell.go_version, run.cell.clock, run.cell.record, words)
        table.add_row(*(Text(neutral(cell)) for cell in cells))
    console.print(table, soft_wrap=False)
    shown = [cell for row in ledger.claims for cell in row.verdicts.values() if cell is not None]
    if any(cell.outcome == "not_testable" for cell in shown):
        console.print(f"{SHORT['not_testable']}: {OUTCOME_WORDS['not_testable']}; the run's report says why")
    if any(remarks(cell) for cell in shown):
        console.print("*: not the lab as it is with its defaults, see the last column")


@dataclass(frozen=True, slots=True)
class Behind:
    """A run that verdicts of the ledger are from.

    :param claims: those that it decides; ``some``: there are others of the lab that a different run decides.
    """

    lab: str
    line: str
    cell: Cell
    claims: list[str]
    some: bool


def runs_behind(ledger: Ledger) -> Iterator[Behind]:
    """Give each run that the ledger's verdicts are from, by lab and kernel line, once."""
    for lab in dict.fromkeys(row.lab for row in ledger.claims):
        rows = [row for row in ledger.claims if row.lab == lab]
        for line in ledger.kernels:
            cells = [(row.claim, cell) for row in rows if (cell := row.verdicts[line]) is not None]
            for path in dict.fromkeys(cell.path for _, cell in cells):
                mine = [(claim, cell) for claim, cell in cells if cell.path == path]
                reworded = next((cell for _, cell in mine if cell.reworded), mine[0][1])
                yield Behind(lab, line, reworded, [claim for claim, _ in mine], len(mine) < len(cells))


def remarks(cell: Cell) -> list[str]:
    """Return in words what sets a verdict apart from one that the lab would give as it is, with its defaults."""
    found = []
    if cell.full:
        found.append("full sweep")
    elif cell.options:
        found.append("options " + ", ".join(f"{name}={value}" for name, value in cell.options.items()))
    if cell.reworded:
        found.append("the claim was worded otherwise")
    if cell.clock == "virtual":
        found.append("counted instructions")
    return found


def broken_words(ledger: Ledger) -> list[str]:
    """Return lines that name the records which were left out, none where all could be read."""
    broken = ledger.broken
    if not broken:
        return []
    head = f"left out {len(broken)} broken record{'s' if len(broken) > 1 else ''}:"
    return [head, *(f"  {each.name}: {each.why}" for each in broken)]


# ---- page ----


def page(ledger: Ledger, folder: Path) -> str:
    """Return the page of ``ledger``; links to reports are relative to ``folder``, where the page will lie."""
    cells = [cell for row in ledger.claims for cell in row.verdicts.values()]
    counts: list[tuple[Outcome | None, int]] = [
        (outcome, sum(cell is not None and cell.outcome == outcome for cell in cells)) for outcome in OUTCOMES
    ]
    return (
        environment()
        .get_template("claims.html.j2")
        .render(
            ledger=ledger,
            tally=counts,
            not_run=sum(cell is None for cell in cells),
            labs=[
                (_heading(*lab), lab[0], list(rows))
                for lab, rows in groupby(ledger.claims, key=lambda row: (row.lab, row.section, row.title))
            ],
            remarks=remarks,
            tags=CLOCK_TAGS,
            link=lambda cell: quote(os.path.relpath(cell.report, folder.absolute())),
        )
    )


def write_page(ledger: Ledger, runs: Path, out: Path | None = None) -> Path:
    """Write the page of ``ledger`` to ``out``, by default ``claims.html`` in ``runs``, and return its path.

    :raises RecordError: it cannot be written. :raises DiskFullError: no space is left.
    """
    target = (runs / PAGE if out is None else out).absolute()
    if out is None:
        try:
            runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(f"{runs} cannot be made: {error.strerror}", "name a file with --out") from error
    html.write(target, page(ledger, target.parent))
    return target
