from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vm.archive import FIXTURES, configuration, deb
from vm import download, lock, owned_kernel, tree
from vm.errors import ConfigError, IntegrityError
from vm.kernels import KernelConfig
from vm.options import OPTIONS, parse, shortfalls
from vm.owned_kernel import OwnedKernel
from vm.paths import Layout

RELEASE = "6.1.0-56-cloud-amd64"
CONFIG = (FIXTURES / f"config-{RELEASE}").read_bytes()
VIRTIO = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng")


def bzimage(release: str) -> bytes:
    """The header of a bzImage after the x86 boot protocol, with no kernel behind it."""
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x300)
    text = f"{release} (builder@host) #1 SMP\0".encode()
    image[0x500 : 0x500 + len(text)] = text
    return bytes(image)


def build_tree(path: Path, release: str = RELEASE, config: bytes = CONFIG) -> Path:
    """A build tree as ``make bzImage modules`` leaves it, as far as the lab reads it."""
    files = {
        "arch/x86/boot/bzImage": bzimage(release),
        ".config": config,
        "Makefile": b"all:\n",
        "modules.builtin": b"kernel/fs/ext4/ext4.ko\n",
        "include/linux/types.h": b"typedef int t;\n",
        "include/generated/autoconf.h": b"#define CONFIG_BPF 1\n",
        "arch/x86/include/asm/ptrace.h": b"struct pt_regs;\n",
        "arch/arm/include/asm/ptrace.h": b"not of this machine\n",
        "drivers/stray.ko": b"not listed",
        **{f"drivers/virtio/{name}.ko": name.encode() for name in VIRTIO},
    }
    files["modules.order"] = "".join(f"drivers/virtio/{name}.o\n" for name in VIRTIO).encode()
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def debian(path: Path, release: str = RELEASE, suffix: str = "") -> Path:
    """A folder of packages laid out as ``make bindeb-pkg`` and Debian do up to 6.18."""
    path.mkdir(parents=True)
    modules = {f"lib/modules/{release}/kernel/{name}.ko{suffix}": pack(name.encode(), suffix) for name in VIRTIO}
    image = {f"boot/vmlinuz-{release}": bzimage(release), f"boot/config-{release}": CONFIG, **modules}
    (path / f"linux-image-{release}_1_amd64.deb").write_bytes(deb(f"linux-image-{release}", "1", "amd64", image))
    headers = {f"usr/src/linux-headers-{release}/include/linux/types.h": b"typedef int t;\n"}
    (path / f"linux-headers-{release}_1_amd64.deb").write_bytes(deb(f"linux-headers-{release}", "1", "amd64", headers))
    (path / "linux-libc-dev_1_amd64.deb").write_bytes(deb("linux-libc-dev", "1", "amd64", {"usr/include/x.h": b"x"}))
    return path


def pack(content: bytes, suffix: str) -> bytes:
    return {"": content, ".xz": lzma.compress(content), ".gz": gzip.compress(content), ".zst": b"\x28\xb5\x2f\xfd"}[
        suffix
    ]


def contents(owned: OwnedKernel) -> dict[str, tree.Entry]:
    """What the packed kernel holds, by path."""
    (stored,) = owned.files.values()
    return {entry.path: entry for entry in tree.from_deb(stored)}


def test_a_build_tree_becomes_a_kernel_with_modules_and_headers(tmp_path: Path, layout: Layout) -> None:
    owned = owned_kernel.load(build_tree(tmp_path / "linux"), layout, "mine")

    held = contents(owned)
    assert (owned.kernel.line, owned.kernel.release, owned.kernel.support) == ("mine", RELEASE, "own")
    assert held[f"boot/vmlinuz-{RELEASE}"].data() == bzimage(RELEASE)
    assert held[f"usr/lib/modules/{RELEASE}/kernel/drivers/virtio/virtio_net.ko"].data() == b"virtio_net"
    assert held[f"usr/lib/modules/{RELEASE}/build"].link == f"/usr/src/linux-headers-{RELEASE}"
    assert f"usr/src/linux-headers-{RELEASE}/include/generated/autoconf.h" in held
    assert not [path for path in held if "stray" in path or "arch/arm" in path]


def test_what_it_cannot_do_is_told_without_refusing_it(tmp_path: Path, layout: Layout) -> None:
    owned = owned_kernel.load(build_tree(tmp_path / "linux"), layout)

    assert owned.limits == ("CONFIG_VMGENID (not set): reseeding by the kernel itself after a restore (from 5.18)",)


def test_the_packed_kernel_is_named_by_its_contents(tmp_path: Path, layout: Layout) -> None:
    first = owned_kernel.load(build_tree(tmp_path / "linux"), layout)
    again = owned_kernel.load(build_tree(tmp_path / "elsewhere"), layout)
    (tmp_path / "linux/drivers/virtio/virtio_net.ko").write_bytes(b"patched")
    changed = owned_kernel.load(tmp_path / "linux", layout)

    assert first == again
    assert first.files != changed.files
    assert sorted(path.name for path in layout.downloads.iterdir()) == sorted({*first.files, *changed.files})
    assert all(download.sha256_of(path) == sha256 for sha256, path in first.files.items())


