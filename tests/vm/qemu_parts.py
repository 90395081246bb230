"""Parts of a machine for tests that start none, and programs that stand in for QEMU."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vm.model import Kernel
from vm.qemu.command import Hardware
from vm.qemu.parts import Parts

EMULATED = Hardware(cpus=2, memory_mib=1024, accelerator="tcg")
KERNEL = Kernel(
    line="6.1",
    release="6.1.0-56-cloud-amd64",
    version="6.1.192-2",
    suite="bookworm",
    support="default",
    packages=[],
)


@dataclass
class StandIn:
    """Runs a shell script where QEMU would run; ``$@`` are QEMU's arguments."""

    script: str = "exit 1"
    sha256: str = "tools"
    system_qemu: bool = False
    version: str = "10.0.13"
    asked: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def qemu_version(self) -> str:
        self.asked += 1
        return self.version

    def command(self, program: str, *arguments: str | Path) -> list[str]:
        script = self.script if program == "qemu-system-x86_64" else "exit 0"
        return ["sh", "-c", script, program, *(str(argument) for argument in arguments)]


def make_parts(folder: Path, tools: StandIn | None = None) -> Parts:
    """Parts whose files are small and made up."""
    for name in ("vmlinuz", "initramfs.cpio", "base.ext4", "bundle.ext4"):
        (folder / name).write_bytes(name.encode())
    return Parts(
        kernel=KERNEL,
        tools=tools or StandIn(),
        base_image=folder / "base.ext4",
        base_sha256="base",
        vmlinuz=folder / "vmlinuz",
        initramfs=folder / "initramfs.cpio",
        bundle_image=folder / "bundle.ext4",
        bundle_sha256="bundle",
        lock_digest="lock",
    )
