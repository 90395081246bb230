"""The lock: reading and checking it, making it from ``kernels.toml``, and telling two of them apart.

Canonical JSON: keys sorted, a package per line, so that ``git diff`` shows a changed package as a changed line. The
digest over everything else tells an edit by hand.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from vm import kernels, mirror, pool
from vm.apt import KEYRING, Apt
from vm.changes import Difference, difference
from vm.download import disk
from vm.errors import ConfigError, UsageError
from vm.kernels import Configuration, Lacking, RootConfig
from vm.model import LOCK_SCHEMA, ArtefactHash, Kernel, Lock, Package, Root, Suite
from vm.paths import Layout

__all__ = ["LOCK", "Difference", "difference", "digest", "make", "read", "renew", "with_artefact", "write"]

LOCK = Path(__file__).resolve().parent / "lab.lock.json"
"""The lock of this checkout."""

ROOTS = ("tools", "base", "boxes")
"""Names of the roots; every other name that can be locked is a kernel line."""


def read(path: Path = LOCK) -> Lock:
    """Read a lock.

    :raises ConfigError: it is missing, of another schema, broken, or edited by hand.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"there is no lock at {path}", "Make one: invoke kernels.lock") from error
    try:
        document = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"{path.name} is no JSON: {error}", _restore(path)) from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != LOCK_SCHEMA:
        raise ConfigError(f"{path.name} has schema {schema}, this program knows {LOCK_SCHEMA}", _restore(path))
    try:
        lock = msgspec.convert(document, Lock)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path.name} does not hold together: {error}", _restore(path)) from error
    if lock.digest != digest(lock):
        raise ConfigError(
            f"{path.name} was edited by hand: its digest does not match",
            "Edit vm/kernels.toml instead, then run: invoke kernels.lock",
        )
    return lock


def _restore(path: Path) -> str:
    return f"Restore it with git checkout {path.name}, or make it again: invoke kernels.lock"


def digest(lock: Lock) -> str:
    """Return the SHA-256 over the canonical JSON of ``lock`` without its own digest."""
    document = msgspec.to_builtins(lock)
    del document["digest"]
    return hashlib.sha256(_render(document).encode()).hexdigest()


def write(lock: Lock, path: Path = LOCK) -> Lock:
    """Write ``lock`` with its digest, by rename, and return it."""
    sealed = msgspec.structs.replace(lock, digest=digest(lock))
    with disk(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8"
        ) as new:
            try:
                new.write(_render(msgspec.to_builtins(sealed)) + "\n")
                new.flush()
                os.fsync(new.fileno())
                Path(new.name).chmod(0o644)
                Path(new.name).rename(path)
            except BaseException:
                Path(new.name).unlink(missing_ok=True)
                raise
    return sealed


def _render(value: object, indent: str = "") -> str:
    """Return canonical JSON: sorted keys, two spaces, a package (it has a ``path``) or a list of words on one line."""
    deeper = indent + "  "
    if isinstance(value, dict) and value and "path" not in value:
        items = (f"{deeper}{json.dumps(key)}: {_render(value[key], deeper)}" for key in sorted(value))
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"{deeper}{_render(item, deeper)}" for item in value) + f"\n{indent}]"
    return json.dumps(value, sort_keys=True)


def with_artefact(lock: Lock, name: str, artefact: ArtefactHash | None) -> Lock:
    """Return ``lock`` with the hash of one artefact: ``tools``, ``kernel:6.1``, ``box:libvirt:6.1``. Digest is renewed.

    :raises UsageError: there is no such artefact.
    """
    line = name.removeprefix("kernel:")
    if name in ROOTS:
        root: Root = getattr(lock, name)
        lock = msgspec.structs.replace(lock, **{name: msgspec.structs.replace(root, artefact=artefact)})
    elif name.startswith("kernel:") and line in lock.kernels:
        kernel = msgspec.structs.replace(lock.kernels[line], artefact=artefact)
        lock = msgspec.structs.replace(lock, kernels={**lock.kernels, line: kernel})
    elif name.startswith("box:") and name.rpartition(":")[2] in lock.kernels:
        kept = {each: known for each, known in lock.box_artefacts.items() if each != name.removeprefix("box:")}
        given = {} if artefact is None else {name.removeprefix("box:"): artefact}
        lock = msgspec.structs.replace(lock, box_artefacts={**kept, **given})
    else:
        hint = f"Artefacts are {', '.join(ROOTS)}, kernel:LINE and box:PROVIDER:LINE."
        raise UsageError(f"there is no artefact {name!r} in the lock", hint)
    return msgspec.structs.replace(lock, digest=digest(lock))


