"""The kernel options that the lab needs, and what for: checked where a person brings a kernel of their own."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a kernel configuration.

    :param name: without ``CONFIG_``.
    :param need: what the lab needs it for.
    :param module: the module that may carry it instead of the kernel; empty where it must be built in.
    :param required: whether the lab cannot work without; else only the part that ``need`` names is lost.
    """

    name: str
    need: str
    module: str = ""
    required: bool = True


OPTIONS = (
    Option("64BIT", "the userland is x86-64"),
    Option("BLK_DEV_INITRD", "the initramfs that starts the machine"),
    Option("BINFMT_ELF", "running programs"),
    Option("BINFMT_SCRIPT", "running scripts, such as the BCC tools"),
    Option("PCI", "the machine's devices"),
    Option("VIRTIO_PCI", "the machine's devices", "virtio_pci"),
    Option("VIRTIO_BLK", "the disks of base image and kernel bundle", "virtio_blk"),
    Option("VIRTIO_NET", "the network that SSH uses", "virtio_net"),
    Option("EXT4_FS", "the root file system; it is mounted before modules of a disk could be read"),
    Option("INET", "SSH"),
    Option("UNIX", "sshd and the tools"),
    Option("UNIX98_PTYS", "interactive SSH sessions"),
    Option("MULTIUSER", "sshd's users"),
    Option("DEVTMPFS", "device nodes"),
    Option("TMPFS", "the machine's temporary files"),
    Option("PROC_FS", "the init and the tracing tools"),
    Option("SYSFS", "the tracing tools and BTF"),
    Option("FUTEX", "Go's locks, which the labs are about"),
    Option("EPOLL", "Go's network poller"),
    Option("SERIAL_8250_CONSOLE", "the console log, in which panics are found"),
    Option("BPF_SYSCALL", "loading BPF programs"),
    Option("BPF_JIT", "probe cost: interpreted programs slow the workload many times over"),
    Option("BPF_EVENTS", "attaching BPF programs to uprobes, kprobes and tracepoints"),
    Option("DEBUG_INFO_BTF", "CO-RE programs, which read the kernel's types at /sys/kernel/btf/vmlinux"),
    Option("PERF_EVENTS", "attaching probes"),
    Option("UPROBES", "probes on Go functions"),
    Option("UPROBE_EVENTS", "probes on Go functions"),
    Option("KPROBES", "probes on kernel functions"),
    Option("KPROBE_EVENTS", "probes on kernel functions"),
    Option("FTRACE_SYSCALLS", "tracepoints of system calls: futex counts, and the article's own tools"),
    Option("TRACEPOINTS", "scheduler tracepoints"),
    Option("DEBUG_FS", "the BCC tools, which look below /sys/kernel/debug/tracing", required=False),
    Option("FUNCTION_TRACER", "fentry programs, and bpftrace's list of functions", required=False),
    Option("DEBUG_INFO_BTF_MODULES", "CO-RE on the types of modules (from 5.11)", required=False),
    Option("KALLSYMS_ALL", "names of kernel data in stacks", required=False),
    Option("HW_RANDOM_VIRTIO", "entropy at the first start", "virtio_rng", required=False),
    Option("VMGENID", "reseeding by the kernel itself after a restore (from 5.18)", "vmgenid", required=False),
    Option("X86_TSC", "a clock that is read without a system call", required=False),
)
"""Debian's cloud kernels from 5.10 to 7.3 have all that are required."""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """An option that is not as the lab needs it."""

    option: Option
    found: str

    @property
    def text(self) -> str:
        """What is missing, how it was found, and what it is needed for."""
        return f"CONFIG_{self.option.name} ({self.found}): {self.option.need}"


def parse(text: str) -> dict[str, str]:
    """Return the options that a ``.config`` sets, without ``CONFIG_``; what is not set is absent."""
    return dict(re.findall(r"^CONFIG_(\w+)=(.*)$", text, re.MULTILINE))


def shortfalls(config: Mapping[str, str], modules: Collection[str]) -> list[Shortfall]:
    """Return what a kernel lacks.

    :param modules: names of the modules that come with it, with underscores.
    """
    found = []
    for option in OPTIONS:
        value = config.get(option.name, "n")
        if value == "y":
            continue
        if value != "m":
            found.append(Shortfall(option, "not set"))
        elif not option.module:
            found.append(Shortfall(option, "a module, must be built in"))
        elif option.module not in modules:
            found.append(Shortfall(option, f"a module, but {option.module} is not among the modules"))
    return found
