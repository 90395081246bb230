"""apt in a folder of its own: signed indexes and dependency resolution, apart from the host's packages.

Nothing of the host's apt configuration is read (its sources, pins and hooks would change the answer); its mirror and
proxy come through :class:`vm.mirror.Mirror`. Signatures are checked twice: by apt against Debian's archive keyring, and
by gpgv, whose fingerprints go into the lock.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from debian.deb822 import Packages
from debian.debian_support import NativeVersion

from vm.errors import BuildError, ConfigError, DiskFullError, IntegrityError, LabError, MirrorError, SetupError
from vm.mirror import Mirror
from vm.model import Package, Suite

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Debian's archive keys, from the host's package debian-archive-keyring."""

ARCHITECTURE = "amd64"

INDEX_SPACE = 256 << 20
"""Bytes that must be free for indexes: trixie's own take 60 MB unpacked, and as much while they are fetched."""

PATIENCE = 600
"""Seconds that one call of apt may take: fetching all of trixie's indexes takes 5 s on a near mirror."""

_CONFIGURATION = """\
Dir "{folder}";
Dir::State "{folder}/state";
Dir::State::lists "{folder}/state/lists";
Dir::State::status "{folder}/state/status";
Dir::State::extended_states "{folder}/state/extended_states";
Dir::Cache "{folder}/cache";
Dir::Log "{folder}/log";
Dir::Etc "{folder}/etc";
Dir::Etc::main "{folder}/etc/none.conf";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{folder}/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::GzipIndexes "false";
Acquire::PDiffs "false";
Acquire::Retries "3";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
"""

_SIGNATURE_WORDS = (
    "GPG error", "is not signed", "NO_PUBKEY", "BADSIG", "Hash Sum mismatch", "File has unexpected size",
    "EXPKEYSIG", "OpenPGP signature verification failed", "Clearsigned file", "couldn't be verified", "NOSPLIT",
    "Sub-process /usr/bin/sqv returned an error",
)  # fmt: skip

_DATE_WORDS = ("is expired", "not valid yet")


def archive_of(suite: str) -> str:
    """Return the archive that holds ``suite``: ``debian-security`` for security suites, else ``debian``."""
    return "debian-security" if suite.endswith("-security") else "debian"


@dataclass(frozen=True, slots=True)
class Stanza:
    """A package as a suite's index lists it.

    :param suite: the suite whose index this is.
    :param depends: names in ``Depends`` and ``Pre-Depends``, alternatives included, without versions.
    """

    package: Package
    suite: str
    essential: bool
    source: str
    depends: tuple[str, ...]

    @property
    def sort_key(self) -> NativeVersion:
        """Debian's order of versions."""
        return NativeVersion(self.package.version)


class Index:
    """What the indexes of some suites list. The suites' order breaks ties between equal versions."""

    def __init__(self, texts: Sequence[tuple[str, str]]) -> None:
        """Take pairs of suite and text of a Packages file."""
        self._raw: dict[str, list[tuple[str, str]]] = {}
        for suite, text in texts:
            for stanza in re.split(r"\n\s*\n", text):
                match = re.search(r"^Package: *(\S+)", stanza, re.MULTILINE)
                if match:
                    self._raw.setdefault(match[1], []).append((suite, stanza))

    def names(self, pattern: str) -> Iterator[re.Match[str]]:
        """Yield a match for each package name that ``pattern`` matches in full."""
        compiled = re.compile(pattern)
        for name in self._raw:
            if match := compiled.fullmatch(name):
                yield match

    def versions(self, name: str) -> list[Stanza]:
        """Return what is listed as ``name``, newest first; among equals the first suite first."""
        stanzas = [_parse(suite, text) for suite, text in self._raw.get(name, [])]
        return sorted(stanzas, key=lambda stanza: stanza.sort_key, reverse=True)

    def find(self, name: str, version: str | None = None) -> Stanza | None:
        """Return ``name`` in ``version`` (default: the newest), or nothing."""
        return next((s for s in self.versions(name) if version in {None, s.package.version}), None)

    def essential(self) -> list[str]:
        """Return the names that are ``Essential: yes``, sorted."""
        marked = (name for name, found in self._raw.items() if any("\nEssential: yes" in text for _, text in found))
        return sorted(marked)


def _parse(suite: str, text: str) -> Stanza:
    fields = Packages(text)
    try:
        package = Package(
            name=fields["Package"],
            version=fields["Version"],
            architecture=fields["Architecture"],
            archive=archive_of(suite),
            path=fields["Filename"].removeprefix("./"),
            size=int(fields["Size"]),
            sha256=fields["SHA256"],
        )
    except (KeyError, ValueError) as error:
        raise IntegrityError(f"the index of {suite} has a broken stanza: {error}", "Try another mirror.") from error
    groups = [*(fields.relations["pre-depends"] or []), *(fields.relations["depends"] or [])]
    depends = tuple(str(choice["name"]) for group in groups for choice in group)
    source = str(fields.get("Source", package.name)).split(" ", 1)[0]
    return Stanza(package, suite, fields.get("Essential") == "yes", source, depends)


