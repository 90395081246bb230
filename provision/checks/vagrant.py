"""Checks of the second provider: Vagrant, its plugin, libvirtd, who may use it, network, pool, QEMU, and KVM for it.

Nobody needs it: where it is not installed that is all that is said, and nothing here ever fails.
"""

from __future__ import annotations

import re

from provision.checks.host import Answer, Finding, Host
from vm.qemu.accel import Kvm, KvmReport
from vm.vagrant.trouble import INSTALL, JOIN_GROUP, OTHER_ADDRESSES, START_LIBVIRTD, START_NETWORK
from vm.vagrant.versions import SOUND_QEMU

VIRSH = ("virsh", "-q", "-c", "qemu:///system")
NETWORK = "default"
POOL = "default"

PROBE_SECONDS = 30.0
"""Time that libvirtd gets where a call may make it examine QEMU; 2 to 4 s were measured for one."""

REMEMBERED_SECONDS = 1.0
"""Time that it gets when it is asked again: 0.02 s were measured where it remembers, 2 s and more where it does not."""

NEWER_QEMU = f"install a newer one ({INSTALL} does on Debian 12), or give machines one CPU: LAB_CPUS=1"

START_WITHOUT_KVM = (
    "as root: .venv/bin/python -m tests.vagrant_host up (hides /dev/kvm, which is useless here, from libvirtd)"
)

RESTART_LIBVIRTD = "sudo systemctl restart libvirtd; without systemd, as root: end libvirtd, then libvirtd -d"

MISLED = "/dev/kvm is there but useless, and libvirtd examines QEMU anew at each call: all takes seconds to minutes"

HIDE_KVM = "end libvirtd, then as root: .venv/bin/python -m tests.vagrant_host up (it hides /dev/kvm from libvirtd)"


def findings(host: Host, kvm: KvmReport) -> list[Finding]:
    """Return all that is found of Vagrant; one line where it is not installed.

    :param kvm: what KVM is on this host.
    """
    found = [program(host)]
    if host.which("vagrant") is None or found[0].result != "ok":
        return found
    found += [plugin(host), daemon(host, kvm)]
    if found[-1].result == "ok":
        found += [network(host), pool(host), emulator(host, kvm), probing(host, kvm)]
    return found


def program(host: Host) -> Finding:
    """Vagrant itself."""
    if host.which("vagrant") is None:
        return Finding(check="Vagrant", result="ok", detail="not installed, and not needed")
    answer = host.run(["vagrant", "--version"], 30)
    if answer.status != 0:
        fix = "vagrant --version"
        return Finding(check="Vagrant", result="warn", detail="installed, but it does not run; not needed", fix=fix)
    return Finding(check="Vagrant", result="ok", detail=f"{answer.text} (optional)")


def plugin(host: Host) -> Finding:
    """Its plugin for libvirt."""
    check = "Vagrant plugin"
    answer = host.run(["vagrant", "plugin", "list"], 30)
    lines = [line for line in answer.text.splitlines() if line.startswith("vagrant-libvirt ")]
    if answer.status != 0 or not lines:
        return Finding(check=check, result="warn", detail="vagrant-libvirt is not installed", fix=INSTALL)
    return Finding(check=check, result="ok", detail=lines[0])


def daemon(host: Host, kvm: KvmReport) -> Finding:
    """Whether libvirtd answers, and answers this user."""
    check = "libvirtd"
    start = START_LIBVIRTD if kvm.state is not Kvm.UNUSABLE else START_WITHOUT_KVM
    if host.which("virsh") is None or host.which("libvirtd") is None:
        return Finding(check=check, result="warn", detail="libvirt is not installed", fix=INSTALL)
    answer = _virsh(host, "version", seconds=PROBE_SECONDS)
    if answer.status == 0:
        versions = [line.partition(":")[2].strip() for line in answer.text.splitlines() if "hypervisor" in line]
        return Finding(check=check, result="ok", detail=", ".join(["answers", *versions]))
    if answer.status is None and "timed out" in answer.text:
        return _silent(check, kvm)
    if "Permission denied" in answer.text or "authentication" in answer.text:
        if _in_group(host, "libvirt"):
            fix = "log in again, or: newgrp libvirt"
            detail = f"{host.user} is in the group libvirt, and this session does not know it yet"
            return Finding(check=check, result="warn", detail=detail, fix=fix)
        return Finding(check=check, result="warn", detail=f"{host.user} may not use it", fix=JOIN_GROUP)
    if "Failed to connect socket" in answer.text:
        return Finding(check=check, result="warn", detail="it does not run", fix=start)
    words = answer.text.splitlines()[0] if answer.text else "it said nothing"
    return Finding(check=check, result="warn", detail=f"it does not answer: {words}", fix=start)


