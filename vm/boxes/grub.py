"""GRUB for a disk that boots by itself under a BIOS, put there without installing it.

``grub-install`` asks the disk that it runs on for what it writes. Here everything is known beforehand: GRUB's boot
record loads the sector after it (``kernel_sector`` in grub-core/boot/i386/pc/boot.S is 1), and an image that
``grub-mkimage`` made for a disk knows its own length and goes on in the sector behind its first (diskboot.S). So the
boot record, unchanged, and the image after it boot.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from vm.errors import BuildError
from vm.machine import Accelerator
from vm.process import run
from vm.qemu.command import kernel_command_line
from vm.tools import ToolsRoot

PLATFORM = "usr/lib/grub/i386-pc"
"""Where grub-pc-bin keeps GRUB's parts for a BIOS."""
BOOT_CODE = 440
"""Bytes of a boot record before the disk's signature."""
MODULES = ("biosdisk", "part_msdos", "ext2", "normal", "configfile", "linux", "smbios", "test", "echo", "halt")
"""What loading a kernel from the first partition takes; ``smbios`` reads what :data:`ACCELERATOR_STRING` says."""
ACCELERATOR_STRING = "kmlab.accelerator="
"""An OEM string (SMBIOS type 11) with which whoever starts the machine says what runs its CPUs: the kernel's options
differ, and GRUB cannot tell by itself. Without one the CPUs are taken to be real ones (KVM, VirtualBox)."""


def boot_record(root: ToolsRoot) -> bytes:
    """Return the code of GRUB's boot record.

    :raises BuildError: the packages hold none.
    """
    try:
        code = (root.root / PLATFORM / "boot.img").read_bytes()
    except OSError as error:
        raise BuildError(f"grub-pc-bin has no boot.img: {error}", "invoke kernels.lock --line boxes") from error
    return code[:BOOT_CODE]


def core_image(root: ToolsRoot) -> bytes:
    """Return GRUB itself, which reads ``grub.cfg`` of the first partition.

    :raises BuildError: grub-mkimage failed.
    """
    with TemporaryDirectory(prefix="kmlab-grub-") as scratch:
        early, image = Path(scratch, "early.cfg"), Path(scratch, "core.img")
        early.write_text("configfile (hd0,msdos1)/grub.cfg\n")
        options = ["-O", "i386-pc", "-d", root.root / PLATFORM, "-p", "(hd0,msdos1)", "-c", early, "-o", image]
        run(root.command("grub-mkimage", *map(str, options), *MODULES), environment=root.environment)
        return image.read_bytes()


def command_line(accelerator: Accelerator, disk: str, *, screen: bool = False) -> str:
    """Return what ``/proc/cmdline`` says in a machine made of a box.

    :param disk: the disk's device, ``/dev/vda``.
    :param screen: also write the console to a screen.
    """
    return f"BOOT_IMAGE=/vmlinuz {_options(accelerator, disk, screen=screen)}"


def _options(accelerator: Accelerator, disk: str, *, screen: bool) -> str:
    shown = "console=tty0 " if screen else ""
    return f"{shown}{kernel_command_line(accelerator)} lab.root={disk}2 lab.bundle={disk}3"


def configuration(disk: str, *, screen: bool) -> str:
    """Return ``grub.cfg``: the kernel with its two initramfs archives, started at once."""
    return f"""\
if smbios --type 11 --get-string 4 --set said; then
  if [ "$said" = "{ACCELERATOR_STRING}tcg" ]; then
    linux /vmlinuz {_options("tcg", disk, screen=screen)}
  else
    linux /vmlinuz {_options("kvm", disk, screen=screen)}
  fi
else
  linux /vmlinuz {_options("kvm", disk, screen=screen)}
fi
initrd /initramfs.cpio /box.cpio
boot
"""
