"""What a probe costs: ours at a pp point, against bpftrace at the entry of the same function, in the same machine.

The loader times a function of its own, bare and probed (``labtrace calibrate``). While bpftrace is attached to that
function's entry, the loader's *bare* time holds bpftrace's cost; the difference of the two bare times is what one hit
of it takes. A pp point is a ``push``, which the kernel emulates; the first instruction of a Go function is a compare
with memory, which it must single-step in a copy (arch/x86/kernel/uprobes.c).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import msgspec

from bpf.plan import Plan
from provision.bench.figures import Figure
from provision.house import START_SECONDS, House
from provision.payload import Kit
from provision.ssh import Shell, connect
from provision.transfer import push
from vm.deadline import Deadline
from vm.errors import LabFailedError
from vm.machine import MachineRequest
from vm.model import Kernel

FOLDER = "/lab/bench"
FILES = ("labtrace", "calibration.json", "objects.o")
CALIBRATE = f"cd {FOLDER} && ./labtrace calibrate --plan calibration.json --objects objects.o"
SECONDS = 120.0
LIMIT = 1 / 5


def measure(house: House, kernel: Kernel, kit: Kit, rounds: int, say: Callable[[str], None]) -> tuple[Figure, Figure]:
    """Return nanoseconds per hit: ours at the pp point, and bpftrace's at the entry, taken in turn.

    :raises LabFailedError: a program said something else than its measurement.
    """
    plan = msgspec.json.decode(_bytes(kit, "calibration.json"), type=Plan)
    offset = next(probe.offset for probe in plan.probes if probe.point == "entry")
    deadline = Deadline.after(START_SECONDS + rounds * 2 * SECONDS)
    ours: list[float] = []
    theirs: list[float] = []
    with (
        house.provider().start(MachineRequest(kernel=kernel), deadline) as machine,
        connect(machine.ssh, deadline, machine.check) as shell,
    ):
        push(shell, {name: kit.files[name] for name in FILES}, FOLDER, deadline)
        for number in range(rounds):
            alone = _cost(shell.run(CALIBRATE, deadline.within(SECONDS), alive=machine.check).check().text())
            watched, hits = _watched(shell, offset, deadline.within(SECONDS))
            if hits < watched["calls"]:
                raise LabFailedError(f"bpftrace counted {hits} of {watched['calls']:.0f} calls")
            ours.append(alone["pp_ns"])
            theirs.append(watched["bare_ns"] - alone["bare_ns"])
            say(f"probes {number + 1}: pp {ours[-1]:.0f} ns, bpftrace at entry {theirs[-1]:.0f} ns")
    return (
        Figure(name="probe", meaning="one hit of this lab's probe at a pp point", unit="ns", samples=ours),
        Figure(
            name="bpftrace", meaning="one hit of `uprobe { @ = count(); }` at the entry of the same function",
            unit="ns", samples=theirs,
        ),
    )  # fmt: skip


def _watched(shell: Shell, offset: int, deadline: Deadline) -> tuple[dict[str, float], int]:
    """Calibrate while bpftrace is attached; return the loader's figures and how many calls bpftrace counted."""
    program = f'BEGIN {{ printf("READY\\n"); }} uprobe:{FOLDER}/labtrace:{offset:#x} {{ @ = count(); }}'
    # The loader has no symbol table, so bpftrace cannot tell that an instruction starts there: --unsafe; it then takes
    # the number for an offset in the file (attached_probe.cpp, resolve_offset_uprobe).
    script = (
        f"bpftrace --unsafe -e '{program}' >{FOLDER}/watch.out 2>{FOLDER}/watch.err & watch=$!; "
        f"while kill -0 $watch 2>/dev/null && ! grep -q READY {FOLDER}/watch.out; do sleep 0.1; done; "
        f"({CALIBRATE}); status=$?; kill -INT $watch; wait $watch; "
        f"cat {FOLDER}/watch.out {FOLDER}/watch.err; exit $status"
    )
    text = shell.run(script, deadline).check().text()
    counted = re.search(r"^@: (\d+)$", text, re.MULTILINE)
    if counted is None:
        raise LabFailedError(f"bpftrace did not attach: {' '.join(text.splitlines()[-2:])[:300]}")
    return _cost(text), int(counted[1])


def _cost(text: str) -> dict[str, float]:
    """Return the loader's figures: the first JSON object in ``text``."""
    start = text.find("{")
    try:
        found: dict[str, float]
        found, _ = json.JSONDecoder().raw_decode(text[start:])
        if {"pp_ns", "bare_ns", "calls"} <= found.keys():
            return found
    except ValueError:
        pass
    raise LabFailedError(f"the loader's calibration said {text[:200]!r}")


def _bytes(kit: Kit, name: str) -> bytes:
    source = kit.files[name]
    return source if isinstance(source, bytes) else source.read_bytes()
