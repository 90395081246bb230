"""Which modules go into an initramfs and in which order; the guest's init compiles."""

import io
import lzma
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from provision.house import House
from vm import initramfs
from vm.errors import BuildError


def module(folder: Path, name: str, depends: str = "", *, packed: bool = False) -> Path:
    """A file with the section that the kernel's build leaves in a module (scripts/mod/modpost.c)."""
    folder.mkdir(parents=True, exist_ok=True)
    info = folder / f".{name}.info"
    info.write_bytes(f"license=GPL\0depends={depends}\0name={name}\0".encode())
    path = folder / f"{name.replace('_', '-')}.ko"
    source = folder / f".{name}.c"
    source.write_text("int nothing;\n")
    plain = folder / f".{name}.o"
    subprocess.run(["cc", "-c", "-o", plain, source], check=True)
    subprocess.run(["objcopy", "--add-section", f".modinfo={info}", plain, path], check=True)
    if packed:
        path.with_suffix(".ko.xz").write_bytes(lzma.compress(path.read_bytes()))
        path.unlink()
    for scratch in (info, source, plain):
        scratch.unlink()
    return path


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    folder = tmp_path / "modules" / "6.1.0"
    module(folder / "kernel/drivers/virtio", "virtio_pci", "virtio,virtio_ring")
    module(folder / "kernel/drivers/virtio", "virtio", "virtio_ring")
    module(folder / "kernel/drivers/virtio", "virtio_ring")
    module(folder / "kernel/drivers/block", "virtio_blk", "virtio_ring,virtio", packed=True)
    return folder


def test_a_module_comes_after_what_it_needs(modules: Path) -> None:
    found = initramfs.find_modules(modules)

    order = [each.name for each in initramfs.load_order(found, ("virtio_pci", "virtio_blk"))]

    assert order == ["virtio_ring", "virtio", "virtio_pci", "virtio_blk"]


def test_a_packed_module_is_unpacked_on_the_host(modules: Path) -> None:
    found = initramfs.find_modules(modules)

    assert found["virtio_blk"].suffix == ".xz"
    assert initramfs.read_module(found["virtio_blk"]).data.startswith(b"\x7fELF")


def test_what_is_built_in_has_no_file_and_is_left_out(modules: Path) -> None:
    order = initramfs.load_order(initramfs.find_modules(modules), ("vmgenid", "virtio_blk"))

    assert "vmgenid" not in [each.name for each in order]


def test_a_missing_dependency_is_named(modules: Path) -> None:
    (modules / "kernel/drivers/virtio/virtio-ring.ko").unlink()

    with pytest.raises(BuildError, match=r"module virtio needs virtio_ring"):
        initramfs.load_order(initramfs.find_modules(modules), ("virtio",))


def test_a_damaged_module_is_named(modules: Path) -> None:
    damaged = modules / "kernel/drivers/virtio/virtio-ring.ko"
    damaged.write_bytes(b"no ELF")

    with pytest.raises(BuildError, match=r"virtio-ring\.ko is not a readable kernel module"):
        initramfs.read_module(damaged)


def test_the_archive_lists_the_modules_in_their_order(modules: Path) -> None:
    archive = initramfs.build_initramfs(modules, b"the init", epoch=0)

    assert b"/modules/00-virtio_ring.ko\n/modules/01-virtio.ko\n/modules/02-virtio_pci.ko\n" in archive
    assert archive == initramfs.build_initramfs(modules, b"the init", epoch=0)


@pytest.mark.build
def test_init_is_static_small_and_the_same_each_time() -> None:
    tools = House.open().builder().tools()
    clang, lld = tools.command("clang"), tools.command("ld.lld")

    init = initramfs.compile_init(clang, lld)

    elf = ELFFile(io.BytesIO(init))
    assert elf["e_type"] == "ET_EXEC"
    assert not any(segment["p_type"] in ("PT_INTERP", "PT_DYNAMIC") for segment in elf.iter_segments())
    assert len(init) < 32768
    assert init == initramfs.compile_init(clang, lld)


def test_the_words_of_a_compiler_that_fails_are_passed_on(tmp_path: Path) -> None:
    (tmp_path / "init.c").write_text("")

    with pytest.raises(BuildError, match="no such flag"):
        initramfs.compile_init(["sh", "-c", "echo no such flag >&2; exit 1"], ["true"], tmp_path)