def test_the_packed_kernel_is_a_package_that_dpkg_can_read(tmp_path: Path, layout: Layout) -> None:
    owned = owned_kernel.load(build_tree(tmp_path / "linux"), layout)
    (stored,) = owned.files.values()

    said = subprocess.run(["dpkg-deb", "--field", stored, "Package"], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == f"linux-image-{RELEASE}"


def test_an_output_folder_beside_the_sources_takes_headers_from_both(tmp_path: Path, layout: Layout) -> None:
    output = build_tree(tmp_path / "out")
    shutil.move(output / "include/linux", tmp_path / "source/include/linux")
    (output / "source").symlink_to(tmp_path / "source")

    held = contents(owned_kernel.load(output, layout))

    assert {
        f"usr/src/linux-headers-{RELEASE}/include/{name}" for name in ("linux/types.h", "generated/autoconf.h")
    } <= set(held)


@pytest.mark.parametrize("suffix", ["", ".xz", ".gz"])
def test_packages_become_a_kernel(tmp_path: Path, layout: Layout, suffix: str) -> None:
    owned = owned_kernel.load(debian(tmp_path / "debs", suffix=suffix), layout)

    held = contents(owned)
    kept = suffix.replace(".gz", "")  # gzip is undone: nothing further on reads it
    module = held[f"usr/lib/modules/{RELEASE}/kernel/virtio_blk.ko{kept}"].data()
    assert (lzma.decompress(module) if kept else module) == b"virtio_blk"
    assert owned.kernel.line == RELEASE
    assert not [path for path in held if path.startswith("usr/include")]


def test_one_package_alone_is_a_kernel_without_headers(tmp_path: Path, layout: Layout) -> None:
    image = debian(tmp_path / "debs") / f"linux-image-{RELEASE}_1_amd64.deb"

    owned = owned_kernel.load(image, layout)

    assert owned.limits[-1] == "no kernel headers came with it: the BCC tools cannot compile their programs"


def test_modules_that_cannot_be_read_are_refused(tmp_path: Path, layout: Layout) -> None:
    with pytest.raises(ConfigError, match="compressed with zstd"):
        owned_kernel.load(debian(tmp_path / "debs", suffix=".zst"), layout)


def test_an_installed_kernel_in_a_folder_becomes_a_kernel(tmp_path: Path, layout: Layout) -> None:
    root = tmp_path / "root"
    for name, content in {
        f"boot/vmlinuz-{RELEASE}": bzimage(RELEASE),
        f"boot/config-{RELEASE}": CONFIG,
        **{f"lib/modules/{RELEASE}/kernel/{name}.ko": b"x" for name in VIRTIO},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    held = contents(owned_kernel.load(root, layout))

    assert f"usr/lib/modules/{RELEASE}/kernel/virtio_pci.ko" in held


def test_every_missing_option_is_named_with_what_it_is_for(tmp_path: Path, layout: Layout) -> None:
    config = CONFIG
    for name in (b"UPROBE_EVENTS", b"DEBUG_INFO_BTF", b"SERIAL_8250_CONSOLE"):
        config = config.replace(b"CONFIG_%s=y" % name, b"# CONFIG_%s is not set" % name)
    config = config.replace(b"CONFIG_EXT4_FS=y", b"CONFIG_EXT4_FS=m")

    with pytest.raises(ConfigError) as caught:
        owned_kernel.load(build_tree(tmp_path / "linux", config=config), layout)

    first, *lines = caught.value.message.splitlines()
    assert first == f"kernel {RELEASE} lacks 4 options that the lab needs:"
    assert lines[0].startswith("  CONFIG_EXT4_FS (a module, must be built in): the root file system")
    assert [line.split()[0] for line in lines[1:]] == [
        "CONFIG_SERIAL_8250_CONSOLE",
        "CONFIG_DEBUG_INFO_BTF",
        "CONFIG_UPROBE_EVENTS",
    ]
    assert "scripts/config -e EXT4_FS -e SERIAL_8250_CONSOLE" in caught.value.hint
    assert not layout.downloads.exists()


def test_a_module_that_was_not_built_is_missing(tmp_path: Path, layout: Layout) -> None:
    linux = build_tree(tmp_path / "linux")
    (linux / "modules.order").unlink()

    with pytest.raises(ConfigError, match="virtio_blk is not among the modules"):
        owned_kernel.load(linux, layout)


def test_a_module_that_is_listed_and_not_built_is_named(tmp_path: Path, layout: Layout) -> None:
    linux = build_tree(tmp_path / "linux")
    (linux / "drivers/virtio/virtio_net.ko").unlink()

    with pytest.raises(ConfigError, match=r"lists drivers/virtio/virtio_net\.ko"):
        owned_kernel.load(linux, layout)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda root: (root / "arch/x86/boot/bzImage").unlink(), "has no arch/x86/boot/bzImage"),
        (lambda root: (root / "arch/x86/boot/bzImage").write_bytes(b"MZ" * 999), "is no x86 kernel image"),
        (lambda root: (root / "arch/x86/boot/bzImage").write_bytes(bzimage("?")), "does not tell its release"),
        (lambda root: (root / ".config").unlink(), "has no configuration of"),
        (lambda root: root.rename(root.parent / "gone") and root.mkdir(), "no kernel image"),
    ],
)
def test_what_is_no_kernel_is_refused(
    tmp_path: Path, layout: Layout, spoil: Callable[[Path], object], says: str
) -> None:
    linux = build_tree(tmp_path / "linux")
    spoil(linux)

    with pytest.raises(ConfigError, match=says):
        owned_kernel.load(linux, layout)


