"""Options of a lab: what a person may set, and what they are told when it cannot be meant."""

from __future__ import annotations

import pytest

from go_labs import spec
from provision import options
from vm.errors import UsageError

MUTEX = spec.find("mutex").lab


@pytest.mark.parametrize("text", ["nan", "-inf", "inf", "1e999", "0", "61", "", "soon", "1,2"])
def test_seconds_that_no_phase_could_last_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^rep="):
        options.resolve(MUTEX, {"rep": text})


@pytest.mark.parametrize("text", ["101", "-1", "0,,50", "0.5", "nan", "9" * 400])
def test_shares_of_readers_that_are_no_shares_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^readers="):
        options.resolve(MUTEX, {"readers": text})


def test_what_was_given_replaces_the_default_and_nothing_else() -> None:
    assert options.resolve(MUTEX, {"readers": "0,100"}) == options.resolve(MUTEX, {}) | {"readers": "0,100"}
