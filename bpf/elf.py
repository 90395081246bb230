"""Reading an ELF file of a Go program: sections, segments, symbols.

pyelftools does the parsing. It trusts what it reads and throws whatever Python happens to throw on a malformed file, so
each use of it stands in :func:`malformed_is_probe_error`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
from elftools.common.exceptions import DWARFError, ELFError
from elftools.construct import ConstructError
from elftools.dwarf.dwarfinfo import DWARFInfo
from elftools.elf.elffile import ELFFile

from vm.errors import ProbeError

_MALFORMED = (
    ELFError,
    DWARFError,
    ConstructError,
    struct.error,
    zlib.error,
    ValueError,  # includes UnicodeDecodeError
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    EOFError,
    OSError,
    NotImplementedError,
)

_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
"""Elf64_Sym (System V ABI, chapter 4); read at once, since pyelftools takes seconds for a large table."""

_LARGEST = 1 << 31
"""Files above this many bytes are refused: no Go program comes near."""


@contextmanager
def malformed_is_probe_error(name: str, what: str) -> Iterator[None]:
    """Turn what a parser throws on malformed input into a :class:`~vm.errors.ProbeError` that says what was read."""
    try:
        yield
    except _MALFORMED as error:
        raise ProbeError(
            f"{name}: {what} cannot be read: {error or type(error).__name__}",
            "the file is damaged or was changed after linking; build it again",
        ) from error


@dataclass(frozen=True, slots=True)
class Section:
    """One section: linked address (0 where it is not loaded), file offset and size in bytes."""

    name: str
    index: int
    address: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One PT_LOAD: ``file_size`` bytes at ``offset`` of the file appear at linked ``address``."""

    address: int
    offset: int
    file_size: int
    executable: bool


@dataclass(frozen=True, slots=True)
class Symbol:
    """One entry of the symbol table."""

    name: str
    address: int
    size: int


class Elf:
    """An x86-64 ELF executable, held in memory.

    :param name: for messages.
    :param data: the whole file.
    :raises ProbeError: not an ELF file, no x86-64 executable, or malformed.
    """

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.data = data
        if data[:4] != b"\x7fELF":
            raise ProbeError(f"{name} is not an ELF file", "give a Go program built for linux/amd64")
        with malformed_is_probe_error(name, "the ELF header"):
            self._file = ELFFile(BytesIO(data))
            machine, kind = self._file["e_machine"], self._file["e_type"]
            native = self._file.elfclass == 64 and self._file.little_endian and machine == "EM_X86_64"
        if not native:
            raise ProbeError(
                f"{name} is built for another architecture ({machine})", "build it with GOOS=linux GOARCH=amd64"
            )
        if kind not in {"ET_EXEC", "ET_DYN"}:
            raise ProbeError(f"{name} is no executable ({kind})", "link it: give what `go build` writes")
        self.pie: bool = kind == "ET_DYN"
        with malformed_is_probe_error(name, "the table of sections and segments"):
            self.sections = self._read_sections()
            self.segments = self._read_segments()

    @classmethod
    def open(cls, path: Path) -> Elf:
        """Read ``path``.

        :raises ProbeError: it cannot be read; else see the class.
        """
        try:
            if not path.is_file() and not path.is_dir() and path.exists():  # a pipe or device may never end
                raise ProbeError(f"{path} is no regular file", "give the path of a Go program")
            if path.stat().st_size > _LARGEST:
                raise ProbeError(f"{path.name} is larger than {_LARGEST >> 30} GiB", "give a Go program")
            return cls(path.name, path.read_bytes())
        except OSError as error:
            raise ProbeError(
                f"{path} cannot be read: {error.strerror}", "give the path of a Go program that you may read"
            ) from error

    def section(self, *names: str) -> Section | None:
        """Return the first section that has one of ``names``, in the order of ``names``."""
        for name in names:
            if name in self.sections:
                return self.sections[name]
        return None

    def contents(self, section: Section) -> bytes:
        """Return a section's bytes, decompressed where they are compressed.

        :raises ProbeError: they are not all in the file.
        """
        with malformed_is_probe_error(self.name, f"section {section.name}"):
            if section.offset + section.size > len(self.data):
                raise ValueError("it ends beyond the file")
            data: bytes = self._file.get_section(section.index).data()
            return data

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes at linked ``address``, as they are in the file.

        :raises ProbeError: no segment has them.
        """
        offset = self.file_offset(address, size)
        return self.data[offset : offset + size]

    def file_offset(self, address: int, size: int = 1) -> int:
        """Return where in the file the ``size`` bytes at linked ``address`` are; uprobes take this offset.

        :raises ProbeError: no segment has them.
        """
        for segment in self.segments:
            if segment.address <= address and address + size <= segment.address + segment.file_size:
                offset = segment.offset + address - segment.address
                if offset + size <= len(self.data):
                    return offset
        raise ProbeError(f"{self.name} has no bytes at address {address:#x}", "the file is damaged; build it again")

    @property
    def stripped(self) -> bool:
        """Whether the symbol table is gone."""
        return ".symtab" not in self.sections

    @cached_property
    def symbols(self) -> dict[str, Symbol]:
        """Symbols by name, the first of each; empty in a stripped binary.

        :raises ProbeError: the table is malformed.
        """
        table, strings = self.section(".symtab"), self.section(".strtab")
        if table is None or strings is None:
            return {}
        raw, names = self.contents(table), self.contents(strings)
        with malformed_is_probe_error(self.name, "the symbol table"):
            entries = np.frombuffer(raw, dtype=_SYMBOL)
            found: dict[str, Symbol] = {}
            for start, address, size in zip(
                entries["name"].tolist(), entries["value"].tolist(), entries["size"].tolist(), strict=True
            ):
                name = names[start : names.index(b"\0", start)].decode()
                found.setdefault(name, Symbol(name, address, size))
            return found

    @cached_property
    def dwarf(self) -> DWARFInfo | None:
        """The debug information, or ``None`` where there is none.

        :raises ProbeError: it is malformed.
        """
        with malformed_is_probe_error(self.name, "the debug information"):
            if self.section(".debug_info", ".zdebug_info") is None:
                return None
            return self._file.get_dwarf_info(follow_links=False)

    def _read_sections(self) -> dict[str, Section]:
        found: dict[str, Section] = {}
        for index, section in enumerate(self._file.iter_sections()):
            entry = Section(section.name, index, section["sh_addr"], section["sh_offset"], section["sh_size"])
            if section["sh_type"] not in {"SHT_NULL", "SHT_NOBITS"} and entry.offset + entry.size > len(self.data):
                raise ELFError(f"section {entry.name} ends beyond the file")
            found.setdefault(entry.name, entry)
        return found

    def _read_segments(self) -> list[Segment]:
        return [
            Segment(s["p_vaddr"], s["p_offset"], s["p_filesz"], bool(s["p_flags"] & 1))
            for s in self._file.iter_segments()
            if s["p_type"] == "PT_LOAD"
        ]
