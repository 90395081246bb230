"""How long to wait for a machine whose clock counts instructions. Pure.

Its seconds are not the host's. While it computes, one takes 1 s of an idle host (code that is run again and again) to
5 s (code that runs once, which QEMU must translate first), and longer on a busy host. While all its CPUs are idle, a
minute passes in one second of the host; it is idle, too, while it waits for the host's disk.
"""

from __future__ import annotations

from vm.machine import Clock

BUSY = 10.0
"""Seconds of the host that a second of a counted clock may take before the machine counts as hung: twice as long as
the slowest code was seen to take."""

IDLE = 60.0
"""Seconds of a counted clock in one of the host while the machine does nothing: 58 to 64 were measured."""


def patience(seconds: float, clock: Clock) -> float:
    """Return the host's seconds to wait for what may take ``seconds`` of an emulated machine, or of its clock."""
    return seconds * BUSY if clock == "virtual" else seconds


def allowance(seconds: float, clock: Clock) -> float:
    """Return the machine's seconds, to be counted there, for what may wait ``seconds`` for the host."""
    return seconds * IDLE if clock == "virtual" else seconds
