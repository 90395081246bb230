"""Images: obtaining all that a machine of one kernel needs, building, listing and clearing.

The artefacts of one lock are built side by side where one does not need the other: mmdebstrap installs the userland
while the tools root is unpacked, which then makes the file systems.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vm import base, bundle, download, tools
from vm import lock as locks
from vm.artefacts import TREE, Artefact, Plan, Store, check, disk_usage, glance
from vm.boxes import plans as box_plans
from vm.errors import IntegrityError
from vm.model import Kernel, Lock, Package, Root
from vm.paths import Layout
from vm.process import STOP
from vm.progress import Reporter, Silent
from vm.qemu.parts import Parts
from vm.tools import ToolsRoot
from vm.tree import Manifest


@dataclass(frozen=True, slots=True)
class Images:
    """The artefacts of one kernel, present and unchanged at a glance."""

    kernel: Kernel
    lock_digest: str
    tools: ToolsRoot
    base: Artefact
    bundle: Artefact

    @property
    def parts(self) -> Parts:
        """What the QEMU provider takes."""
        return Parts(
            kernel=self.kernel,
            tools=self.tools,
            base_image=self.base.path / base.IMAGE,
            base_sha256=self.base.hash.sha256,
            vmlinuz=self.bundle.path / bundle.VMLINUZ,
            initramfs=self.bundle.path / bundle.INITRAMFS,
            bundle_image=self.bundle.path / bundle.IMAGE,
            bundle_sha256=self.bundle.hash.sha256,
            lock_digest=self.lock_digest,
        )

    @property
    def kernel_config(self) -> Path:
        """The kernel's ``.config``, for telling on the host what it can do."""
        return self.bundle.path / bundle.CONFIG


@dataclass(frozen=True, slots=True)
class Built:
    """One artefact after a build.

    :param name: as the lock calls it: ``tools``, ``base``, ``kernel:6.1``.
    :param fresh: it was not there before.
    """

    name: str
    artefact: Artefact
    fresh: bool


