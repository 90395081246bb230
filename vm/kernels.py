"""``kernels.toml``, the packages that make a kernel, and the kernel that a name means.

A person names a kernel by its line (``6.1``) or by its full release (``6.1.0-56-cloud-amd64``); names are compared as
text, so that 6.10 never becomes 6.1.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vm.apt import Index, Stanza
from vm.errors import ConfigError, UsageError
from vm.model import Kernel, Lock, Package

CONFIGURATION = Path(__file__).resolve().parent / "kernels.toml"
"""What a person edits."""

_SCHEMA = 1
_LINE = re.compile(r"\d+\.\d+")


class RootConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file tree made of packages.

    :param essential: also everything that Debian marks essential.
    """

    suites: list[str]
    packages: list[str]
    essential: bool = False


class KernelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A kernel line of the archive (``suites``), or a kernel of one's own (``path``)."""

    suites: list[str] = []
    support: str = "selectable"
    path: str = ""


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole of ``kernels.toml``."""

    schema: int
    flavour: str
    tools: RootConfig
    base: RootConfig
    boxes: RootConfig
    kernel: dict[str, KernelConfig]

    @property
    def lines(self) -> dict[str, KernelConfig]:
        """The kernel lines that come from the archive."""
        return {line: config for line, config in self.kernel.items() if not config.path}

    @property
    def owned(self) -> dict[str, KernelConfig]:
        """Kernels of one's own, by name."""
        return {name: config for name, config in self.kernel.items() if config.path}


def read_configuration(path: Path = CONFIGURATION) -> Configuration:
    """Read ``kernels.toml``.

    :raises ConfigError: it is missing or does not hold together.
    """
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=Configuration)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing", "Restore it: git checkout vm/kernels.toml") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path.name}: {error}", "See the comments in vm/kernels.toml.") from error
    if found.schema != _SCHEMA:
        raise ConfigError(f"{path.name} has schema {found.schema}, this program knows {_SCHEMA}", "Update the program.")
    for name, kernel in found.kernel.items():
        _check_kernel(path.name, name, kernel)
    return found


def _check_kernel(file: str, name: str, kernel: KernelConfig) -> None:
    is_line = _LINE.fullmatch(name) is not None
    if kernel.support not in {"default", "selectable"}:
        raise ConfigError(f"{file}: kernel {name}: support is {kernel.support!r}", 'Use "default" or "selectable".')
    if kernel.path and (is_line or kernel.suites):
        raise ConfigError(f"{file}: kernel {name} of one's own needs a name of its own and no suites", "Rename it.")
    if not kernel.path and not (is_line and kernel.suites):
        hint = "A line is two numbers in quotes, with suites; a kernel of one's own has a path."
        raise ConfigError(f"{file}: kernel {name} has neither suites nor a path, or is no line", hint)


@dataclass(frozen=True, slots=True)
class Lacking:
    """A package that a kernel needs and that the index no longer lists: the pool may still have it.

    :param source: source package; with it and the names the path in the pool follows.
    """

    name: str
    version: str
    architecture: str
    archive: str
    source: str

    @property
    def path(self) -> str:
        """Path in the archive's pool, by the archive's rule (Debian Policy 5.6.12: epochs are not in file names)."""
        prefix = self.source[:4] if self.source.startswith("lib") else self.source[:1]
        area = "updates/main" if self.archive == "debian-security" else "main"
        version = self.version.split(":", 1)[-1]
        return f"pool/{area}/{prefix}/{self.source}/{self.name}_{version}_{self.architecture}.deb"


@dataclass(frozen=True, slots=True)
class Choice:
    """The kernel chosen for a line: what the index lists of it, and what it lacks."""

    line: str
    release: str
    version: str
    suite: str
    packages: tuple[Package, ...]
    lacking: tuple[Lacking, ...]


