"""What changed between two locks, as a person would want to review it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from debian.debian_support import NativeVersion

from vm.model import ArtefactHash, Kernel, Lock, Package, Root


@dataclass(frozen=True, slots=True)
class PackageChange:
    """One package that differs. A missing side is ``None``."""

    old: Package | None
    new: Package | None

    @property
    def text(self) -> str:
        """The change in a few words, with a sign in front."""
        if self.old is None and self.new is not None:
            return f"+ {self.new.name} {self.new.version}{_mark(self.new)}"
        if self.new is None and self.old is not None:
            return f"- {self.old.name} {self.old.version}"
        if self.old is None or self.new is None:
            return ""
        if self.old.version == self.new.version:
            what = "hash changed with the same version!" if self.old.sha256 != self.new.sha256 else "moved"
            return f"! {self.new.name} {self.new.version}: {what}{_mark(self.new)}"
        down = NativeVersion(self.new.version) < NativeVersion(self.old.version)
        arrow = "-> (older!)" if down else "->"
        return f"~ {self.new.name} {self.old.version} {arrow} {self.new.version}{_mark(self.new)}"


@dataclass(frozen=True, slots=True)
class Section:
    """What changed in one root or kernel line.

    :param title: ``tools``, ``base`` or ``kernel 6.1``.
    :param facts: sentences: a new release, another suite, an artefact hash that is gone or other.
    """

    title: str
    facts: tuple[str, ...]
    packages: tuple[PackageChange, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything that differs between two locks; false when nothing does."""

    sections: tuple[Section, ...] = ()
    facts: tuple[str, ...] = field(default=())

    def __bool__(self) -> bool:
        return bool(self.sections or self.facts)

    @property
    def text(self) -> str:
        """All of it in lines, for a terminal or a commit message."""
        if not self:
            return "nothing changed"
        lines = []
        for section in self.sections:
            lines.append(section.title)
            lines += [f"    {fact}" for fact in section.facts]
            lines += [f"    {change.text}" for change in section.packages]
        return "\n".join([*lines, *self.facts])


def difference(old: Lock | None, new: Lock) -> Difference:
    """Compare two locks; without an old one everything is new."""
    sections = []
    for title, before, after in _pairs(old, new):
        facts = _facts(before, after)
        packages = _changes(before.packages if before else [], after.packages if after else [])
        if facts or packages:
            sections.append(Section(title, tuple(facts), tuple(packages)))
    return Difference(tuple(sections), tuple(_suite_facts(old, new)))


def _pairs(old: Lock | None, new: Lock) -> list[tuple[str, Root | Kernel | None, Root | Kernel | None]]:
    pairs: list[tuple[str, Root | Kernel | None, Root | Kernel | None]] = [
        ("tools", old.tools if old else None, new.tools),
        ("base", old.base if old else None, new.base),
        ("boxes", old.boxes if old else None, new.boxes),
    ]
    before = old.kernels if old else {}
    lines = sorted({*before, *new.kernels}, key=lambda line: [int(part) for part in line.split(".")])
    return [*pairs, *((f"kernel {line}", before.get(line), new.kernels.get(line)) for line in lines)]


def _facts(old: Root | Kernel | None, new: Root | Kernel | None) -> list[str]:
    if new is None:
        return ["no longer locked"]
    facts = []
    if isinstance(new, Kernel):
        before = old if isinstance(old, Kernel) else None
        if before is None:
            facts.append(f"new: {new.release} ({new.version}) from {new.suite}, {new.support}")
        else:
            if before.release != new.release:
                facts.append(f"release {before.release} -> {new.release}")
            if before.support != new.support:
                facts.append(f"support {before.support} -> {new.support}")
    if old is not None:
        if old.suite != new.suite:
            facts.append(f"suite {old.suite} -> {new.suite}")
        facts += _artefact_facts(old.artefact, new.artefact)
    return facts


def _artefact_facts(old: ArtefactHash | None, new: ArtefactHash | None) -> list[str]:
    if old == new:
        return []
    if new is None:
        return ["artefact must be built again: its hash is open"]
    if old is None:
        return [f"artefact hash {new.sha256[:16]}… filled in"]
    parts = sorted(name for name in {*old.parts, *new.parts} if old.parts.get(name) != new.parts.get(name))
    return [f"artefact hash {old.sha256[:16]}… -> {new.sha256[:16]}… ({', '.join(parts) or 'size'})"]


def _changes(old: Sequence[Package], new: Sequence[Package]) -> list[PackageChange]:
    """Pair packages by name; a kernel's names hold its release, which is taken out so that old and new meet."""
    before, after = _by_role(old), _by_role(new)
    changes = (PackageChange(before.get(role), after.get(role)) for role in sorted({*before, *after}))
    return [change for change in changes if change.old != change.new]


def _by_role(packages: Sequence[Package]) -> Mapping[str, Package]:
    roles: dict[str, Package] = {}
    for package in packages:
        words = package.name.split("-")
        is_kernel = len(words) > 2 and words[0] == "linux" and words[2][:1].isdigit()
        role = f"linux-{words[1]}-*-{words[-1]}" if is_kernel else package.name
        roles[role if role not in roles else package.name] = package
    return roles


def _suite_facts(old: Lock | None, new: Lock) -> list[str]:
    facts = []
    for name in sorted(new.suites):
        before = old.suites.get(name) if old else None
        suite = new.suites[name]
        if before is None:
            facts.append(f"suite {name} of {suite.date}, signed by {', '.join(suite.signed_by)}")
        elif before.signed_by != suite.signed_by:
            facts.append(f"suite {name}: signed by {', '.join(suite.signed_by)} (was {', '.join(before.signed_by)})")
        if before is not None and before.date != suite.date:
            facts.append(f"suite {name}: index of {before.date} -> {suite.date}")
    if old is not None and old.source_date_epoch != new.source_date_epoch:
        facts.append(f"epoch {old.source_date_epoch} -> {new.source_date_epoch}: every artefact gets new timestamps")
    return facts


def _mark(package: Package) -> str:
    return "" if package.signed else " (hash from the pool: no signed index lists it)"
