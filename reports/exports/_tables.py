"""The comparison as tidy tables: one row per effect, value, verdict and attempt that does not count. Pure.

Every row says which clock it was measured on, so that rows of several comparisons in one table cannot be taken for each
other. A control's rows (the baseline's second time) carry the baseline's line and ``control``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from reports.exports._source import Source, columns, metrics, replacing
from vm.errors import DiskFullError, RecordError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Type = Literal["VARCHAR", "DOUBLE", "BIGINT", "BOOLEAN"]

Row = tuple[str | float | int | bool | None, ...]

_HOLDERS: dict[Type, Any] = {"VARCHAR": object, "DOUBLE": np.float64, "BIGINT": np.int64, "BOOLEAN": np.bool_}


@dataclass(frozen=True, slots=True)
class Table:
    """A table: SQL type by name of the column, and its rows."""

    name: str
    columns: dict[str, Type]
    rows: list[Row]


EFFECTS: dict[str, Type] = {
    "comparison": "VARCHAR", "lab": "VARCHAR", "metric": "VARCHAR", "title": "VARCHAR", "kernel": "VARCHAR",
    "baseline": "VARCHAR", "control": "BOOLEAN", "clock": "VARCHAR", "primary": "BOOLEAN", "unit": "VARCHAR",
    "kind": "VARCHAR", "timing": "BOOLEAN", "phase": "VARCHAR", "change": "VARCHAR", "median": "DOUBLE",
    "baseline_median": "DOUBLE", "ratio": "DOUBLE", "low": "DOUBLE",
    "high": "DOUBLE", "level": "DOUBLE", "method": "VARCHAR", "n": "BIGINT", "p": "DOUBLE", "p_adjusted": "DOUBLE",
    "p_equivalent": "DOUBLE", "p_equivalent_adjusted": "DOUBLE",
    "q": "DOUBLE", "spread": "DOUBLE", "identical": "BOOLEAN", "detectable": "DOUBLE",
    "absent": "VARCHAR", "words": "VARCHAR",
}  # fmt: skip

VALUES: dict[str, Type] = {
    "comparison": "VARCHAR", "lab": "VARCHAR", "metric": "VARCHAR", "kernel": "VARCHAR", "control": "BOOLEAN",
    "clock": "VARCHAR", "block": "VARCHAR", "value": "DOUBLE", "unit": "VARCHAR", "kind": "VARCHAR",
    "primary": "BOOLEAN", "record": "VARCHAR",
}  # fmt: skip

VERDICTS: dict[str, Type] = {
    "comparison": "VARCHAR", "lab": "VARCHAR", "claim": "VARCHAR", "kernel": "VARCHAR", "clock": "VARCHAR",
    "block": "VARCHAR", "outcome": "VARCHAR", "sentence": "VARCHAR", "record": "VARCHAR",
}  # fmt: skip

EXCLUDED: dict[str, Type] = {
    "comparison": "VARCHAR", "lab": "VARCHAR", "kernel": "VARCHAR", "clock": "VARCHAR", "block": "BIGINT",
    "attempt": "BIGINT", "kind": "VARCHAR", "retried": "BOOLEAN", "words": "VARCHAR", "record": "VARCHAR",
    "log": "VARCHAR",
}  # fmt: skip


def tables(source: Source) -> list[Table]:
    """Return all tables of ``source``."""
    return [
        Table("effects", EFFECTS, list(_effects(source))),
        Table("values", VALUES, list(_values(source))),
        Table("verdicts", VERDICTS, list(_verdicts(source))),
        Table("excluded", EXCLUDED, list(_excluded(source))),
    ]


def _effects(source: Source) -> Iterator[Row]:
    comparison = source.comparison
    for lab in comparison.labs:
        for compared in metrics(lab):
            for effect in compared.effects:
                interval = effect.interval
                bounds = (interval.low, interval.high, interval.level, interval.method) if interval else (None,) * 4
                yield (
                    comparison.name, lab.lab, compared.metric, compared.title, effect.kernel, comparison.baseline,
                    effect.control, comparison.clock, compared.primary, compared.unit, compared.kind, compared.timing,
                    compared.phase, effect.change,
                    compared.control_median if effect.control else compared.medians.get(effect.kernel),
                    compared.medians.get(effect.kernel if effect.control else comparison.baseline), effect.ratio,
                    *bounds, effect.n, effect.p, effect.p_adjusted,
                    effect.p_equivalent, effect.p_equivalent_adjusted,
                    effect.q, effect.spread, effect.identical, effect.detectable, effect.absent,
                    effect.words,
                )  # fmt: skip


def _values(source: Source) -> Iterator[Row]:
    comparison = source.comparison
    for lab in comparison.labs:
        for compared in metrics(lab):
            for line, control, values in columns(source, compared):
                for value in values:
                    yield (
                        comparison.name, lab.lab, compared.metric, line, control, comparison.clock, value.block,
                        value.value, compared.unit, compared.kind, compared.primary, value.record,
                    )  # fmt: skip


def _verdicts(source: Source) -> Iterator[Row]:
    comparison = source.comparison
    for lab in comparison.labs:
        for claim in lab.claims:
            for line, found in claim.verdicts.items():
                for each in found:
                    yield (
                        comparison.name, lab.lab, claim.claim, line, comparison.clock, each.block, each.outcome,
                        each.sentence, each.record,
                    )  # fmt: skip


def _excluded(source: Source) -> Iterator[Row]:
    comparison = source.comparison
    for each in comparison.excluded:
        yield (
            comparison.name, each.lab, each.kernel, comparison.clock, each.block, each.attempt, each.kind, each.retried,
            each.words, each.record, each.log,
        )  # fmt: skip


def write_tables(source: Source, out: Path, suffix: str, copy: Callable[[Any, str], None]) -> list[Path]:
    """Write a file ``NAME.suffix`` for each table with duckdb, and return them.

    :param copy: writes a relation of duckdb to a path.
    :raises RecordError: a file cannot be written. :raises DiskFullError: no space is left.
    """
    import duckdb

    written = []
    with duckdb.connect() as connection:
        for table in tables(source):
            target = out / f"{table.name}{suffix}"
            _fill(connection, table)
            with replacing(target) as temporary:
                try:
                    copy(connection.table(f'"{table.name}"'), str(temporary))
                except duckdb.Error as error:
                    # duckdb has no errno, only the words of strerror(3) in its own.
                    if "No space left" in str(error) or "quota exceeded" in str(error):
                        raise DiskFullError(
                            f"no space left for {target}", "free some space, then export again"
                        ) from error
                    raise RecordError(f"{target} cannot be written: {error}", "name another folder") from error
            written.append(target)
    return written


def _fill(connection: DuckDBPyConnection, table: Table) -> None:
    """Make ``table`` in the database; arrays go in at once, where row by row takes a millisecond each."""
    described = ", ".join(f'"{name}" {kind}' for name, kind in table.columns.items())
    connection.execute(f'CREATE TABLE "{table.name}" ({described})')
    if not table.rows:
        return
    arrays = {
        name: _array(kind, list(cells))
        for (name, kind), cells in zip(table.columns.items(), zip(*table.rows, strict=True), strict=True)
    }
    connection.register("arrays", arrays)
    connection.execute(f'INSERT INTO "{table.name}" SELECT * FROM arrays')  # noqa: S608  (names of our own)
    connection.unregister("arrays")


def _array(kind: Type, cells: list[Any]) -> Any:  # noqa: ANN401  (numpy's masked arrays have no types of their own)
    if kind == "VARCHAR":
        held = np.empty(len(cells), dtype=object)
        held[:] = cells
        return held
    absent = [cell is None for cell in cells]
    return np.ma.masked_array(np.array([0 if cell is None else cell for cell in cells], _HOLDERS[kind]), mask=absent)