class Builder:
    """Obtains the artefacts of one lock.

    :param progress: downloads, and a line for each artefact that is built.
    :param own: files of kernels of one's own by SHA-256; those of locked ones are fetched.
    :param renew: take what comes out, whatever the lock says; for :func:`with_hashes`.
    :param thorough: read every byte of the artefacts that are there, instead of glancing at them.
    """

    def __init__(
        self,
        lock: Lock,
        layout: Layout,
        progress: Reporter | None = None,
        own: Mapping[str, Path] | None = None,
        *,
        renew: bool = False,
        thorough: bool = False,
    ) -> None:
        self.renew = renew
        self.lock = lock
        self.layout = layout
        self.say = progress or Silent()
        self.own = dict(own or {})
        self.store = Store(layout.artefacts, self.say, thorough=thorough)

    def images(self, kernel: Kernel, *, system_qemu: bool = False) -> Images:
        """Return what a machine of ``kernel`` needs, building what is not there or was changed.

        :raises BuildError: what is built differs from the lock, or cannot be built.
        """
        found = {built.name: built.artefact for built in self.build([kernel])}
        root = self._root(found["tools"])
        return Images(
            kernel=kernel,
            lock_digest=self.lock.digest,
            tools=root.with_system_qemu() if system_qemu else root,
            base=found["base"],
            bundle=found[_kernel_name(kernel)],
        )

    def tools(self) -> ToolsRoot:
        """Return the tools root alone, building it if needed."""
        plan = self._plan(tools.plan(self.lock))
        found = self.store.find(plan)
        if found is None:
            with _interruptible():
                files = self._fetch(self.lock.tools.packages)
                found = self.obtain(plan, lambda folder: self._build_tools(folder, files))
        return self._root(found)

    def build(self, kernels: Sequence[Kernel]) -> list[Built]:
        """Return tools root, base image and the bundles of ``kernels``, building what is not there.

        :raises BuildError: a build failed or differs from the lock; what others finished is kept.
        """
        wanted = {"tools": tools.plan(self.lock), "base": base.plan(self.lock)}
        wanted |= {_kernel_name(kernel): bundle.plan(self.lock, kernel) for kernel in kernels}
        wanted = {name: self._plan(plan) for name, plan in wanted.items()}
        there = {name: self.store.find(plan) for name, plan in wanted.items()}
        lacking = [name for name, artefact in there.items() if artefact is None]
        made = self._build_lacking(wanted, lacking, kernels) if lacking else {}
        found = {name: artefact for name, artefact in there.items() if artefact is not None} | made
        return [Built(name, found[name], name in made) for name in wanted]

    def _build_lacking(
        self, plans: Mapping[str, Plan], lacking: Sequence[str], kernels: Sequence[Kernel]
    ) -> dict[str, Artefact]:
        packages = [package for name in lacking for package in self._packages(name, kernels)]
        epoch = self.lock.source_date_epoch
        with _interruptible(), ThreadPoolExecutor(max_workers=3) as pool:
            try:
                files = self._fetch(packages)
                if "tools" in lacking:
                    root = pool.submit(self.obtain, plans["tools"], lambda folder: self._build_tools(folder, files))
                else:
                    root = _done(self.store.find(plans["tools"]) or self._retry(plans["tools"]))
                futures: dict[str, Future[Artefact]] = {"tools": root} if "tools" in lacking else {}
                if "base" in lacking:
                    futures["base"] = pool.submit(
                        self.obtain, plans["base"], lambda folder: self._build_base(folder, files, root, epoch)
                    )
                bundles = [kernel for kernel in kernels if _kernel_name(kernel) in lacking]
                futures |= self._bundles(pool, bundles, plans, files, root)
                return {name: future.result() for name, future in futures.items()}
            except BaseException:
                STOP.now()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _bundles(
        self,
        pool: ThreadPoolExecutor,
        kernels: Sequence[Kernel],
        plans: Mapping[str, Plan],
        files: Mapping[str, Path],
        root: Future[Artefact],
    ) -> dict[str, Future[Artefact]]:
        """Start the bundles, one after the other: each keeps a core busy and a kernel's files in memory."""
        futures: dict[str, Future[Artefact]] = {_kernel_name(kernel): Future() for kernel in kernels}

        def work() -> None:
            for kernel in kernels:
                name = _kernel_name(kernel)
                try:
                    futures[name].set_result(self._bundle(kernel, plans[name], files, root))
                except BaseException as error:
                    futures[name].set_exception(error)

        if kernels:
            pool.submit(work)
        return futures

    def _bundle(self, kernel: Kernel, plan: Plan, files: Mapping[str, Path], root: Future[Artefact]) -> Artefact:
        def build(folder: Path) -> Manifest:
            made_of = bundle.from_packages(kernel.release, kernel.packages, files)
            return bundle.build(folder, made_of, self._root(root.result()), self.lock.source_date_epoch)

        root.result()
        return self.obtain(plan, build)

    def _build_tools(self, folder: Path, files: Mapping[str, Path]) -> Manifest:
        return tools.build(folder, self.lock.tools.packages, files, self.lock.source_date_epoch)

    def _build_base(self, folder: Path, files: Mapping[str, Path], root: Future[Artefact], epoch: int) -> Manifest:
        tar = folder / "root.tar"
        base.install(tar, self.lock.base.packages, files, epoch)
        manifest = base.pack(folder, tar, self._root(root.result()), epoch)
        tar.unlink()
        return manifest

    def obtain(self, plan: Plan, build: Callable[[Path], Manifest]) -> Artefact:
        """Return an artefact, built if it is not there; tell how long that took."""
        start = time.monotonic()
        artefact = self.store.obtain(plan, build)
        agrees = "as the lock says" if plan.expected else "the lock has no hash of it yet"
        self.say.note(f"{plan.label}: built in {time.monotonic() - start:.1f} s, {agrees}")
        return artefact

    def _plan(self, plan: Plan) -> Plan:
        return replace(plan, expected=None) if self.renew else plan

    def _retry(self, plan: Plan) -> Artefact:
        """Return the tools root that was there a moment ago and is not any more."""
        files = self._fetch(self.lock.tools.packages)
        return self.obtain(plan, lambda folder: self._build_tools(folder, files))

    def _packages(self, name: str, kernels: Sequence[Kernel]) -> list[Package]:
        if name in locks.ROOTS:
            root: Root = getattr(self.lock, name)
            return root.packages
        return next(kernel.packages for kernel in kernels if _kernel_name(kernel) == name)

    def _fetch(self, packages: Iterable[Package]) -> dict[str, Path]:
        from_archive = [package for package in packages if package.sha256 not in self.own]
        return {**download.fetch(from_archive, self.layout, self.say), **self.own}

    @staticmethod
    def _root(artefact: Artefact) -> ToolsRoot:
        return ToolsRoot(artefact.path / TREE, artefact.hash.sha256)


def _kernel_name(kernel: Kernel) -> str:
    return f"kernel:{kernel.line}"


def _done(artefact: Artefact) -> Future[Artefact]:
    future: Future[Artefact] = Future()
    future.set_result(artefact)
    return future


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let a failure or Ctrl-C end the builds of all threads, and the next call start afresh."""
    STOP.reset()
    try:
        yield
    finally:
        STOP.reset()


def with_hashes(lock: Lock, built: Iterable[Built], *, renew: bool = False) -> Lock:
    """Return ``lock`` with the hash of each artefact that it has none of yet; kernels of one's own are not in it.

    :param renew: also replace hashes that differ, after a recipe was changed on purpose.
    """
    for each in built:
        line = each.name.removeprefix("kernel:")
        known = getattr(lock, each.name) if each.name in locks.ROOTS else lock.kernels.get(line)
        if known is not None and (known.artefact is None or (renew and known.artefact != each.artefact.hash)):
            lock = locks.with_artefact(lock, each.name, each.artefact.hash)
    return lock


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of ``invoke images.list``.

    :param size: bytes on disk; holes take none.
    :param in_lock: the lock as it is now would use it.
    :param age: seconds since it was built.
    :param state: ``whole``; else what is wrong at a glance.
    """

    kind: str
    name: str
    size: int
    inputs: str
    sha256: str
    in_lock: bool
    age: float
    state: str


