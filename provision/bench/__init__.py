"""``invoke bench``: the lab measured, in turn with its peers where they are installed. Says what it did not measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from provision import cli, hostfacts, payload
from provision.bench import builds, labs, lives, machines, matrices, probes, vagrants
from provision.bench.figures import Figure, Result, Unmeasured, ratio, rows
from provision.bench.labs import Render
from provision.bench.matrices import Synthetic
from provision.house import House
from vm.deadline import Deadline
from vm.errors import LabFailedError
from vm.model import Kernel
from vm.qemu import accel

__all__ = ["PARTS", "Result", "measure", "show"]

PARTS = ("warm", "cold", "size", "probes", "lives", "lab", "matrix", "compare", "images", "losses", "soak", "vagrant")
"""What ``--only`` knows."""

ASKED = frozenset({"images", "losses", "soak", "vagrant"})
"""Parts that are measured only when asked for: the first downloads everything again, the others take many minutes."""

LAB_ROUNDS = 3
"""Most rounds of the whole lab: each takes a minute."""


def measure(
    only: Sequence[str], kernel: str, rounds: int, render: Render, synthetic: Synthetic, vng_kernel: str = ""
) -> Result:
    """Measure what ``only`` names (everything but :data:`ASKED` where it is empty) and return all figures.

    :raises UsageError: an unknown part or kernel.
    """
    wanted = {cli.one_of("--only", part, PARTS) for part in only} or set(PARTS) - ASKED
    house = House.open()
    found = house.kernel(kernel)
    result = _begin(house, found, warm=bool(wanted - {"images", "compare"}))
    if wanted & {"warm", "cold"}:
        _machines(result, house, found, wanted, rounds, vng_kernel)
    if "size" in wanted:
        _add(result, machines.state_size(house, found))
    if "probes" in wanted:
        _probes(result, house, found, rounds)
    if "lives" in wanted:
        _lives(result, house, found, rounds)
    parts: dict[str, Callable[[], list[Figure | Unmeasured]]] = {
        "lab": lambda: labs.whole_lab(found.line, min(rounds, LAB_ROUNDS), render, house.say),
        "matrix": lambda: [
            *matrices.overhead(found.line, rounds, house.say),
            *matrices.killed(found.line, house.say),
        ],
        "compare": lambda: matrices.comparing(rounds, synthetic, house.say),
        "losses": lambda: labs.losses(found.line, house.say),
        "soak": lambda: labs.soak(found.line, house.say),
        "vagrant": lambda: vagrants.measure(found.line, min(rounds, LAB_ROUNDS), house.say),
    }
    for name in parts.keys() & wanted:
        try:
            _add(result, *parts[name]())
        except LabFailedError as error:
            _add(result, Unmeasured(name=name, reason=error.message))
    if "images" in wanted:
        others = [other for other in house.default_kernels() if other.release != found.release]
        _add(result, *builds.measure(house, [found, *others[-1:]], house.say))
    for part in sorted(set(PARTS) - wanted):
        _add(result, Unmeasured(name=part, reason="not asked for"))
    result.load_after = hostfacts.load()
    return result


def show(result: Result) -> None:
    """Print the table, and what was not measured."""
    title = f"{result.kernel}, {result.accelerator}; {result.host['cpu']}, load {result.load_before['load1']:.1f}"
    cli.print_table(("what", "median", "range", "n", "aim", "met", "meaning"), rows(result), title)
    for each in result.unmeasured:
        print(f"not measured: {each.name}: {each.reason}")


def _begin(house: House, kernel: Kernel, *, warm: bool) -> Result:
    """Build what is missing first, and find out which accelerator will be used: neither is part of any figure."""
    used = "-"
    if warm:
        parts = house.images(kernel).parts
        used = accel.choose("auto", house.layout, parts, Deadline.after(60))
    return Result(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        kernel=kernel.release,
        accelerator=used,
        host=hostfacts.describe(),
        load_before=hostfacts.load(),
    )


def _machines(result: Result, house: House, kernel: Kernel, wanted: set[str], rounds: int, vng_kernel: str) -> None:
    contenders = machines.ours(house, kernel, wanted)
    if "warm" in wanted:
        peer = machines.virtme_ng(vng_kernel, emulated=result.accelerator == "tcg")
        for each in (peer, vagrants.peer(kernel.line, house.say)):
            if isinstance(each, Unmeasured):
                _add(result, each)
            else:
                contenders.append(each)
    figures, out = machines.in_turn(contenders, rounds, house.say)
    _add(result, *figures, *out)
    by_name = {figure.name: figure for figure in figures}
    for name, meaning, limit in (
        ("virtme-ng", "warm restore against vng --run", machines.VNG_LIMIT),
        ("vagrant", "warm restore against vagrant up and ssh", None),
    ):
        made = ratio(f"warm / {name}", meaning, by_name.get("warm"), by_name.get(name), limit)
        if made is not None:
            result.ratios.append(made)


def _probes(result: Result, house: House, kernel: Kernel, rounds: int) -> None:
    kit = payload.kit(house.layout, house.images(kernel).tools)
    try:
        ours, theirs = probes.measure(house, kernel, kit, rounds, house.say)
    except LabFailedError as error:
        _add(result, Unmeasured(name="probes", reason=error.message))
        return
    _add(result, ours, theirs)
    made = ratio("probe / bpftrace", "a hit of ours against one of bpftrace at the entry", ours, theirs, probes.LIMIT)
    if made is not None:
        result.ratios.append(made)


def _lives(result: Result, house: House, kernel: Kernel, rounds: int) -> None:
    try:
        found = lives.measure(house, kernel, rounds, house.say)
    except LabFailedError as error:
        _add(result, Unmeasured(name="lives", reason=error.message))
        return
    _add(result, *found)
    by_name = {figure.name: figure for figure in found}
    made = ratio(
        "life, traced / bpftrace", "time for each goroutine under full tracing; a third is three times the throughput",
        by_name["life, traced"], by_name["life, bpftrace"], lives.LIMIT,
    )  # fmt: skip
    if made is not None:
        result.ratios.append(made)


def _add(result: Result, *found: Figure | Unmeasured) -> None:
    for each in found:
        if isinstance(each, Figure):
            result.figures.append(each)
        else:
            result.unmeasured.append(each)
