"""Building again elsewhere and comparing bytes.

What is in the cache is read to its last byte; then everything is built anew, from the packages, in another folder, at
another time, under another umask, locale and time zone, and, where this process is root, as a user without rights. The
second build starts with its own tools root, so that nothing of the first can hide a difference.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from vm import base, bundle, download, tools
from vm.artefacts import MANIFEST, TREE, Artefact, Plan, Seal, check, differing_parts, make_seal
from vm.errors import BuildError, LabError, ReproducibilityError
from vm.images import Builder
from vm.initramfs import GUEST
from vm.model import Kernel, Package
from vm.process import STOP
from vm.tools import ToolsRoot
from vm.tree import Manifest

SHOWN = 12
"""Paths of a differing artefact that are named."""
UMASK = 0o077
LOCALE = "tr_TR.UTF-8"
"""Its rules for upper and lower case have broken more builds than any other's."""
ZONE = "Pacific/Kiritimati"
"""Fourteen hours ahead: most of the day it is tomorrow there."""


@dataclass(frozen=True, slots=True)
class Verified:
    """One artefact, built twice.

    :param parts: parts that differ; empty if the bytes are the same.
    :param paths: the first paths inside that differ, with both entries of the manifest.
    """

    name: str
    first: str
    second: str
    seconds: float
    parts: list[str]
    paths: list[str]

    @property
    def same(self) -> bool:
        """Whether both builds gave the same bytes."""
        return self.first == self.second


@dataclass(frozen=True, slots=True)
class Account:
    """A user that builds. ``note`` says why it is no other, where that weakens the comparison."""

    name: str
    uid: int
    gid: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was compared, and under which conditions."""

    artefacts: list[Verified]
    account: Account
    conditions: list[str]

    def require_same(self) -> None:
        """Raise unless all bytes are the same.

        :raises ReproducibilityError: naming the artefacts and the parts that differ.
        """
        differ = [f"{each.name} ({', '.join(each.parts[:4]) or 'size'})" for each in self.artefacts if not each.same]
        if differ:
            raise ReproducibilityError(
                f"built again, other bytes came out: {'; '.join(differ)}",
                "Report the differing paths together with the host's release and its mmdebstrap version.",
            )


class _Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a second build tells through its pipe."""

    seals: dict[str, Seal] = {}
    error: str = ""
    hint: str = ""


def verify(builder: Builder, kernels: Sequence[Kernel], *, account: Account | None = None) -> Verification:
    """Check the artefacts of ``kernels`` in the cache (built first if they are not there), build them again, compare.

    :param account: who builds the second time; :func:`other_account` if not given.
    :raises IntegrityError: what is in the cache is corrupt.
    :raises BuildError: a build failed.
    """
    who = account or other_account()
    first = {built.name: built.artefact for built in builder.build(kernels)}
    for artefact in first.values():
        check(artefact)
    packages = [*builder.lock.tools.packages, *builder.lock.base.packages]
    packages += [package for kernel in kernels for package in kernel.packages]
    files = {**_fetched(builder, packages), **builder.own}
    with _elsewhere(who) as folder:
        copies = _copies(files, folder, who)
        builder.say.note(f"building again as {who.name}, umask {UMASK:03o}, {LOCALE}, {ZONE}, below {folder}")
        seals = _in_child(lambda: _build_all(builder, kernels, copies, folder), who, folder)
        compared = [_compare(name, artefact, seals[name], _place(folder, name)) for name, artefact in first.items()]
    oldest = min(artefact.seal.built for artefact in first.values())
    return Verification(compared, who, _conditions(who, time.time() - oldest))


def other_account() -> Account:
    """Return who builds the second time: an unprivileged account that may use mmdebstrap, if this process is root."""
    uid = os.getuid()
    if uid != 0:
        own = pwd.getpwuid(uid)
        return Account(own.pw_name, uid, own.pw_gid, "the same user: only root can build as another one")
    ranges = _names(Path("/etc/subuid")) & _names(Path("/etc/subgid"))
    usable = [entry for entry in pwd.getpwall() if entry.pw_uid != 0 and entry.pw_name in ranges]
    wanted = os.environ.get("SUDO_USER", "")
    usable.sort(key=lambda entry: (entry.pw_name != wanted, entry.pw_uid))
    if not usable:
        return Account("root", 0, 0, "root again: no other account has ranges in /etc/subuid and /etc/subgid")
    return Account(usable[0].pw_name, usable[0].pw_uid, usable[0].pw_gid)


def _names(path: Path) -> set[str]:
    try:
        return {line.split(":", 1)[0] for line in path.read_text().splitlines() if line.count(":") == 2}
    except OSError:
        return set()


def _conditions(account: Account, later: float) -> list[str]:
    user = f"user {account.name}" + (f" ({account.note})" if account.note else "")
    return ["another folder", f"{later:.0f} s later", f"umask {UMASK:03o}", f"locale {LOCALE}, zone {ZONE}", user]


def _fetched(builder: Builder, packages: Sequence[Package]) -> dict[str, Path]:
    wanted = [package for package in packages if package.sha256 not in builder.own]
    return download.fetch(wanted, builder.layout, builder.say)


