"""Real boxes: what is in them, that their bytes come out again, and that they boot by themselves."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import paramiko
import pytest

from provision.house import House
from vm import base, bundle, lock
from vm.boxes import disk, grub, plans
from vm.boxes.boxes import Box, Boxes
from vm.boxes.plans import ProviderName
from vm.deadline import Deadline
from vm.errors import MachineError
from vm.images import Images
from vm.process import run
from vm.qemu.command import EMULATED_CPU
from vm.qemu.console import panic

pytestmark = pytest.mark.build

OVF = {"ovf": "http://schemas.dmtf.org/ovf/envelope/1"}
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"


@pytest.fixture(scope="module")
def house() -> House:
    return House.open()


def opened(house: House, line: str, provider: ProviderName, folder: Path) -> tuple[Box, Path]:
    """A box, built if it is not there, unpacked as Vagrant unpacks it."""
    [box] = Boxes(house.builder()).obtain([house.lock.kernels[line]], [provider])
    with tarfile.open(box.path, "r:") as members:
        members.extractall(folder)  # noqa: S202 - our own file
    return box, folder


def raw_disk(images: Images, packed: Path) -> Path:
    """The disk as the guest sees it."""
    raw = packed.with_suffix(".raw")
    run(images.tools.command("qemu-img", "convert", "-O", "raw", packed, raw), environment=images.tools.environment)
    return raw


def partitions(raw: Path) -> list[tuple[int, int]]:
    """Start and size in bytes of each partition, as a BIOS disk's table says them."""
    with raw.open("rb") as stream:
        sector = stream.read(512)
    assert sector[510:] == b"\x55\xaa"
    rows = [struct.unpack_from("<II", sector, 446 + 16 * index + 8) for index in range(3)]
    return [(first * 512, count * 512) for first, count in rows]


def partition(raw: Path, index: int) -> Path:
    """A partition as a file of its own."""
    start, size = partitions(raw)[index]
    found = raw.with_suffix(f".{index}")
    subprocess.run(
        ["dd", f"if={raw}", f"of={found}", "bs=1M", f"skip={start >> 20}", f"count={size >> 20}", "conv=sparse"],
        check=True, capture_output=True,
    )  # fmt: skip
    return found


def digest(path: Path, offset: int = 0, size: int | None = None) -> str:
    """The SHA-256 of a part of a file."""
    left = path.stat().st_size if size is None else size
    found = hashlib.sha256()
    with path.open("rb") as stream:
        stream.seek(offset)
        while left and (block := stream.read(min(left, 1 << 20))):
            found.update(block)
            left -= len(block)
    return found.hexdigest()


@pytest.mark.parametrize("provider", plans.FORMS)
def test_a_box_holds_the_labs_own_artefacts_and_boots_them(
    house: House, provider: ProviderName, tmp_path: Path
) -> None:
    box, folder = opened(house, "6.1", provider, tmp_path)
    images = house.images(box.kernel)
    packed = folder / plans.FORMS[provider].disk

    checked = run(images.tools.command("qemu-img", "check", packed), environment=images.tools.environment)
    raw = raw_disk(images, packed)
    parts = [images.base.path / base.IMAGE, images.bundle.path / bundle.IMAGE]
    starts = [start for start, _ in partitions(raw)]

    assert b"No errors were found" in checked
    assert starts[0] == disk.ALIGNMENT
    # Userland and modules are, byte for byte, what the machines of QEMU have.
    for path, start in zip(parts, starts[1:], strict=True):
        assert digest(raw, start, path.stat().st_size) == digest(path)
    boot = partition(raw, 0)
    for name in (bundle.VMLINUZ, bundle.INITRAMFS):
        content = run(images.tools.command("debugfs", "-R", f"cat {name}", boot), environment=images.tools.environment)
        assert content == (images.bundle.path / name).read_bytes()
    said = json.loads((folder / "info.json").read_text())
    assert said["kernel"] == box.kernel.release
    assert said["base_sha256"] == images.base.hash.sha256
    assert said["disk_sha256"] == digest(packed)
    assert json.loads((folder / "metadata.json").read_text())["provider"] == provider


