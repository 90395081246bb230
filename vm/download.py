"""Downloads into a store keyed by SHA-256: parallel, resumed, verified on each use.

A file of the store is called by its SHA-256. Beside it, ``SHA256.part`` is a download under way or one that was cut
off; the next one goes on where it ended. A file that is in the store is hashed each time it is asked for: a disk that
rots, or a person who edits, is found before the bytes go into an image.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import httpx

from vm import mirror as mirrors
from vm.errors import DiskFullError, IntegrityError, LabError, MirrorError, SetupError
from vm.model import Package
from vm.paths import Layout
from vm.progress import Reporter, Silent

CHUNK = 1 << 18
"""Bytes read at a time."""
ATTEMPTS = 4
"""Times a source is asked before the next one is: a mirror behind a load balancer fails now and then."""
JOBS = 6
"""Downloads at the same time."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
_RESERVE = 64 << 20
_TIMEOUT = httpx.Timeout(20.0, connect=10.0)


class _Missing(Exception):
    """A source does not have the file."""


class _Unreachable(Exception):
    """A source could not be asked."""


class _WrongBytes(Exception):
    """A source gave other bytes than the lock names."""


class _Stopped(Exception):
    """Another download failed, or a person pressed Ctrl-C."""


def fetch(
    packages: Sequence[Package],
    layout: Layout,
    progress: Reporter | None = None,
    *,
    mirror: Callable[[], mirrors.Mirror] = mirrors.resolve,
    jobs: int = JOBS,
) -> dict[str, Path]:
    """Return the path of each package's file by SHA-256, fetching what the store lacks.

    ``mirror`` is called only if something is lacking, so that a full store works without any network.

    :raises MirrorError: a package is nowhere, or no source can be reached.
    :raises IntegrityError: sources give only files that are not the locked ones.
    :raises DiskFullError: the store's disk is full.
    """
    say = progress or Silent()
    wanted = {package.sha256: package for package in packages}
    folder = layout.downloads
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lacking = _check_store(list(wanted.values()), folder, say, jobs)
    if lacking:
        source = mirror()
        _check_space(lacking, folder)
        files = f"{len(lacking)} package{'s' if len(lacking) > 1 else ''}"
        say.begin(f"fetching {files}", sum(package.size for package in lacking))
        try:
            with client(source.proxy) as http:
                run = _Run(source, folder, say, http)
                _parallel(lacking, run.fetch, run.stop, jobs)
        finally:
            say.end()
    return {sha256: folder / sha256 for sha256 in wanted}


def present(packages: Sequence[Package], layout: Layout) -> bool:
    """Tell whether the store has a file for each package; sizes are compared, contents are not (``fetch`` does)."""
    return all(_has_size(layout.downloads / package.sha256, package.size) for package in packages)


def sha256_of(path: Path, stop: threading.Event | None = None) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            if stop is not None and stop.is_set():
                raise _Stopped
            digest.update(chunk)
    return digest.hexdigest()


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _check_store(packages: Sequence[Package], folder: Path, say: Reporter, jobs: int) -> list[Package]:
    """Return what the store lacks; what is there but wrong is thrown away, and said."""
    stop = threading.Event()
    lacking: list[Package] = []

    def check(package: Package) -> None:
        path = folder / package.sha256
        if not path.exists():
            lacking.append(package)
        elif _hash_if_readable(path, stop) != package.sha256:
            path.unlink(missing_ok=True)
            lacking.append(package)
            say.note(f"{package.name} {package.version}: the stored file is corrupt, fetching it again")

    _parallel(packages, check, stop, min(jobs, os.cpu_count() or 1))
    return sorted(lacking, key=lambda package: -package.size)


def _hash_if_readable(path: Path, stop: threading.Event) -> str:
    try:
        return sha256_of(path, stop)
    except OSError:  # a failing disk, or rights that somebody changed
        return ""


