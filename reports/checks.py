"""A known thing that was looked at many times, and how often it was otherwise: a metric, a row of a table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.analysis import PhaseData
from reports.charts import Cell, Place, Table
from reports.schema import Metric
from reports.shorthand import metric, table


@dataclass(frozen=True, slots=True)
class Check:
    """``found`` of the ``of`` cases that were looked at are what the ``title`` says.

    :param name: of the metric.
    :param step: what the others are, as the row of :func:`steps` has it; empty where it is in none.
    """

    name: str
    title: str
    found: int
    of: int
    meaning: str
    step: str = ""

    def metric(self, phase: PhaseData, lacking: str) -> Metric:
        """Return it as a metric, absent because of ``lacking`` where there was nothing to look at."""
        value = float(self.found) if self.of else None
        return metric(
            self.name, self.title, "count", phase, value, lacking, f"{self.meaning}; {self.of} were looked at"
        )


def steps(
    checks: Sequence[Check], *, name: str, title: str, caption: str, head: str, phase: str, place: Place = "happened"
) -> Table | None:
    """Return the checks that have a step as a table: how many were looked at, in how many it was so, and not so."""
    rows: list[list[Cell]] = [
        [check.step, check.of, check.of - check.found, check.found] for check in checks if check.step and check.of
    ]
    columns = {head: "", "Looked at": "", "So": "", "Otherwise": ""}
    return table(name, title, caption, phase, place, columns, rows)
