"""What full lifecycle tracing costs: goroutines that are created, park, run and end as fast as they go.

Bare, under this lab's probes, and under bpftrace with entry probes on the same functions; in turn, in the same machine.

bpftrace only counts, while the loader records each creation, wait and end with stack and time: the comparison is in
bpftrace's favour. What is compared is time for each goroutine, so that a third of it is three times the throughput.
"""

from __future__ import annotations

import re
import shlex
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from bpf.elf import Elf
from bpf.pclntab import FunctionTable
from go_labs import spec
from provision import payload, toolchains
from provision.bench.figures import Figure
from provision.house import START_SECONDS, House
from provision.ssh import Shell, connect
from provision.transfer import push
from vm.deadline import Deadline
from vm.errors import LabFailedError
from vm.machine import MachineRequest
from vm.model import Kernel

FOLDER = "/lab/bench"
LAB = "lifecycle"
SETS = ("goroutine",)
ENTRIES = ("runtime.newproc1", "runtime.gdestroy", "runtime.gopark", "runtime.execute")
"""What bpftrace probes, at the entry."""

LIVES = 400
REPETITIONS = 12
WORKLOAD = f"./{LAB} --phase=timed --sections=churn --churn={LIVES} --repetitions={REPETITIONS}"
TRACED = (
    f"./labtrace run --plan plan.json --objects objects.o --out traced --timeout 60 --calibrate -- {WORKLOAD} && "
    "cat traced/workload.json traced/trace.json"
)
SECONDS = 120.0

LIMIT = 1 / 3
"""Time for a goroutine, ours over bpftrace's: three times the throughput is kept."""

ATTACHED_LIMIT = 1.5


class _Segment(msgspec.Struct):
    id: int
    section: str
    samples: dict[str, list[float]]
    counts: dict[str, int]


class _Workload(msgspec.Struct):
    segments: list[_Segment]


class _Trace(msgspec.Struct):
    counters: dict[int, dict[str, int]]
    losses: dict[str, int]
    load_seconds: float
    attach_seconds: float
    calibrate_seconds: float


@dataclass(slots=True)
class _Samples:
    bare: list[float]
    ours: list[float]
    theirs: list[float]
    wrong: list[float]
    lost: list[float]
    attached: list[float]


def measure(house: House, kernel: Kernel, rounds: int, say: Callable[[str], None]) -> list[Figure]:
    """Return nanoseconds for each goroutine: bare, under this lab's probes, under bpftrace; and what tracing got wrong.

    :raises LabFailedError: a program said something else than its measurement.
    """
    tools = house.images(kernel).tools
    prepared = payload.prepare(spec.find(LAB), toolchains.resolve(None), house.layout, tools)
    names = ("labtrace", "calibration.json", "objects.o")
    files = {**prepared.files, **{name: prepared.kit.files[name] for name in names}}
    program = files[LAB]
    offsets = entries(program if isinstance(program, bytes) else program.read_bytes())
    deadline = Deadline.after(START_SECONDS + rounds * 3 * SECONDS)
    found = _Samples([], [], [], [], [], [])
    with (
        house.provider().start(MachineRequest(kernel=kernel), deadline) as machine,
        connect(machine.ssh, deadline, machine.check) as shell,
    ):
        push(shell, files, FOLDER, deadline)
        for number in range(rounds):
            within = deadline.within(3 * SECONDS)
            found.bare.append(_life(_run(shell, WORKLOAD, within))[0])
            _traced(_run(shell, TRACED, within), found)
            found.theirs.append(_watched(shell, offsets, within))
            say(
                f"lives {number + 1}: bare {found.bare[-1]:.0f} ns, traced {found.ours[-1]:.0f} ns, "
                f"bpftrace {found.theirs[-1]:.0f} ns"
            )
    return _figures(found)


def entries(program: bytes) -> dict[str, int]:
    """Return the file offset of the first instruction of each of :data:`ENTRIES`."""
    elf = Elf(LAB, program)
    table = FunctionTable(elf)
    return {name: elf.file_offset(table.find(name)[0].entry) for name in ENTRIES}


