"""Verdicts for a terminal and for machines."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.html import CLOCK_TAGS
from reports.schema import Figure, Outcome, Record
from reports.text import OUTCOME_WORDS, neutral

STYLES: dict[Outcome, str] = {
    "confirmed": "bold green",
    "refuted": "bold red",
    "undecided": "bold yellow",
    "not_testable": "bold bright_black",
}


def verdicts_json(found: Record) -> str:
    """Return :func:`document` as JSON, ending with a newline, in ASCII: safe in any terminal."""
    return json.dumps(document(found), indent=2) + "\n"


def document(found: Record) -> dict[str, Any]:
    """Return the verdicts of ``found`` for machines.

    Keys: ``schema`` (1), ``record``, ``lab``, ``kernel_line``, ``kernel_release``, ``go_version``, ``build``,
    ``clock``, ``verdicts`` (claim, text, verdict, sentence, criteria with their figures), ``gates``, ``losses`` (their
    sum) and ``failed_phases`` (name → why). A figure that is a time or rate has the clock it was measured on in
    ``measured_in``.
    """
    provenance = found.provenance
    return {
        "schema": 1,
        "record": found.id,
        "lab": found.lab.name,
        "kernel_line": provenance.kernel_line,
        "kernel_release": provenance.kernel_release,
        "go_version": provenance.go_version,
        "build": provenance.build,
        "clock": provenance.clock,
        "verdicts": [
            {
                "claim": verdict.claim,
                "text": verdict.text,
                "verdict": verdict.outcome,
                "sentence": verdict.sentence,
                "criteria": [
                    {
                        "metric": criterion.metric,
                        "confirm": criterion.confirm,
                        "refute": criterion.refute,
                        "verdict": criterion.outcome,
                        "reason": criterion.reason,
                        **_figure(criterion.figure, provenance.clock),
                    }
                    for criterion in verdict.criteria
                ],
            }
            for verdict in found.verdicts
        ],
        "gates": [
            {"name": gate.name, "passed": bool(gate.passed), "metric": gate.metric, "value": gate.value}
            for gate in found.gates
        ],
        "losses": sum(loss.count for loss in found.losses),
        "failed_phases": {phase.name: phase.error for phase in found.phases if phase.error},
    }


def _figure(figure: Figure, clock: str) -> dict[str, Any]:
    interval = figure.interval
    return {
        "value": figure.value,
        "unit": figure.unit,
        "absent": figure.absent,
        "interval": None if interval is None else [interval.low, interval.high],
        "level": None if interval is None else interval.level,
        "measured_in": clock if figure.timing else None,
    }


def print_verdicts(found: Record, report: Path | None, file: IO[str]) -> None:
    """Print a verdict and its sentence for each claim, then failed gates and phases, and where the report is.

    A table in colours on a terminal; plain lines where ``file`` is none, or NO_COLOR is set.
    """
    if file.isatty() and not os.environ.get("NO_COLOR"):
        _print_table(found, file)
    else:
        for verdict in found.verdicts:
            print(neutral(f"{verdict.claim}: {OUTCOME_WORDS[verdict.outcome].upper()}. {verdict.text}"), file=file)
            print(neutral(f"    {verdict.sentence}"), file=file)
    for line in _remarks(found):
        print(neutral(line), file=file)
    if report is not None:
        print(f"report: {report}", file=file)


def _remarks(found: Record) -> list[str]:
    lines = [f"phase {phase.name} has no whole result: {phase.error}" for phase in found.phases if phase.error]
    lines += [f"gate failed: {gate.name} ({gate.reason})" for gate in found.gates if not gate.passed]
    lost = sum(loss.count for loss in found.losses)
    lines += [f"lost while tracing: {lost} records"] if lost else []
    tag = CLOCK_TAGS[found.provenance.clock]
    lines += [f"times and rates of this run are {tag}"] if tag else []
    return lines


def _print_table(found: Record, file: IO[str]) -> None:
    provenance = found.provenance
    console = Console(file=file, highlight=False, width=shutil.get_terminal_size().columns)
    title = neutral(f"{found.lab.title}, kernel {provenance.kernel_release}, {provenance.go_version}")
    table = Table(title=Text(title), title_justify="left", show_lines=True, expand=False)
    table.add_column("Claim", no_wrap=True)
    table.add_column("Verdict", no_wrap=True)
    table.add_column("Why")
    for verdict in found.verdicts:
        why = Text(neutral(verdict.text) + "\n")
        why.append(neutral(verdict.sentence), style="dim")
        word = Text(OUTCOME_WORDS[verdict.outcome], style=STYLES[verdict.outcome])
        table.add_row(Text(neutral(verdict.claim)), word, why)
    console.print(table)
