"""What kernel-side tools saw (``bpf/bcc``, ``bpf/bpftrace``), held against addresses that a workload gave. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from reports.analysis import PhaseData
from reports.charts import HeatMap
from reports.text import neutral

COLUMNS = 600
"""Columns of 100 ms beyond which a heat map is not drawn: a minute."""

POWERS = 63
"""Largest power of two of a wait."""

Natural = Annotated[int, msgspec.Meta(ge=0)]
Cell = tuple[Natural, Natural, Natural]

LONGEST_ERROR = 300
"""Characters of a tool's error that are shown."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a tool's JSON that counts; it may hold more.

    :param hits: in the workload; ``total`` in the whole machine, the workload included.
    :param addresses: hits in the workload by the address that the call was about, ``0x…``.
    :param losses: what it missed, by reason.
    :param heat: rows of 100 ms since the first call, power of two of nanoseconds waited, number of waits; where a tool
        has another form of it, there is no heat map.
    """

    hits: int
    total: int
    addresses: dict[str, int] = {}
    losses: dict[str, int] = {}
    heat: Any = None

    @property
    def addresses_lost(self) -> int:
        """Hits in the workload whose address was not kept; other losses touch stacks and the like."""
        return self.losses.get("address", 0)


AnyLook = TypeVar("AnyLook", bound=Look)


def looks(phase: PhaseData, what: str) -> dict[str, Look]:
    """Return what the tools ``bcc/what`` and ``bpftrace/what`` saw, by tool.

    A tool without figures is left out (:func:`failures` says why): a zero of its own would look like evidence.
    """
    return looks_like(phase, what, Look)


def looks_like(phase: PhaseData, what: str, shape: type[AnyLook]) -> dict[str, AnyLook]:
    """Return what such tools saw, read as ``shape``: a :class:`Look` with more fields, those of the tool's own."""
    return {name: look for name, look in _read(phase, what, shape).items() if not isinstance(look, str)}


def failures(phase: PhaseData, what: str, shape: type[Look] = Look) -> dict[str, str]:
    """Return why tools ``…/what`` saw nothing, by tool."""
    found = {name: words for name, words in phase.tool_errors.items() if name.endswith(f"/{what}")}
    return found | {name: look for name, look in _read(phase, what, shape).items() if isinstance(look, str)}


def _read(phase: PhaseData, what: str, shape: type[AnyLook]) -> dict[str, AnyLook | str]:
    found: dict[str, AnyLook | str] = {}
    for name, output in phase.tools.items():
        if not name.endswith(f"/{what}"):
            continue
        if isinstance(output, dict) and output.get("error"):
            found[name] = neutral(str(output["error"]))[:LONGEST_ERROR]
            continue
        try:
            found[name] = msgspec.convert(output, shape)
        except msgspec.ValidationError as error:
            found[name] = f"its output has another shape: {error}"
    return found


def within(look: Look, ranges: Sequence[tuple[int, int]]) -> int:
    """Return the hits whose address lies in one of ``ranges`` (first address, size in bytes).

    :raises ValueError: an address is no hexadecimal number.
    """
    return sum(
        hits
        for text, hits in look.addresses.items()
        if any(start <= int(text, 16) < start + size for start, size in ranges)
    )


def heat_map(phase: PhaseData, tool: str, look: Look, title: str, caption: str) -> HeatMap | None:
    """Return the waits that ``tool`` saw by time and length, or None where it recorded none."""
    try:
        cells = msgspec.convert(look.heat, list[Cell])
    except msgspec.ValidationError:
        return None
    if not cells:
        return None
    columns = max(slot for slot, _, _ in cells) + 1
    lowest, highest = (edge(power for _, power, _ in cells) for edge in (min, max))
    if columns > COLUMNS or highest > POWERS:
        return None
    counts = [[0] * columns for _ in range(highest - lowest + 1)]
    for slot, power, count in cells:
        counts[power - lowest][slot] += count
    return HeatMap(
        id=tool.replace("/", "-").replace("_", "-") + "-heat",
        title=title,
        caption=caption,
        place="time",
        phase=phase.name,
        timing=True,
        x_title="Time since the first call",
        x_edges=[slot / 10 for slot in range(columns + 1)],
        y_title="Length of the wait",
        y_edges=[float(2**power) for power in range(lowest, highest + 2)],
        counts=counts,
    )