@contextmanager
def _elsewhere(account: Account) -> Iterator[Path]:
    """Give a folder of ``account``'s own, outside the cache, which may lie where it must not look."""
    with base.open_to_others("kmlab-verify-") as scratch:
        folder = scratch / "second"
        folder.mkdir()
        if os.getuid() == 0:
            os.chown(folder, account.uid, account.gid)
        yield folder


def _copies(files: Mapping[str, Path], folder: Path, account: Account) -> dict[str, Path]:
    """Copy packages and the guest's sources to where ``account`` can read them."""
    target = folder / "inputs"
    target.mkdir()
    shutil.copytree(GUEST, target / "guest")
    copies: dict[str, Path] = {}
    for sha256, path in files.items():
        copies[sha256] = target / sha256
        shutil.copyfile(path, copies[sha256])
    if os.getuid() == 0:
        for path in [target, *target.rglob("*")]:
            os.chown(path, account.uid, account.gid)
    return copies


def _build_all(builder: Builder, kernels: Sequence[Kernel], files: Mapping[str, Path], folder: Path) -> dict[str, Seal]:
    """Build everything into folders below ``folder``, one after the other; runs in the second build's process."""
    lock, guest = builder.lock, folder / "inputs" / "guest"
    epoch = lock.source_date_epoch
    seals: dict[str, Seal] = {}

    def seal(name: str, plan: Plan, manifest: Manifest, start: float) -> None:
        (_place(folder, name) / MANIFEST).write_text(manifest.text(), "utf-8")
        seals[name] = make_seal(plan, _place(folder, name), manifest, time.monotonic() - start)

    start = time.monotonic()
    seal("tools", tools.plan(lock), tools.build(_new(folder / "tools"), lock.tools.packages, files, epoch), start)
    root = ToolsRoot(folder / "tools" / TREE, "")
    start = time.monotonic()
    tar = folder / "root.tar"
    base.install(tar, lock.base.packages, files, epoch)
    manifest = base.pack(_new(folder / "base"), tar, root, epoch, guest)
    tar.unlink()
    seal("base", base.plan(lock), manifest, start)
    for kernel in kernels:
        start = time.monotonic()
        name = f"kernel:{kernel.line}"
        made_of = bundle.from_packages(kernel.release, kernel.packages, files)
        manifest = bundle.build(_new(_place(folder, name)), made_of, root, epoch, guest)
        seal(name, bundle.plan(lock, kernel, guest), manifest, start)
    return seals


def _place(folder: Path, name: str) -> Path:
    """Return where an artefact is built; a colon would end a folder's name in a library path."""
    return folder / name.replace(":", "-")


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _in_child(work: Callable[[], dict[str, Seal]], account: Account, folder: Path) -> dict[str, Seal]:
    """Run ``work`` in a forked process under other conditions and return its seals.

    Forked rather than started: another user may not be able to read the checkout or its Python.

    :raises BuildError: it failed.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                _child(work, account, folder, pipe)
        finally:
            os._exit(0)  # whatever happens: this process must not go on as its parent
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
    except BaseException:
        os.kill(child, signal.SIGTERM)
        raise
    finally:
        os.waitpid(child, 0)
    if not answer:
        raise BuildError("the second build ended without a result", "The kernel may have ended it: look for memory.")
    result = msgspec.json.decode(answer, type=_Result)
    if result.error:
        raise BuildError(f"the second build, as {account.name}, failed: {result.error}", result.hint)
    return result.seals


def _child(work: Callable[[], dict[str, Seal]], account: Account, folder: Path, pipe: IO[bytes]) -> None:
    try:
        signal.signal(signal.SIGTERM, _terminated)
        _become(account, folder)
        result = _Result(seals=work())
    except LabError as error:
        result = _Result(error=error.message, hint=error.hint)
    except Exception as error:
        result = _Result(error=f"{type(error).__name__}: {error}", hint="This is a defect of the lab: report it.")
    pipe.write(msgspec.json.encode(result))


def _terminated(number: int, _frame: object) -> None:
    STOP.now()
    raise SystemExit(128 + number)


def _become(account: Account, folder: Path) -> None:
    if os.getuid() == 0 and account.uid != 0:
        os.initgroups(account.name, account.gid)
        os.setgid(account.gid)
        os.setuid(account.uid)
    os.umask(UMASK)
    os.chdir(folder)
    os.environ.update(
        {"HOME": str(folder), "USER": account.name, "LOGNAME": account.name, "LC_ALL": LOCALE, "TZ": ZONE}
    )
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    time.tzset()


def _compare(name: str, first: Artefact, second: Seal, folder: Path) -> Verified:
    parts = differing_parts(first.hash.parts, second.artefact.parts)
    paths: list[str] = []
    if parts:
        ours, theirs = first.manifest(), Manifest.parse((folder / MANIFEST).read_text("utf-8"))
        paths = [
            f"{path}: {ours.lines.get(path, 'absent')} | {theirs.lines.get(path, 'absent')}"
            for path in ours.differences(theirs)[:SHOWN]
        ]
    return Verified(name, first.hash.sha256, second.artefact.sha256, second.seconds, parts, paths)
