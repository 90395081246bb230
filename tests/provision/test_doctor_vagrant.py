"""The doctor on Vagrant and libvirt: nobody needs them, each fault has its remedy. virsh's words are recorded ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pytest

from provision.checks import vagrant
from provision.checks.host import Answer, Finding, ThisHost
from vm.qemu.accel import Kvm, KvmReport

USELESS = KvmReport(Kvm.UNUSABLE, "a kernel died under it")
WORKS = KvmReport(Kvm.WORKS, "a kernel booted under it")

VERSION = """Compiled against library: libvirt 9.0.0
Using library: libvirt 9.0.0
Using API: QEMU 9.0.0
Running hypervisor: QEMU 10.0.2
"""


def refused(why: str) -> Answer:
    words = f"error: Failed to connect socket to '/var/run/libvirt/libvirt-sock': {why}"
    return Answer(1, f"error: failed to connect to the hypervisor\n{words}")


SILENT = Answer(None, "Command '['virsh', '-q', '-c', 'qemu:///system', 'version']' timed out after 30 seconds")

SOUND = {
    "vagrant --version": Answer(0, "Vagrant 2.3.4"),
    "vagrant plugin list": Answer(0, "vagrant-libvirt (0.11.2, system)"),
    "version": Answer(0, VERSION),
    "net-list --name": Answer(0, "default"),
    "net-list --all --name": Answer(0, "default"),
    "pool-list --name": Answer(0, "default"),
    "pool-list --all --name": Answer(0, "default"),
    "domcapabilities --virttype qemu": Answer(0, "<domainCapabilities>"),
}


class Made(ThisHost):
    """A host where Vagrant is installed and all is well, unless a test says otherwise."""

    user = "kim"

    def __init__(
        self,
        answers: Mapping[str, Answer] = MappingProxyType({}),
        *,
        missing: Sequence[str] = (),
        group: str = "libvirt:x:115:ann,kim\n",
        slow: bool = False,
    ) -> None:
        self.answers = {**SOUND, **answers}
        self.missing = missing
        self.group = group
        self.slow = slow
        self.asked: list[str] = []

    def which(self, program: str) -> str | None:
        return None if program in self.missing else f"/usr/bin/{program}"

    def read(self, path: str) -> str | None:
        return self.group if path == "/etc/group" else None

    def run(self, command: Sequence[str], seconds: float = 10, given: str = "") -> Answer:
        assert not given
        words = " ".join(command).removeprefix("virsh -q -c qemu:///system ")
        self.asked.append(words)
        if self.slow and words.startswith("domcapabilities") and seconds < 2:  # measured: 1.8 to 2.0 s at each call
            return Answer(None, "timed out")
        return self.answers[words]


def found(host: Made, check: str, kvm: KvmReport = WORKS) -> Finding:
    (finding,) = [finding for finding in vagrant.findings(host, kvm) if finding.check == check]
    return finding


def test_a_host_without_vagrant_is_told_in_one_line_and_asked_nothing() -> None:
    host = Made(missing=["vagrant", "virsh", "libvirtd"])

    assert vagrant.findings(host, USELESS) == [
        Finding(check="Vagrant", result="ok", detail="not installed, and not needed")
    ]
    assert host.asked == []


def test_a_sound_host_has_nothing_to_mend() -> None:
    findings = vagrant.findings(Made(), USELESS)

    assert [finding.check for finding in findings] == [
        "Vagrant",
        "Vagrant plugin",
        "libvirtd",
        "libvirt network",
        "libvirt pool",
        "QEMU of libvirt",
        "libvirt and KVM",
    ]
    assert {finding.result for finding in findings} == {"ok"}
    assert {finding.fix for finding in findings} == {""}
    assert findings[2].detail == "answers, QEMU 10.0.2"


def test_vagrant_that_does_not_run_ends_the_matter() -> None:
    host = Made({"vagrant --version": Answer(1, "gem missing")})

    assert [finding.result for finding in vagrant.findings(host, WORKS)] == ["warn"]


@pytest.mark.parametrize(
    ("asked", "answer", "check", "detail", "fix"),
    [
        (
            "vagrant plugin list",
            Answer(0, "No plugins installed."),
            "Vagrant plugin",
            "not installed",
            "--with-vagrant",
        ),
        ("version", refused("No such file or directory"), "libvirtd", "not run", "libvirtd -d"),
        ("version", refused("Permission denied"), "libvirtd", "may not", "usermod -aG libvirt"),
        ("version", SILENT, "libvirtd", "said nothing for 30 s", "restart libvirtd"),
        ("net-list --name", Answer(0, ""), "libvirt network", "not active", "net-start default"),
        ("net-list --name", Answer(0, ""), "libvirt network", "not active", "net-edit default"),
        ("net-list", Answer(0, ""), "libvirt network", "there is none", "net-define"),
        ("pool-list --name", Answer(0, ""), "libvirt pool", "not active", "pool-start default"),
    ],
)
def test_each_fault_is_a_warning_with_its_remedy(asked: str, answer: Answer, check: str, detail: str, fix: str) -> None:
    answers = {words: answer for words in SOUND if words.startswith(asked)}

    finding = found(Made(answers, group="libvirt:x:115:ann\n"), check)

    assert finding.result == "warn"
    assert detail in finding.detail
    assert fix in finding.fix


def test_where_kvm_is_useless_libvirtd_is_to_be_started_without_it() -> None:
    host = Made({"version": refused("No such file or directory")})

    assert "hides /dev/kvm" in found(host, "libvirtd", USELESS).fix
    assert "hides /dev/kvm" not in found(host, "libvirtd", WORKS).fix


def test_libvirt_that_is_not_installed_beside_vagrant_is_told() -> None:
    assert found(Made(missing=["libvirtd"]), "libvirtd").fix == "./setup.sh --with-vagrant"


def test_a_group_that_holds_from_the_next_login_on_is_told_from_one_that_one_is_not_in() -> None:
    host = Made({"version": refused("Permission denied")})

    assert "log in again" in found(host, "libvirtd").fix
    assert "usermod" not in found(host, "libvirtd").fix


def test_a_pool_that_is_not_there_yet_is_no_fault_because_vagrant_makes_it() -> None:
    host = Made({"pool-list --name": Answer(0, ""), "pool-list --all --name": Answer(0, "")})

    assert found(host, "libvirt pool").result == "ok"


def test_a_qemu_that_locks_up_is_told_where_it_has_to_emulate() -> None:
    old = Made({"version": Answer(0, VERSION.replace("10.0.2", "7.2.22"))})

    finding = found(old, "QEMU of libvirt", USELESS)

    assert (finding.result, finding.detail.split()[:3]) == ("warn", ["QEMU", "7.2.22", "locks"])
    assert "./setup.sh --with-vagrant" in finding.fix
    assert found(old, "QEMU of libvirt", WORKS).result == "ok"
    assert found(Made(), "QEMU of libvirt", USELESS).result == "ok"


def test_a_libvirt_without_qemu_is_told() -> None:
    host = Made({"version": Answer(0, VERSION.partition("Running")[0])})

    assert found(host, "QEMU of libvirt").fix == "./setup.sh --with-vagrant"


def test_a_daemon_that_examines_qemu_at_each_call_is_found_by_asking_twice() -> None:
    trapped = found(Made(slow=True), "libvirt and KVM", USELESS)

    assert trapped.result == "warn"
    assert "examines QEMU anew at each call" in trapped.detail
    assert "tests.vagrant_host up" in trapped.fix
    assert found(Made(), "libvirt and KVM", USELESS).result == "ok"


def test_a_daemon_that_examines_qemu_and_does_not_answer_in_time_is_told_from_one_that_does_not_run() -> None:
    trapped = found(Made({"version": SILENT}), "libvirtd", USELESS)

    assert "examines QEMU anew at each call" in trapped.detail
    assert trapped.fix == vagrant.HIDE_KVM


class Once(Made):
    """A host where libvirtd answers the first ``virsh version`` in time, and no other one."""

    def run(self, command: Sequence[str], seconds: float = 10, given: str = "") -> Answer:
        answer = super().run(command, seconds, given)
        return SILENT if self.asked.count("version") > 1 and self.asked[-1] == "version" else answer


def test_a_qemu_that_libvirtd_examines_for_too_long_is_not_one_that_is_absent() -> None:
    assert found(Once(), "QEMU of libvirt", USELESS).fix == vagrant.HIDE_KVM
    assert "restart" in found(Once(), "QEMU of libvirt", WORKS).fix


def test_a_call_that_may_examine_qemu_gets_the_time_for_it() -> None:
    granted: list[float] = []

    class Slow(Made):
        def run(self, command: Sequence[str], seconds: float = 10, given: str = "") -> Answer:
            if command[-1] == "version":
                granted.append(seconds)
            return super().run(command, seconds, given)

    vagrant.findings(Slow(), USELESS)

    assert set(granted) == {vagrant.PROBE_SECONDS}


def test_where_kvm_works_or_is_absent_there_is_no_trap_and_no_call() -> None:
    for kvm in (WORKS, KvmReport(Kvm.ABSENT, "/dev/kvm is not there")):
        host = Made(slow=True)
        assert found(host, "libvirt and KVM", kvm).result == "ok"
        assert not any(words.startswith("domcapabilities") for words in host.asked)
