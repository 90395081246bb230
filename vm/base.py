"""The base image: a Debian userland, installed by mmdebstrap from the locked packages, as one ext4 image.

mmdebstrap sees a repository that holds the locked packages and nothing else, so its result depends on no index of
today. Its variant ``custom`` unpacks them all and lets the *root's own* dpkg install them: the host's apt only copies
files. What packages and mmdebstrap make at random or of the host is left out of the image, see :func:`clean`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from debian.debfile import DebFile

from vm import ext4, tree
from vm.artefacts import Plan, inputs_hash, sha256_file
from vm.errors import IntegrityError, LabError
from vm.initramfs import GUEST
from vm.model import Lock, Package
from vm.process import run
from vm.tools import ToolsRoot
from vm.tree import Entry, Manifest

RECIPE = 2
"""Raised when this module builds something else from the same packages."""
IMAGE = "base.ext4"
SIZE = 2 << 30
"""Bytes of the file system. The image is sparse; what is free is room for the machine's overlay."""
LABEL = "kmlab-base"

_LEFT_OUT = re.compile(
    r"""(
      (dev|run|proc|sys|tmp|boot|media|mnt|home|srv)/.*              # of the running system, or of a person
    | root/(?!\.(bashrc|profile)$).*
    | var/(cache|log|tmp|backups)/.*                                 # logs tell the build's time; caches its paths
    | var/lib/apt/.* | etc/apt/sources\.list(\.d/.*)?                # the mirror that mmdebstrap was given
    | etc/apt/apt\.conf\.d/99mmdebstrap | etc/dpkg/dpkg\.cfg\.d/99mmdebstrap
    | etc/ssh/ssh_host_.*                                            # a secret, and random
    | (etc/machine-id|var/lib/dbus/machine-id|etc/hostname|etc/resolv\.conf|etc/hosts)  # see IDENTITY
    | (etc/(passwd|group|shadow|gshadow|subuid|subgid)-|etc/\.pwd\.lock)
    | var/lib/dpkg/(lock.*|triggers/Lock|.*-old|cmethopt|methlock)
    | var/lib/systemd/.* | var/lib/(misc|pam)/\..*
    | usr/share/(man|info|locale|lintian|bug|doc-base|menu|zoneinfo/(right|posix))/.*
    | usr/share/doc/.*(?<!/copyright)                                # licences stay with what they are for
    )""",
    re.VERBOSE,
)
_FOLDERS = re.compile(r"usr/share/doc/[^/]+")
"""Folders that stay although what lies in them goes."""

IDENTITY: Mapping[str, str] = {
    "etc/hostname": "lab\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    "etc/machine-id": "",
    "etc/resolv.conf": "",
}
"""Files in place of those that would name the host; a machine's own identity is injected when it starts."""

MOUNT_POINTS = (
    "dev",
    "proc",
    "sys",
    "run",
    "root",
    "home",
    "usr/lib/modules",
    "usr/src",
    "var/log",
    "var/cache",
    "mnt",
)


def plan(lock: Lock, guest: Path = GUEST) -> Plan:
    """Return what the base image of ``lock`` is to be built from."""
    packages = sorted(p.sha256 for p in lock.base.packages)
    tools = sorted(p.sha256 for p in lock.tools.packages)
    inputs = inputs_hash("base", RECIPE, SIZE, lock.source_date_epoch, packages, tools, folder_hash(guest / "rootfs"))
    return Plan("base", "base", inputs, lock.base.artefact)


def folder_hash(folder: Path) -> str:
    """Return a hash over what lies in a folder of the repository."""
    return inputs_hash({p.relative_to(folder).as_posix(): sha256_file(p) for p in folder.rglob("*") if p.is_file()})


def install(target: Path, packages: Sequence[Package], files: Mapping[str, Path], epoch: int) -> None:
    """Let mmdebstrap install the packages and write the root as a tar to ``target``.

    :param files: path of each package by SHA-256; contents are verified already.
    :raises BuildError: mmdebstrap failed; its last words are in the hint.
    :raises SetupError: mmdebstrap is not installed.
    """
    with open_to_others() as scratch:
        repository(scratch / "repository", packages, files)
        names = ",".join(sorted(package.name for package in packages))
        run(
            [
                *("mmdebstrap", "--quiet", "--variant=custom", "--format=tar", "--architectures=amd64"),
                # A root that is half made when the power fails is thrown away: dpkg need not wait for the disk.
                *(f"--include={names}", "--dpkgopt=force-unsafe-io", "--aptopt=Acquire::Languages none"),
                # trusted: contents are verified against the lock; a signature of our own would prove nothing more.
                *("trixie", "-", f"deb [trusted=yes] copy:{scratch}/repository ./"),
            ],
            environment={"SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(scratch), "DEBIAN_FRONTEND": "noninteractive"},
            output=target,
            dies_with_us=True,
        )


@contextlib.contextmanager
def open_to_others(prefix: str = "kmlab-base-", folder: Path | None = None) -> Iterator[Path]:
    """Give a scratch folder that other users may enter.

    Rootless mmdebstrap runs as a user of the subuid range, who may not look into a home of mode 0700. The roomier
    of /tmp and /var/tmp is taken, unless TMPDIR says otherwise: one of them may lie in memory.
    """
    folders = [os.environ["TMPDIR"]] if "TMPDIR" in os.environ else ["/tmp", "/var/tmp"]  # noqa: S108
    roomiest = folder or Path(max(folders, key=lambda each: shutil.disk_usage(each).free))
    sweep_scratch(roomiest, prefix)
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=roomiest))
    try:
        path.chmod(0o1777)
        with (path / _HELD).open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)  # the kernel lets go of it when this process ends, whatever ends it
            yield path
    finally:
        _remove_scratch(path)