def test_a_virtualbox_box_asks_for_hardware_that_the_kernel_has_drivers_for(house: House, tmp_path: Path) -> None:
    box, folder = opened(house, "6.1", "virtualbox", tmp_path)
    document = ElementTree.parse(folder / "box.ovf").getroot()  # noqa: S314 - our own file
    [file] = document.iterfind(".//ovf:File", OVF)
    [described] = document.iterfind(".//ovf:Disk", OVF)
    items = {
        item.findtext(f"{RASD}ResourceType"): item
        for item in document.iterfind(".//ovf:VirtualHardwareSection/ovf:Item", OVF)
    }
    told = f"{{{OVF['ovf']}}}"
    tools = house.images(box.kernel).tools
    asked = tools.command("qemu-img", "info", "--output=json", folder / "box-disk001.vmdk")
    said = json.loads(run(asked, environment=tools.environment))

    assert (folder / file.attrib[f"{told}href"]).stat().st_size == int(file.attrib[f"{told}size"])
    assert int(described.attrib[f"{told}capacity"]) == said["virtual-size"]
    assert said["format-specific"]["data"]["create-type"] == "streamOptimized"
    assert said["format-specific"]["data"]["parent-cid"] == 0xFFFFFFFF  # a disk that stands on no other
    assert items["5"].findtext(f"{RASD}ResourceSubType") == "PIIX4"  # IDE controller, ata_piix
    assert items["10"].findtext(f"{RASD}ResourceSubType") == "virtio"  # network card
    assert items["17"].findtext(f"{RASD}Parent") == items["5"].findtext(f"{RASD}InstanceID")
    config = house.images(box.kernel).kernel_config.read_text()
    assert "CONFIG_ATA_PIIX=m" in config
    assert 'config.vm.base_mac = "080027' in (folder / "Vagrantfile").read_text()


@pytest.mark.parametrize("provider", plans.FORMS)
def test_the_same_bytes_come_out_again(house: House, provider: ProviderName) -> None:
    done = Boxes(house.builder()).verify(house.lock.kernels["6.1"], provider)

    assert done.same, done.parts
    assert done.first == lock.read().box_artefacts[f"{provider}:6.1"].sha256


