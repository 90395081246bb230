"""What a Go binary says of itself: the Go version, its modules and settings, its build id.

``.go.buildinfo`` is described in Go's ``debug/buildinfo`` (the form with inline strings, which Go 1.18 brought in):
14 bytes of magic, the pointer size, a flags byte (2 = strings follow inline), padding up to byte 32, then two strings,
each with its length as a varint in front. The second one has 16 bytes of sentinel on either side.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bpf.elf import Elf, malformed_is_probe_error
from vm.errors import ProbeError

_MAGIC = b"\xff Go buildinf:"
_HEADER = 32
_INLINE = 2
_SENTINEL = 16
_VERSION = re.compile(r"^go(\d+)\.(\d+)(?:\.(\d+))?((?:rc|beta)\d+)?")

OLDEST = (1, 21)
"""The oldest Go that probes are known for (``tables``)."""


@dataclass(frozen=True, slots=True)
class GoVersion:
    """A Go version as a binary names it.

    :param release: whether the version is a plain release; development versions and those with experiments switched on
        may have other struct layouts, so that no table speaks for them.
    """

    text: str
    minor: tuple[int, int]
    release: bool

    @property
    def line(self) -> str:
        """``1.27``."""
        return f"{self.minor[0]}.{self.minor[1]}"


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """Contents of ``.go.buildinfo``; ``settings`` are the build's (``-buildmode``, ``CGO_ENABLED``, ``GOAMD64``, …)."""

    version: GoVersion
    path: str
    settings: dict[str, str]


def parse_version(text: str) -> GoVersion | None:
    """Return the version that ``go1.27.3``, ``go1.27rc1`` or ``go1.26.1 X:arenas`` names; ``None`` for others."""
    match = _VERSION.match(text)
    if match is None:
        return None
    major, minor, patch, candidate = match.groups()
    number = f"{major}.{minor}" + (f".{patch}" if patch else "") + (candidate or "")
    return GoVersion(text=number, minor=(int(major), int(minor)), release=match.end() == len(text) and not candidate)


def read_build_info(elf: Elf) -> BuildInfo:
    """Return what ``elf`` says of its build.

    :raises ProbeError: not a Go program, older than Go 1.18's format, an unreadable version, or Go older than 1.21.
    """
    section = elf.section(".go.buildinfo")
    if section is None:
        if elf.section(".gopclntab", ".data.rel.ro.gopclntab") is None:
            raise ProbeError(f"{elf.name} is not a Go program", "probe plans are made for what `go build` writes")
        raise ProbeError(
            f"{elf.name} is a Go program without build information", "build it with Go 1.21 or newer, unpacked"
        )
    data = elf.contents(section)
    with malformed_is_probe_error(elf.name, "Go's build information"):
        if data[: len(_MAGIC)] != _MAGIC or len(data) < _HEADER:
            raise ValueError("no build information where it should be")
        if not data[15] & _INLINE:
            raise ProbeError(f"{elf.name} was built by Go older than 1.18", "build it with Go 1.21 or newer")
        version_text, rest = _string(data, _HEADER)
        module, _ = _string(data, rest)
    version = parse_version(version_text.removeprefix("devel ").strip())
    if version is None:
        raise ProbeError(f"{elf.name} names an unknown Go version {version_text!r}", "build it with a Go release")
    if version_text.startswith("devel"):
        version = GoVersion(text=version.text, minor=version.minor, release=False)
    if version.minor < OLDEST:
        raise ProbeError(
            f"{elf.name} was built by Go {version.text}; probes are known from Go 1.21 on",
            "build it with Go 1.21 or newer",
        )
    path, settings = _module_info(module)
    return BuildInfo(version=version, path=path, settings=settings)


def read_build_id(elf: Elf) -> str:
    """Return Go's build id (``.note.go.buildid``), empty where there is none.

    :raises ProbeError: the note is malformed.
    """
    section = elf.section(".note.go.buildid")
    if section is None:
        return ""
    data = elf.contents(section)
    with malformed_is_probe_error(elf.name, "Go's build id"):
        name_size = int.from_bytes(data[0:4], "little")
        size = int.from_bytes(data[4:8], "little")
        start = 12 + (name_size + 3) // 4 * 4
        if start + size > len(data):
            raise ValueError("the note is cut off")
        return data[start : start + size].decode("ascii")


def _string(data: bytes, start: int) -> tuple[str, int]:
    length, shift, at = 0, 0, start
    while True:
        byte = data[at]
        length |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            break
    if at + length > len(data):
        raise ValueError("a string is cut off")
    return data[at : at + length].decode("utf-8", "surrogateescape"), at + length


def _module_info(text: str) -> tuple[str, dict[str, str]]:
    if len(text) < 2 * _SENTINEL:
        return "", {}
    path, settings = "", {}
    for line in text[_SENTINEL:-_SENTINEL].splitlines():
        kind, _, value = line.partition("\t")
        if kind == "path":
            path = value
        elif kind == "build":
            key, _, setting = value.partition("=")
            settings[key] = setting
    return path, settings
