"""Tables as Parquet: the same as the CSV, with types."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reports.exports._source import Format, Source
from reports.exports._tables import write_tables

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation


def _write(source: Source, out: Path) -> list[Path]:
    return write_tables(source, out, ".parquet", _copy)


def _copy(relation: DuckDBPyRelation, path: str) -> None:
    relation.write_parquet(path, compression="zstd")


FORMAT = Format("parquet", "the same tables with types, for duckdb, pandas, polars and R", _write)
