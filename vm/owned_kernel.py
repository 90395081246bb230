"""A kernel of one's own: Debian packages, a build tree, or an installed kernel in a folder.

Whatever form it comes in, it is checked for the options that the lab needs and packed into one package file of
canonical bytes, so that a bundle is built from it as from the archive's, and named by what it holds.
"""

from __future__ import annotations

import gzip
import io
import os
import posixpath
import re
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from vm import tree
from vm.download import disk, sha256_of
from vm.errors import ConfigError, IntegrityError
from vm.kernels import CONFIGURATION, Configuration
from vm.model import Kernel, Package
from vm.options import Shortfall, parse, shortfalls
from vm.paths import Layout
from vm.tree import Entry, Kind

_EPOCH = 0
_NOT_OF_A_KERNEL = re.compile(r"linux-(libc-dev|kbuild|doc|source|config|compiler|perf|cpupower)|.*-dbg(sym)?_")
_MODULE = re.compile(r"(?P<stem>[^/]+)\.ko(?P<packing>\.xz|\.gz|\.zst)?$")
_HEADER_FOLDERS = ("include", "arch/x86/include")
_HEADER_FILES = ("Makefile", "Module.symvers", ".config")


@dataclass(frozen=True, slots=True)
class OwnedKernel:
    """A kernel of one's own, ready to be made into a bundle like a locked one.

    :param kernel: as in the lock; ``line`` is its name, ``support`` is ``own``, its one package lies in ``files``.
    :param files: path by SHA-256, as :func:`vm.download.fetch` returns it.
    :param limits: what will not work with this kernel, a sentence each; the lab works without.
    """

    kernel: Kernel
    files: Mapping[str, Path]
    limits: tuple[str, ...]


def find(text: str, config: Configuration, base: Path = CONFIGURATION.parent) -> Path | None:
    """Return the path of the kernel that ``text`` means, or nothing if it means one of the lock.

    A text with a slash, or one that ends in ``.deb``, is a path; else it may be a name of ``kernels.toml``.

    :raises ConfigError: the path does not exist.
    """
    if text in config.owned:
        path = base / Path(config.owned[text].path).expanduser()
    elif "/" in text or text.endswith(".deb"):
        path = Path(text).expanduser()
    else:
        return None
    if not path.exists():
        raise ConfigError(f"there is no kernel at {path}", "Give a .deb file, a folder of them, or a build tree.")
    return path.absolute()


def load(path: Path, layout: Layout, name: str = "") -> OwnedKernel:
    """Read, check and pack the kernel at ``path``.

    :param name: what it is called in ``kernels.toml``; else its release is its name.
    :raises ConfigError: there is no whole kernel, or options are missing; all of them are named.
    :raises IntegrityError: a package cannot be read.
    """
    entries = list(_read(path))
    release = _release(entries, path)
    config = _config(entries, release, path)
    modules = {_module_name(entry.path) for entry in entries if _MODULE.search(entry.path)}
    lacking = shortfalls(config, modules)
    missing = [short for short in lacking if short.option.required]
    if missing:
        raise _missing_error(release, missing)
    limits = [short.text for short in lacking]
    if not any(re.match(r"usr/src/linux-headers-[^/]+/include/", entry.path) for entry in entries):
        limits.append("no kernel headers came with it: the BCC tools cannot compile their programs")
    package, stored = _pack(entries, release, layout)
    kernel = Kernel(
        line=name or release, release=release, version=release, suite="local", support="own", packages=[package]
    )
    return OwnedKernel(kernel, {package.sha256: stored}, tuple(limits))


def _missing_error(release: str, missing: Sequence[Shortfall]) -> ConfigError:
    lines = "".join(f"\n  {short.text}" for short in missing)
    scripts = " ".join(f"-e {short.option.name}" for short in missing)
    return ConfigError(
        f"kernel {release} lacks {len(missing)} option{'s' if len(missing) > 1 else ''} that the lab needs:{lines}",
        f"In its build tree: scripts/config {scripts} && make olddefconfig, then build again.",
    )


def _read(path: Path) -> Iterator[Entry]:
    """Give the kernel's files as its Debian packages would lay them."""
    if path.is_file():
        yield from _read_packages([path])
    elif debs := [deb for deb in sorted(path.glob("*.deb")) if not _NOT_OF_A_KERNEL.match(deb.name)]:
        yield from _read_packages(debs)
    elif (path / "arch/x86/boot/bzImage").is_file() or (path / "modules.order").is_file():
        yield from _read_build(path)
    else:
        yield from _read_installed(path)


def _read_packages(paths: Sequence[Path]) -> Iterator[Entry]:
    for path in paths:
        for entry in _unpack(path):
            where = f"usr/{entry.path}" if entry.path.startswith("lib/") else entry.path
            if where.startswith(("boot/", "usr/lib/modules/", "usr/src/")):
                yield _plain_module(replace(entry, path=where))


