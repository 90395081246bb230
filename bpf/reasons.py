"""Numbers of Go's wait reasons: from the table by version, or from a binary's own strings."""

from __future__ import annotations

import struct

from bpf import tables
from bpf.buildinfo import GoVersion
from bpf.elf import Elf, malformed_is_probe_error

_MOST = 256
_STRING = struct.Struct("<QQ")
"""A Go string: address and length."""


def read_wait_reasons(elf: Elf) -> tuple[str, ...]:
    """Return the binary's own ``runtime.waitReasonStrings``, indexed by number; empty in a stripped binary.

    :raises ProbeError: the array is malformed.
    """
    symbol = elf.symbols.get("runtime.waitReasonStrings")
    if symbol is None:
        return ()
    with malformed_is_probe_error(elf.name, "the table of wait reasons"):
        count, rest = divmod(symbol.size, _STRING.size)
        if rest or not 0 < count < _MOST:
            raise ValueError(f"{symbol.size} bytes are no array of strings")
        strings = [_STRING.unpack_from(elf.read(symbol.address, symbol.size), _STRING.size * i) for i in range(count)]
        return tuple(elf.read(address, size).decode() if size else "" for address, size in strings)


def wait_reasons(elf: Elf, version: GoVersion) -> tuple[str, ...]:
    """Return the wait reasons of a binary, indexed by number: by version, else its own; empty where neither is sure.

    :raises ProbeError: the binary's own are malformed.
    """
    if version.release and version.line in tables.WAIT_REASONS:
        return tables.WAIT_REASONS[version.line]
    return read_wait_reasons(elf)
