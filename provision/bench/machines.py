"""How long a machine takes, ours and its peers', round by round in turn: a busy minute then hits all alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from provision.bench.figures import Figure, Unmeasured
from provision.house import START_SECONDS, House
from provision.ssh import connect
from vm.deadline import Deadline
from vm.errors import MachineError
from vm.machine import Machine, MachineRequest, Start
from vm.model import Kernel
from vm.paths import REPOSITORY

PEER_SECONDS = 300
"""Time that a peer gets for one round."""

WARM_LIMIT = 1.0
COLD_LIMIT = 7.0
VNG_LIMIT = 1 / 7
STATE_LIMIT = 150.0


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that gets from nothing to the result of ``uname -r`` in a machine.

    :param run: does it once and returns seconds.
    """

    name: str
    meaning: str
    run: Callable[[], float]
    limit: float | None = None


def first_command(house: House, kernel: Kernel, start: Start) -> float:
    """Start a machine, run ``uname -r`` over SSH, and return the seconds until its result was there.

    :raises MachineError: it did not come up, or is another kernel.
    """
    deadline = Deadline.after(START_SECONDS)
    began = time.monotonic()
    with house.provider().start(MachineRequest(kernel=kernel, start=start), deadline) as machine:
        release = ask(machine, deadline)
        seconds = time.monotonic() - began
    if release != kernel.release:
        raise MachineError(f"the machine says {release}, not {kernel.release}")
    return seconds


def ask(machine: Machine, deadline: Deadline) -> str:
    """Return what ``uname -r`` says in ``machine``."""
    with connect(machine.ssh, deadline, machine.check) as shell:
        return shell.run("uname -r", deadline, alive=machine.check).check().text()


def ours(house: House, kernel: Kernel, wanted: set[str]) -> list[Contender]:
    """Return this lab's own ways to start."""
    found = []
    if "warm" in wanted:
        meaning = "from asking for a machine to the result of the first SSH command; restored, clock set, reseeded"
        found.append(Contender("warm", meaning, lambda: first_command(house, kernel, "warm"), WARM_LIMIT))
    if "cold" in wanted:
        meaning = "the same, booted"
        found.append(Contender("cold", meaning, lambda: first_command(house, kernel, "cold"), COLD_LIMIT))
    return found


def virtme_ng(vmlinuz: str, *, emulated: bool) -> Contender | Unmeasured:
    """Return virtme-ng, where it is installed and has a kernel that it can use.

    :param vmlinuz: kernel with 9p; empty: the newest of the host that has it.
    :param emulated: emulate, as we do, so that like is held against like.
    """
    program = shutil.which("vng")
    if program is None:
        return Unmeasured(name="virtme-ng", reason="vng is not installed")
    kernel = vmlinuz or _host_kernel()
    if not kernel:
        reason = "no kernel with 9p is in /boot, which vng mounts its root with; give --vng-kernel"
        return Unmeasured(name="virtme-ng", reason=reason)
    words = [program, *(["--disable-kvm"] if emulated else []), "--run", kernel, "--", "uname", "-r"]
    return Contender("virtme-ng", f"vng --run {Path(kernel).name} -- uname -r", lambda: timed(words))


def _host_kernel() -> str:
    """Return the newest kernel in /boot whose configuration has 9p, "" if there is none."""
    for vmlinuz in sorted(Path("/boot").glob("vmlinuz-*"), key=lambda path: path.stat().st_mtime, reverse=True):
        config = vmlinuz.with_name(vmlinuz.name.replace("vmlinuz-", "config-", 1))
        if config.is_file() and any(
            line.startswith("CONFIG_9P_FS=") for line in config.read_text("utf-8", "replace").splitlines()
        ):
            return str(vmlinuz)
    return ""


def timed(words: list[str], environment: Mapping[str, str] = os.environ) -> float:
    """Run a command in this checkout, return seconds.

    :param environment: all that it gets; this process's own where none is given.
    :raises MachineError: it failed or took too long.
    """
    began = time.monotonic()
    try:
        done = subprocess.run(
            words, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PEER_SECONDS,
            check=False, env=dict(environment),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"{Path(words[0]).name} did not work: {error}") from error
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        raise MachineError(f"{Path(words[0]).name} ended with status {done.returncode}: {last[0][:200]}")
    return time.monotonic() - began


def in_turn(
    contenders: list[Contender], rounds: int, say: Callable[[str], None]
) -> tuple[list[Figure], list[Unmeasured]]:
    """Run every contender once per round; one that fails is out, with the reason, and its samples are not used.

    One run of each goes before and is not counted: it fills caches, ours (a saved state, say) as well as the host's.
    """
    samples: dict[str, list[float]] = {each.name: [] for each in contenders}
    out: dict[str, str] = {}
    for number in range(rounds + 1):
        for each in contenders:
            if each.name in out:
                continue
            try:
                seconds = each.run()
            except MachineError as error:
                out[each.name] = error.message
                say(f"{each.name}: {error.message}")
                continue
            if number:
                samples[each.name].append(seconds)
                say(f"round {number}: {each.name} {seconds:.2f} s")
    figures = [
        Figure(name=each.name, meaning=each.meaning, unit="s", samples=samples[each.name], limit=each.limit)
        for each in contenders
        if each.name not in out
    ]
    return figures, [Unmeasured(name=name, reason=reason) for name, reason in out.items()]


def state_size(house: House, kernel: Kernel) -> Figure | Unmeasured:
    """Return what the saved state of ``kernel`` takes on disk, in MiB."""
    sizes = [s.disk_usage / 2**20 for s in house.provider().warm.states() if s.record.release == kernel.release]
    if not sizes:
        return Unmeasured(name="state", reason=f"no state of {kernel.release} is saved")
    meaning = "saved state of a machine with 1 GiB of memory, on disk"
    return Figure(name="state", meaning=meaning, unit="MiB", samples=sizes, limit=STATE_LIMIT)