def _unpack(path: Path) -> Iterator[Entry]:
    """Read a package; what is packed in a way that Python cannot read (Ubuntu's zstd) is left to the host's dpkg."""
    try:
        entries = list(tree.from_deb(path))
    except IntegrityError as error:
        try:
            done = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(path)], capture_output=True, check=False)
        except FileNotFoundError:
            raise error from None
        if done.returncode != 0:
            raise
        with tarfile.open(fileobj=io.BytesIO(done.stdout), mode="r:") as archive:
            entries = list(tree.from_tar(archive))
    return iter(entries)


def _read_build(path: Path) -> Iterator[Entry]:
    """Read a build tree; with ``O=`` the sources lie where its link ``source`` points."""
    image = path / "arch/x86/boot/bzImage"
    if not image.is_file():
        raise ConfigError(f"{path} has no arch/x86/boot/bzImage", "Build it: make bzImage modules")
    release = _release_of(_head(image), image)
    yield _on_disk(f"boot/vmlinuz-{release}", image)
    if (path / ".config").is_file():
        yield _on_disk(f"boot/config-{release}", path / ".config")
    modules = f"usr/lib/modules/{release}"
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        if (path / name).is_file():
            yield _on_disk(f"{modules}/{name}", path / name)
    for listed in _ordered_modules(path):
        yield _on_disk(f"{modules}/kernel/{listed}", path / listed)
    headers = f"usr/src/linux-headers-{release}"
    source = path / "source" if (path / "source").is_dir() else path
    for base in dict.fromkeys((source, path)):
        for name in _HEADER_FOLDERS:
            for entry in tree.from_folder(base / name, f"{headers}/{name}"):
                if entry.path.endswith((".h", ".conf")):
                    yield entry
        for name in _HEADER_FILES:
            if (base / name).is_file():
                yield _on_disk(f"{headers}/{name}", base / name)
    yield tree.symlink(f"{modules}/build", f"/{headers}")
    yield tree.symlink(f"{modules}/source", f"/{headers}")


def _ordered_modules(path: Path) -> list[str]:
    """Return the modules that a build made, relative to it; ``modules.order`` lists them as .ko (older) or .o."""
    order = path / "modules.order"
    if not order.is_file():
        return []
    words = order.read_text(encoding="utf-8").split()
    names = [re.sub(r"\.o$", ".ko", posixpath.normpath(word)) for word in words]
    lost = [name for name in names if not (path / name).is_file()]
    if lost:
        raise ConfigError(f"{path} lists {lost[0]} and {len(lost) - 1} more, but they are not built", "make modules")
    return names


def _read_installed(path: Path) -> Iterator[Entry]:
    """Read a folder that holds what ``make install modules_install`` lays, at its top or below boot/ and lib/."""
    images = [*path.glob("boot/vmlinuz*"), *path.glob("vmlinuz*"), *path.glob("bzImage")]
    images += path.glob("usr/lib/modules/*/vmlinuz")
    if len(images) != 1:
        found = f"{len(images)} kernel images" if images else "no kernel image"
        raise ConfigError(f"{path} holds {found}", "Give a .deb file, a folder of them, or one build tree.")
    release = _release_of(_head(images[0]), images[0])
    yield _on_disk(f"boot/vmlinuz-{release}", images[0])
    for name in (f"boot/config-{release}", f"config-{release}", ".config", "config"):
        if (path / name).is_file():
            yield _on_disk(f"boot/config-{release}", path / name)
            break
    for place in (f"usr/lib/modules/{release}", f"lib/modules/{release}", f"modules/{release}", f"{release}"):
        if (path / place).is_dir():
            for entry in tree.from_folder(path / place, f"usr/lib/modules/{release}"):
                if not entry.path.endswith(("/build", "/source")):
                    yield _plain_module(entry)
            break
    for place in (f"usr/src/linux-headers-{release}", f"src/linux-headers-{release}"):
        if (path / place).is_dir():
            yield from tree.from_folder(path / place, f"usr/src/linux-headers-{release}")
            yield tree.symlink(f"usr/lib/modules/{release}/build", f"/usr/src/linux-headers-{release}")
            yield tree.symlink(f"usr/lib/modules/{release}/source", f"/usr/src/linux-headers-{release}")
            break


def _on_disk(where: str, path: Path) -> Entry:
    return Entry(where, Kind.FILE, 0o644, content=tree.Slice(path, 0, path.stat().st_size))


def _plain_module(entry: Entry) -> Entry:
    """Return a gzipped module unpacked; xz and plain ones stay.

    :raises ConfigError: it is packed with zstd, which neither the initramfs nor older kernels' loaders unpack here.
    """
    match = _MODULE.search(entry.path)
    if match is None or entry.kind is not Kind.FILE or match["packing"] in {None, ".xz"}:
        return entry
    if match["packing"] == ".zst":
        hint = "Set CONFIG_MODULE_COMPRESS_NONE or CONFIG_MODULE_COMPRESS_XZ, or give the build tree itself."
        raise ConfigError(f"{entry.path} is compressed with zstd, which the lab does not read", hint)
    return replace(entry, path=entry.path.removesuffix(".gz"), content=gzip.decompress(entry.data()))