def choose(line: str, flavour: str, index: Index, suites: list[str]) -> Choice:
    """Choose the newest kernel of ``line`` in ``index`` and name its packages.

    By rule, not by dependency: an image package asks for an initramfs generator, headers ask for a compiler; neither is
    wanted. The image package, what it asks for of its own release (``linux-binary-``, ``linux-modules-``,
    ``linux-base-``: 7.x holds the kernel there, 5.10 and 6.1 hold all in the image), and the headers for BCC.

    :raises ConfigError: the suites list no kernel of this line.
    """
    # Releases look like 6.1.0-56, 6.12.115+deb13.1, 6.1.0-0.deb11.52; linux-image-6.1-cloud-amd64 only depends on one.
    pattern = rf"linux-image-{re.escape(line)}(?:[.+-](?:deb|\d)[\w.]*)*-{re.escape(flavour)}"
    listed = [stanza for match in index.names(pattern) for stanza in index.versions(match[0])]
    found = [stanza for stanza in listed if not any(name.startswith("linux-image-") for name in stanza.depends)]
    if not found:
        where = ", ".join(suites)
        raise ConfigError(f"no kernel {line} ({flavour}) in {where}", "Change its suites in vm/kernels.toml.")
    image = max(found, key=lambda stanza: (stanza.sort_key, -suites.index(stanza.suite)))
    release = image.package.name.removeprefix("linux-image-")
    common = f"linux-headers-{release.removesuffix(f'-{flavour}')}-common"
    parts = rf"linux-(base|binary|modules)-{re.escape(release)}"
    own = sorted({name for name in image.depends if re.fullmatch(parts, name)})
    if f"linux-binary-{release}" not in own:
        own = []  # 6.18: the image is whole, linux-base-RELEASE holds documents only
    wanted = [(image.package.name, "amd64"), *((name, "amd64") for name in own)]
    wanted += [(f"linux-headers-{release}", "amd64"), (common, "all")]
    packages, lacking = [], []
    for name, architecture in wanted:
        stanza = _of_suite(index, name, image)
        if stanza is not None:
            packages.append(stanza.package)
        else:
            source = image.source if name.startswith("linux-binary-") else "linux"
            lacking.append(Lacking(name, image.package.version, architecture, image.package.archive, source))
    return Choice(line, release, image.package.version, image.suite, tuple(packages), tuple(lacking))


def _of_suite(index: Index, name: str, image: Stanza) -> Stanza | None:
    """Return ``name`` in the image's version, from the image's suite if that lists it."""
    same = [stanza for stanza in index.versions(name) if stanza.package.version == image.package.version]
    return next((stanza for stanza in same if stanza.suite == image.suite), same[0] if same else None)


def resolve(text: str, lock: Lock) -> Kernel:
    """Return the kernel that ``text`` means: a line or a full release.

    :raises UsageError: no locked kernel is called so; the nearest names are in the hint.
    """
    wanted = text.strip()
    if wanted in lock.kernels:
        return lock.kernels[wanted]
    for kernel in lock.kernels.values():
        if kernel.release == wanted:
            return kernel
    near = nearest(wanted, lock)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise UsageError(f"there is no kernel {text!r}", f"{hint}All of them: invoke kernels")


def nearest(text: str, lock: Lock) -> list[str]:
    """Return up to three names that ``text`` may have meant: by spelling for releases, by number for lines."""
    match = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.\d+)*", text)
    if match is None:
        names = [*lock.kernels, *(kernel.release for kernel in lock.kernels.values())]
        return difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    major, minor = int(match[1]), int(match[2])
    spelled = difflib.get_close_matches(f"{major}.{minor}", list(lock.kernels), n=2, cutoff=0.7)
    numbers = sorted(lock.kernels, key=lambda line: _distance(line, major, minor))
    return list(dict.fromkeys([*spelled, *numbers]))[:3]


def _distance(line: str, major: int, minor: int) -> int:
    own_major, own_minor = (int(part) for part in line.split("."))
    return abs((own_major - major) * 20 + own_minor - minor)


def sort_key(line: str) -> tuple[int, ...]:
    """Return the key that sorts lines by number: 5.10 before 6.1 before 6.12."""
    return tuple(int(part) for part in line.split("."))


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of ``invoke kernels``.

    :param unsigned: packages whose hash no signed index covered when they were locked.
    """

    line: str
    release: str
    version: str
    suite: str
    support: str
    built: bool
    warm: bool
    unsigned: int


def listing(
    lock: Lock, built: Callable[[Kernel], bool] = lambda _: False, warm: Callable[[Kernel], bool] = lambda _: False
) -> list[Listed]:
    """Return a row per locked kernel, by number.

    :param built: tells whether the kernel's bundle is in the cache.
    :param warm: tells whether a saved state of it is.
    """
    rows = []
    for line in sorted(lock.kernels, key=sort_key):
        kernel = lock.kernels[line]
        unsigned = sum(not package.signed for package in kernel.packages)
        rows.append(
            Listed(
                kernel.line, kernel.release, kernel.version, kernel.suite, kernel.support,
                built(kernel), warm(kernel), unsigned,
            )
        )  # fmt: skip
    return rows


def defaults(kernels: Mapping[str, Kernel]) -> list[str]:
    """Return the lines that are run where nobody chose, by number."""
    return sorted((line for line, kernel in kernels.items() if kernel.support == "default"), key=sort_key)