def _parallel(packages: Sequence[Package], work: Callable[[Package], None], stop: threading.Event, jobs: int) -> None:
    """Run ``work`` on each package; the first failure, or Ctrl-C, stops the others and is raised when they ended."""
    pool = ThreadPoolExecutor(max_workers=max(1, jobs))
    futures = [pool.submit(work, package) for package in packages]
    try:
        open_: set[Future[None]] = set(futures)
        while open_:
            done, open_ = wait(open_, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _check_space(packages: Sequence[Package], folder: Path) -> None:
    already = sum(
        (folder / f"{p.sha256}.part").stat().st_size for p in packages if (folder / f"{p.sha256}.part").exists()
    )
    needed = sum(package.size for package in packages) - already
    free = shutil.disk_usage(folder).free
    if free < needed + _RESERVE:
        raise DiskFullError(
            f"{needed / 1e6:.0f} MB must be fetched to {folder}, {free / 1e6:.0f} MB are free there",
            "Free some space, or set KMLAB_CACHE to a folder on a larger disk.",
        )


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Tell a full disk, and a folder that may not be written, from defects."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            hint = "Free some space, or set KMLAB_CACHE to a folder on a larger disk. What was fetched is kept."
            raise DiskFullError(f"no space is left in {folder}", hint) from error
        if error.errno in _FORBIDDEN:
            hint = "Give yourself the right to write there, or set KMLAB_CACHE to a folder of your own."
            raise SetupError(f"{folder} cannot be written: {error.strerror}", hint) from error
        raise


def client(proxy: str | None) -> httpx.Client:
    """Return an HTTP client; ``http_proxy`` and its like go before apt's ``proxy``."""
    return httpx.Client(
        timeout=_TIMEOUT,
        follow_redirects=True,
        proxy=proxy if proxy and "http_proxy" not in os.environ else None,
        limits=httpx.Limits(max_connections=JOBS * 2),
        headers={"Accept-Encoding": "identity"},
    )


class _Run:
    """One call of :func:`fetch`: where it takes from, where it puts, and whether it shall stop."""

    def __init__(self, source: mirrors.Mirror, folder: Path, say: Reporter, client: httpx.Client) -> None:
        self.source = source
        self.folder = folder
        self.say = say
        self.client = client
        self.stop = threading.Event()

    def fetch(self, package: Package) -> None:
        """Fetch one package from the first source that has it."""
        failures: list[Exception] = []
        with disk(self.folder), _part(self.folder / f"{package.sha256}.part", self.stop) as part:
            if (self.folder / package.sha256).exists():  # another process fetched it while this one waited
                return
            for url in self.source.candidates(package):
                try:
                    self._from(url, package, part)
                except (_Missing, _Unreachable, _WrongBytes) as error:
                    failures.append(error)
                else:
                    os.fsync(part.fileno())
                    (self.folder / f"{package.sha256}.part").rename(self.folder / package.sha256)
                    return
        raise _explain(package, failures)

    def _from(self, url: str, package: Package, part: BinaryIO) -> None:
        """Bring ``part`` to the package's bytes from ``url``, going on from what is there."""
        failure: Exception = _Unreachable(url)
        for attempt in range(ATTEMPTS):
            if attempt and self.stop.wait(0.5 * 2 ** (attempt - 1)):
                raise _Stopped
            resumed = part.seek(0, os.SEEK_END)
            try:
                self._transfer(url, package, part)
            except (httpx.RequestError, httpx.InvalidURL) as error:
                failure = _Unreachable(f"{url}: {error}")
                continue
            if self._matches(package, part):
                return
            self.say.advance(-part.seek(0, os.SEEK_END))
            part.truncate(0)
            failure = _WrongBytes(url)
            if not resumed:
                break
            self.say.note(f"{package.name} {package.version}: the resumed file is corrupt, fetching it again")
        raise failure

    def _matches(self, package: Package, part: BinaryIO) -> bool:
        part.flush()
        return part.seek(0, os.SEEK_END) == package.size and sha256_of(Path(part.name), self.stop) == package.sha256

    def _transfer(self, url: str, package: Package, part: BinaryIO) -> None:
        have = part.seek(0, os.SEEK_END)
        if have > package.size:
            part.truncate(0)
            have = 0
        self.say.advance(have)
        try:
            if have < package.size:
                copy = self._copy_file if url.startswith("file://") else self._copy_http
                copy(url, package.size, part, have)
        except BaseException:
            part.flush()
            self.say.advance(-part.seek(0, os.SEEK_END))
            raise

    def _copy_file(self, url: str, limit: int, part: BinaryIO, have: int) -> None:
        try:
            with Path(unquote(urlsplit(url).path)).open("rb") as file:
                file.seek(have)
                self._write(iter(lambda: file.read(CHUNK), b""), part, limit - have)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
            raise _Missing(url) from error

    def _copy_http(self, url: str, limit: int, part: BinaryIO, have: int) -> None:
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            with self.client.stream("GET", url, headers=headers) as response:
                if response.status_code in {404, 410, 403}:
                    raise _Missing(url)
                if response.status_code in {408, 429} or response.status_code >= 500:
                    raise httpx.RemoteProtocolError(f"the server answered {response.status_code}")
                if response.status_code not in {200, 206}:
                    raise _Unreachable(f"{url}: the server answered {response.status_code}")
                if have and response.status_code == 200:
                    self.say.advance(-have)
                    part.truncate(0)
                    have = 0
                self._write(response.iter_raw(), part, limit - have)
        except httpx.UnsupportedProtocol as error:
            raise _Unreachable(f"{url}: {error}") from error

    def _write(self, chunks: Iterator[bytes], part: BinaryIO, limit: int) -> None:
        """Append ``chunks`` until ``limit`` bytes came; a source that sends more is not believed further."""
        for chunk in chunks:
            if self.stop.is_set():
                raise _Stopped
            part.write(chunk)
            self.say.advance(len(chunk))
            limit -= len(chunk)
            if limit < 0:
                return


@contextmanager
def _part(path: Path, stop: threading.Event) -> Iterator[BinaryIO]:
    """Open a partial file for this process alone; a second process waits, then finds the whole file."""
    while True:
        with path.open("ab") as file:
            while not _try_lock(file):
                if stop.wait(0.2):
                    raise _Stopped
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                try:
                    yield file
                finally:
                    if os.fstat(file.fileno()).st_size == 0:  # nothing came: nothing to go on from
                        path.unlink(missing_ok=True)
                return


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _explain(package: Package, failures: Sequence[Exception]) -> LabError:
    """Return the error that says why ``package`` could not be had from any source."""
    what = f"{package.name} {package.version}"
    if any(isinstance(failure, _WrongBytes) for failure in failures):
        urls = ", ".join(str(failure) for failure in failures if isinstance(failure, _WrongBytes))
        return IntegrityError(
            f"{what}: what the mirror gives is not the locked file (SHA-256 {package.sha256[:16]}…; from {urls})",
            "Try another mirror with KMLAB_MIRROR; if the archive itself changed the file, run: invoke kernels.lock",
        )
    if all(isinstance(failure, _Missing) for failure in failures):
        return MirrorError(
            f"{what} is gone from the mirror, and neither KMLAB_ARCHIVE nor the cache has it ({package.path})",
            "Point KMLAB_ARCHIVE at a snapshot of the archive, another mirror or a folder that has the file; "
            "import an offline bundle; or lock a newer version with: invoke kernels.lock",
        )
    return MirrorError(
        f"{what} cannot be fetched: {next(str(f) for f in failures if isinstance(f, _Unreachable))}",
        "Check the network, or set KMLAB_MIRROR to a mirror that can be reached (file:// works, too).",
    )
