"""What a machine is made of: the artefacts of one kernel, and QEMU."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vm.model import Kernel
from vm.paths import Layout


class Tools(Protocol):
    """What of :class:`vm.tools.ToolsRoot` is used here."""

    @property
    def sha256(self) -> str:
        """The artefact's hash."""

    @property
    def system_qemu(self) -> bool:
        """Whether the host's own QEMU is used instead."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that its programs need."""

    @property
    def qemu_version(self) -> str:
        """``10.0.13``; asked of QEMU itself, which takes a moment."""

    def command(self, program: str, *arguments: str | Path) -> list[str]:
        """Return the argument vector that runs ``program``."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Artefacts of one kernel, present and verified.

    :param bundle_image: read-only disk with ``usr/lib/modules`` and ``usr/src``.
    :param lock_digest: of the lock that the artefacts come from.
    """

    kernel: Kernel
    tools: Tools
    base_image: Path
    base_sha256: str
    vmlinuz: Path
    initramfs: Path
    bundle_image: Path
    bundle_sha256: str
    lock_digest: str


def qemu_version(layout: Layout, tools: Tools) -> str:
    """Return QEMU's version; it is remembered, because asking costs half as much as a restore."""
    name = hashlib.sha256(_program_identity(tools).encode()).hexdigest()[:16]
    remembered = layout.cache / "facts" / f"qemu-version-{name}"
    try:
        version = remembered.read_text().strip()
    except OSError:
        version = ""
    if not version:
        version = tools.qemu_version
        remembered.parent.mkdir(parents=True, exist_ok=True)
        temporary = remembered.with_name(f".{remembered.name}.{os.getpid()}")
        temporary.write_text(f"{version}\n")
        temporary.replace(remembered)
    return version


def _program_identity(tools: Tools) -> str:
    if not tools.system_qemu:
        return tools.sha256
    program = Path(tools.command("qemu-system-x86_64")[0]).resolve()
    stat = program.stat()
    return f"{program} {stat.st_size} {stat.st_mtime_ns}"