def make(
    config: Configuration,
    layout: Layout,
    *,
    old: Lock | None = None,
    only: Sequence[str] = (),
    source: Callable[[], mirror.Mirror] = mirror.resolve,
    keyring: Path = KEYRING,
    check_valid_until: bool = True,
    note: Callable[[str], None] = lambda _: None,
) -> Lock:
    """Resolve ``config`` against the archive's signed indexes.

    :param old: the lock that was there: what is not in ``only`` is kept from it, and so are hashes of artefacts whose
        packages did not change, and hashes of packages that the index has dropped since.
    :param only: names to resolve (of :data:`ROOTS`, or lines); empty means all. The epoch stays unless it is all
        and a package changed: a new epoch changes the bytes of every artefact.
    :param note: takes a line about each step.
    :raises ConfigError: the configuration cannot be met. :raises MirrorError: an index or package cannot be fetched.
    :raises IntegrityError: a signature or hash is wrong. :raises UsageError: ``only`` names what is not configured.
    """
    names = _names(config, only, old)
    resolver = _Resolver(config, layout, source(), old, keyring, check_valid_until, note)
    try:
        roots = {name: resolver.root(name) for name in ROOTS if name in names}
        found = {line: resolver.kernel(line) for line in config.lines if line in names}
    finally:
        resolver.close()
    kept = {} if old is None else {line: kernel for line, kernel in old.kernels.items() if line in config.lines}
    suites = {**(old.suites if old is not None and only else {}), **resolver.suites}
    lock = Lock(
        schema=LOCK_SCHEMA,
        source_date_epoch=_epoch(suites),
        suites=suites,
        tools=roots["tools"] if "tools" in roots else _kept_root(old, "tools"),
        base=roots["base"] if "base" in roots else _kept_root(old, "base"),
        boxes=roots["boxes"] if "boxes" in roots else _kept_root(old, "boxes"),
        kernels={**kept, **found},
    )
    if old is not None:
        if only or _packages(lock) == _packages(old):
            lock = msgspec.structs.replace(lock, source_date_epoch=old.source_date_epoch)
        lock = _keep_artefacts(lock, old)
    return msgspec.structs.replace(lock, digest=digest(lock))


def renew(
    config: Configuration,
    layout: Layout,
    *,
    path: Path = LOCK,
    only: Sequence[str] = (),
    source: Callable[[], mirror.Mirror] = mirror.resolve,
    keyring: Path = KEYRING,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Lock, Difference]:
    """Make the lock at ``path`` again, all or ``only`` some of it, write it, and return it with what changed.

    A lock that is broken or edited by hand is not built upon: everything is resolved as if there were none.

    :raises LabError: as :func:`make`; the lock at ``path`` is then as it was.
    """
    old: Lock | None = None
    try:
        old = read(path)
    except ConfigError as error:
        note(f"{error.message}; resolving everything anew")
    new = make(config, layout, old=old, only=only, source=source, keyring=keyring, note=note)
    changes = difference(old, new)
    return (write(new, path) if changes or old is None else new), changes


def _names(config: Configuration, only: Sequence[str], old: Lock | None) -> set[str]:
    known = {*ROOTS, *config.lines}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise UsageError(f"{', '.join(unknown)} cannot be locked", f"Configured are {', '.join(sorted(known))}.")
    return set(only) if only and old is not None else known


def _kept_root(old: Lock | None, name: str) -> Root:
    if old is None:
        raise ConfigError(f"there is no earlier lock to keep {name} from", "Lock everything: invoke kernels.lock")
    root: Root = getattr(old, name)
    return root


def _epoch(suites: Mapping[str, Suite]) -> int:
    """Return the date of the newest index in seconds since 1970: no file of an image is newer than that."""
    return max(int(datetime.fromisoformat(suite.date).timestamp()) for suite in suites.values())


