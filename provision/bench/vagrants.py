"""What ``--provider vagrant`` costs beyond Vagrant itself, and what a second lab on a machine that is up is spared.

A machine here is the benchmark's own: it has a data folder, a prefix of its domain's name and a folder of registrations
that nobody else has. A person's ``lab-6.1`` is neither used nor destroyed, and that it runs changes no figure.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from provision.bench import labs
from provision.bench.figures import Figure, Unmeasured
from provision.bench.machines import Contender, timed
from vm.errors import MachineError
from vm.paths import REPOSITORY, Layout
from vm.registry import Registry
from vm.vagrant import remains
from vm.vagrant.domain import Placed

LIMIT = 1.10
"""`invoke lab --provider vagrant` against vagrant up, the phases, vagrant destroy."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a machine of the benchmark's own is.

    :param scratch: a folder that goes with it. :param environment: of every command that means it.
    """

    scratch: Path
    environment: Mapping[str, str]


@contextlib.contextmanager
def own(line: str, say: Callable[[str], None]) -> Iterator[Place]:
    """Give a place where Vagrant has no machine yet, and remove what is left of it in the end.

    The commands get what this lab's own adapter gives Vagrant, and none of a person's wishes for their machines
    (``LAB_MEMORY`` and so on): like is held against like.

    :raises LabError: what is left cannot be removed.
    """
    from vm.vagrant.client import Vagrant

    with tempfile.TemporaryDirectory(prefix="kmlab-bench-") as made:
        scratch, prefix = Path(made), f"kmlab-{Path(made).name.removeprefix('kmlab-')}-"
        data, state = scratch / "vagrant", scratch / "state"
        given = {"LAB_PREFIX": prefix, "KMLAB_STATE": str(state)}
        variables = Vagrant(data, scratch / remains.LOG, variables=given).environment()
        environment = {name: value for name, value in variables.items() if name in given or not name.startswith("LAB_")}
        try:
            yield Place(scratch, environment)
        finally:
            remains.remove(Placed(data=str(data), machine=f"lab-{line}", prefix=prefix), scratch)
            Registry(replace(Layout.from_environment(), state=state)).sweep(say)


def peer(line: str, say: Callable[[str], None]) -> Contender | Unmeasured:
    """Return plain Vagrant, where it is installed and this checkout has a Vagrantfile."""
    if shutil.which("vagrant") is None:
        return Unmeasured(name="vagrant", reason="Vagrant is not installed")
    if not (REPOSITORY / "Vagrantfile").is_file():
        return Unmeasured(name="vagrant", reason="this checkout has no Vagrantfile")
    machine = f"lab-{line}"

    def up() -> float:
        with own(line, say) as place:
            seconds = timed(["vagrant", "up", machine], place.environment)
            seconds += timed(["vagrant", "ssh", machine, "-c", "uname -r"], place.environment)
            timed(["vagrant", "destroy", "-f", machine], place.environment)
        return seconds

    return Contender("vagrant", "vagrant up, then the result of vagrant ssh -c 'uname -r'", up)


def measure(line: str, rounds: int, say: Callable[[str], None]) -> list[Figure | Unmeasured]:
    """Run the mutex lab on Vagrant by one command and by hand, in turn.

    By hand: ``vagrant up``, then the phases of a lab that runs on that machine (as the host sees them), then ``vagrant
    destroy``. That lab is the one on a machine that is up already; what it takes beyond its phases is a figure, too.
    Once by hand goes before and is not counted: it adds the box, copies its disk into libvirt's pool, and builds what
    the lab brings.

    :raises LabFailedError: the lab failed.
    """
    if shutil.which("vagrant") is None:
        return [Unmeasured(name="vagrant lab", reason="Vagrant is not installed")]
    ours: list[float] = []
    by_hand: list[float] = []
    beyond: list[float] = []
    try:
        _by_hand(line, say)
        for number in range(rounds):
            up, phases, spent, destroy = _by_hand(line, say)
            by_hand.append(up + phases + destroy)
            beyond.append(spent - phases)
            seconds, inside = _by_command(line, say)
            ours.append(seconds)
            made = f"{seconds:.1f} s, {inside:.1f} s of them phases"
            say(f"vagrant {number + 1}: {made}; by hand {up:.1f} + {phases:.1f} + {destroy:.1f} s")
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


def _by_command(line: str, say: Callable[[str], None]) -> tuple[float, float]:
    """Return seconds of ``invoke lab`` on a machine that it makes and destroys, and of its phases."""
    with own(line, say) as place:
        options = ("--provider", "vagrant")
        seconds, record = labs.run(line, place.scratch, "mutex", *options, environment=place.environment)
        return seconds, labs.phases_of(record)


def _by_hand(line: str, say: Callable[[str], None]) -> tuple[float, float, float, float]:
    """Return seconds of ``up``, of a lab's phases on that machine, of that lab as a whole, and of ``destroy``."""
    machine = f"lab-{line}"
    with own(line, say) as place:
        up = timed(["vagrant", "up", machine], place.environment)
        options = ("--provider", "vagrant", "--machine", machine)
        spent, record = labs.run(line, place.scratch, "mutex", *options, environment=place.environment)
        phases = labs.phases_of(record)
        destroyed = timed(["vagrant", "destroy", "-f", machine], place.environment)
    return up, phases, spent, destroyed
