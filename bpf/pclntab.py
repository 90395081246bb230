"""Go's function table (``.gopclntab``): functions by name and by address, lines by address.

The linker keeps it in stripped binaries, because the runtime itself walks stacks with it. The layout is that of Go 1.20
and later (``runtime/symtab.go``: ``pcHeader``, ``_func``; ``runtime/funcdata.h``), with the magic 0xfffffff1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bpf.elf import Elf, malformed_is_probe_error
from vm.errors import ProbeError

_MAGIC = 0xFFFFFFF1
_START = _MAGIC.to_bytes(4, "little") + bytes([0, 0, 1, 8])
"""Magic, padding, instruction size quantum and pointer size of amd64."""

_HEADER = struct.Struct("<IHBB8Q")
_FUNC = struct.Struct("<IiiIIIIIIiBBBB")
"""``_func``: entryOff, nameOff, args, deferreturn, pcsp, pcfile, pcln, npcdata, cuOffset, startLine, then the bytes
funcID, flag, padding, nfuncdata."""

_INLINED_CALL = struct.Struct("<B3xiii")
"""``inlinedCall``: funcID, nameOff, parentPc, startLine."""

_PCDATA_INLINE_INDEX = 2
_FUNCDATA_INLINE_TREE = 3
_ABSENT = 0xFFFFFFFF

_MODULE_WORDS = 44
_MODULE_MIN_PC, _MODULE_MAX_PC, _MODULE_TEXT = 20, 21, 22
"""Words of ``runtime.moduledata`` (``runtime/symtab.go``); alike from Go 1.20 to 1.27."""

_MODULE_GOFUNC = (40, 43)
"""Word ``gofunc``: 40 to Go 1.26, 43 in 1.27; ``rodata`` is the word before it."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function as it was linked: ``entry`` is its linked address, ``size`` in bytes, padding behind it included."""

    name: str
    entry: int
    size: int
    index: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stack; ``inlined`` where its function was inlined into the next frame."""

    function: str
    file: str
    line: int
    inlined: bool


@dataclass(frozen=True, slots=True)
class _Func:
    name_offset: int
    pcfile: int
    pcln: int
    pcdata: tuple[int, ...]
    funcdata: tuple[int, ...]
    unit: int


class FunctionTable:
    """The function table of one binary.

    :raises ProbeError: there is none, its magic is another, or it does not hold together.
    """

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        self._address, self._data = _locate(elf)
        with malformed_is_probe_error(elf.name, "Go's function table"):
            self._read_header()
            self._text = self._find_text()

    def find(self, name: str) -> list[Function]:
        """Return every function of that exact name; more than one where a name is not unique (ABI wrappers).

        :raises ProbeError: the table is malformed.
        """
        with malformed_is_probe_error(self._elf.name, "Go's function table"):
            start = self._name_offset(name)
            if start is None:
                return []
            return [self._function(int(i)) for i in np.flatnonzero(self._name_offsets == start)]

    def mentions(self, name: str) -> bool:
        """Return whether the table has ``name`` at all: where :meth:`find` finds no function, it was inlined away."""
        return self._name_offset(name) is not None

    def at(self, address: int) -> Function | None:
        """Return the function that the linked ``address`` lies in.

        :raises ProbeError: the table is malformed.
        """
        offset = address - self._text
        if not int(self._entries[0]) <= offset < int(self._entries[-1]):
            return None
        with malformed_is_probe_error(self._elf.name, "Go's function table"):
            return self._function(int(np.searchsorted(self._entries, offset, side="right")) - 1)

    def frames(self, address: int) -> list[Frame]:
        """Return the frames at the linked ``address``, innermost first: the functions inlined there, then the real one.

        Empty where no function is. For a return address, give the address minus one: the call, not what follows it.

        :raises ProbeError: the table is malformed.
        """
        function = self.at(address)
        if function is None:
            return []
        with malformed_is_probe_error(self._elf.name, "Go's line table"):
            raw = self._func(function.index)
            frames: list[Frame] = []
            while True:
                file, line = self._position(raw, address - function.entry)
                call = self._inlined_call(raw, address - function.entry)
                if call is None or len(frames) > 100:
                    return [*frames, Frame(function.name, file, line, inlined=False)]
                name_offset, parent = call
                frames.append(Frame(self._string(self._names, name_offset), file, line, inlined=True))
                address = function.entry + parent

    def __len__(self) -> int:
        return len(self._entries) - 1

    def all(self) -> list[Function]:
        """Return all functions, by address.

        :raises ProbeError: the table is malformed.
        """
        with malformed_is_probe_error(self._elf.name, "Go's function table"):
            return [self._function(i) for i in range(len(self))]

    def _read_header(self) -> None:
        fields = _HEADER.unpack_from(self._data)
        magic, _, _, pointer = fields[:4]
        if magic != _MAGIC:
            raise ProbeError(
                f"{self._elf.name} has a Go function table of an unknown form ({magic:#010x})",
                "build it with Go 1.21 or newer; forms up to Go 1.27 are known",
            )
        count, _, text, names, units, files, pcs, funcs = fields[4:]
        size = len(self._data)
        if pointer != 8 or not _HEADER.size <= names <= units <= files <= pcs <= funcs <= size:
            raise ValueError("its parts are out of order")
        self._header_text: int = text
        self._names = self._data[names:units]
        self._units = self._data[units:files]
        self._files = self._data[files:pcs]
        self._pcs = self._data[pcs:funcs]
        self._funcs = self._data[funcs:]
        if count == 0 or 8 * count + 4 > len(self._funcs):
            raise ValueError(f"it names {count} functions and has no room for them")
        table = np.frombuffer(self._funcs, dtype="<u4", count=2 * count + 1)
        self._entries: npt.NDArray[np.uint32] = table[0::2]
        self._offsets: npt.NDArray[np.uint32] = table[1::2]
        if (np.diff(self._entries.astype(np.int64)) < 0).any():
            raise ValueError("its functions are out of order")
        if int(self._offsets.max()) + _FUNC.size > len(self._funcs) or (self._offsets % 4).any():
            raise ValueError("a function lies beyond its end")

    def _find_text(self) -> int:
        """Return the linked address that entries are relative to.

        The header has it where no relocation fills it in, up to Go 1.25. From 1.26 on it is 0 there; the symbol
        ``runtime.text`` or the module data tell.
        """
        if self._header_text:
            return self._header_text
        symbol = self._elf.symbols.get("runtime.text")
        if symbol is not None:
            return symbol.address
        module = self._module_data()
        if module is None:
            raise ProbeError(
                f"{self._elf.name}: where its functions start is not known (no symbols, no module data)",
                "link it without -s, or without an external linker (CGO_ENABLED=0)",
            )
        return module[_MODULE_TEXT]

    def _module_data(self) -> tuple[int, ...] | None:
        """Find ``runtime.firstmoduledata``: it starts with the table's address, and its bounds fit the table."""
        first, last = int(self._entries[0]), int(self._entries[-1])
        needle = self._address.to_bytes(8, "little")
        for name in (".go.module", ".noptrdata", ".data", ".data.rel.ro"):
            section = self._elf.section(name)
            data = self._elf.contents(section) if section else b""
            at = data.find(needle)
            while at >= 0:
                if at % 8 == 0 and at + 8 * _MODULE_WORDS <= len(data):
                    words = struct.unpack_from(f"<{_MODULE_WORDS}Q", data, at)
                    text = words[_MODULE_TEXT]
                    if words[_MODULE_MIN_PC] == text + first and words[_MODULE_MAX_PC] == text + last:
                        return words
                at = data.find(needle, at + 1)
        return None

    @cached_property
    def _name_offsets(self) -> npt.NDArray[np.int64]:
        words = np.frombuffer(self._funcs, dtype="<u4", count=len(self._funcs) // 4)
        return words[self._offsets // 4 + 1].astype(np.int64)

    def _name_offset(self, name: str) -> int | None:
        encoded = name.encode()
        if self._names.startswith(encoded + b"\0"):
            return 0
        at = self._names.find(b"\0" + encoded + b"\0")
        return None if at < 0 else at + 1

    def _function(self, index: int) -> Function:
        start, end = int(self._entries[index]), int(self._entries[index + 1])
        name = self._string(self._names, int(self._name_offsets[index]))
        return Function(name, self._text + start, end - start, index)

    def _func(self, index: int) -> _Func:
        at = int(self._offsets[index])
        fields = _FUNC.unpack_from(self._funcs, at)
        pcdata_count, funcdata_count = fields[7], fields[13]
        rest = at + _FUNC.size
        pcdata = struct.unpack_from(f"<{pcdata_count}I", self._funcs, rest)
        funcdata = struct.unpack_from(f"<{funcdata_count}I", self._funcs, rest + 4 * pcdata_count)
        return _Func(fields[1], fields[5], fields[6], pcdata, funcdata, fields[8])

    def _position(self, raw: _Func, offset: int) -> tuple[str, int]:
        number = self._value(raw.pcfile, offset)
        line = self._value(raw.pcln, offset)
        if number is None or number < 0 or line is None:
            return "?", 0
        (start,) = struct.unpack_from("<I", self._units, 4 * (raw.unit + number))
        return ("?", 0) if start == _ABSENT else (self._string(self._files, start), line)

    def _inlined_call(self, raw: _Func, offset: int) -> tuple[int, int] | None:
        """Return name offset and parent's code offset of the innermost call that was inlined at ``offset``."""
        if len(raw.pcdata) <= _PCDATA_INLINE_INDEX or len(raw.funcdata) <= _FUNCDATA_INLINE_TREE:
            return None
        tree = raw.funcdata[_FUNCDATA_INLINE_TREE]
        base = self._function_data
        if base is None or tree == _ABSENT:
            return None
        index = self._value(raw.pcdata[_PCDATA_INLINE_INDEX], offset)
        if index is None or index < 0:
            return None
        data = self._elf.read(base + tree + index * _INLINED_CALL.size, _INLINED_CALL.size)
        _, name, parent, _ = _INLINED_CALL.unpack(data)
        return name, parent

    @cached_property
    def _function_data(self) -> int | None:
        """Address of ``go:func.*``, that the inline trees are relative to; ``None`` leaves inlined frames out.

        Without symbols it is the word behind ``rodata`` in the module data.
        """
        symbol = self._elf.symbols.get("go:func.*")
        if symbol is not None:
            return symbol.address
        rodata, module = self._elf.section(".rodata"), self._module_data()
        if rodata is None or module is None:
            return None
        return next((module[i] for i in _MODULE_GOFUNC if module[i - 1] == rodata.address), None)

    def _value(self, table: int, offset: int) -> int | None:
        """Return the value that a pc-value table (``runtime.pcvalue``) has at ``offset`` bytes into a function."""
        if table == 0:
            return None
        at, value, code = table, -1, 0
        while True:
            delta, at = self._varint(at)
            if delta == 0 and code:
                return None
            value += -((delta + 1) >> 1) if delta & 1 else delta >> 1
            step, at = self._varint(at)
            code += step
            if offset < code:
                return value

    def _varint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = self._pcs[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not byte & 0x80:
                return value, at

    @staticmethod
    def _string(data: bytes, start: int) -> str:
        if start < 0:
            raise ValueError("a name lies before its table")
        return data[start : data.index(b"\0", start)].decode("utf-8", "replace")


def _locate(elf: Elf) -> tuple[int, bytes]:
    """Return linked address and bytes of the table; the bytes may go on behind its end.

    :raises ProbeError: there is none.
    """
    section = elf.section(".gopclntab", ".data.rel.ro.gopclntab")
    if section is not None:
        return section.address, elf.contents(section)
    # An external linker merges it into the read-only data of a PIE, to Go 1.25.
    merged = elf.section(".data.rel.ro")
    data = elf.contents(merged) if merged is not None else b""
    at = data.find(_START)
    if merged is None or at < 0 or data.find(_START, at + 1) >= 0:
        raise ProbeError(
            f"{elf.name} has no Go function table (.gopclntab)",
            "it was packed or stripped of sections; build it again",
        )
    return merged.address + at, data[at:]
