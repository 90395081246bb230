"""A host to be examined, and what is found. Tests make up hosts of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec

SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where administrators' programs lie that a person's PATH does not have."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the doctor.

    :param check: what was looked at.
    :param result: ``fail`` means that the main job cannot run; ``warn``, that something is worse than it could be or
        will be made when it is first needed.
    :param detail: what was found, a sentence without a full stop.
    :param fix: a command, or a short instruction where none is enough; empty where nothing has to be done.
    """

    check: str
    result: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said. ``status`` is None where it could not be started or did not end in time."""

    status: int | None
    text: str


class Host(Protocol):
    """Everything that checks may ask of a host."""

    @property
    def environ(self) -> Mapping[str, str]:
        """Environment variables."""

    @property
    def uid(self) -> int:
        """Effective user id."""

    @property
    def user(self) -> str:
        """Name of the user."""

    def read(self, path: str) -> str | None:
        """Return the text of a file, None where it is absent or not readable."""

    def exists(self, path: str) -> bool:
        """Return whether ``path`` is there."""

    def which(self, program: str) -> str | None:
        """Return the path of ``program``, also if only administrators have it on their PATH."""

    def run(self, command: Sequence[str], seconds: float = 10, given: str = "") -> Answer:
        """Run a command that changes nothing, with ``given`` on stdin; stdout and stderr come back as one text."""

    def free_bytes(self, path: Path) -> int:
        """Return the bytes that may be written where ``path`` lies, or will lie."""

    def writable(self, path: Path) -> bool:
        """Return whether ``path``, or the nearest folder above it that exists, can be written to."""

    def cpus(self) -> int:
        """Return the number of CPUs that this process may use."""

    def now(self) -> float:
        """Return seconds since 1970."""


class ThisHost:
    """The host that this process runs on."""

    environ: Mapping[str, str] = os.environ

    @property
    def uid(self) -> int:
        """Effective user id."""
        return os.geteuid()

    @property
    def user(self) -> str:
        """Name of the user; the id where it has no name."""
        import pwd

        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def read(self, path: str) -> str | None:
        """Return the text of a file, None where it is absent or not readable."""
        try:
            return Path(path).read_text("utf-8", "replace")
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        """Return whether ``path`` is there."""
        return os.path.lexists(path)

    def which(self, program: str) -> str | None:
        """Return the path of ``program``, also if only administrators have it on their PATH."""
        return shutil.which(program, path=f"{self.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}")

    def run(self, command: Sequence[str], seconds: float = 10, given: str = "") -> Answer:
        """Run a command that changes nothing, with ``given`` on stdin; stdout and stderr come back as one text."""
        try:
            done = subprocess.run(
                [str(word) for word in command],
                input=given.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
                env={**self.environ, "LC_ALL": "C"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Answer(None, str(error))
        return Answer(done.returncode, done.stdout.decode("utf-8", "replace").strip())

    def free_bytes(self, path: Path) -> int:
        """Return the bytes that may be written where ``path`` lies, or will lie."""
        return shutil.disk_usage(_existing(path)).free

    def writable(self, path: Path) -> bool:
        """Return whether ``path``, or the nearest folder above it that exists, can be written to."""
        return os.access(_existing(path), os.W_OK | os.X_OK)

    def cpus(self) -> int:
        """Return the number of CPUs that this process may use."""
        return len(os.sched_getaffinity(0))

    def now(self) -> float:
        """Return seconds since 1970."""
        return time.time()


def _existing(path: Path) -> Path:
    """Return ``path`` or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
