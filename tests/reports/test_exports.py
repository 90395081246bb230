"""All formats at once: where they are found, that files are whole or absent, and what happens where they cannot be."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reports import compare, exports
from reports.exports import FORMATS, _source
from tests.reports import compared
from vm.errors import DiskFullError, RecordError, UsageError
from vm.paths import REPOSITORY


def test_every_module_of_the_package_is_a_format_and_nothing_else_names_them() -> None:
    modules = {path.stem for path in (REPOSITORY / "reports" / "exports").glob("[a-z]*.py")}

    assert set(FORMATS) == modules
    assert all(each.holds for each in FORMATS.values())


def test_all_formats_are_written_below_a_folder_that_need_not_be_there(tmp_path: Path) -> None:
    out = tmp_path / "some" / "where"
    written = exports.write_all(compared.comparison(), tmp_path / "nothing", out)

    assert {path.name for path in written} >= {"compare.json", "effects.csv", "values.parquet", "junit.xml"}
    assert all(path.stat().st_size for path in written)
    assert sorted(path for path in out.rglob("*") if path.is_file()) == sorted(written), "nothing temporary is left"


def test_formats_can_be_chosen_and_a_wrong_name_is_answered_with_near_ones(tmp_path: Path) -> None:
    written = exports.write_all(compared.comparison(), tmp_path, tmp_path / "out", ["json", "junit", "json"])

    assert [path.name for path in written] == ["compare.json", "junit.xml"]
    with pytest.raises(UsageError, match="no format 'junits'") as error:
        exports.write_all(compared.comparison(), tmp_path, tmp_path / "other", ["junits"])
    assert error.value.hint == "there are junit"
    assert not (tmp_path / "other").exists()


def test_compare_json_comes_back_as_the_struct_that_it_was(tmp_path: Path) -> None:
    comparison = compared.comparison(notes=[compared.HOSTILE])
    (path,) = exports.write_all(comparison, tmp_path, tmp_path, ["json"])

    assert compare.decode(path.read_bytes()) == comparison


def test_a_full_disk_leaves_the_file_that_was_there_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports.write_all(compared.comparison(name="before"), tmp_path, tmp_path, ["json"])

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError, match="no space left"):
        exports.write_all(compared.comparison(name="after"), tmp_path, tmp_path, ["json"])
    assert [path.name for path in tmp_path.iterdir()] == ["compare.json"]
    assert compare.decode((tmp_path / "compare.json").read_bytes()).name == "before"


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_where_nothing_can_be_written_a_person_is_told_so(tmp_path: Path, name: str) -> None:
    matrix = compared.write(tmp_path / "m", compared.plan(compared.run(1, "k1")), compared.begun(1, 1))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecordError, match="cannot be written"):
        exports.write_all(compared.comparison(), matrix, tmp_path / "file", [name])


def test_a_name_of_a_file_is_made_plain() -> None:
    assert _source.plain("../../etc/passwd") == "_.._etc_passwd"
    assert _source.plain("6.1") == "6.1"
    assert _source.plain("…") == "_"


def test_what_a_format_writes_with_is_loaded_when_it_writes() -> None:
    """So that a command that exports nothing does not wait for databases to be imported."""
    heavy = ["duckdb", "junitparser", "prometheus_client", "perfetto", "google.protobuf", "scipy"]
    code = f"import sys, reports.exports; print([name for name in {heavy} if name in sys.modules])"
    done: Any = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
