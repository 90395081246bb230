"""Options of a lab: what a person may set, and what they are told when it cannot be meant."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from go_labs import spec
from go_labs.spec import Lab, Option, Phase
from provision import options
from vm.errors import ConfigError, UsageError

MUTEX = spec.find("mutex").lab


@pytest.mark.parametrize(
    "text", ["nan", "-inf", "inf", "1e999", "0", "61", "", "soon", "1,2", "3h", "1h1", "5 s", "-1s", "h", "1d"]
)
def test_seconds_that_no_phase_could_last_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^rep="):
        options.resolve(MUTEX, {"rep": text})


@pytest.mark.parametrize("text", ["101", "-1", "0,,50", "0.5", "nan", "9" * 400])
def test_shares_of_readers_that_are_no_shares_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^readers="):
        options.resolve(MUTEX, {"readers": text})


def test_what_was_given_replaces_the_default_and_nothing_else() -> None:
    assert options.resolve(MUTEX, {"readers": "0,100"}) == options.resolve(MUTEX, {}) | {"readers": "0,100"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("90s", 90),
        ("20m", 1200),
        ("3h", 10800),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1.5h", 5400),
    ],
)
def test_seconds_are_numbers_or_durations_as_go_writes_them(text: str, meant: float) -> None:
    assert options.seconds(text) == meant


SOAK = Lab(
    schema=1, name="soak", title="", section="", question="", primary="", oracle="", seconds=10,
    options={
        "duration": Option(kind="seconds", default="5", minimum=1, maximum=86400, help="how long"),
        "rounds": Option(kind="int", default="3", help="how many"),
    },
    phases=[
        Phase(name="timed", sections=["churn"], timeout=60),
        Phase(name="traced", sections=["soak"], probes=["goroutine"], timeout=100, seconds=20, follows=["duration"]),
    ],
)  # fmt: skip


def test_a_duration_is_recorded_as_the_seconds_it_means() -> None:
    assert options.resolve(SOAK, {"duration": "3h"}) == options.resolve(SOAK, {"duration": "10800"})
    assert options.resolve(SOAK, {"duration": "2.50"})["duration"] == "2.50"


def test_a_phase_is_as_long_as_the_option_that_it_follows_makes_it() -> None:
    timed, traced = options.stretched(SOAK, options.resolve(SOAK, {"duration": "3h"})).phases

    assert (timed.timeout, timed.seconds) == (60, 0)
    assert (traced.timeout, traced.seconds) == (10900, 10820)


def test_a_phase_that_fixes_the_option_is_not_longer_than_it_says() -> None:
    phase = msgspec.structs.replace(SOAK.phases[1], options={"duration": "7"})
    lab = msgspec.structs.replace(SOAK, phases=[phase])

    assert options.stretched(lab, options.resolve(lab, {"duration": "3h"})).phases[0].timeout == 107


def test_the_duration_of_the_command_line_is_the_lab_s_option() -> None:
    assert options.with_duration(SOAK, {"rounds": "1"}, "3h") == {"rounds": "1", "duration": "3h"}
    assert options.with_duration(MUTEX, {"rep": "1"}, "") == {"rep": "1"}


def test_a_lab_without_a_duration_says_so() -> None:
    with pytest.raises(UsageError, match="lab mutex has no duration"):
        options.with_duration(MUTEX, {}, "3h")


def test_a_duration_that_is_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="given twice: 3h and 20m"):
        options.with_duration(SOAK, {"duration": "20m"}, "3h")


def test_a_phase_that_follows_no_seconds_is_refused(tmp_path: Path) -> None:
    text = (spec.LABS / "mutex" / "lab.toml").read_text()
    (tmp_path / "lab.toml").write_text(text.replace("timeout = 120", 'timeout = 120\nfollows = ["rounds"]'))

    with pytest.raises(ConfigError, match="phase kernel follows rounds, which is no option in seconds"):
        spec.load(tmp_path)
