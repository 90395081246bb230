"""What kernel-side tools saw (``bpf/bcc``, ``bpf/bpftrace``), held against addresses that a workload gave. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from reports.analysis import PhaseData


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a tool's JSON that counts; it may hold more.

    :param hits: in the workload; ``total`` in the whole machine, the workload included.
    :param addresses: hits in the workload by the address that the call was about, ``0x…``.
    """

    hits: int
    total: int
    addresses: dict[str, int] = {}


def looks(phase: PhaseData, what: str) -> dict[str, Look]:
    """Return what the tools ``bcc/what`` and ``bpftrace/what`` saw, by tool.

    A tool whose output has another shape is left out: a zero of its own would look like evidence.
    """
    found: dict[str, Look] = {}
    for name, output in phase.tools.items():
        if name.endswith(f"/{what}"):
            try:
                found[name] = msgspec.convert(output, Look)
            except msgspec.ValidationError:
                continue
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
