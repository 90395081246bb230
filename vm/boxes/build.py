"""Building a box: the base image and a kernel bundle, byte for byte, as one disk that boots by itself.

A box is a tar (Vagrant, docs/boxes/format): ``metadata.json``, a ``Vagrantfile``, and the disk in the form that the
provider takes. It holds no secret: keys are made at a machine's first boot, and the key that Vagrant logs in with first
is the public one of its well-known pair, which it replaces at once.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from vm import base, bundle, cpio, ext4, initramfs, tree
from vm.artefacts import sha256_file
from vm.boxes import disk, grub
from vm.boxes.plans import FORMS, TEMPLATES, Form, ProviderName, box_file, box_name, version
from vm.bundle import KernelTree
from vm.errors import BuildError
from vm.images import Images
from vm.initramfs import GUEST
from vm.machine import DEFAULT_CPUS, DEFAULT_MEMORY_MIB
from vm.model import Lock
from vm.process import run
from vm.tools import ToolsRoot
from vm.tree import Entry, Kind, Manifest, Slice

BOX_FILES = ("start", "dhcp", "shutdown", "sshd_config", "authorized_keys")
"""Files of ``vm/guest/box`` that ``init.c`` takes over from the second initramfs."""
LABEL = "kmlab-boot"
INFO = "info.json"
"""What a box says of itself (Vagrant, docs/boxes/info)."""


def build(
    folder: Path, lock: Lock, images: Images, provider: ProviderName, grub_root: ToolsRoot, kernel: KernelTree
) -> Manifest:
    """Write the box into ``folder`` and return what its boot partition holds.

    :param kernel: the packages' tree, for modules that the disk needs.
    :raises BuildError: a child failed.
    """
    form, epoch = FORMS[provider], lock.source_date_epoch
    with tempfile.TemporaryDirectory(prefix="box-", dir=folder) as scratch:
        boot, raw, packed = Path(scratch, "boot.ext4"), Path(scratch, "raw"), Path(scratch, form.disk)
        entries = boot_files(images, form, kernel, epoch)
        size = ext4.fitting_size(entries)
        ext4.make(images.tools, boot, entries, name=LABEL, size=size, epoch=epoch)
        contents = [boot, images.base.path / base.IMAGE, images.bundle.path / bundle.IMAGE]
        disk.write(raw, grub.boot_record(grub_root), grub.core_image(grub_root), contents, images.kernel.release)
        convert(images.tools, raw, packed, provider)
        members = box_members(lock, images, provider, packed, raw.stat().st_size)
        with (folder / box_file(provider, images.kernel)).open("wb") as box:
            tree.write_tar(members, box, epoch)
        return Manifest.of(entries)


def boot_files(images: Images, form: Form, kernel: KernelTree, epoch: int) -> list[Entry]:
    """Return the tree of the boot partition."""
    modules = load_order(kernel, form.modules)
    names = [f"box/modules/{index:02d}-{module.name}.ko" for index, module in enumerate(modules)]
    hostname = f"lab-{images.kernel.line}".replace(".", "-")
    members = [
        cpio.folder("box"),
        *(cpio.regular(f"box/{name}", (GUEST / "box" / name).read_bytes()) for name in BOX_FILES),
        cpio.regular("box/hostname", f"{hostname}\n".encode()),
        cpio.folder("box/modules"),
        cpio.regular("box/order", "".join(f"/{name}\n" for name in names).encode()),
        *(cpio.regular(name, module.data) for name, module in zip(names, modules, strict=True)),
    ]
    configuration = grub.configuration(form.device, screen=form.screen)
    return tree.canonical(
        [
            tree.file("vmlinuz", (images.bundle.path / bundle.VMLINUZ).read_bytes()),
            tree.file("initramfs.cpio", (images.bundle.path / bundle.INITRAMFS).read_bytes()),
            tree.file("box.cpio", cpio.archive(members, epoch)),
            tree.file("grub.cfg", configuration.encode()),
        ]
    )


def load_order(kernel: KernelTree, wanted: Sequence[str]) -> list[initramfs.Module]:
    """Return modules and what they need, in the order in which they load."""
    if not wanted:
        return []
    with tempfile.TemporaryDirectory(prefix="kmlab-modules-") as scratch:
        for entry in kernel.files:
            if entry.kind is Kind.FILE and ".ko" in entry.path:
                Path(scratch, Path(entry.path).name).write_bytes(entry.data())
        return initramfs.load_order(initramfs.find_modules(Path(scratch)), wanted)


def convert(root: ToolsRoot, raw: Path, packed: Path, provider: ProviderName) -> None:
    """Write a raw disk in the provider's own, compressed form."""
    if provider == "libvirt":
        options = ["-c", "-O", "qcow2", "-o", "compression_type=zstd"]
    else:
        options = ["-O", "vmdk", "-o", "subformat=streamOptimized,adapter_type=ide"]
    run(root.command("qemu-img", "convert", "-f", "raw", *options, raw, packed), environment=root.environment)
    if provider == "virtualbox":
        name_content(packed)


