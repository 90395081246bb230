"""Packages that an archive's index has dropped and its pool still holds.

A line such as 6.18 lives on in trixie-backports as a signed image only; its headers, and from 6.19 on its modules, are
built from another source package and leave the index with the next upload. The pool keeps the files for some time. No
signed index names their hash any more, so they are taken as they are the first time, checked to be what their name
says, and marked in the lock as not covered by a signature. From then on the lock's hash binds them like any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from lzma import LZMAError
from pathlib import Path
from tarfile import TarError
from typing import IO
from urllib.parse import unquote, urlsplit

import httpx
from debian.arfile import ArError
from debian.debfile import DebError, DebFile

from vm.download import CHUNK, client, disk
from vm.errors import IntegrityError, MirrorError
from vm.kernels import Lacking
from vm.mirror import Mirror
from vm.model import Package


def adopt(lacking: Lacking, mirror: Mirror, store: Path) -> Package:
    """Fetch a package by its path in the pool, put it in the store, and return it with the hash that it has.

    :raises MirrorError: no source has it, or none can be reached.
    :raises IntegrityError: the file is no package, or another one.
    """
    wanted = Package(
        name=lacking.name,
        version=lacking.version,
        architecture=lacking.architecture,
        archive=lacking.archive,
        path=lacking.path,
        size=0,
        sha256="",
        signed=False,
    )
    with disk(store):
        store.mkdir(parents=True, exist_ok=True)
        with client(mirror.proxy) as http, tempfile.NamedTemporaryFile(dir=store, suffix=".part", delete=False) as file:
            path = Path(file.name)
            try:
                sha256, size = _first(mirror.candidates(wanted), file, http, lacking)
                _check(path, lacking)
                path.chmod(0o644)
                path.rename(store / sha256)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
    return Package(
        name=wanted.name,
        version=wanted.version,
        architecture=wanted.architecture,
        archive=wanted.archive,
        path=wanted.path,
        size=size,
        sha256=sha256,
        signed=False,
    )


def _first(urls: list[str], file: IO[bytes], http: httpx.Client, lacking: Lacking) -> tuple[str, int]:
    """Copy the first URL that answers to ``file``; return SHA-256 and size."""
    unreachable = ""
    for url in urls:
        file.seek(0)
        file.truncate(0)
        digest = hashlib.sha256()

        def keep(chunk: bytes, digest: hashlib._Hash = digest) -> None:
            digest.update(chunk)
            file.write(chunk)

        try:
            if _copy(url, keep, http):
                file.flush()
                os.fsync(file.fileno())
                return digest.hexdigest(), file.tell()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            unreachable = f"{url}: {error}"
    what = f"{lacking.name} {lacking.version}"
    if unreachable:
        raise MirrorError(f"{what} cannot be fetched: {unreachable}", "Check the network, or set KMLAB_MIRROR.")
    raise MirrorError(
        f"{what} is in no index and no longer in the pool ({lacking.path})",
        "Point KMLAB_ARCHIVE at a snapshot of the archive or a folder that has the file, or drop the line.",
    )


def _copy(url: str, keep: Callable[[bytes], None], http: httpx.Client) -> bool:
    if url.startswith("file://"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            with Path(unquote(urlsplit(url).path)).open("rb") as source:
                shutil.copyfileobj(source, _Writer(keep), CHUNK)
            return True
        return False
    with http.stream("GET", url) as response:
        if response.status_code in {403, 404, 410}:
            return False
        response.raise_for_status()
        for chunk in response.iter_raw(CHUNK):
            keep(chunk)
    return True


class _Writer:
    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write


def _check(path: Path, lacking: Lacking) -> None:
    """Raise unless the file is the package, version and architecture that its path says."""
    try:
        with DebFile(filename=str(path)) as deb:
            control = deb.debcontrol()
            found = (control.get("Package"), control.get("Version"), control.get("Architecture"))
    except (DebError, ArError, TarError, LZMAError, OSError, EOFError) as error:
        raise IntegrityError(f"{lacking.path} is no Debian package: {error}", "Try another mirror.") from error
    if found != (lacking.name, lacking.version, lacking.architecture):
        raise IntegrityError(f"{lacking.path} holds {' '.join(map(str, found))}", "Try another mirror.")
