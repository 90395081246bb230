"""The rules by which goroutines have leaked, on made-up rounds."""

from __future__ import annotations

import pytest

from reports.leaks import growing, rising

Rounds = list[dict[str, tuple[int, int]]]


def leaks(rounds: Rounds) -> set[str]:
    """Ask the rule of growth of rounds of place → (created, alive in the end)."""
    return set(
        growing([list(found) for found in rounds], [{p: alive for p, (_, alive) in found.items()} for found in rounds])
    )


@pytest.mark.parametrize(
    ("place", "rounds"),
    [
        ("leaks one in each round", [(1, 1), (1, 1), (1, 1)]),
        ("leaks and works at one place", [(9, 1), (9, 1), (9, 2)]),
        ("leaks more and more", [(1, 1), (4, 4), (16, 16)]),
    ],
)
def test_a_place_that_leaves_some_in_each_round_leaks(place: str, rounds: list[tuple[int, int]]) -> None:
    assert leaks([{place: found} for found in rounds]) == {place}


@pytest.mark.parametrize(
    ("place", "rounds"),
    [
        ("is started once", [(1, 1), None, None]),
        ("grows in the second round", [(4, 4), (2, 2), None]),
        ("is replaced each time", [(1, 0), (1, 0), (1, 1)]),
        ("works and ends", [(8, 0), (8, 0), (8, 0)]),
        ("left one once", [(8, 1), (8, 0), (8, 0)]),
        ("leaked in two rounds only, which is too few to tell", [(1, 1), (1, 1), None]),
    ],
)
def test_what_lives_long_or_ends_does_not(place: str, rounds: list[tuple[int, int] | None]) -> None:
    assert leaks([{} if found is None else {place: found} for found in rounds]) == set()


def test_a_round_in_which_a_place_did_nothing_says_nothing_of_it() -> None:
    assert leaks([{"p": (1, 1)}, {}, {"p": (1, 1)}, {"p": (1, 1)}]) == {"p"}


def test_rounds_and_survivors_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        growing([["p"]], [])


def test_profiles_rise_where_each_has_more_than_the_one_before() -> None:
    profiles = [{"leak": 1, "pool": 4, "once": 1}, {"leak": 2, "pool": 6, "once": 1}, {"leak": 3, "pool": 6, "once": 1}]

    assert rising(profiles) == {"leak"}
    assert rising(profiles[:2]) == frozenset()
