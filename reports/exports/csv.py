"""Tables as CSV (RFC 4180) with a header. NULL is an empty field, an empty string is ``""``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reports.exports._source import Format, Source
from reports.exports._tables import write_tables

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation


def _write(source: Source, out: Path) -> list[Path]:
    return write_tables(source, out, ".csv", _copy)


def _copy(relation: DuckDBPyRelation, path: str) -> None:
    relation.write_csv(path, header=True)


FORMAT = Format("csv", "tidy tables of effects, values, verdicts and excluded attempts, for spreadsheets", _write)