def script(offsets: dict[str, int]) -> str:
    """Return the bpftrace program: it counts each function at its entry."""
    probes = (
        f"uprobe:{FOLDER}/{LAB}:{offset:#x} {{ @{name.rpartition('.')[2]} = count(); }}"
        for name, offset in offsets.items()
    )
    return " ".join(['BEGIN { printf("READY\\n"); }', *probes])


def _run(shell: Shell, words: str, deadline: Deadline) -> str:
    return shell.run(f"cd {FOLDER} && {words}", deadline).check().text()


def _watched(shell: Shell, offsets: dict[str, int], deadline: Deadline) -> float:
    """Run the workload while bpftrace is attached, and return nanoseconds for each goroutine."""
    watch = (
        f"(bpftrace --unsafe -e {shlex.quote(script(offsets))} >watch.out 2>watch.err & echo $! >watch.pid; "
        "while kill -0 $(cat watch.pid) 2>/dev/null && ! grep -q READY watch.out; do sleep 0.1; done; "
        f"{WORKLOAD}; kill -INT $(cat watch.pid); wait; cat watch.out watch.err)"
    )
    text = _run(shell, watch, deadline)
    counted = {name: int(number) for name, number in re.findall(r"^@(\w+): (\d+)$", text, re.MULTILINE)}
    nanoseconds, lives = _life(text)
    if counted.get("newproc1", 0) < lives:
        raise LabFailedError(
            f"bpftrace counted {counted} of {lives} goroutines: {' '.join(text.splitlines()[-2:])[:300]}"
        )
    return nanoseconds


def _life(text: str) -> tuple[float, int]:
    """Return the median of nanoseconds for each goroutine, and how many there were, from a workload's document."""
    segment = _churn(documents(text)[0])
    return statistics.median(segment.samples["ns_per_life"]), segment.counts["lives"]


def _churn(document: object) -> _Segment:
    try:
        return next(s for s in msgspec.convert(document, _Workload).segments if s.section == "churn")
    except (msgspec.ValidationError, StopIteration) as error:
        raise LabFailedError(f"the workload's document is another one: {error}") from error


def _traced(text: str, found: _Samples) -> None:
    """Note what a traced run took, and where its counts differ from the true number."""
    workload, told = documents(text)[:2]
    segment = _churn(workload)
    try:
        trace = msgspec.convert(told, _Trace, strict=False)
    except msgspec.ValidationError as error:
        raise LabFailedError(f"the loader's trace is another one: {error}") from error
    counters = trace.counters.get(segment.id, {})
    lives = segment.counts["lives"]
    found.ours.append(statistics.median(segment.samples["ns_per_life"]))
    found.wrong.append(float(sum(abs(counters.get(name, 0) - lives) for name in ("created", "ended"))))
    found.lost.append(float(sum(trace.losses.values())))
    found.attached.append(trace.load_seconds + trace.attach_seconds + trace.calibrate_seconds)


def documents(text: str) -> Sequence[object]:
    """Return the JSON documents in ``text``, one a line; other lines are passed over.

    :raises LabFailedError: there is none.
    """
    found: list[object] = []
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                found.append(msgspec.json.decode(line))
            except msgspec.DecodeError as error:
                raise LabFailedError(f"the machine said {line[:200]!r}: {error}") from error
    if not found:
        raise LabFailedError(f"the machine said {text[:200]!r}")
    return found


def _figures(found: _Samples) -> list[Figure]:
    life = "created, parked, run and ended"
    return [
        Figure(name="life", meaning=f"a goroutine {life}, nothing attached", unit="ns", samples=found.bare),
        Figure(name="life, traced", meaning="the same, each step recorded", unit="ns", samples=found.ours),
        Figure(
            name="life, bpftrace", meaning="the same, each step counted by bpftrace at the functions' entries",
            unit="ns", samples=found.theirs,
        ),
        Figure(
            name="miscounted", meaning="creations and ends, traced against their true number", unit="",
            samples=found.wrong, limit=0,
        ),
        Figure(name="lives lost", meaning="records lost meanwhile, all reasons", unit="", samples=found.lost, limit=0),
        Figure(
            name="attached", meaning="loader: programs loaded, attached and calibrated", unit="s",
            samples=found.attached, limit=ATTACHED_LIMIT,
        ),
    ]  # fmt: skip
