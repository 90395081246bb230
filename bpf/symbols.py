"""Addresses of recorded stacks to functions, files and lines, through the binary's own function table.

Stacks are recorded as bare addresses and named here, on the host, where the binary is: those of stripped binaries and
PIEs too, because ``.gopclntab`` stays in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from bpf.elf import Elf
from bpf.pclntab import Frame, FunctionTable
from bpf.trace import Trace


class Symbolizer:
    """Tells the functions of one binary.

    :param load_bias: runtime address minus linked address; 0 where the binary is no PIE.
    :raises ProbeError: the binary has no readable function table.
    """

    def __init__(self, elf: Elf, load_bias: int = 0) -> None:
        self._table = FunctionTable(elf)
        self._bias = load_bias

    @classmethod
    def open(cls, binary: Path, load_bias: int = 0) -> Symbolizer:
        """Read ``binary``.

        :raises ProbeError: it is no Go program that can be read.
        """
        return cls(Elf.open(binary), load_bias)

    def frames(self, address: int, *, returns: bool) -> list[Frame]:
        """Return the frames at a runtime ``address``, innermost first; empty where no Go function is.

        :param returns: whether it is a return address: then the call before it is meant, which may be another line.
        :raises ProbeError: the function table is malformed.
        """
        return self._table.frames(address - self._bias - (1 if returns else 0))

    def stack(self, addresses: Sequence[int]) -> list[Frame]:
        """Return the frames of a recorded stack: the probe's own address first, then return addresses.

        Addresses outside Go functions are left out.

        :raises ProbeError: the function table is malformed.
        """
        return [frame for i, address in enumerate(addresses) for frame in self.frames(address, returns=i > 0)]


def words(frame: Frame) -> str:
    """Return ``function file:line``."""
    return f"{frame.function} {frame.file}:{frame.line}"


def addresses_of(stacks: Iterable[Sequence[int]]) -> dict[int, bool]:
    """Return each address of ``stacks`` and whether it is a return address; only the first one of a stack is not."""
    return {address: i > 0 for stack in stacks for i, address in enumerate(stack)}


def symbols_of(binary: Path, trace: Trace) -> dict[int, list[str]]:
    """Return ``function file:line`` of each frame at each runtime address of a trace's stacks, innermost first.

    Addresses outside Go functions are absent.

    :raises ProbeError: ``binary`` is no Go program that can be read.
    """
    symbolizer = Symbolizer.open(binary, trace.load_bias)
    found: dict[int, list[str]] = {}
    for address, returns in addresses_of(trace.stacks).items():
        frames = [words(frame) for frame in symbolizer.frames(address, returns=returns)]
        if frames:
            found[address] = frames
    return found


def to_json(symbols: dict[int, list[str]]) -> bytes:
    """Return ``symbols.json``: an object from runtime address (decimal) to frames, innermost first."""
    return msgspec.json.encode({str(address): symbols[address] for address in sorted(symbols)}) + b"\n"
