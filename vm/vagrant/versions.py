"""Versions of the host's programs that machines of Vagrant's run with; each is asked once and remembered."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from vm.errors import SetupError
from vm.paths import Layout

QEMU = "qemu-system-x86_64"
SOUND_QEMU = 8
"""First major version that is taken for sound where it emulates several CPUs: 7.2 locked up in two of some twenty labs,
10.0 in none."""
_VERSION = re.compile(r"\b\d+\.\d+[\w.]*")
_SECONDS = 60.0


def vagrant_version(layout: Layout) -> str:
    """Return Vagrant's version, ``2.3.4``.

    :raises SetupError: it is not installed.
    """
    return _version(layout, _program("vagrant"))


def qemu_version(layout: Layout, program: Path | None = None) -> str:
    """Return the version of the host's QEMU, which libvirt starts.

    :raises SetupError: it is not installed.
    """
    return _version(layout, program or _program(QEMU))


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise SetupError(f"{name} is not installed, which --provider vagrant needs", "./setup.sh --with-vagrant")
    return Path(found)


def _version(layout: Layout, program: Path) -> str:
    """Ask ``program`` for its version, once for each file that it has been."""
    try:
        stat = program.resolve().stat()
        identity = f"{program.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        remembered = layout.cache / "facts" / f"{program.name}-version-{name}"
        if remembered.exists() and (version := remembered.read_text().strip()):
            return version
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{program} does not run: {error}", "./setup.sh --with-vagrant") from error
    found = _VERSION.search(done.stdout)
    if found is None:
        raise SetupError(f"{program} does not tell its version: {done.stderr.strip()[:80]}", "invoke doctor")
    remembered.parent.mkdir(parents=True, exist_ok=True)
    temporary = remembered.with_name(f".{remembered.name}.{os.getpid()}")
    temporary.write_text(f"{found[0]}\n")
    temporary.replace(remembered)
    return found[0]
