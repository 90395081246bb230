"""Kernel bundles: all of one kernel that a machine needs, beside the base image.

``vmlinuz`` and ``initramfs.cpio`` are what QEMU starts; ``bundle.ext4`` has the modules below ``usr/lib/modules`` and
the headers for BCC below ``usr/src``, which the guest binds over the base image's own; ``config`` tells on the host
what the kernel can do.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from vm import cpio, ext4, initramfs, tree
from vm.artefacts import Plan, inputs_hash, sha256_file
from vm.errors import BuildError
from vm.initramfs import GUEST
from vm.model import ArtefactHash, Kernel, Lock, Package
from vm.process import run
from vm.tools import ToolsRoot, merged
from vm.tree import Entry, Kind, Manifest

RECIPE = 1
"""Raised when this module builds something else from the same packages."""
VMLINUZ = "vmlinuz"
INITRAMFS = "initramfs.cpio"
IMAGE = "bundle.ext4"
CONFIG = "config"
LABEL = "kmlab-kernel"

_HEADERS = re.compile(
    # BCC compiles for x86-64 alone: other architectures, device-tree constants and kbuild's stamps (empty files by the
    # thousand) would be most of the bundle.
    r"usr/src/[^/]+/(?!arch/(?!x86|Kconfig)|include/dt-bindings/|include/config/(?!auto\.conf|kernel\.release)).*"
)


@dataclass(frozen=True, slots=True)
class KernelTree:
    """What a kernel is made of, wherever it comes from.

    :param release: what ``uname -r`` prints.
    :param vmlinuz: the bootable image (bzImage).
    :param config: the text of its ``.config``.
    :param files: canonical tree with ``usr/lib/modules/RELEASE`` and, if there are headers, ``usr/src``.
    """

    release: str
    vmlinuz: Entry
    config: Entry
    files: list[Entry]


def plan(lock: Lock, kernel: Kernel, guest: Path = GUEST) -> Plan:
    """Return what the bundle of a locked kernel is to be built from."""
    return plan_for(lock, kernel.release, sorted(p.sha256 for p in kernel.packages), kernel.artefact, guest)


def plan_for(
    lock: Lock, release: str, contents: Sequence[str], expected: ArtefactHash | None = None, guest: Path = GUEST
) -> Plan:
    """Return the plan of a bundle made of files with the SHA-256 ``contents``; a kernel of one's own has no lock."""
    tools = sorted(p.sha256 for p in lock.tools.packages)
    rooms = [*guest.glob("*.[ch]"), *(Path(module.__file__ or "") for module in (initramfs, cpio))]
    sources = {path.name: sha256_file(path) for path in rooms}
    inputs = inputs_hash("kernel", RECIPE, lock.source_date_epoch, release, list(contents), tools, sources)
    return Plan("kernel", f"kernel-{release}", inputs, expected)


def from_packages(release: str, packages: Sequence[Package], files: Mapping[str, Path]) -> KernelTree:
    """Read a kernel from Debian's packages; see :func:`from_debs`."""
    return from_debs(release, [files[package.sha256] for package in sorted(packages, key=lambda each: each.name)])


def from_debs(release: str, debs: Sequence[Path]) -> KernelTree:
    """Read a kernel from ``.deb`` files.

    The files are laid together here and never unpacked over a root, where a package's ``lib`` folder would replace the
    link of a merged /usr.

    :raises BuildError: they hold no kernel of that release.
    """
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        every = [entry for entries in pool.map(lambda deb: list(tree.from_deb(deb)), debs) for entry in entries]
    by_path = {merged(entry.path): entry for entry in every}
    modules = f"usr/lib/modules/{release}"
    # In /boot up to 6.18; beside the modules from 6.19 on.
    vmlinuz = by_path.get(f"boot/vmlinuz-{release}") or by_path.get(f"{modules}/vmlinuz")
    config = by_path.get(f"boot/config-{release}") or by_path.get(f"{modules}/config")
    if vmlinuz is None or config is None:
        lacking = "vmlinuz" if vmlinuz is None else "config"
        names = ", ".join(deb.name[:24] for deb in debs)
        raise BuildError(
            f"the packages hold no {lacking} of {release} ({names})", "Name every package of that release."
        )
    kept = [entry for entry in wanted(every, release) if entry.path not in (f"{modules}/vmlinuz", f"{modules}/config")]
    if not any(entry.path.startswith("usr/src/") for entry in kept):
        kept.append(Entry("usr/src", Kind.FOLDER, 0o755))  # init binds it; without headers it is there and empty
    return KernelTree(release, vmlinuz, config, tree.canonical(kept))


def wanted(entries: Iterable[Entry], release: str) -> Iterator[Entry]:
    """Give what of a kernel's packages goes into the bundle's image, where it lies there."""
    for entry in entries:
        path = merged(entry.path)
        if path.startswith(f"usr/lib/modules/{release}/") or (_HEADERS.fullmatch(path) and path.startswith("usr/src/")):
            link = merged(entry.link) if entry.kind is Kind.HARDLINK else entry.link
            yield replace(entry, path=path, link=link, uid=0, gid=0)


def build(folder: Path, kernel: KernelTree, tools: ToolsRoot, epoch: int, guest: Path = GUEST) -> Manifest:
    """Write a bundle's files into ``folder`` and return what its image holds.

    :raises BuildError: a child failed, or the modules lack one that a machine needs.
    """
    (folder / VMLINUZ).write_bytes(kernel.vmlinuz.data())
    (folder / CONFIG).write_bytes(kernel.config.data())
    with tempfile.TemporaryDirectory(prefix="modules-", dir=folder) as scratch:
        files, archive = _with_indexes(kernel, Path(scratch), tools, epoch, guest)
        (folder / INITRAMFS).write_bytes(archive)
        # What was read from packages is in memory; what depmod wrote stays in the scratch folder meanwhile.
        ext4.make(tools, folder / IMAGE, files, name=LABEL, size=ext4.fitting_size(files), epoch=epoch)
        manifest = Manifest.of(files)
    for path in folder.iterdir():
        path.chmod(0o644)
    return manifest


def _with_indexes(
    kernel: KernelTree, scratch: Path, tools: ToolsRoot, epoch: int, guest: Path
) -> tuple[list[Entry], bytes]:
    """Return the tree with depmod's indexes, and the initramfs made of its modules."""
    modules = [entry for entry in kernel.files if entry.path.startswith("usr/lib/modules/")]
    folders = [entry for entry in kernel.files if entry.kind is Kind.FOLDER and entry.path in ("usr", "usr/lib")]
    links = [entry for entry in modules if entry.kind is Kind.SYMLINK]
    plain = tree.plain(tree.canonical([*folders, *(entry for entry in modules if entry.kind is not Kind.SYMLINK)]))
    tree.write_folder(plain, scratch, epoch)
    (scratch / "lib").symlink_to("usr/lib")
    run(tools.command("depmod", "-b", scratch, kernel.release), environment=tools.environment)
    init = initramfs.compile_init(tools.command("clang"), tools.command("ld.lld"), guest)
    folder = scratch / "usr/lib/modules" / kernel.release
    archive = initramfs.build_initramfs(folder, init, epoch)
    known = {entry.path for entry in modules}
    made = [entry for entry in tree.from_folder(folder, f"usr/lib/modules/{kernel.release}") if entry.path not in known]
    rest = [entry for entry in kernel.files if not entry.path.startswith("usr/lib/modules/")]
    return tree.canonical([*rest, *plain, *links, *made]), archive
