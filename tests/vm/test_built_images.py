"""Real artefacts of the lock: their programs run, their bytes come out again elsewhere."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from vm import base, ext4, images, lock, tree, verify
from vm.artefacts import check
from vm.cpio import MAGIC
from vm.images import Builder, Images
from vm.options import parse
from vm.paths import Layout
from vm.process import run
from vm.progress import Silent
from vm.tools import ToolsRoot
from vm.tree import Entry, Kind

pytestmark = pytest.mark.build

PROGRAM = b"""
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("kprobe/do_nanosleep") int probe(void *context) { return 0; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def built() -> Images:
    """Tools root, base image and the bundle of 6.1, from the person's own cache."""
    locked = lock.read()
    return Builder(locked, Layout.from_environment(), Silent()).images(locked.kernels["6.1"])


@pytest.fixture(scope="module")
def tools(built: Images) -> ToolsRoot:
    return built.tools


def test_programs_run_from_where_they_lie(tools: ToolsRoot) -> None:
    assert tools.qemu_version.startswith("10.")
    for program, option in (
        ("qemu-img", "--version"),
        ("clang", "--version"),
        ("ld.lld", "--version"),
        ("depmod", "-V"),
    ):
        assert run(tools.command(program, option), environment=tools.environment)


def test_qemu_finds_its_firmware_and_devices(tools: ToolsRoot, tmp_path: Path) -> None:
    machine = ("-machine", "q35,accel=tcg", "-nodefaults", "-display", "none", "-device", "virtio-net-pci,romfile=")
    stop = ("-S", "-monitor", "stdio")

    said = run(
        tools.command("qemu-system-x86_64", *machine, *stop),
        environment=tools.environment,
        feed=lambda monitor: monitor.write(b"info pci\nquit\n"),
        cwd=tmp_path,
    )

    assert b"Ethernet controller" in said


def test_clang_compiles_a_bpf_program(tools: ToolsRoot, tmp_path: Path) -> None:
    (tmp_path / "probe.c").write_bytes(PROGRAM)
    headers = [word for folder in tools.include for word in ("-isystem", str(folder))]
    options = ("-target", "bpf", "-nostdlibinc", "-O2", "-g", *headers, "-c", "probe.c", "-o", "probe.o")

    run(tools.command("clang", *options), environment=tools.environment, cwd=tmp_path)

    assert (tmp_path / "probe.o").read_bytes()[:4] == b"\x7fELF"


def test_file_systems_come_out_the_same_whoever_makes_them(tools: ToolsRoot, tmp_path: Path) -> None:
    entries = tree.canonical(
        [
            tree.file("etc/shadow", b"root:*::::::\n", 0o640, gid=42),
            Entry("dev/null", Kind.CHARACTER, 0o666, device=(1, 3)),
            tree.symlink("bin", "usr/bin"),
            tree.file("usr/bin/sudo", b"sudo" * 5000, 0o4755),
            Entry("usr/bin/sudoedit", Kind.HARDLINK, 0o4755, link="usr/bin/sudo"),
        ]
    )
    hashes = set()
    for umask in (0o022, 0o077):
        image = tmp_path / f"{umask:o}.ext4"
        before = os.umask(umask)
        try:
            ext4.make(tools, image, entries, name="test", size=16 << 20, epoch=1_700_000_000)
        finally:
            os.umask(before)
        hashes.add(hashlib.sha256(image.read_bytes()).hexdigest())

    assert len(hashes) == 1
    said = run(tools.command("debugfs", "-R", "stat etc/shadow", image), environment=tools.environment).decode()
    assert "Mode:  0640" in said
    assert "Group:    42" in said


def test_an_image_holds_what_its_manifest_lists_and_no_journal(built: Images) -> None:
    image = built.base.path / base.IMAGE
    said = run(built.tools.command("debugfs", "-R", "cat etc/hostname", image), environment=built.tools.environment)
    features = run(built.tools.command("dumpe2fs", "-h", image), environment=built.tools.environment).decode()

    assert said == b"lab\n"
    assert "has_journal" not in features
    assert "orphan_file" not in features
    assert {"usr/sbin/sshd", "usr/bin/bpftrace", "usr/lib/kmlab/sshd_config"} <= built.base.manifest().lines.keys()
    assert not [path for path in built.base.manifest().lines if "ssh_host_" in path]


def test_nobody_but_root_owns_a_program_and_nobody_can_log_in_with_a_password(built: Images) -> None:
    image, environment = built.base.path / base.IMAGE, built.tools.environment
    shadow = run(built.tools.command("debugfs", "-R", "cat etc/shadow", image), environment=environment).decode()

    assert shadow.startswith("root:*:")
    assert {line.split(":")[1] for line in shadow.split()} <= {"*", "!", "!*"}
    owners = [line.split()[2] for path, line in built.base.manifest().lines.items() if path.startswith("usr/sbin/")]
    assert set(owners) == {"0"}


def test_a_bundle_has_what_bcc_and_modprobe_ask_for(built: Images) -> None:
    release = built.kernel.release
    lines = built.bundle.manifest().lines
    config = parse(built.kernel_config.read_text())

    assert config["DEBUG_INFO_BTF"] == "y"
    assert lines[f"usr/lib/modules/{release}/build"].startswith("l ")
    assert lines[f"usr/lib/modules/{release}/source"].startswith("l ")
    assert f"usr/lib/modules/{release}/modules.dep.bin" in lines
    assert f"usr/src/linux-headers-{release}/include/generated/autoconf.h" in lines
    assert built.parts.initramfs.read_bytes()[:6] == MAGIC


def test_everything_in_the_cache_is_what_the_lock_says(built: Images) -> None:
    for artefact in (built.base, built.bundle):
        check(artefact)

    rows = images.check_all(lock.read(), Layout.from_environment())

    assert [row for row in rows if row.problem] == []
    assert len(rows) >= 3


def test_a_second_build_elsewhere_gives_the_same_bytes(built: Images) -> None:
    builder = Builder(lock.read(), Layout.from_environment(), Silent())

    done = verify.verify(builder, [built.kernel])

    assert [(each.name, each.parts, each.paths) for each in done.artefacts] == [
        ("tools", [], []), ("base", [], []), ("kernel:6.1", [], []),
    ]  # fmt: skip
    done.require_same()
