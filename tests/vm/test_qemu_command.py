"""QEMU's command line: pure, complete, and part of a saved state's key."""

import json
from dataclasses import replace
from pathlib import Path

from vm.qemu.command import Channels, Files, Hardware, kernel_command_line, machine_arguments, trial_arguments

FILES = Files(Path("/a/vmlinuz"), Path("/m/initrd"), Path("/a/base.ext4"), Path("/a/bundle.ext4"), "overlay.qcow2")
EMULATED = Hardware(cpus=2, memory_mib=1024, accelerator="tcg")
CHANNELS = Channels(qmp=7, control=8)


def value(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def test_the_whole_command_line_under_emulation() -> None:
    overlay = (
        '{"driver":"qcow2","node-name":"root","file":{"driver":"file","filename":"overlay.qcow2"},"backing":'
        '{"driver":"raw","read-only":true,"file":{"driver":"file","filename":"/a/base.ext4","locking":"off",'
        '"read-only":true}}}'
    )
    bundle = (
        '{"driver":"raw","read-only":true,"file":{"driver":"file","filename":"/a/bundle.ext4","locking":"off",'
        '"read-only":true},"node-name":"bundle"}'
    )

    arguments = machine_arguments(EMULATED, FILES, CHANNELS, name="mine", port=2222)

    assert arguments == [
        *("-name", "kmlab-mine", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-accel", "tcg,thread=multi"),
        *("-cpu", "Haswell-v2,-pcid,-tsc-deadline,-invpcid", "-smp", "2", "-m", "1024"),
        *("-kernel", "/a/vmlinuz", "-initrd", "/m/initrd"),
        *("-append", "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable clocksource=tsc no_timer_check"),
        *("-blockdev", overlay, "-device", "virtio-blk-pci,drive=root"),
        *("-blockdev", bundle, "-device", "virtio-blk-pci,drive=bundle"),
        *("-netdev", "user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:2222-10.0.2.15:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"),
        *("-chardev", "file,id=console,path=console.log,append=on", "-serial", "chardev:console"),
        *("-chardev", "socket,id=control,fd=8,server=on,wait=off", "-serial", "chardev:control"),
        *("-chardev", "socket,id=qmp,fd=7,server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
    ]


def test_under_kvm_the_clock_is_left_to_kvm() -> None:
    arguments = machine_arguments(replace(EMULATED, accelerator="kvm"), FILES, CHANNELS, name="mine")

    assert value(arguments, "-accel") == "kvm"
    assert value(arguments, "-cpu") == "host"
    assert "tsc" not in kernel_command_line("kvm")


def test_a_virtual_clock_is_one_thread_that_counts_and_nothing_else_differs() -> None:
    usual = machine_arguments(EMULATED, FILES, CHANNELS, name="mine")
    counted = machine_arguments(replace(EMULATED, counted=True), FILES, CHANNELS, name="mine")

    assert value(counted, "-accel") == "tcg,thread=single"
    assert value(counted, "-icount") == "shift=1,sleep=off"
    assert value(counted, "-smp") == "2"
    where = counted.index("-icount")
    assert [*counted[: where - 1], "tcg,thread=multi", *counted[where + 2 :]] == usual
    assert replace(EMULATED, counted=True).clock == "virtual"


def test_a_restored_machine_differs_only_in_its_disk_chain_and_in_waiting() -> None:
    cold = machine_arguments(EMULATED, FILES, CHANNELS, name="mine")
    warm = machine_arguments(
        EMULATED, replace(FILES, saved_disk=Path("/w/disk.qcow2")), CHANNELS, name="mine", incoming=True
    )

    assert warm[-2:] == ["-incoming", "defer"]
    changed = [(a, b) for a, b in zip(cold, warm[:-2], strict=True) if a != b]
    assert len(changed) == 1
    chain = json.loads(changed[0][1])
    assert chain["backing"]["file"]["filename"] == "/w/disk.qcow2"
    assert chain["backing"]["read-only"] is True
    assert chain["backing"]["backing"]["file"]["filename"] == "/a/base.ext4"


def test_a_path_with_a_comma_stays_one_path() -> None:
    arguments = machine_arguments(EMULATED, replace(FILES, base_image=Path("/a,b/base.ext4")), CHANNELS, name="mine")

    assert json.loads(value(arguments, "-blockdev"))["backing"]["file"]["filename"] == "/a,b/base.ext4"


def test_only_the_loopback_leads_in_and_nothing_leads_out() -> None:
    arguments = machine_arguments(EMULATED, FILES, CHANNELS, name="mine")

    network = value(arguments, "-netdev")
    assert "restrict=on" in network
    assert "hostfwd=tcp:127.0.0.1:0-" in network
    assert arguments.count("-netdev") == 1


def test_the_trial_touches_neither_disk_nor_network() -> None:
    arguments = trial_arguments(Path("/a/vmlinuz"), Path("/a/initramfs.cpio"), "console.log")

    assert value(arguments, "-append").endswith(" lab.trial")
    assert value(arguments, "-accel") == "kvm"
    assert "-netdev" not in arguments
    assert "-blockdev" not in arguments
