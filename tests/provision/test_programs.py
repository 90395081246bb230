"""Programs that are no labs: which probe sets fit, and what is theirs on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision import programs
from tests.bpf.programs import gofmt, probed
from vm.errors import ProbeError, UsageError


@pytest.mark.build
def test_without_a_choice_every_set_that_fits_is_taken_and_the_others_say_why(tmp_path: Path) -> None:
    binary = tmp_path / "gofmt"
    binary.write_bytes(gofmt())
    sets, left_out = programs.chosen(binary, [])
    assert "mutex" in sets
    assert sets == [name for name in programs.known_sets() if name not in left_out]
    assert all("there is no function" in why for why in left_out.values())


@pytest.mark.build
def test_a_set_that_was_asked_for_must_fit() -> None:
    assert programs.chosen(probed(), ["mutex", "mutex"]) == (["mutex"], {})


@pytest.mark.build
def test_one_that_does_not_fit_names_the_function_that_is_missing(tmp_path: Path) -> None:
    binary = tmp_path / "gofmt"
    binary.write_bytes(gofmt())
    with pytest.raises(ProbeError, match=r"there is no function context"):
        programs.chosen(binary, ["mutex", "context"])


@pytest.mark.build
def test_a_wrong_set_suggests_the_near_one() -> None:
    with pytest.raises(UsageError) as caught:
        programs.chosen(probed(), ["chanel"])
    assert caught.value.hint.startswith("did you mean channel")


def test_the_loaders_own_set_is_not_offered() -> None:
    assert "calibration" not in programs.known_sets()


def test_what_is_no_go_program_is_named() -> None:
    with pytest.raises(ProbeError, match=r"sh is not a Go program"):
        programs.program("/bin/sh", "", 5.0, print)


def test_what_is_not_there_is_a_wrong_argument() -> None:
    with pytest.raises(UsageError, match=r"no program \./nowhere"):
        programs.program("./nowhere", "", 5.0, print)


@pytest.mark.build
def test_a_program_stands_for_a_lab_without_claims() -> None:
    folder = programs.program(str(probed()), "mutex", 5.0, print)
    assert (folder.lab.name, folder.lab.claims, folder.analysis) == ("probed", [], None)
    assert [(phase.name, phase.probes, phase.timeout) for phase in folder.lab.phases] == [
        ("timed", [], 5.0),
        ("traced", ["mutex"], 5.0),
    ]


def test_words_after_the_dashes_keep_their_spaces() -> None:
    argv = ["invoke", "trace", "./serve", "--kernel", "6.1", "--", "--name", "a b", ""]
    assert programs.arguments("--name a b ", argv) == ("--name", "a b", "")


def test_where_the_command_line_is_another_the_words_are_those_of_a_shell() -> None:
    assert programs.arguments("--name 'a b'", ["pytest"]) == ("--name", "a b")
    assert programs.arguments("", ["pytest"]) == ()
    with pytest.raises(UsageError, match="cannot be read"):
        programs.arguments("it's", ["pytest"])
