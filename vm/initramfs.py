"""The initramfs of a kernel bundle: the guest's init and the virtio modules, in the order in which they load.

The archive is not compressed: unpacking under emulation costs more than reading a megabyte.
"""

from __future__ import annotations

import io
import lzma
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from vm import cpio
from vm.errors import BuildError

GUEST = Path(__file__).resolve().parent / "guest"
"""Sources of what runs inside a machine; ``guest/rootfs`` is laid over the base image."""

MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "vmgenid")
"""What a machine needs before and shortly after its root is mounted; what a kernel has built in has no file."""

COMPILE_FLAGS = (
    *("--target=x86_64-linux-gnu", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-ffreestanding", "-nostdinc"),
    # No libc: nothing to call for stack protection, no loader that relocates, no unwinder that reads tables.
    *("-fno-stack-protector", "-fno-pic", "-fno-pie", "-fno-asynchronous-unwind-tables", "-fcf-protection=none"),
    # The stack is aligned by hand at entry; vector registers would only cost state to save.
    *("-mno-sse", "-mno-mmx"),
)


@dataclass(frozen=True, slots=True)
class Module:
    """A kernel module as its file describes it.

    :param name: with underscores, as the kernel knows it.
    :param depends: names of the modules that must be loaded before it (``.modinfo``, ``depends=``).
    :param data: the uncompressed file.
    """

    name: str
    depends: tuple[str, ...]
    data: bytes


def compile_init(clang: Sequence[str], lld: Sequence[str], sources: Path = GUEST) -> bytes:
    """Compile ``init.c`` to a static program of a few kilobytes and return its bytes.

    :param clang: how clang is run, a program and its first arguments; it needs no headers.
    :param lld: how ``ld.lld`` is run.
    :raises BuildError: the compiler or linker failed; its words are in the message.
    """
    with TemporaryDirectory(prefix="kmlab-init-") as scratch:
        object_file, program = Path(scratch, "init.o"), Path(scratch, "init")
        _run([*clang, *COMPILE_FLAGS, "-c", "-o", str(object_file), "init.c"], sources)
        link = ["-m", "elf_x86_64", "-static", "--build-id=none", "--strip-all", "-e", "_start"]
        _run([*lld, *link, "-o", str(program), str(object_file)], sources)
        return program.read_bytes()


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"cannot run {command[0]}: {error}", "invoke images.build --kernel 6.1") from error
    if done.returncode:
        raise BuildError(f"the guest's init could not be compiled: {done.stderr.strip()[:2000]}")


def build_initramfs(modules_folder: Path, init: bytes, epoch: int) -> bytes:
    """Return the initramfs of one kernel.

    :param modules_folder: ``…/usr/lib/modules/RELEASE``.
    :param init: what :func:`compile_init` gave.
    :param epoch: seconds since 1970 that every member carries.
    :raises BuildError: a module cannot be read, or needs one that is not there.
    """
    modules = load_order(find_modules(modules_folder), MODULES)
    names = [f"modules/{index:02d}-{module.name}.ko" for index, module in enumerate(modules)]
    members = [
        *(cpio.folder(name) for name in ("dev", "proc", "root", "modules")),
        # The kernel opens it for init before devtmpfs is mounted.
        cpio.character_device("dev/console", 5, 1),
        cpio.regular("init", init, 0o755),
        cpio.regular("modules/order", "".join(f"/{name}\n" for name in names).encode()),
        *(cpio.regular(name, module.data) for name, module in zip(names, modules, strict=True)),
    ]
    return cpio.archive(members, epoch)


def find_modules(folder: Path) -> dict[str, Path]:
    """Map each module's name to its file, compressed or not, below ``folder``."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.ko*")):
        found[path.name.split(".ko")[0].replace("-", "_")] = path
    return found


def load_order(files: dict[str, Path], wanted: Sequence[str]) -> list[Module]:
    """Return ``wanted`` and what they depend on, each after what it needs.

    A wanted module without a file is taken to be built in. ``modules.dep`` is not used: packages from 6.1 on leave
    making it to the installation.

    :raises BuildError: a dependency has no file.
    """
    order: dict[str, Module] = {}

    def visit(name: str, needed_by: str) -> None:
        if name in order:
            return
        if name not in files:
            raise BuildError(f"module {needed_by} needs {name}, which the kernel's packages do not hold")
        module = read_module(files[name])
        for dependency in module.depends:
            visit(dependency, name)
        order[name] = module

    for name in wanted:
        if name in files:
            visit(name, "")
    return list(order.values())


def read_module(path: Path) -> Module:
    """Read a module's file, unpacking ``.xz``.

    :raises BuildError: the file is not a module, or packed in a way that is not supported.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".xz":
            data = lzma.decompress(data)
        section = ELFFile(io.BytesIO(data)).get_section_by_name(".modinfo")
        info = section.data() if section else b""
    except (OSError, lzma.LZMAError, ELFError) as error:
        hint = "modules may be plain or packed with xz" if path.suffix != ".ko" else ""
        raise BuildError(f"{path.name} is not a readable kernel module: {error}", hint) from error
    fields = dict(entry.split(b"=", 1) for entry in info.split(b"\0") if b"=" in entry)
    depends = fields.get(b"depends", b"").decode().replace("-", "_")
    name = path.name.split(".ko")[0].replace("-", "_")
    return Module(name, tuple(part for part in depends.split(",") if part), data)
