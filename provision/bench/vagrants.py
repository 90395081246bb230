"""What ``--provider vagrant`` costs beyond Vagrant itself, and what a second lab on a machine that is up is spared."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from provision.bench import labs
from provision.bench.figures import Figure, Unmeasured
from provision.bench.machines import timed
from vm.errors import MachineError

LIMIT = 1.10
"""`invoke lab --provider vagrant` against vagrant up, the phases, vagrant destroy."""


def measure(line: str, rounds: int, say: Callable[[str], None]) -> list[Figure | Unmeasured]:
    """Run the mutex lab on Vagrant by one command and by hand, in turn.

    By hand: ``vagrant up``, then the phases of a lab that runs on that machine (as the host sees them), then ``vagrant
    destroy``. That lab is the one on a machine that is up already; what it takes beyond its phases is a figure, too.

    :raises LabFailedError: the lab failed.
    """
    if shutil.which("vagrant") is None:
        return [Unmeasured(name="vagrant lab", reason="Vagrant is not installed")]
    ours: list[float] = []
    by_hand: list[float] = []
    beyond: list[float] = []
    with tempfile.TemporaryDirectory(prefix="kmlab-bench-") as scratch:
        try:
            for number in range(rounds):
                up, phases, spent, destroy = _by_hand(line, Path(scratch))
                by_hand.append(up + phases + destroy)
                beyond.append(spent - phases)
                seconds, _ = labs.run(line, Path(scratch), "mutex", "--provider", "vagrant")
                ours.append(seconds)
                say(f"vagrant {number + 1}: {seconds:.1f} s; by hand {up:.1f} + {phases:.1f} + {destroy:.1f} s")
        except MachineError as error:
            return [Unmeasured(name="vagrant lab", reason=error.message)]
    shares = [mine / theirs for mine, theirs in zip(ours, by_hand, strict=True)]
    say(f"vagrant: {statistics.median(shares):.3f} of the time by hand")
    return [
        Figure(name="vagrant lab", meaning="`invoke lab mutex --provider vagrant`", unit="s", samples=ours),
        Figure(
            name="vagrant by hand", meaning="vagrant up + the phases + vagrant destroy", unit="s", samples=by_hand
        ),
        Figure(
            name="vagrant / hand", meaning="the one over the other, in a round", unit="", samples=shares, limit=LIMIT
        ),
        Figure(
            name="vagrant second", meaning="a lab on a machine that is up, beyond its phases: no `vagrant up` is in it",
            unit="s", samples=beyond,
        ),
    ]  # fmt: skip


def _by_hand(line: str, scratch: Path) -> tuple[float, float, float, float]:
    """Return seconds of ``up``, of a lab's phases on that machine, of that lab as a whole, and of ``destroy``."""
    machine = f"lab-{line}"
    destroyed = 0.0
    try:
        up = timed(["vagrant", "up", machine])
        spent, record = labs.run(line, scratch, "mutex", "--provider", "vagrant", "--machine", machine)
    finally:
        destroyed = timed(["vagrant", "destroy", "-f", machine])
    return up, labs.phases_of(record), spent, destroyed