def network(host: Host) -> Finding:
    """libvirt's default network, through which machines of the Vagrantfile are reached."""
    check = "libvirt network"
    if NETWORK in _virsh(host, "net-list", "--name").text.split():
        return Finding(check=check, result="ok", detail=f"{NETWORK} is active")
    if NETWORK in _virsh(host, "net-list", "--all", "--name").text.split():
        fix = f"{START_NETWORK}; {OTHER_ADDRESSES}"
        return Finding(check=check, result="warn", detail=f"{NETWORK} is not active", fix=fix)
    fix = f"virsh -c qemu:///system net-define /usr/share/libvirt/networks/default.xml && {START_NETWORK}"
    return Finding(check=check, result="warn", detail=f"there is none named {NETWORK}", fix=fix)


def pool(host: Host) -> Finding:
    """libvirt's default pool, where disks lie."""
    check = "libvirt pool"
    if POOL in _virsh(host, "pool-list", "--name").text.split():
        return Finding(check=check, result="ok", detail=f"{POOL} is active")
    if POOL in _virsh(host, "pool-list", "--all", "--name").text.split():
        fix = f"virsh -c qemu:///system pool-start {POOL}"
        return Finding(check=check, result="warn", detail=f"{POOL} is not active", fix=fix)
    return Finding(check=check, result="ok", detail=f"none named {POOL} yet; the first 'vagrant up' makes it")


def emulator(host: Host, kvm: KvmReport) -> Finding:
    """The QEMU that libvirt starts, which is the host's own and not the locked one."""
    check = "QEMU of libvirt"
    answer = _virsh(host, "version", seconds=PROBE_SECONDS)
    if answer.status is None:
        return _silent(check, kvm)
    version = re.search(r"hypervisor: QEMU (\d+)\.[\d.]+", answer.text)
    if version is None:
        return Finding(check=check, result="warn", detail="libvirt finds none", fix=INSTALL)
    told = version[0].partition(": ")[2]
    if int(version[1]) >= SOUND_QEMU or kvm.state in (Kvm.WORKS, Kvm.UNTRIED):
        return Finding(check=check, result="ok", detail=told)
    detail = f"{told} locks up now and then where it emulates several CPUs"
    return Finding(check=check, result="warn", detail=detail, fix=NEWER_QEMU)


def probing(host: Host, kvm: KvmReport) -> Finding:
    """Whether libvirtd remembers what QEMU can do.

    Where it may open /dev/kvm and QEMU cannot use it, libvirtd ("KVM available but not in my cached capabilities")
    examines QEMU anew at each call.
    """
    check = "libvirt and KVM"
    if kvm.state is not Kvm.UNUSABLE:
        return Finding(check=check, result="ok", detail=f"KVM: {kvm.state}")
    first = _virsh(host, "domcapabilities", "--virttype", "qemu", seconds=PROBE_SECONDS)
    if first.status is not None:
        again = _virsh(host, "domcapabilities", "--virttype", "qemu", seconds=REMEMBERED_SECONDS)
        if again.status is not None:
            return Finding(check=check, result="ok", detail="KVM is useless, and libvirtd is not misled by it")
    return Finding(check=check, result="warn", detail=MISLED, fix=HIDE_KVM)


def _silent(check: str, kvm: KvmReport) -> Finding:
    """A libvirtd that takes calls and does not answer: one that is misled by KVM, where KVM is useless."""
    if kvm.state is Kvm.UNUSABLE:
        return Finding(
            check=check, result="warn", detail=f"it has said nothing for {PROBE_SECONDS:.0f} s: {MISLED}", fix=HIDE_KVM
        )
    detail = f"it runs, and has said nothing for {PROBE_SECONDS:.0f} s"
    return Finding(check=check, result="warn", detail=detail, fix=RESTART_LIBVIRTD)


def _virsh(host: Host, *words: str, seconds: float = 10.0) -> Answer:
    return host.run([*VIRSH, *words], seconds)


def _in_group(host: Host, group: str) -> bool:
    for line in (host.read("/etc/group") or "").splitlines():
        fields = line.split(":")
        if fields[0] == group and len(fields) == 4:
            return host.user in fields[3].split(",")
    return False
