from __future__ import annotations

import pytest

from reports import text
from reports.schema import Interval


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain words, ünd ƒ 漢字", "plain words, ünd ƒ 漢字"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]8;;file:///etc\x1b\\link", "\\x1b]8;;file:///etc\\x1b\\link"),
        ("a\r\nb\0", "a\\x0d\\x0ab\\x00"),
        ("\x9b2J", "\\x9b2J"),
        ("user\u202egnp.exe", "user\\u202egnp.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\u2028line", "\\u2028line"),
        ("\ud800", "\\ud800"),
    ],
)
def test_characters_that_act_are_written_as_their_escapes(raw: str, shown: str) -> None:
    assert text.neutral(raw) == shown


def test_long_words_are_cut_and_the_rest_is_counted() -> None:
    assert text.neutral("x" * 30, limit=10) == "x" * 10 + "… (20 more characters)"
    assert text.neutral("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "not measured"), (0.0, "0"), (84.0, "84"), (11436.0, "11\u202f436"), (-3.0, "-3"), (0.1123, "0.112"),
        (180.27, "180.3"), (1234.4, "1\u202f234"), (0.00001234, "1.23e-05"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_numbers_read_well_and_keep_their_size(value: float | None, shown: str) -> None:
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("ns", "shown"),
    [(0, "0 ns"), (16.2, "16.2 ns"), (1500, "1.5 µs"), (20e6, "20 ms"), (2.5e9, "2.5 s"), (999.9, "1\u202f000 ns")],
)
def test_durations_have_the_unit_that_fits(ns: float, shown: str) -> None:
    assert text.duration(ns).replace("\u00a0", " ") == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0%"), (1, "100%"), (0.999999, "100.00%"), (0.112, "11.2%"), (0.0003, "0.03%")]
)
def test_shares_are_percentages_and_small_ones_are_not_nothing(share: float, shown: str) -> None:
    assert text.percent(share) == shown


def test_an_interval_names_its_level() -> None:
    found = Interval(low=1500, high=2e6, level=0.95, method="")
    assert text.interval(found, "ns").replace("\u00a0", " ") == "[1.5 µs, 2 ms] at 95%"
    assert text.interval(None, "ns") == ""
