"""Files onto a machine and back, as one tar stream each way over the kept connection.

A stream costs one command however many files it holds; SFTP pays a round trip for each, which is slow under emulation.
"""

from __future__ import annotations

import io
import shlex
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from provision.ssh import Shell
from vm.deadline import Deadline
from vm.errors import OutputError

PULL_LIMIT = 256 * 1024 * 1024
"""Bytes that one pull may bring back."""


def push(shell: Shell, files: Mapping[str, Path | bytes], folder: str, deadline: Deadline) -> int:
    """Put ``files`` (path below ``folder`` → file or content) onto the machine, mode 0755, and return the bytes sent.

    The stream is compressed: an emulated machine decrypts and authenticates about 1 to 4 MB/s, and unpacks gzip faster.

    :raises SshError: ``tar`` failed in the machine (its disk may be full) or the connection broke.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1, format=tarfile.GNU_FORMAT) as archive:
        for name, source in sorted(files.items()):
            data = source if isinstance(source, bytes) else source.read_bytes()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    where = shlex.quote(folder)
    shell.run(f"mkdir -p {where} && tar -xz -C {where}", deadline, stdin=buffer.getvalue()).check()
    return buffer.tell()


def push_whole(shell: Shell, files: Mapping[str, Path | bytes], folder: str, deadline: Deadline) -> int:
    """Do as :func:`push`; ``folder``, which must not be there yet, gets its name when it is whole."""
    sent = push(shell, files, f"{folder}.part", deadline)
    shell.run(["mv", "-T", f"{folder}.part", folder], deadline).check()
    return sent


def pull(
    shell: Shell, folder: str, into: Path, deadline: Deadline, alive: Callable[[], None] = lambda: None
) -> list[str]:
    """Bring all regular files below ``folder`` of the machine into ``into``, and return their names.

    What comes is untrusted: names that leave ``into``, links and devices are refused.

    :raises OutputError: more than :data:`PULL_LIMIT` bytes, or a name that must not be.
    """
    with tempfile.TemporaryFile(dir=into) as stream:
        shell.run(f"tar -c -C {shlex.quote(folder)} .", deadline, stdout=stream, limit=PULL_LIMIT, alive=alive).check()
        stream.seek(0)
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                return [name for member in archive if (name := _unpack(archive, member, into))]
        except tarfile.TarError as error:
            raise OutputError(f"what came back from {folder} is not a tar archive: {error}") from error


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, into: Path) -> str:
    """Write one member below ``into``; return its name, or "" for a folder."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
        raise OutputError(f"the machine sent a file with a name that leaves its folder: {member.name!r}")
    if member.isdir():
        return ""
    source = archive.extractfile(member) if member.isreg() else None
    if source is None:
        raise OutputError(f"the machine sent something that is not a file: {member.name!r}")
    target = into / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("wb") as file:
        while block := source.read(1 << 20):
            file.write(block)
    return str(path)