_HELD = ".held"


def sweep_scratch(folder: Path, prefix: str) -> list[str]:
    """Remove this user's scratch folders below ``folder`` whose process has died; return their names."""
    removed: list[str] = []
    for path in sorted(folder.glob(f"{prefix}*")):
        with contextlib.suppress(OSError):  # no lock in it (yet), or a living process holds it
            if path.stat().st_uid != os.getuid():
                continue
            with (path / _HELD).open("r+") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_scratch(path)
                removed.append(path.name)
    return removed


def _remove_scratch(path: Path) -> None:
    """Remove a scratch folder; what belongs to users of the subuid range only mmdebstrap's helper can remove."""
    with contextlib.suppress(OSError):
        shutil.rmtree(path)
    if path.exists() and os.getuid() != 0:
        inner = [str(each) for each in path.iterdir()]
        with contextlib.suppress(LabError):
            run(["mmdebstrap", "--unshare-helper", "rm", "-rf", *inner])
        shutil.rmtree(path, ignore_errors=True)


def repository(folder: Path, packages: Sequence[Package], files: Mapping[str, Path]) -> None:
    """Make a flat repository of the packages: the files and an index.

    :raises IntegrityError: a file is another package than the lock says.
    """
    folder.mkdir()
    folder.chmod(0o755)
    stanzas: list[str] = []
    for package in sorted(packages, key=lambda package: package.name):
        name = f"{package.name}_{package.version.replace(':', '%3a')}_{package.architecture}.deb"
        _link(files[package.sha256], folder / name)
        with (folder / name).open("rb") as stream:
            control = DebFile(fileobj=stream).debcontrol()
        if (control["Package"], control["Version"]) != (package.name, package.version):
            raise IntegrityError(
                f"{package.name} {package.version}: the file is {control['Package']} {control['Version']}",
                "Make the lock again: invoke kernels.lock",
            )
        control["Filename"], control["Size"], control["SHA256"] = f"./{name}", str(package.size), package.sha256
        stanzas.append(control.dump() or "")
    index = folder / "Packages"
    index.write_text("\n".join(stanzas), "utf-8")
    index.chmod(0o644)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
        readable = source.stat().st_mode & 0o044 == 0o044
    except OSError:  # another file system, or a file of another user
        readable = False
    if not readable:
        target.unlink(missing_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o644)


def clean(entries: Iterable[Entry], guest: Path = GUEST) -> list[Entry]:
    """Return the tree of the image: without what is random or of the host, with what the guest's init wants."""
    kept = [entry for entry in entries if stays(entry.path)]
    kept += [tree.folder(path, 0o700 if path == "root" else 0o755) for path in MOUNT_POINTS]
    kept += [tree.folder(path, 0o1777) for path in ("tmp", "var/tmp")]
    kept += [tree.file(path, text.encode()) for path, text in IDENTITY.items()]
    laid_over = tree.from_folder(guest / "rootfs")
    kept += [entry for entry in laid_over if entry.kind is not tree.Kind.FOLDER]
    return [
        replace(entry, mtime=None) if entry.path.startswith("var/lib/dpkg/") else entry
        for entry in tree.canonical(kept)
    ]


def stays(path: str) -> bool:
    """Tell whether a path of mmdebstrap's root goes into the image."""
    return _LEFT_OUT.fullmatch(path) is None or _FOLDERS.fullmatch(path) is not None


def pack(folder: Path, tar: Path, tools: ToolsRoot, epoch: int, guest: Path = GUEST) -> Manifest:
    """Turn mmdebstrap's tar into ``folder/base.ext4`` and return what is in it."""
    with tarfile.open(tar, "r:") as archive:
        entries = clean(tree.from_tar(archive, tar), guest)
    ext4.make(tools, folder / IMAGE, entries, name=LABEL, size=SIZE, epoch=epoch)
    return Manifest.of(entries)