def _module_name(path: str) -> str:
    match = _MODULE.search(path)
    return match["stem"].replace("-", "_") if match else ""


def _head(image: Path) -> bytes:
    with image.open("rb") as file:
        return file.read(1 << 16)


def _release_of(head: bytes, what: object) -> str:
    """Return the release in a bzImage's header.

    The x86 boot protocol (Documentation/arch/x86/boot.rst) has ``HdrS`` at 0x202 and at 0x20e the offset of the version
    text less 0x200; the release is its first word.

    :raises ConfigError: it is no bzImage.
    """
    if head[0x202:0x206] != b"HdrS":
        raise ConfigError(f"{what} is no x86 kernel image", "Build a bzImage: make bzImage")
    (offset,) = struct.unpack_from("<H", head, 0x20E)
    text = head[offset + 0x200 :].split(b"\0", 1)[0].decode("ascii", errors="replace")
    if not offset or not re.match(r"\d+\.\d+[\w.+~-]* ", f"{text} "):
        raise ConfigError(f"{what} does not tell its release", "Build a bzImage: make bzImage")
    return text.split(" ", 1)[0]


def _release(entries: Iterable[Entry], path: Path) -> str:
    """Return the release of the one kernel image among ``entries``; its modules must be of the same."""
    pattern = re.compile(r"boot/vmlinuz-[^/]+|usr/lib/modules/[^/]+/vmlinuz")
    images = [entry for entry in entries if pattern.fullmatch(entry.path) and entry.kind is Kind.FILE]
    if len(images) != 1:
        found = f"{len(images)} kernel images" if images else "no kernel image"
        hint = "From 6.19 Debian's image lies in linux-binary-RELEASE: put all packages of one release into one folder."
        raise ConfigError(f"{path} holds {found}", hint)
    release = _release_of(images[0].data()[: 1 << 16], images[0].path)
    if release not in images[0].path:
        raise ConfigError(f"{images[0].path} is the kernel {release}", "Do not rename kernel images.")
    modules = {m[1] for entry in entries if (m := re.match(r"usr/lib/modules/([^/]+)/kernel/", entry.path))}
    if modules - {release}:
        other = ", ".join(sorted(modules - {release}))
        raise ConfigError(f"the kernel is {release}, its modules are of {other}", "Put one release into one folder.")
    return release


def _config(entries: Iterable[Entry], release: str, path: Path) -> dict[str, str]:
    """Return the kernel's configuration, from beside the image or from its headers."""
    names = (f"boot/config-{release}", f"usr/lib/modules/{release}/config", f"usr/src/linux-headers-{release}/.config")
    by_path = {entry.path: entry for entry in entries}
    for name in names:
        if name in by_path and by_path[name].kind is Kind.FILE:
            return parse(by_path[name].data().decode("utf-8", errors="replace"))
    hint = f"Put it beside the image as config-{release}; without it nobody can tell what the kernel lacks."
    raise ConfigError(f"{path} has no configuration of {release}", hint)


def _pack(entries: Iterable[Entry], release: str, layout: Layout) -> tuple[Package, Path]:
    """Write ``entries`` as one Debian package of canonical bytes into the store."""
    store = layout.downloads
    with disk(store):
        store.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=store, suffix=".part")
        os.close(handle)
        path = Path(scratch)
        try:
            with path.open("wb") as file:
                _write_deb(tree.canonical(entries), release, file)
            sha256, size = sha256_of(path), path.stat().st_size
            path.chmod(0o644)
            path.rename(store / sha256)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    name = f"linux-image-{release}"
    package = Package(
        name=name,
        version=release,
        architecture="amd64",
        archive="local",
        path=f"{name}.deb",
        size=size,
        sha256=sha256,
        signed=False,
    )
    return package, store / sha256


def _write_deb(entries: Sequence[Entry], release: str, file: IO[bytes]) -> None:
    """Write an ar of debian-binary, control.tar and data.tar, uncompressed: deb(5) allows it, and nobody sends it."""
    control = f"Package: linux-image-{release}\nVersion: {release}\nArchitecture: amd64\n"
    control += "Maintainer: the owner of this kernel\nDescription: a kernel of one's own\n"
    with tempfile.TemporaryFile() as data, io.BytesIO() as small:
        tree.write_tar(entries, data, _EPOCH)
        tree.write_tar([tree.file("control", control.encode())], small, _EPOCH)
        file.write(b"!<arch>\n")
        for name, content in (("debian-binary", io.BytesIO(b"2.0\n")), ("control.tar", small), ("data.tar", data)):
            size = content.seek(0, os.SEEK_END)
            content.seek(0)
            file.write(f"{name:<16}{_EPOCH:<12}{0:<6}{0:<6}{100644:<8}{size:<10}`\n".encode())
            while block := content.read(tree.BLOCK):
                file.write(block)
            file.write(b"\n" * (size % 2))
