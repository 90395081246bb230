"""Kernel bundles: both layouts of Debian's kernel packages, what is kept of the headers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.archive import deb
from vm import bundle, ext4, tree
from vm.errors import BuildError

OLD = "6.1.0-56-cloud-amd64"
NEW = "7.3.4+deb13-cloud-amd64"


def debs(folder: Path, *packages: dict[str, bytes]) -> list[Path]:
    """Packages on disk, one for each dictionary of files."""
    paths = []
    for number, files in enumerate(packages):
        path = folder / f"{number}.deb"
        path.write_bytes(deb(f"linux-{number}", "1", "amd64", files))
        paths.append(path)
    return paths


def test_a_kernel_up_to_6_18_lies_in_boot(tmp_path: Path) -> None:
    paths = debs(
        tmp_path,
        {
            f"boot/vmlinuz-{OLD}": b"kernel",
            f"boot/config-{OLD}": b"CONFIG_BPF=y\n",
            f"lib/modules/{OLD}/kernel/a.ko": b"m",
        },
    )

    kernel = bundle.from_debs(OLD, paths)

    assert kernel.vmlinuz.data() == b"kernel"
    assert kernel.config.data() == b"CONFIG_BPF=y\n"
    assert f"usr/lib/modules/{OLD}/kernel/a.ko" in [entry.path for entry in kernel.files]


def test_a_kernel_from_6_19_on_lies_beside_its_modules_in_several_packages(tmp_path: Path) -> None:
    modules = f"usr/lib/modules/{NEW}"
    paths = debs(
        tmp_path,
        {f"{modules}/vmlinuz": b"kernel"},
        {f"{modules}/kernel/a.ko.xz": b"m"},
        {f"{modules}/config": b"c", f"{modules}/modules.order": b""},
    )

    kernel = bundle.from_debs(NEW, paths)

    assert kernel.vmlinuz.data() == b"kernel"
    assert kernel.config.data() == b"c"
    files = [entry.path for entry in kernel.files if entry.kind is tree.Kind.FILE]
    assert files == [f"{modules}/kernel/a.ko.xz", f"{modules}/modules.order"]


def test_a_kernel_without_headers_has_an_empty_place_for_them(tmp_path: Path) -> None:
    paths = debs(tmp_path, {f"boot/vmlinuz-{OLD}": b"k", f"boot/config-{OLD}": b"c", f"lib/modules/{OLD}/a.ko": b"m"})

    kernel = bundle.from_debs(OLD, paths)

    assert [(e.path, e.kind) for e in kernel.files if e.path.startswith("usr/src")] == [("usr/src", tree.Kind.FOLDER)]


def test_a_kernel_without_its_image_is_refused(tmp_path: Path) -> None:
    paths = debs(tmp_path, {f"usr/lib/modules/{NEW}/config": b"c"})

    with pytest.raises(BuildError, match=r"hold no vmlinuz of 7\.3\.4"):
        bundle.from_debs(NEW, paths)


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("usr/src/linux-headers-6.1.0-56-common/include/linux/sched.h", True),
        ("usr/src/linux-headers-6.1.0-56-common/arch/x86/include/asm/io.h", True),
        ("usr/src/linux-headers-6.1.0-56-common/arch/arm64/include/asm/io.h", False),
        ("usr/src/linux-headers-6.1.0-56-common/include/dt-bindings/clock/x.h", False),
        (f"usr/src/linux-headers-{OLD}/include/config/BPF", False),
        (f"usr/src/linux-headers-{OLD}/include/config/auto.conf", True),
        (f"usr/src/linux-headers-{OLD}/include/generated/autoconf.h", True),
        (f"usr/share/doc/linux-image-{OLD}/copyright", False),
        (f"lib/modules/{OLD}/build", True),
        (f"lib/modules/{NEW}/build", False),
        ("etc/kernel/postinst.d/x", False),
    ],
)
def test_what_of_a_kernels_packages_goes_into_the_bundle(path: str, kept: bool) -> None:
    assert bool(list(bundle.wanted([tree.file(path, b"")], OLD))) is kept


def test_files_fit_into_the_image_that_is_made_for_them() -> None:
    entries = tree.canonical(tree.file(f"usr/src/{number}.h", b"x" * 5000) for number in range(1000))

    size = ext4.fitting_size(entries)

    assert size % (1 << 20) == 0
    assert size > 1000 * 8192 + ext4.inodes(entries) * 256
