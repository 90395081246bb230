"""How long to wait for a machine: longer on the host where it counts, longer in its own seconds where it is idle."""

import pytest

from vm.machine import Clock
from vm.pace import BUSY, IDLE, allowance, patience


@pytest.mark.parametrize("clock", ["kvm", "emulated"])
def test_a_second_of_other_clocks_is_the_hosts(clock: Clock) -> None:
    assert patience(30, clock) == 30
    assert allowance(30, clock) == 30


def test_a_counted_second_is_long_at_work_and_short_at_rest() -> None:
    assert patience(30, "virtual") == 30 * BUSY
    assert allowance(30, "virtual") == 30 * IDLE