class Apt:
    """apt for a set of suites of one mirror, in a folder of its own.

    :param folder: an empty or earlier folder; holds some 60 MB of indexes after :meth:`update`.
    :param suites: suites that answers may come from, in order of preference between equal versions.
    :param keyring: keys that must have signed each suite.
    :param check_valid_until: whether an index whose ``Valid-Until`` is over is refused; off only to lock an old date.
    """

    def __init__(
        self,
        folder: Path,
        mirror: Mirror,
        suites: Sequence[str],
        *,
        keyring: Path = KEYRING,
        check_valid_until: bool = True,
    ) -> None:
        for program in ("apt-get", "gpgv"):
            if shutil.which(program) is None:
                raise SetupError(f"{program} is not installed; making a lock needs it", f"apt-get install {program}")
        if not keyring.is_file():
            hint = "apt-get install debian-archive-keyring"
            raise SetupError(f"Debian's archive keyring is not at {keyring}; making a lock needs it", hint)
        self._folder = folder.absolute()
        self._mirror = mirror
        self._suites = tuple(suites)
        self._keyring = keyring.absolute()
        self._check_valid_until = check_valid_until
        self._index: Index | None = None

    def update(self) -> dict[str, Suite]:
        """Fetch the suites' indexes, check their signatures, and return what they say of themselves.

        :raises MirrorError: an index cannot be fetched.
        :raises IntegrityError: a signature or hash is wrong, or an index is out of date.
        """
        self._check_space()
        self._write_configuration()
        failure = ""
        choices = [self._mirror.bases(archive_of(suite)) for suite in self._suites]
        for attempt in range(max(len(bases) for bases in choices)):
            self._write_sources([bases[min(attempt, len(bases) - 1)] for bases in choices])
            done = self._run("apt-get", "--error-on=any", "-qq", "update")
            if done.returncode == 0:
                self._index = None
                return {suite: self._describe(suite) for suite in self._suites}
            failure = done.stderr
            if any(word in failure for word in (*_SIGNATURE_WORDS, *_DATE_WORDS)):
                break
        raise _translate(failure, self._suites)

    @property
    def index(self) -> Index:
        """What the fetched indexes list."""
        if self._index is None:
            self._index = Index([(suite, self._packages_text(suite)) for suite in self._suites])
        return self._index

    def closure(self, names: Iterable[str], *, essential: bool = False) -> list[Package]:
        """Return ``names`` and all they depend on, without recommendations, sorted by name.

        :param essential: also everything that is ``Essential: yes``, as a system that dpkg runs in needs.
        :raises ConfigError: a name is not listed, or its dependencies cannot be met.
        """
        wanted = sorted({*names, *(self.index.essential() if essential else ())})
        unknown = [name for name in wanted if self.index.find(name) is None]
        if unknown:
            raise ConfigError(f"no package {', '.join(unknown)} in {', '.join(self._suites)}", "See vm/kernels.toml.")
        done = self._run("apt-get", "install", "--simulate", "--yes", "--no-install-recommends", *wanted)
        if done.returncode != 0:
            reason = " ".join(line for line in done.stdout.splitlines() if "Depends:" in line) or done.stderr.strip()
            raise ConfigError(f"dependencies cannot be met: {reason}", "See the package lists in vm/kernels.toml.")
        chosen = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", done.stdout, re.MULTILINE)
        packages = []
        for name, version in chosen:
            stanza = self.index.find(name.split(":", 1)[0], version)
            if stanza is None:
                raise BuildError(
                    f"apt chose {name} {version}, which no index lists", "Delete the folder and lock again."
                )
            packages.append(stanza.package)
        return sorted(packages, key=lambda package: package.name)

    def _check_space(self) -> None:
        """Refuse to start on a full disk: apt 2.6 never comes back from one (measured: none in ten minutes)."""
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if free < INDEX_SPACE:
            raise DiskFullError(
                f"indexes need {INDEX_SPACE >> 20} MiB in {self._folder}, {free >> 20} MiB are free there",
                "Free some space, or set TMPDIR to a folder on a larger disk.",
            )

    def _write_configuration(self) -> None:
        for name in ("state/lists/partial", "cache/archives/partial", "etc", "log"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / "state/status").touch()
        text = _CONFIGURATION.format(folder=self._folder, architecture=ARCHITECTURE)
        if self._mirror.proxy:
            text += f'Acquire::http::Proxy "{self._mirror.proxy}";\n'
        if not self._check_valid_until:
            text += 'Acquire::Check-Valid-Until "false";\n'
        (self._folder / "apt.conf").write_text(text, encoding="utf-8")

    def _write_sources(self, bases: Sequence[str]) -> None:
        options = f"[arch={ARCHITECTURE} signed-by={self._keyring}]"
        pairs = zip(bases, self._suites, strict=True)
        lines = [f"deb {options} {re.sub(r'^file://', 'file:', base)} {suite} main\n" for base, suite in pairs]
        (self._folder / "etc/sources.list").write_text("".join(lines), encoding="utf-8")

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "LC_ALL": "C", "APT_CONFIG": str(self._folder / "apt.conf")}
        try:
            return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=PATIENCE)
        except subprocess.TimeoutExpired as error:
            hint = "Try another mirror with KMLAB_MIRROR, and look at the free space of the disk."
            raise MirrorError(f"{command[0]} was not over within {PATIENCE} s", hint) from error

    def _targets(self, suite: str, form: str) -> list[str]:
        done = self._run("apt-get", "indextargets", "--format", f"$(RELEASE)|$(CREATED_BY)|{form}")
        rows = (line.split("|", 2) for line in done.stdout.splitlines())
        return [row[2] for row in rows if row[:2] == [suite, "Packages"]]

    def _packages_text(self, suite: str) -> str:
        names = self._targets(suite, "$(FILENAME)")
        if not names:
            return ""  # apt keeps no file of an empty index, such as trixie-updates had at its release
        done = self._run("/usr/lib/apt/apt-helper", "cat-file", *names)
        if done.returncode != 0:
            raise MirrorError(f"the index of {suite} cannot be read: {done.stderr.strip()}", "Run: invoke kernels.lock")
        return done.stdout

    def _describe(self, suite: str) -> Suite:
        """Return what the signed Release file of ``suite`` says, its signatures checked by gpgv."""
        found = sorted(self._folder.glob(f"state/lists/*_dists_{suite}_InRelease"))
        if len(found) != 1:
            raise IntegrityError(f"{suite} has no InRelease file", "Only archives with an inline signature are used.")
        release = found[0]
        content = release.read_bytes()
        date = re.search(rb"^Date: *(.+)$", content, re.MULTILINE)
        if date is None:
            raise IntegrityError(f"the InRelease file of {suite} has no date", "Try another mirror.")
        return Suite(
            archive=archive_of(suite),
            date=parsedate_to_datetime(date[1].decode()).strftime("%Y-%m-%dT%H:%M:%SZ"),
            inrelease_sha256=hashlib.sha256(content).hexdigest(),
            signed_by=signers(release, self._keyring),
        )


