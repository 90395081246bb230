"""Where packages come from: a setting, the host's own configuration, or mmdebstrap's default; never written down here.

In this order:

1. ``KMLAB_MIRROR``: one base below which ``debian/`` and ``debian-security/`` lie, or two bases (Debian's archive, then
   the security archive) with a space between them. ``file://`` works like ``http://``.
2. The host's apt configuration, where it is Debian's own archive (other vendors' sources are passed over). apt itself
   is asked, so that deb822 and one-line sources, options and includes all mean what they mean to apt.
3. The default of the mmdebstrap that is installed.

``KMLAB_ARCHIVE`` names further bases (with spaces between them) where packages are looked for that the mirror has
dropped: a snapshot of the archive, an older mirror, a folder of ``.deb`` files, another store of this program.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from debian.deb822 import Deb822

from vm.errors import ConfigError, MirrorError, SetupError
from vm.model import Package

ARCHIVES = ("debian", "debian-security")
"""The two trees of a Debian mirror that packages of a lock lie in."""

_SUITE = re.compile(
    r"(stable|oldstable|oldoldstable|testing|unstable|sid|buster|bullseye|bookworm|trixie|forky|duke)"
    r"(-security|-updates|-backports|-backports-sloppy|-proposed-updates)?$"
)
_SCHEMES = ("http://", "https://", "file://")
_TARGET_FIELDS = ("$(REPO_URI)", "$(RELEASE)", "$(COMPONENT)", "$(ORIGIN)", "$(SOURCESENTRY)", "$(CREATED_BY)")
_HINT = "Set KMLAB_MIRROR to the base of a Debian mirror (the folder that holds debian/ and debian-security/)."


@dataclass(frozen=True, slots=True)
class Mirror:
    """Bases of the archives, tried in order.

    :param archives: for each of :data:`ARCHIVES` the bases that may hold it, without a final slash.
    :param source: where they were found, for messages: ``KMLAB_MIRROR``, ``host``, ``mmdebstrap``.
    :param extra: bases of ``KMLAB_ARCHIVE``.
    :param proxy: proxy of the host's apt configuration for plain HTTP, if any.
    """

    archives: Mapping[str, tuple[str, ...]]
    source: str
    extra: tuple[str, ...] = ()
    proxy: str | None = None

    def bases(self, archive: str) -> tuple[str, ...]:
        """Return the bases of ``archive``, best first.

        :raises ConfigError: for an archive that this mirror knows nothing of.
        """
        if archive not in self.archives:
            raise ConfigError(f"there is no archive {archive!r}", f"Archives are {', '.join(ARCHIVES)}.")
        return self.archives[archive]

    def candidates(self, package: Package) -> list[str]:
        """Return every URL where ``package`` may lie: the mirror's first, then those of ``KMLAB_ARCHIVE``.

        An extra base may be a whole mirror, one archive of it, a flat folder of files, or a store by SHA-256.
        """
        path = quote(package.path, safe="/~+:")
        urls = [f"{base}/{path}" for base in self.bases(package.archive)]
        for base in self.extra:
            urls += [f"{base}/{package.archive}/{path}", f"{base}/{path}"]
            urls.append(f"{base}/{path.rsplit('/', 1)[-1]}")
            urls += [f"{base}/{package.sha256}"] if package.sha256 else []
        return urls


def resolve(environ: Mapping[str, str] | None = None, *, apt_options: Sequence[str] = ()) -> Mirror:
    """Find the mirror as the module's text says.

    :param environ: settings (default: this process's own).
    :param apt_options: further options for the host's apt (tests point it at recorded configurations).
    :raises ConfigError: a setting is no base.
    :raises SetupError: neither a setting nor apt nor mmdebstrap names a mirror.
    """
    env = os.environ if environ is None else environ
    extra = tuple(_base(word, "KMLAB_ARCHIVE") for word in env.get("KMLAB_ARCHIVE", "").split())
    setting = env.get("KMLAB_MIRROR", "").split()
    if setting:
        return Mirror(_from_setting(setting), "KMLAB_MIRROR", extra)
    proxy = _host_proxy(apt_options)
    found = from_index_targets(_index_targets(apt_options))
    source = "host"
    if "debian" not in found:
        found = from_mmdebstrap(_mmdebstrap_text())
        source = "mmdebstrap"
    elif "debian-security" not in found:
        found["debian-security"] = _security_beside(found["debian"])
    return Mirror(found, source, extra, proxy)


def _base(word: str, setting: str) -> str:
    if not word.startswith(_SCHEMES):
        if not Path(word).is_absolute():
            raise ConfigError(f"{setting}: {word!r} is no base of a mirror", "Give http://, https:// or file:// bases.")
        word = f"file://{word}"
    return word.rstrip("/")


def _from_setting(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    bases = [_base(word, "KMLAB_MIRROR") for word in words]
    if len(bases) == 1:
        return {archive: (f"{bases[0]}/{archive}",) for archive in ARCHIVES}
    if len(bases) == 2:
        return dict(zip(ARCHIVES, ((base,) for base in bases), strict=True))
    raise ConfigError(f"KMLAB_MIRROR has {len(bases)} parts, one or two are meant", _HINT)


def from_index_targets(lines: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Choose Debian's own archives among the index targets that the host's apt knows.

    A source is Debian's if its suite and component are, and its index calls itself Debian's. Where the host holds no
    index (fresh containers do not), the source's own ``Signed-By`` decides: a vendor that names its suites after
    Debian's has its own key.

    :param lines: fields ``REPO_URI|RELEASE|COMPONENT|ORIGIN|SOURCESENTRY|CREATED_BY``, one target per line.
    """
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        fields = line.strip().split("|")
        if len(fields) != len(_TARGET_FIELDS):
            continue
        uri, release, component, origin, entry, created_by = fields
        if created_by != "Packages" or component != "main" or not _SUITE.match(release):
            continue
        if origin not in {"Debian", "Debian Backports"} and not (_unknown(origin) and _keyed_by_debian(entry)):
            continue
        base = re.sub(r"^file:/+", "file:///", uri).rstrip("/")
        if not base.startswith(_SCHEMES):
            continue
        archive = "debian-security" if release.endswith("-security") else "debian"
        if base not in found.get(archive, ()):
            found[archive] = (*found.get(archive, ()), base)
    return found


def _unknown(field: str) -> bool:
    return field == "" or field.startswith("$(")


def _keyed_by_debian(entry: str) -> bool:
    """Tell whether the source at ``FILE:NUMBER`` (stanza or line, from 1) is checked against Debian's archive key."""
    name, _, number = entry.rpartition(":")
    try:
        text = Path(name).read_text(encoding="utf-8")
    except OSError:
        return False
    if name.endswith(".sources"):
        stanzas = list(Deb822.iter_paragraphs(text.splitlines(), use_apt_pkg=False))
        keys = str(stanzas[int(number) - 1].get("Signed-By", "")) if int(number) <= len(stanzas) else "?"
    else:
        lines = text.splitlines()
        match = re.search(r"signed-by=([^]\s]+)", lines[int(number) - 1] if int(number) <= len(lines) else "")
        keys = match[1] if match else ""
    return keys == "" or "debian-archive" in keys


def from_mmdebstrap(text: str) -> dict[str, tuple[str, ...]]:
    """Read the default mirrors out of mmdebstrap's own program text.

    :raises SetupError: the text does not hold them in a form known here (mmdebstrap 1.3 to 1.5 does).
    """
    found: dict[str, tuple[str, ...]] = {}
    for archive, variable in zip(ARCHIVES, ("mirror", "secmirror"), strict=True):
        match = re.search(rf"""\bmy\s+\${variable}\s*=\s*['"]((?:https?)://[^'"]+)['"]""", text)
        if match is None:
            raise SetupError("no Debian mirror is known: this mmdebstrap does not tell its default", _HINT)
        found[archive] = (match[1].rstrip("/"),)
    return found


def _security_beside(bases: Sequence[str]) -> tuple[str, ...]:
    """Return where the security archive may lie when the host has only Debian's: beside it, else the default."""
    beside = tuple(re.sub(r"/debian$", "/debian-security", base) for base in bases if base.endswith("/debian"))
    try:
        default = from_mmdebstrap(_mmdebstrap_text())["debian-security"]
    except SetupError:
        default = ()
    if not beside and not default:
        raise MirrorError("the host's apt configuration names no Debian security archive", _HINT)
    return tuple(dict.fromkeys((*beside, *default)))


def _index_targets(apt_options: Sequence[str]) -> list[str]:
    """Ask the host's apt for its index targets: those it has fetched with what they say, then the others."""
    if shutil.which("apt-get") is None:
        return []
    fetched = _targets(apt_options)
    known = {tuple(line.split("|")[:2]) for line in fetched}
    listed = _targets([*apt_options, "-o", "APT::Get::IndexTargets::ReleaseInfo=false"])
    return [*fetched, *(line for line in listed if tuple(line.split("|")[:2]) not in known)]


def _targets(apt_options: Sequence[str]) -> list[str]:
    command = ["apt-get", *apt_options, "indextargets", "--format", "|".join(_TARGET_FIELDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    return done.stdout.splitlines() if done.returncode == 0 else []


def _host_proxy(apt_options: Sequence[str]) -> str | None:
    if shutil.which("apt-config") is None:
        return None
    command = ["apt-config", *apt_options, "shell", "PROXY", "Acquire::http::Proxy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    match = re.match(r"PROXY='(https?://[^']+)'", done.stdout)
    return match[1] if match else None


def _mmdebstrap_text() -> str:
    program = shutil.which("mmdebstrap")
    if program is None:
        raise SetupError("no Debian mirror is known: mmdebstrap is not installed", "apt-get install mmdebstrap")
    return Path(program).read_text(encoding="utf-8", errors="replace")
