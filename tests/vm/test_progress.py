"""What is shown while something lasts."""

from __future__ import annotations

import io
import re
import threading

import pytest

from vm import progress

PATIENCE = 30.0
"""Seconds after which a line that should have come does not come any more."""


class Heard(io.StringIO):
    """A stream that tells when ``wanted`` lines were written."""

    def __init__(self, wanted: int, *, terminal: bool = False) -> None:
        super().__init__()
        self.enough = threading.Event()
        self._wanted = wanted
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        size = super().write(text)
        if self.getvalue().count("phase traced") >= self._wanted:
            self.enough.set()
        return size


def test_a_long_phase_is_told_in_plain_lines() -> None:
    stream = Heard(2)

    with progress.waiting("phase traced", 10800, stream=stream, after=0.01):
        assert stream.enough.wait(PATIENCE)

    lines = stream.getvalue().splitlines()
    assert [line for line in lines if not re.fullmatch(r"phase traced: \d+ s of about 3 h 0 min", line)] == []


def test_what_nobody_knows_the_length_of_has_only_its_clock() -> None:
    stream = Heard(1)

    with progress.waiting("phase traced", stream=stream, after=0.01):
        assert stream.enough.wait(PATIENCE)

    assert re.fullmatch(r"phase traced: \d+ s", stream.getvalue().splitlines()[0])


def test_a_terminal_gets_a_clock_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Heard(1, terminal=True)

    with progress.waiting("phase traced", 90, stream=stream, after=0.01):
        assert stream.enough.wait(PATIENCE)

    assert "of about 1 min 30 s" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[2K")


def test_a_short_phase_is_not_told_of() -> None:
    stream = Heard(1)

    with progress.waiting("phase timed", stream=stream):
        pass

    assert stream.getvalue() == ""


def test_what_fails_ends_the_clock_and_is_passed_on() -> None:
    before = threading.active_count()

    with pytest.raises(ValueError, match="lost"), progress.waiting("phase traced", stream=Heard(1)):
        raise ValueError("lost")

    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min"), (59, "59 s"), (125, "2 min 5 s"), (3600, "1 h 0 min"), (10830, "3 h 0 min")],
)
def test_spans_of_time_in_words(seconds: float, words: str) -> None:
    assert progress.span(seconds) == words
