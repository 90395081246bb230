"""The tools root: QEMU, clang, mke2fs and depmod of the lock, run rootless from where they lie.

The packages are unpacked, not installed: no script of theirs runs, nothing is mounted, no right is needed. A program
is started through the root's own ``ld.so`` with the root's own libraries, so the host's libc does not matter. What a
program looks up by an absolute path (firmware, modules, its configuration) is pointed at the root by
:meth:`ToolsRoot.command` and :attr:`ToolsRoot.environment`.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from vm import tree
from vm.artefacts import TREE, Plan, inputs_hash
from vm.errors import BuildError, SetupError
from vm.model import Lock, Package
from vm.process import STOP, run
from vm.tree import Entry, Kind, Manifest

RECIPE = 1
"""Raised when this module builds something else from the same packages."""
LOADER = "usr/lib64/ld-linux-x86-64.so.2"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
LLVM = "19"
"""LLVM's major version in trixie; its programs bear it in their names."""
_PROGRAMS = ("usr/bin", "usr/sbin", f"usr/lib/llvm-{LLVM}/bin", "usr/libexec")
_LEFT_OUT = re.compile(
    r"usr/share/(doc|doc-base|man|info|locale|lintian|bug|menu|bash-completion|zsh|applications|icons|pixmaps|"
    r"python3|gdb|perl5|gcc|metainfo|polkit-1|debianutils|common-licenses|pam-configs|base-files|vim|initramfs-tools)(/|$)"
    r"|usr/(games|src|local|share/perl|lib/systemd|lib/udev)(/|$)|(boot|dev|home|media|mnt|opt|proc|root|run|srv|sys|tmp|var)(/|$)"
)
"""Nothing that runs reads these; a glance at a smaller tree is faster."""
_VERSION = re.compile(r"version (\d+\.\d+\.\d+)")


@dataclass(frozen=True)
class ToolsRoot:
    """Programs of the lock, ready to be started.

    :param root: the unpacked tree.
    :param sha256: the artefact's hash, which saved states are keyed by.
    :param system_qemu: run the host's QEMU (and qemu-img) instead of the root's; everything else stays the root's.
    """

    root: Path
    sha256: str
    system_qemu: bool = False

    def with_system_qemu(self) -> ToolsRoot:
        """Return the same tools, with the host's QEMU.

        :raises SetupError: the host has none.
        """
        if shutil.which("qemu-system-x86_64") is None:
            raise SetupError(
                "--system-qemu: this host has no qemu-system-x86_64", "sudo apt-get install qemu-system-x86"
            )
        return replace(self, system_qemu=True)

    def program(self, name: str) -> Path:
        """Return where a program of the root lies.

        :raises SetupError: the root has no such program.
        """
        for folder in _PROGRAMS:
            for candidate in (name, f"{name}-{LLVM}"):
                path = self.root / folder / candidate
                if path.exists():
                    return path
        raise SetupError(f"the tools root has no program {name!r}", "Name a package that holds it in vm/kernels.toml.")

    def command(self, program: str, *arguments: str | Path) -> list[str]:
        """Return the argument vector that runs ``program``; it wants :attr:`environment` beside it.

        :raises SetupError: there is no such program.
        """
        words = [str(argument) for argument in arguments]
        if self.system_qemu and program.startswith("qemu-"):
            found = shutil.which(program)
            if found is None:
                raise SetupError(f"--system-qemu: this host has no {program}", "sudo apt-get install qemu-utils")
            return [found, *words]
        path = self.program(program)
        if program.startswith("qemu-system-"):
            # Firmware is looked for beside the running program, which is ld.so here.
            words = ["-L", str(self.root / "usr/share/seabios"), "-L", str(self.root / "usr/share/qemu"), *words]
        elif program in ("clang", f"clang-{LLVM}"):
            words = ["-resource-dir", str(self.root / f"usr/lib/llvm-{LLVM}/lib/clang/{LLVM}"), *words]
        libraries = f"{self.root / LIBRARIES}:{self.root / f'usr/lib/llvm-{LLVM}/lib'}"
        loader = [str(self.root / LOADER), "--inhibit-cache", "--library-path", libraries, "--argv0", program]
        return [*loader, str(path), *words]

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that the root's programs need, to be added to those that the caller passes."""
        return {
            "QEMU_MODULE_DIR": str(self.root / LIBRARIES / "qemu"),
            "MKE2FS_CONFIG": str(self.root / "etc/mke2fs.conf"),
        }

    @property
    def include(self) -> list[Path]:
        """Header folders for BPF programs: libbpf's own and the kernel's user-space API."""
        return [self.root / "usr/include", self.root / "usr/include/x86_64-linux-gnu"]

    @functools.cached_property
    def qemu_version(self) -> str:
        """QEMU's version, ``10.0.13``: asked once per object.

        :raises BuildError: QEMU does not run.
        """
        text = run(self.command("qemu-system-x86_64", "--version"), environment=self.environment).decode()
        found = _VERSION.search(text)
        if found is None:
            raise BuildError(f"QEMU does not tell its version: {text.strip()[:80]!r}", "Run: invoke images.verify")
        return found[1]


def plan(lock: Lock) -> Plan:
    """Return what the tools root of ``lock`` is to be built from."""
    inputs = inputs_hash("tools", RECIPE, lock.source_date_epoch, sorted(p.sha256 for p in lock.tools.packages))
    return Plan("tools", "tools", inputs, lock.tools.artefact)


def build(folder: Path, packages: Sequence[Package], files: Mapping[str, Path], epoch: int) -> Manifest:
    """Unpack the packages into ``folder/root`` and return what is there.

    :param files: path of each package by SHA-256; contents are verified already.
    """
    entries = assemble(packages, files)
    root = folder / TREE
    root.mkdir()
    tree.write_folder(entries, root, epoch)
    return Manifest.of(entries)


def assemble(packages: Sequence[Package], files: Mapping[str, Path]) -> list[Entry]:
    """Read all packages (in parallel: decompression lets go of the interpreter) and lay them over each other."""
    ordered = sorted(packages, key=lambda package: package.name)

    def unpack(package: Package) -> list[Entry]:
        STOP.check()
        return list(wanted(tree.from_deb(files[package.sha256])))

    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        every = [entry for entries in pool.map(unpack, ordered) for entry in entries]
    return tree.plain(tree.canonical(every))


def wanted(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Merge /usr, make absolute links relative, leave out what no program reads."""
    for entry in entries:
        path = merged(entry.path)
        if path in _MERGED or _LEFT_OUT.match(path):
            continue
        link = entry.link
        if entry.kind is Kind.SYMLINK and link.startswith("/"):
            link = posixpath.relpath(merged(link.lstrip("/")), posixpath.dirname(path))
        elif entry.kind is Kind.HARDLINK:
            link = merged(link)
        yield replace(entry, path=path, link=link)


_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


def merged(path: str) -> str:
    """Return where a path lies on a merged-/usr system."""
    return f"usr/{path}" if path.split("/", 1)[0] in _MERGED and "/" in path else path
