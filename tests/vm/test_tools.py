"""The tools root: packages laid over each other, programs started through the root's own ld.so."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.vm.archive import deb
from vm import tools, tree
from vm.errors import SetupError
from vm.model import Package
from vm.tools import ToolsRoot
from vm.tree import Entry, Kind, Manifest


def package(folder: Path, name: str, files: dict[str, bytes]) -> tuple[Package, Path]:
    """A package on disk and the lock's entry of it."""
    content = deb(name, "1.0", "amd64", files)
    sha256 = hashlib.sha256(content).hexdigest()
    (folder / sha256).write_bytes(content)
    locked = Package(
        name=name, version="1.0", architecture="amd64", archive="debian", path=f"pool/{name}.deb", size=len(content),
        sha256=sha256,
    )  # fmt: skip
    return locked, folder / sha256


@pytest.fixture
def root(tmp_path: Path) -> ToolsRoot:
    """A root with the names of programs, none of which runs."""
    for name in ("usr/bin/qemu-system-x86_64", "usr/sbin/mke2fs", "usr/bin/clang-19", "usr/bin/ld.lld-19"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o755)
    return ToolsRoot(tmp_path / "root", "abc")


@pytest.mark.parametrize(
    ("path", "where"),
    [("bin/ls", "usr/bin/ls"), ("lib64/ld.so", "usr/lib64/ld.so"), ("lib", "lib"), ("etc/lib", "etc/lib"),
     ("usr/lib/x", "usr/lib/x")],
)  # fmt: skip
def test_where_a_path_lies_on_a_merged_usr(path: str, where: str) -> None:
    assert tools.merged(path) == where


def test_what_no_program_reads_is_left_out() -> None:
    entries = [
        tree.file(path, b"")
        for path in (
            "usr/bin/clang-19", "usr/share/doc/clang-19/copyright", "usr/share/man/man1/clang.1.gz", "var/lib/x",
            "usr/share/qemu/bios.bin", "usr/include/bpf/bpf_helpers.h", "etc/mke2fs.conf", "usr/share/locale/de/x.mo",
        )
    ]  # fmt: skip

    assert [entry.path for entry in tools.wanted(entries)] == [
        "usr/bin/clang-19", "usr/share/qemu/bios.bin", "usr/include/bpf/bpf_helpers.h", "etc/mke2fs.conf",
    ]  # fmt: skip


def test_links_never_lead_to_the_host() -> None:
    entries = [
        tree.symlink("usr/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
        tree.symlink("usr/bin/clang-19", "../lib/llvm-19/bin/clang"),
        Entry("sbin/mkfs.ext4", Kind.HARDLINK, 0o755, link="sbin/mke2fs"),
    ]

    links = {entry.path: entry.link for entry in tools.wanted(entries)}

    assert links == {
        "usr/lib64/ld-linux-x86-64.so.2": "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        "usr/bin/clang-19": "../lib/llvm-19/bin/clang",
        "usr/sbin/mkfs.ext4": "usr/sbin/mke2fs",
    }


def test_order_of_packages_and_umask_leave_no_trace(tmp_path: Path) -> None:
    made = [package(tmp_path, "a", {"bin/a": b"a", "etc/shared": b"1"}), package(tmp_path, "b", {"usr/bin/b": b"b"})]
    files = {each.sha256: path for each, path in made}
    packages = [each for each, _ in made]
    manifests = []
    for number, (order, umask) in enumerate([(packages, 0o022), (packages[::-1], 0o077)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        before = os.umask(umask)
        try:
            manifests.append(tools.build(folder, order, files, 1_700_000_000))
        finally:
            os.umask(before)

    assert manifests[0] == manifests[1]
    assert Manifest.of(tree.from_folder(tmp_path / "1/root")) == manifests[0]
    assert (tmp_path / "1/root/usr/bin/a").read_bytes() == b"a"


def test_a_program_is_started_through_the_roots_own_loader(root: ToolsRoot) -> None:
    command = root.command("mke2fs", "-V")

    assert command[0] == str(root.root / "usr/lib64/ld-linux-x86-64.so.2")
    assert "--inhibit-cache" in command
    assert command[command.index("--argv0") + 1 :] == ["mke2fs", str(root.root / "usr/sbin/mke2fs"), "-V"]


def test_qemu_finds_its_firmware_in_the_root(root: ToolsRoot) -> None:
    command = root.command("qemu-system-x86_64", "-version")

    assert command[-5:] == [
        "-L", str(root.root / "usr/share/seabios"), "-L", str(root.root / "usr/share/qemu"), "-version",
    ]  # fmt: skip


def test_names_without_llvms_version_are_understood(root: ToolsRoot) -> None:
    assert root.program("clang").name == "clang-19"
    assert root.program("ld.lld").name == "ld.lld-19"
    assert "-resource-dir" in root.command("clang")


def test_a_program_that_is_not_there_is_named(root: ToolsRoot) -> None:
    with pytest.raises(SetupError, match="no program 'gcc'"):
        root.command("gcc")


def test_the_hosts_qemu_is_taken_only_where_asked_for(
    root: ToolsRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "qemu-system-x86_64").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(host))

    theirs = root.with_system_qemu()

    assert theirs.command("qemu-system-x86_64", "-version") == [str(host / "qemu-system-x86_64"), "-version"]
    assert theirs.command("mke2fs") == root.command("mke2fs")
    with pytest.raises(SetupError, match="no qemu-img"):
        theirs.command("qemu-img")


def test_a_host_without_qemu_is_told_so(root: ToolsRoot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SetupError, match="this host has no qemu-system-x86_64"):
        root.with_system_qemu()
