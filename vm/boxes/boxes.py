"""Obtaining boxes: built where they are not there, from the artefacts of the lock that machines of QEMU use, too."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vm import bundle, download, tools
from vm import lock as locks
from vm.artefacts import MANIFEST, TREE, Artefact, Plan, check, make_seal
from vm.boxes import build, plans
from vm.boxes.plans import ProviderName
from vm.images import Builder
from vm.model import ArtefactHash, Kernel, Lock
from vm.process import STOP
from vm.tools import ToolsRoot
from vm.tree import Manifest
from vm.verify import UMASK, ZONE, Verified


@dataclass(frozen=True, slots=True)
class Box:
    """A box in the cache.

    :param version: as Vagrant compares it. :param fresh: it was not there before.
    """

    kernel: Kernel
    provider: ProviderName
    version: str
    artefact: Artefact
    fresh: bool

    @property
    def name(self) -> str:
        """What a Vagrantfile calls it."""
        return plans.box_name(self.kernel)

    @property
    def path(self) -> str:
        """Where the box's file lies."""
        return str(self.artefact.path / plans.box_file(self.provider, self.kernel))

    @property
    def sha256(self) -> str:
        """The file's own hash."""
        return self.artefact.seal.files[plans.box_file(self.provider, self.kernel)]


class Boxes:
    """Obtains boxes.

    :param builder: obtains what they are made of; its ``renew`` holds for boxes, too.
    """

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._lock = builder.lock

    def find(self, kernel: Kernel, provider: ProviderName) -> Box | None:
        """Return a box that is there, unchanged at a glance."""
        artefact = self._builder.store.find(self._plan(plans.plan(self._lock, kernel, provider)))
        return None if artefact is None else self._box(kernel, provider, artefact, fresh=False)

    def of(self, kernel: Kernel) -> list[Box]:
        """Return the boxes of a kernel that are there."""
        return [box for provider in plans.FORMS if (box := self.find(kernel, provider)) is not None]

    def obtain(self, kernels: Sequence[Kernel], providers: Sequence[ProviderName]) -> list[Box]:
        """Return a box per kernel and provider, building what is not there.

        :raises UsageError: a kernel is one's own. :raises BuildError: what is built differs from the lock.
        """
        for kernel in kernels:  # a kernel without boxes is told before anything is built
            plans.plan(self._lock, kernel, providers[0])
        return [self._obtain(kernel, provider) for kernel in kernels for provider in providers]

    def _obtain(self, kernel: Kernel, provider: ProviderName) -> Box:
        found = self.find(kernel, provider)
        if found is not None:
            return found
        make = self._maker(kernel, provider)
        artefact = self._builder.obtain(self._plan(plans.plan(self._lock, kernel, provider)), make)
        return self._box(kernel, provider, artefact, fresh=True)

    def _maker(self, kernel: Kernel, provider: ProviderName) -> Callable[[Path], Manifest]:
        """Return what fills a folder with the box; all that it is made of is there then."""
        images = self._builder.images(kernel)
        grub_root = self._grub()
        STOP.reset()
        files = download.fetch(kernel.packages, self._builder.layout, self._builder.say)
        made_of = bundle.from_packages(kernel.release, kernel.packages, files)
        return lambda folder: build.build(folder, self._lock, images, provider, grub_root, made_of)

    def verify(self, kernel: Kernel, provider: ProviderName) -> Verified:
        """Build a box again elsewhere, under another umask and time zone, and compare its bytes with what is there.

        :raises IntegrityError: what is there is corrupt. :raises BuildError: a build failed.
        """
        first = self._obtain(kernel, provider).artefact
        check(first)
        plan, make = self._plan(plans.plan(self._lock, kernel, provider)), self._maker(kernel, provider)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="kmlab-box-again-") as scratch, elsewhere():
            folder = Path(scratch, plan.name)
            folder.mkdir()
            (folder / MANIFEST).write_text(make(folder).text(), "utf-8")
            second = make_seal(plan, folder, Manifest({}), 0.0).artefact
        parts = sorted(name for name in second.parts if second.parts[name] != first.hash.parts.get(name))
        name = f"box:{provider}:{kernel.line}"
        return Verified(name, first.hash.sha256, second.sha256, time.monotonic() - began, parts, [])

    def _grub(self) -> ToolsRoot:
        plan = self._plan(plans.grub_plan(self._lock))
        artefact = self._builder.store.find(plan)
        if artefact is None:
            packages = self._lock.boxes.packages
            files = download.fetch(packages, self._builder.layout, self._builder.say)
            artefact = self._builder.obtain(
                plan, lambda folder: tools.build(folder, packages, files, self._lock.source_date_epoch)
            )
        return ToolsRoot(artefact.path / TREE, artefact.hash.sha256)

    def grub_hash(self) -> ArtefactHash:
        """Return the hash of the root with GRUB, building it if it is not there."""
        self._grub()
        found = self._builder.store.find(self._plan(plans.grub_plan(self._lock)))
        assert found is not None  # noqa: S101 - obtained a line above
        return found.hash

    def _plan(self, plan: Plan) -> Plan:
        return replace(plan, expected=None) if self._builder.renew else plan

    def _box(self, kernel: Kernel, provider: ProviderName, artefact: Artefact, *, fresh: bool) -> Box:
        return Box(kernel, provider, plans.version(self._lock), artefact, fresh)


@contextmanager
def elsewhere() -> Iterator[None]:
    """Give this process another umask and time zone for a while."""
    umask, zone = os.umask(UMASK), os.environ.get("TZ")
    os.environ["TZ"] = ZONE
    time.tzset()
    try:
        yield
    finally:
        os.umask(umask)
        os.environ.pop("TZ")
        if zone is not None:
            os.environ["TZ"] = zone
        time.tzset()


def with_hashes(lock: Lock, boxes: Sequence[Box], grub: ArtefactHash) -> Lock:
    """Return ``lock`` with the hashes of boxes, and of the root that they were made with."""
    lock = locks.with_artefact(lock, "boxes", grub)
    for box in boxes:
        lock = locks.with_artefact(lock, f"box:{box.provider}:{box.kernel.line}", box.artefact.hash)
    return lock
