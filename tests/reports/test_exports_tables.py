"""CSV and Parquet: read back with duckdb, and compared with the struct they are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from reports import exports
from reports.comparison import Comparison
from reports.exports import _tables
from reports.exports._source import Source
from tests.reports import compared
from vm.errors import DiskFullError, RecordError

FORMATS = ("csv", "parquet")


def hostile() -> Comparison:
    """A comparison in which every kind of text is as bad as it can be."""
    found = compared.lab(compared.HOSTILE)
    assert found.primary is not None
    values = {line: list(each) for line, each in found.primary.values.items()}
    values["6.1"][0] = msgspec.structs.replace(values["6.1"][0], value=5e-324, record="NULL", block="")
    primary = msgspec.structs.replace(found.primary, title=compared.HOSTILE, values=values)
    excluded = compared.excluded(words=compared.HOSTILE, log="=1+1")
    return compared.comparison(msgspec.structs.replace(found, primary=primary), excluded=[excluded])


def read(out: Path, name: str, how: str, columns: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Rows of a table as duckdb reads them; in CSV, whose fields have no types, with those that the table has."""
    with duckdb.connect() as connection:
        path = out / f"{name}.{how}"
        if how == "csv":
            found = connection.read_csv(str(path), header=True, dtype=columns, allow_quoted_nulls=False)
        else:
            found = connection.read_parquet(str(path))
        assert found.columns == list(columns)
        assert [str(kind) for kind in found.types] == list(columns.values())
        return found.fetchall()


@pytest.mark.parametrize("how", FORMATS)
def test_every_cell_comes_back_as_it_was(tmp_path: Path, how: str) -> None:
    comparison = hostile()
    written = exports.write_all(comparison, tmp_path, tmp_path, [how])
    tables = _tables.tables(Source(comparison, tmp_path))

    assert [path.name for path in written] == [f"{table.name}.{how}" for table in tables]
    for table in tables:
        assert table.rows
        assert read(tmp_path, table.name, how, dict(table.columns)) == table.rows


def test_rows_say_what_the_struct_says() -> None:
    comparison = compared.comparison()
    effects, values, verdicts, _ = (
        [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        for table in _tables.tables(Source(comparison, Path()))
    )
    slower = next(row for row in effects if row["change"] == "slower")
    assert (slower["lab"], slower["kernel"], slower["baseline"], slower["clock"]) == (
        "mutex",
        "6.1",
        "5.10",
        "emulated",
    )
    assert (slower["ratio"], slower["low"], slower["high"], slower["level"]) == (1.1, 1.1 * 0.99, 1.1 * 1.01, 0.95)
    medians = compared.primary().medians
    assert (slower["median"], slower["baseline_median"]) == (medians["6.1"], medians["5.10"])
    assert (slower["p_adjusted"], slower["primary"], slower["control"]) == (0.0039, True, False)
    absent = next(row for row in effects if row["absent"])
    assert (absent["ratio"], absent["low"], absent["p"]) == (None, None, None)
    (control,) = [row for row in effects if row["control"]]
    assert (control["kernel"], control["median"]) == ("5.10", compared.primary().control_median)
    assert sum(row["control"] for row in values) == 10
    assert {row["kernel"] for row in values if row["metric"] == "parks.mutex"} == {"5.10"}
    assert [row["outcome"] for row in verdicts if row["claim"] == "2.4-b"] == ["confirmed", "refuted", "not_testable"]


@pytest.mark.parametrize("how", FORMATS)
def test_tables_without_a_row_have_their_columns(tmp_path: Path, how: str) -> None:
    comparison = compared.comparison(compared.lab(primary=None, exploratory=[], claims=[]))
    exports.write_all(comparison, tmp_path, tmp_path, [how])

    for table in _tables.tables(Source(comparison, tmp_path)):
        assert read(tmp_path, table.name, how, dict(table.columns)) == []


def test_a_column_of_nothing_but_absent_figures_has_its_type(tmp_path: Path) -> None:
    only = compared.lab(primary=compared.count(is_primary=True), exploratory=[], claims=[])
    exports.write_all(compared.comparison(only), tmp_path, tmp_path, ["parquet"])

    with duckdb.connect() as connection:
        found = connection.read_parquet(str(tmp_path / "effects.parquet")).project("q, p_adjusted")
        assert [str(kind) for kind in found.types] == ["DOUBLE", "DOUBLE"]
        assert found.fetchall() == [(None, None), (None, None)]


def test_columns_of_a_row_and_of_its_table_are_as_many() -> None:
    for table in _tables.tables(Source(hostile(), Path())):
        assert {len(row) for row in table.rows} == {len(table.columns)}


@pytest.mark.parametrize(
    ("words", "kind"), [("No space left on device", DiskFullError), ("Is a directory", RecordError)]
)
def test_what_duckdb_says_of_a_disk_is_told_as_what_it_is(tmp_path: Path, words: str, kind: type[Exception]) -> None:
    def refuse(_: Any, path: str) -> None:
        raise duckdb.IOException(f'IO Error: Could not write file "{path}": {words}')

    with pytest.raises(kind):
        _tables.write_tables(Source(compared.comparison(), tmp_path), tmp_path, ".csv", refuse)
    assert list(tmp_path.iterdir()) == []