def test_modules_of_another_release_are_refused(tmp_path: Path, layout: Layout) -> None:
    folder = debian(tmp_path / "debs")
    older = "6.1.0-55-cloud-amd64"
    module = {f"lib/modules/{older}/kernel/virtio_net.ko": b"x"}
    (folder / "linux-modules_1_amd64.deb").write_bytes(deb(f"linux-modules-{older}", "1", "amd64", module))

    with pytest.raises(ConfigError, match=f"the kernel is {RELEASE}, its modules are of {older}"):
        owned_kernel.load(folder, layout)


def test_two_kernels_in_one_folder_are_refused(tmp_path: Path, layout: Layout) -> None:
    folder = debian(tmp_path / "debs")
    for path in debian(tmp_path / "other", "6.1.0-55-cloud-amd64").glob("linux-image*"):
        shutil.copy(path, folder)

    with pytest.raises(ConfigError, match="holds 2 kernel images"):
        owned_kernel.load(folder, layout)


def test_a_broken_package_is_an_integrity_error(tmp_path: Path, layout: Layout) -> None:
    broken = tmp_path / "linux-image.deb"
    broken.write_bytes(b"no ar")

    with pytest.raises(IntegrityError, match=r"linux-image\.deb"):
        owned_kernel.load(broken, layout)


def test_a_name_or_a_path_is_one_of_ones_own_and_a_line_is_not(tmp_path: Path) -> None:
    config = configuration(("6.1", ["bookworm-security"]))
    config.kernel["mine"] = KernelConfig(path="linux")
    (tmp_path / "linux").mkdir()

    assert owned_kernel.find("mine", config, tmp_path) == tmp_path / "linux"
    assert owned_kernel.find(f"{tmp_path}/linux", config) == tmp_path / "linux"
    assert owned_kernel.find("6.1", config) is None
    assert owned_kernel.find(RELEASE, config) is None
    with pytest.raises(ConfigError, match="there is no kernel at"):
        owned_kernel.find("nowhere.deb", config)


@pytest.mark.parametrize("release", ["5.10.0-46-cloud-amd64", RELEASE, "7.3.4+deb13-cloud-amd64"])
def test_debians_kernels_have_all_that_is_required(release: str) -> None:
    config = parse((FIXTURES / f"config-{release}").read_text(encoding="utf-8"))

    assert [short.text for short in shortfalls(config, VIRTIO) if short.option.required] == []


def test_each_option_is_listed_once_and_says_what_it_is_for() -> None:
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)
    assert all(option.need for option in OPTIONS)


@pytest.mark.build
def test_real_packages_and_a_build_tree_made_of_them_are_kernels(tmp_path: Path, layout: Layout) -> None:
    kernel = lock.read().kernels["6.1"]
    files = download.fetch(kernel.packages, Layout.from_environment())
    folder = tmp_path / "debs"
    folder.mkdir()
    for package in kernel.packages:
        (folder / Path(package.path).name).symlink_to(files[package.sha256])
    root = tmp_path / "root"
    for each in sorted(folder.glob("linux-image*")):
        subprocess.run(["dpkg-deb", "-x", each, root], check=True)
    linux = tmp_path / "linux"
    shutil.move(root / "lib/modules" / kernel.release / "kernel", linux)
    (linux / "arch/x86/boot").mkdir(parents=True, exist_ok=True)
    shutil.copy(root / f"boot/vmlinuz-{kernel.release}", linux / "arch/x86/boot/bzImage")
    shutil.copy(root / f"boot/config-{kernel.release}", linux / ".config")
    names = sorted(str(path.relative_to(linux)) for path in linux.rglob("*.ko"))
    (linux / "modules.order").write_text("\n".join(names) + "\n", encoding="utf-8")

    from_packages, from_tree = owned_kernel.load(folder, layout), owned_kernel.load(linux, layout)

    assert from_packages.kernel.release == from_tree.kernel.release == kernel.release
    modules = {path for path in contents(from_tree) if path.endswith(".ko")}
    assert modules == {path for path in contents(from_packages) if path.endswith(".ko")}
    assert len(modules) > 100
    assert next(iter(from_tree.files.values())).stat().st_size > 10_000_000