_CID = re.compile(rb"^CID=([0-9a-f]{1,8})\n", re.MULTILINE)
"""qemu-img writes a content id without leading zeros; ``parentCID`` must stay as it is."""
_CID_DIGITS = 8
_HEADER = struct.Struct("<4sIIQQQQ")
"""VMware, Virtual Disk Format 5.0, "Hosted Sparse Extent Header": magic, version, flags, capacity, grain size, and the
descriptor's offset and size; all but the first three in sectors."""


def name_content(vmdk: Path) -> None:
    """Put a content id that follows from the content into a VMDK's descriptor, where qemu-img drew one at random.

    VMware, Virtual Disk Format 5.0, "The Descriptor File": CID is any value of 32 bits that a change of the content
    changes; ``ffffffff`` and ``fffffffe`` are taken.

    :raises BuildError: the file has no descriptor.
    """
    with vmdk.open("r+b") as file:
        header = file.read(disk.SECTOR)
        offset, size = (sectors * disk.SECTOR for sectors in _HEADER.unpack_from(header)[5:7])
        file.seek(0)
        before, descriptor = file.read(offset), file.read(size)
        found = _CID.search(descriptor)
        if found is None:
            raise BuildError(f"{vmdk.name} has no descriptor with a content id")
        # Behind the first NUL is what a longer id left there when a shorter one was written over it.
        first, last = descriptor[: found.start(1)], descriptor[found.end(1) :].partition(b"\0")[0]
        nameless = (first + last).ljust(size - _CID_DIGITS, b"\0")
        digest = hashlib.sha256(before + nameless)
        while block := file.read(tree.BLOCK):
            digest.update(block)
        name = f"{int(digest.hexdigest()[:8], 16) & 0x7FFFFFFF:0{_CID_DIGITS}x}".encode()
        file.seek(offset)
        file.write((first + name + last).ljust(size, b"\0"))


def box_members(lock: Lock, images: Images, provider: ProviderName, packed: Path, capacity: int) -> list[Entry]:
    """Return what the box's tar holds.

    :param capacity: bytes of the disk as the guest sees it.
    """
    kernel = images.kernel
    description = {
        "name": box_name(kernel),
        "version": version(lock),
        "kernel": kernel.release,
        "base_sha256": images.base.hash.sha256,
        "bundle_sha256": images.bundle.hash.sha256,
        # By this a box that was given to Vagrant is known again.
        "disk_sha256": sha256_file(packed),
    }
    files: dict[str, str] = {INFO: _json(description)}
    values = {
        "mac": "080027" + hashlib.sha256(kernel.release.encode()).hexdigest()[:6].upper(),
        "name": f"kmlab-{kernel.line}",
        "disk": packed.name,
        "size": packed.stat().st_size,
        "capacity": capacity,
        "cpus": DEFAULT_CPUS,
        "memory": DEFAULT_MEMORY_MIB,
    }
    files["Vagrantfile"] = Template((TEMPLATES / f"{provider}.rb").read_text("utf-8")).substitute(values)
    if provider == "libvirt":
        gibibytes = -(-capacity // (1 << 30))
        files["metadata.json"] = _json({"provider": "libvirt", "format": "qcow2", "virtual_size": gibibytes})
    else:
        files["metadata.json"] = _json({"provider": "virtualbox"})
        files["box.ovf"] = Template((TEMPLATES / "box.ovf").read_text("utf-8")).substitute(values)
    content = Slice(packed, 0, packed.stat().st_size)
    return tree.canonical(
        [
            *(tree.file(name, text.encode()) for name, text in files.items()),
            Entry(packed.name, Kind.FILE, 0o644, content=content),
        ]
    )


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"