def listing(lock: Lock, layout: Layout) -> list[Listed]:
    """Return a row per artefact in the cache."""
    used = _used(lock)
    store = Store(layout.artefacts, Silent())
    return [
        Listed(
            kind=artefact.seal.kind,
            name=artefact.path.name,
            size=disk_usage(artefact.path),
            inputs=artefact.seal.inputs,
            sha256=artefact.hash.sha256,
            in_lock=artefact.path.name in used,
            age=max(0.0, time.time() - artefact.seal.built),
            state=_state(artefact),
        )
        for artefact in store.all()
    ]


def is_built(lock: Lock, layout: Layout, kernel: Kernel) -> bool:
    """Tell whether a kernel's bundle is in the cache, unchanged at a glance."""
    return Store(layout.artefacts, Silent()).find(bundle.plan(lock, kernel)) is not None


def _state(artefact: Artefact) -> str:
    try:
        glance(artefact)
    except IntegrityError as error:
        return error.message
    return "whole"


def _used(lock: Lock) -> set[str]:
    return {plan.name for plan in _plans(lock)}


def _plans(lock: Lock) -> Iterator[Plan]:
    """Give what a lock can be asked for, boxes among it."""
    yield from (tools.plan(lock), base.plan(lock), box_plans.grub_plan(lock))
    for kernel in lock.kernels.values():
        yield bundle.plan(lock, kernel)
        yield from (box_plans.plan(lock, kernel, provider) for provider in box_plans.FORMS)


@dataclass(frozen=True, slots=True)
class Checked:
    """An artefact whose bytes were all read. ``problem`` is empty if they are those of its seal and lock."""

    name: str
    problem: str


def check_all(lock: Lock, layout: Layout) -> list[Checked]:
    """Read every byte of every artefact that the lock uses and that is in the cache."""
    expected = {plan.name: plan.expected for plan in _plans(lock)}
    rows: list[Checked] = []
    for artefact in Store(layout.artefacts, Silent()).all():
        if artefact.path.name not in expected:
            continue
        problem = ""
        try:
            check(artefact)
        except IntegrityError as error:
            problem = error.message
        wanted = expected[artefact.path.name]
        if not problem and wanted is not None and wanted.sha256 != artefact.hash.sha256:
            problem = f"{artefact.path.name} is whole but not what the lock says"
        rows.append(Checked(artefact.path.name, problem))
    return rows


Cleared = Literal["artefact", "download", "warm state", "leftover"]


@dataclass(frozen=True, slots=True)
class Removed:
    """Something that ``invoke images.clean`` removed. ``size`` is in bytes on disk."""

    kind: Cleared
    name: str
    size: int


def clean(lock: Lock, layout: Layout, *, everything: bool = False, warm_in_use: Iterable[str] = ()) -> list[Removed]:
    """Remove artefacts that the lock does not use, downloads and leftovers; with ``everything`` all images.

    Downloads that the lock names stay unless ``everything``: they may be gone from the mirror one day.

    :param warm_in_use: names of saved states that running machines use: they stay.
    """
    store = Store(layout.artefacts, Silent())
    removed = [Removed("leftover", name, 0) for name in store.sweep()]
    used = set() if everything else _used(lock)
    if layout.artefacts.is_dir():
        names = [path.name for path in layout.artefacts.iterdir() if path.is_dir() and not path.name.startswith(".")]
        removed += [Removed("artefact", name, store.remove(name)) for name in sorted(names) if name not in used]
    removed += _clean_downloads(lock, layout.downloads, everything=everything)
    if everything and layout.warm.is_dir():
        kept = set(warm_in_use)
        for path in sorted(layout.warm.iterdir()):
            if path.is_dir() and path.name not in kept:
                size = disk_usage(path)
                shutil.rmtree(path)
                removed.append(Removed("warm state", path.name, size))
    return removed


def _clean_downloads(lock: Lock, folder: Path, *, everything: bool) -> list[Removed]:
    if not folder.is_dir():
        return []
    roots = [
        *(getattr(lock, name).packages for name in locks.ROOTS),
        *(kernel.packages for kernel in lock.kernels.values()),
    ]
    used = set() if everything else {package.sha256 for packages in roots for package in packages}
    removed: list[Removed] = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in used:
            removed.append(Removed("download", path.name, disk_usage(path)))
            path.unlink()
    return removed
