"""From what Vagrant 2.3.4 with vagrant-libvirt 0.11.2 really said to the error of the lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from vm.errors import DiskFullError, LabError, MachineLockedError, SetupError, VagrantError
from vm.vagrant import trouble

RECORDED = Path(__file__).parent / "fixtures" / "vagrant"
LOG = Path("/home/kim/vagrant.log")

CASES: list[tuple[str, type[LabError], str, str]] = [
    ("plugin_absent", SetupError, "vagrant-libvirt is not installed", "./setup.sh --with-vagrant"),
    (
        "libvirtd_absent",
        SetupError,
        "libvirtd does not run: nobody answers at /var/run/libvirt/libvirt-sock",
        "libvirtd",
    ),
    ("no_permission", SetupError, "libvirtd may not be used by you", "sudo usermod -aG libvirt $USER"),
    ("network_inactive", SetupError, "libvirt's network default does not run", "net-edit default"),
    ("box_absent", SetupError, "the box kmlab/tiny is not added", "invoke boxes.build"),
    ("kvm_refused", SetupError, "KVM was refused", "LAB_ACCEL=tcg"),
    ("disk_full_download", DiskFullError, "no space left", "vagrant box prune"),
    ("disk_full_unpack", DiskFullError, "no space left", "vagrant box prune"),
    ("disk_full_pool", DiskFullError, "no space left", "vol-list default"),
    ("lock_held", MachineLockedError, "another Vagrant process is at work on the machine", "Wait"),
    ("box_exists", VagrantError, "that version of the box is added already", "boxes.add"),
    ("not_ready_for_ssh", VagrantError, "not created, does not run, or has no address", "vagrant status"),
    ("snapshot_absent", VagrantError, "there is no snapshot nope", "vagrant snapshot list"),
    ("snapshot_exists", VagrantError, "a snapshot of that name is there already", "another name"),
    ("restore_not_created", VagrantError, "the machine is not created", "vagrant status"),
    ("no_vagrantfile", VagrantError, "there is no Vagrantfile", "git checkout Vagrantfile"),
]


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


@pytest.mark.parametrize(("name", "kind", "message", "hint"), CASES, ids=[case[0] for case in CASES])
def test_trouble_is_told_with_its_way_out(name: str, kind: type[LabError], message: str, hint: str) -> None:
    error = trouble.error(["up", "lab-6.1", "--no-provision"], 1, recorded(name), LOG)

    assert type(error) is kind
    assert error.message.startswith("vagrant up lab-6.1: ")
    assert message in error.message
    assert hint in error.hint
    assert str(LOG) in error.hint


def test_the_same_trouble_is_known_in_machine_readable_words() -> None:
    text = "1795703224,,error-exit,VagrantPlugins::X,The box 'kmlab/6.1' could not be found or\\ncould not be accessed"

    assert "the box kmlab/6.1 is not added" in trouble.error(["status"], 1, text, LOG).message


def test_unknown_trouble_is_told_in_vagrants_last_words() -> None:
    text = "\n".join(f"line {number}" for number in range(30))

    error = trouble.error(["halt", "lab-6.1"], 1, text, LOG)

    assert isinstance(error, VagrantError)
    assert error.message.endswith("line 28\nline 29")
    assert "line 10\n" not in error.message


def test_a_signal_is_told_as_one_and_silence_as_silence() -> None:
    assert trouble.error(["up", "a"], -9, "", LOG).message == "vagrant up a was ended by signal 9: it said nothing"


def test_machine_readable_lines_are_undone_and_said_once() -> None:
    text = recorded("no_vagrantfile")
    words = "No machine%!(VAGRANT_COMMA) none\\nat all"
    lines = f"1,,ui,error,{words}\n1,,error-exit,Vagrant::Errors::E,{words}"

    assert trouble.plain(lines) == "No machine, none\nat all"
    assert trouble.plain(text) == text.strip()


def test_the_settings_that_vagrant_lists_are_no_last_words() -> None:
    said = trouble.last_words(recorded("kvm_refused"))

    assert " -- Memory" not in said
    assert said.endswith("does not support virt type 'kvm'")