def _packages(lock: Lock) -> dict[str, list[Package]]:
    """Return the packages of everything in ``lock``, by name."""
    return {
        **{name: getattr(lock, name).packages for name in ROOTS},
        **{k: v.packages for k, v in lock.kernels.items()},
    }


def _keep_artefacts(lock: Lock, old: Lock) -> Lock:
    """Take over the hash of each artefact whose inputs are what they were."""
    if lock.source_date_epoch != old.source_date_epoch:
        return lock
    pairs = [(name, getattr(lock, name), getattr(old, name)) for name in ROOTS]
    pairs += [(f"kernel:{line}", kernel, old.kernels.get(line)) for line, kernel in lock.kernels.items()]
    for name, new, before in pairs:
        if before is not None and before.artefact is not None and new.packages == before.packages:
            lock = with_artefact(lock, name, before.artefact)
    roots_as_before = all(getattr(lock, name).packages == getattr(old, name).packages for name in ROOTS)
    # A box says its version, so that another date alone changes its bytes.
    boxes_as_before = roots_as_before and lock.newest_index == old.newest_index
    for name, artefact in old.box_artefacts.items() if boxes_as_before else ():
        line = name.rpartition(":")[2]
        if line in lock.kernels and lock.kernels[line].packages == old.kernels[line].packages:
            lock = with_artefact(lock, f"box:{name}", artefact)
    return lock


class _Resolver:
    """The steps of :func:`make`; keeps one apt for each set of suites."""

    def __init__(
        self,
        config: Configuration,
        layout: Layout,
        source: mirror.Mirror,
        old: Lock | None,
        keyring: Path,
        check_valid_until: bool,
        note: Callable[[str], None],
    ) -> None:
        self.suites: dict[str, Suite] = {}
        self._config = config
        self._layout = layout
        self._mirror = source
        self._keyring = keyring
        self._check = check_valid_until
        self._note = note
        self._apts: dict[tuple[str, ...], Apt] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="kmlab-lock-")
        self._pinned = _packages_by_path(old)

    def close(self) -> None:
        """Delete the indexes."""
        self._folder.cleanup()

    def _apt(self, suites: list[str]) -> Apt:
        key = tuple(suites)
        if key not in self._apts:
            self._note(f"reading the indexes of {', '.join(suites)}")
            folder = Path(self._folder.name) / str(len(self._apts))
            apt = Apt(folder, self._mirror, suites, keyring=self._keyring, check_valid_until=self._check)
            self.suites.update(apt.update())
            self._apts[key] = apt
        return self._apts[key]

    def root(self, name: str) -> Root:
        """Resolve a root."""
        config: RootConfig = getattr(self._config, name)
        packages = self._apt(config.suites).closure(config.packages, essential=config.essential)
        self._note(f"{name}: {len(packages)} packages")
        return Root(suite=config.suites[0], packages=packages)

    def kernel(self, line: str) -> Kernel:
        """Resolve a kernel line."""
        config = self._config.lines[line]
        choice = kernels.choose(line, self._config.flavour, self._apt(config.suites).index, config.suites)
        packages = [*choice.packages, *(self._lacking(lacking) for lacking in choice.lacking)]
        self._note(f"{line}: {choice.release} ({choice.version}) from {choice.suite}")
        return Kernel(
            line=line,
            release=choice.release,
            version=choice.version,
            suite=choice.suite,
            support=config.support,
            packages=sorted(packages, key=lambda package: package.name),
        )

    def _lacking(self, lacking: Lacking) -> Package:
        """Return a package that the index dropped: as the old lock has it, else as the pool has it."""
        pinned = self._pinned.get((lacking.archive, lacking.path))
        if pinned is not None:
            return pinned
        self._note(f"{lacking.name} {lacking.version} is no longer in the index: taking its hash from the pool's file")
        return pool.adopt(lacking, self._mirror, self._layout.downloads)


def _packages_by_path(lock: Lock | None) -> dict[tuple[str, str], Package]:
    packages = [package for kernel in lock.kernels.values() for package in kernel.packages] if lock else []
    return {(package.archive, package.path): package for package in packages}