def signers(signed: Path, keyring: Path) -> list[str]:
    """Return the fingerprints of the primary keys whose signatures on ``signed`` are good, sorted.

    Signatures by keys that are not in the keyring are passed over: an archive signs with its old and its new keys for
    some years.

    :raises IntegrityError: no signature is good, or one is bad.
    """
    command = ["gpgv", "--status-fd", "1", "--keyring", str(keyring), str(signed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    # VALIDSIG's last field is the primary key's fingerprint (GnuPG, doc/DETAILS).
    found = sorted({line.split()[-1] for line in done.stdout.splitlines() if line.startswith("[GNUPG:] VALIDSIG ")})
    if not found or "[GNUPG:] BADSIG" in done.stdout:
        reason = done.stderr.strip().splitlines()[-1:] or ["no valid signature"]
        raise IntegrityError(f"{signed.name} is not signed by a key of {keyring}: {reason[0]}", "Try another mirror.")
    return found


def _translate(stderr: str, suites: Sequence[str]) -> LabError:
    """Return the error that apt's words mean."""
    lines = [line.strip() for line in stderr.splitlines() if line.startswith(("E:", "W:", "Err:"))]
    reason = lines[0].split(": ", 1)[-1] if lines else stderr.strip() or "apt gave no reason"
    what = f"the index of {', '.join(suites)}"
    if any(word in stderr for word in _SIGNATURE_WORDS):
        hint = "Try another mirror with KMLAB_MIRROR. If Debian has new keys, update debian-archive-keyring."
        return IntegrityError(f"{what} is not what Debian signed: {reason}", hint)
    if any(word in stderr for word in _DATE_WORDS):
        return IntegrityError(f"{what} is out of date: {reason}", "Check this host's clock, or try another mirror.")
    if "No space left on device" in stderr:
        return DiskFullError(f"{what} cannot be stored: {reason}", "Free some space, or set TMPDIR to a larger disk.")
    hint = "Check the network, or set KMLAB_MIRROR to a mirror that can be reached (file:// works, too)."
    return MirrorError(f"{what} cannot be fetched: {reason}", hint)