@contextmanager
def booted(images: Images, folder: Path, arguments: list[str]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """QEMU on a disk; gives the loopback port that leads to its sshd, and its process."""
    (folder / "console.log").unlink(missing_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    network = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"
    command = images.tools.command(
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-smp", "2",
        "-m", "1024", "-accel", "tcg,thread=multi", "-cpu", EMULATED_CPU,
        "-netdev", network, "-device", "virtio-net-pci,netdev=net",
        "-serial", f"file:{folder / 'console.log'}", *arguments,
    )  # fmt: skip
    process = subprocess.Popen(command, env={**images.tools.environment}, stdin=subprocess.DEVNULL)
    try:
        yield port, process
    finally:
        process.kill()
        process.wait()


def host_key(console: Path, deadline: Deadline) -> str:
    """What the console says of the machine's key."""
    while True:
        deadline.check("booting")
        text = console.read_text("utf-8", "replace") if console.exists() else ""
        found = panic(text)
        if found is not None:
            raise MachineError(found.words)
        keys = [line.split()[2] for line in text.splitlines() if line.startswith("KMLAB-HOST-KEY ssh-ed25519 ")]
        if keys:
            return keys[-1]
        time.sleep(0.1)


@pytest.fixture(scope="module")
def insecure_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vagrant's well-known private key, which a box lets in until it is replaced; Vagrant keeps a copy in its home."""
    if shutil.which("vagrant") is None:
        pytest.skip("no Vagrant here")
    home = tmp_path_factory.mktemp("vagrant-home")
    environment = {**os.environ, "VAGRANT_HOME": str(home)}
    subprocess.run(
        ["vagrant", "global-status"], env=environment, cwd=home, check=True, capture_output=True, timeout=120
    )
    return home / "insecure_private_key"


def connected(port: int, expected: str, deadline: Deadline) -> paramiko.Transport:
    """A transport to the machine's sshd, which showed the key that the console told."""
    while True:
        deadline.check("connecting")
        try:
            transport = paramiko.Transport(socket.create_connection(("127.0.0.1", port), timeout=30))
            transport.start_client(timeout=60)
        except (OSError, EOFError, paramiko.SSHException):
            time.sleep(0.2)
            continue
        assert transport.get_remote_server_key().get_base64() == expected
        return transport


def say(transport: paramiko.Transport, command: str) -> str:
    """What a command prints."""
    with transport.open_session(timeout=60) as channel:
        channel.exec_command(command)
        return channel.makefile().read().decode().strip()


@pytest.mark.vm
def test_a_libvirt_box_boots_with_a_key_of_its_own_and_ends_cleanly(
    house: House, insecure_key: Path, tmp_path: Path
) -> None:
    box, folder = opened(house, "6.1", "libvirt", tmp_path)
    deadline = Deadline.after(300)
    arguments = [
        "-machine", "q35", "-drive", f"file={folder / 'box.img'},format=qcow2,if=virtio",
        "-smbios", "type=11,value=kmlab.accelerator=tcg",
    ]  # fmt: skip
    console = tmp_path / "console.log"

    with booted(house.images(box.kernel), tmp_path, arguments) as (port, process):
        first = host_key(console, deadline)
        transport = connected(port, first, deadline)
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_publickey("root", paramiko.RSAKey.generate(2048))
        transport.close()
        transport = connected(port, first, deadline)
        transport.auth_publickey("root", paramiko.RSAKey.from_private_key_file(str(insecure_key)))
        assert say(transport, "uname -r") == box.kernel.release
        assert say(transport, "cat /proc/cmdline") == grub.command_line("tcg", "/dev/vda")
        assert say(transport, "hostname") == "lab-6-1"
        assert say(transport, "ls /usr/lib/modules") == box.kernel.release
        # The clock and the random state of a restored snapshot are renewed through this.
        said = say(transport, f"printf 'resume 1700000000000000000 {'ab' * 32}\\n' | /run/kmlab/control; date -u +%Y")
        assert said.splitlines() == [f"READY {box.kernel.release}", "OK", "2023"]
        say(transport, "sudo shutdown -h now")
        assert process.wait(60) == 0
    image = raw_disk(house.images(box.kernel), folder / "box.img")
    tools = house.images(box.kernel).tools
    features = run(tools.command("dumpe2fs", "-h", partition(image, 1)), environment=tools.environment).decode()
    assert re.search(r"Filesystem state: +clean\n", features)

    with booted(house.images(box.kernel), tmp_path, arguments) as (port, process):
        # The key was made at the first boot and is this machine's for good.
        assert host_key(console, deadline) == first
        connected(port, first, deadline).close()


@pytest.mark.vm
@pytest.mark.parametrize("line", ["6.1", "7.3"])
def test_a_virtualbox_box_boots_as_virtualbox_would_boot_it(
    house: House, line: str, insecure_key: Path, tmp_path: Path
) -> None:
    box, folder = opened(house, line, "virtualbox", tmp_path)
    deadline = Deadline.after(600)
    # Chipset, disk controller and network card that the OVF asks for, under QEMU's names. Nobody says what runs CPUs.
    drive = f"file={folder / 'box-disk001.vmdk'},format=vmdk,if=ide,snapshot=on"

    with booted(house.images(box.kernel), tmp_path, ["-machine", "pc", "-drive", drive]) as (port, _):
        transport = connected(port, host_key(tmp_path / "console.log", deadline), deadline)
        transport.auth_publickey("root", paramiko.RSAKey.from_private_key_file(str(insecure_key)))
        assert say(transport, "uname -r") == box.kernel.release
        assert say(transport, "cat /proc/cmdline") == grub.command_line("kvm", "/dev/sda", screen=True)
        assert "/dev/sda2 / " in say(transport, "cat /proc/mounts")
        assert say(transport, "ip -4 -o addr show eth0 | grep -c 10.0.2.15") == "1"
