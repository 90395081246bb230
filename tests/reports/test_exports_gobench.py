"""Go's benchmark format: what is written, and what the real ``benchstat`` makes of it."""

from __future__ import annotations

import csv
import io
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from reports import exports
from reports.comparison import Comparison
from reports.exports import gobench
from reports.exports._source import Source
from tests.reports import compared


def lines(comparison: Comparison) -> list[str]:
    return gobench.text(Source(comparison, Path())).splitlines()


def test_a_run_is_a_line_below_its_kernel_and_boot() -> None:
    found = lines(compared.comparison(compared.lab()))
    at = found.index("lab: mutex")

    assert found[1:at] == ["Unit ns/op better=lower", "clock: emulated", "go: go1.27.3"]
    assert found[at + 1 : at + 5] == [
        "kernel: 5.10",
        "boot: 1",
        found[at + 3],
        "BenchmarkMutex/parks.mutex 1 271.0 count",
    ]
    assert re.fullmatch(r"BenchmarkMutex/contended\.mutex_ns 1 9\d\.\d+ ns/op", found[at + 3])
    assert [line for line in found if line.startswith("kernel:")] == [
        "kernel: 5.10",
        "kernel: 5.10+control",
        "kernel: 6.1",
        "kernel: 7.3",
    ]


def test_the_baseline_comes_first_wherever_it_stands_in_the_order_of_versions() -> None:
    found = lines(compared.comparison(compared.lab(), baseline="6.1"))

    assert [line for line in found if line.startswith("kernel:")][:2] == ["kernel: 6.1", "kernel: 5.10+control"]


def test_a_value_keeps_every_digit() -> None:
    found = lines(compared.comparison(compared.lab()))

    assert "BenchmarkMutex/parks.mutex 1 0.30000000000000004 count" in found


@pytest.mark.parametrize(
    ("unit", "kind", "expected"),
    [("ns", "time", "ns"), ("ns/op", "time", "ns/op"), ("B/op", "count", "B/op"), ("", "share", "share"),
     ("per 10 s", "rate", "per_10_s"), ("×", "ratio", "×")],
)  # fmt: skip
def test_a_unit_is_one_word_and_the_records_own(unit: str, kind: str, expected: str) -> None:
    assert gobench.unit(compared.primary(unit=unit, kind=kind)) == expected


def test_which_side_is_better_is_said_of_times_and_rates_alone_and_never_of_a_unit_that_both_use() -> None:
    rate = compared.primary("flow.rate", "/s", "rate")
    time, other = compared.primary("a.time", "s", "time"), compared.primary("a.count", "s", "count")
    found = lines(compared.comparison(compared.lab(primary=rate, exploratory=[time, other, compared.count()])))

    assert [line for line in found if line.startswith("Unit")] == ["Unit /s better=higher"]


def test_names_and_values_of_keys_cannot_break_the_format() -> None:
    bad = compared.lab(compared.HOSTILE, primary=compared.primary("x/y=z w-8"))
    found = lines(compared.comparison(bad, name=compared.HOSTILE, clock="virtual", provenance={"Go": " "}))
    rest = [
        line for line in found if not re.match(r"Benchmark\S+ 1 \S+ \S+$|(kernel|boot|lab|clock|go): \S|Unit|# ", line)
    ]

    assert rest == []
    assert any(line.startswith("BenchmarkA_b__") and "/x_y_z_w_8 1 " in line for line in found)


# --- the real program ---------------------------------------------------------------------------------------------


def said(program: Path, file: Path, *more: str) -> tuple[str, str]:
    done = subprocess.run(
        [program, "-col", "kernel", "-ignore", "boot", *more, file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


FOOTNOTES = r"need >= \d+ samples|all samples are equal|must be >0 to compute geomean"
"""What benchstat remarks of figures, not of the file."""


def changes(program: Path, file: Path) -> dict[tuple[str, str], str]:
    """(benchmark, kernel) → what benchstat says of it against the baseline: ``~``, ``+10.21%``, ``-3.0%``."""
    out, err = said(program, file, "-format", "csv")
    assert not [line for line in err.splitlines() if not re.search(FOOTNOTES, line)]
    found: dict[tuple[str, str], str] = {}
    header: list[str] = []
    for row in csv.reader(io.StringIO(out)):
        if len(row) > 1 and row[0] == "" and row[1] and "vs base" not in row:
            header = row
        elif header and len(row) > 3 and row[0] and row[0] != "geomean":
            for column in range(3, len(row) - 1, 4):
                if row[column + 2]:
                    found[row[0], header[column]] = row[column + 2]
    return found


@pytest.mark.build
def test_benchstat_reads_every_line_and_agrees_on_what_is_clear(tmp_path: Path, benchstat: Path) -> None:
    lab = compared.lab(exploratory=[compared.primary("flow.rate", "/s", "rate")])
    (path,) = exports.write_all(compared.comparison(lab), tmp_path, tmp_path, ["gobench"])
    found = changes(benchstat, path)

    assert found["Mutex/contended.mutex_ns", "6.1"].startswith("+1")
    assert found["Mutex/contended.mutex_ns", "7.3"] == "~"
    assert found["Mutex/contended.mutex_ns", "5.10+control"] == "~"
    assert found["Mutex/flow.rate", "6.1"].startswith("+1")
    out, _ = said(benchstat, path)
    assert "clock: emulated" in out
    assert "sec/op" in out


@pytest.mark.build
def test_benchstat_finds_no_fault_with_hostile_names(tmp_path: Path, benchstat: Path) -> None:
    bad = compared.lab(compared.HOSTILE, primary=msgspec.structs.replace(compared.primary(), unit="a b\nc"))
    (path,) = exports.write_all(compared.comparison(bad), tmp_path, tmp_path, ["gobench"])
    found = changes(benchstat, path)

    assert [change[:2] for (name, kernel), change in found.items() if kernel == "6.1"] == ["+1"]
