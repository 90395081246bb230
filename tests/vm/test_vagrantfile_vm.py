"""The Vagrantfile as a person of Vagrant's uses it, with ``vagrant`` alone; and boxes that are given to Vagrant."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.vagrant_host import NETWORK, VagrantHost, inventory, network_addresses, virsh
from vm import lock
from vm.boxes import installed, plans
from vm.errors import UsageError
from vm.initramfs import GUEST
from vm.paths import REPOSITORY
from vm.vagrant import copies

pytestmark = [pytest.mark.vagrant, pytest.mark.build]

INVOKE = str(Path(sys.executable).parent / "invoke")
PREFIX = "kmlab-plain-"
SECONDS = 600
PROJECT = f"""
Vagrant.configure("2") do |config|
  config.vm.box = "kmlab/7.3"
  config.LINE
  config.vm.provider :libvirt do |libvirt|
    libvirt.default_prefix = "{PREFIX}"
    libvirt.driver = "qemu"
    libvirt.cpu_mode = "custom"
    libvirt.cpu_model = "Haswell-noTSX"
    libvirt.management_network_name = "default"
    libvirt.management_network_address = "ADDRESSES"
    libvirt.management_network_keep = true
  end
end
"""
"""All that a project of one's own has to say of a box on a host where CPUs are emulated; and libvirt's own network, so
that vagrant-libvirt makes none, or takes one away that somebody has."""


OTHER_NETWORK = """<network connections='1'>
  <name>default</name>
  <uuid>6f0c3c3e-3d1c-4d5c-a8e1-0c9d0f5f8f5e</uuid>
  <forward mode='nat'>
    <nat>
      <port start='1024' end='65535'/>
    </nat>
  </forward>
  <bridge name='virbr0' stp='on' delay='0'/>
  <mac address='52:54:00:0c:3b:8a'/>
  <ip address='192.168.77.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.77.2' end='192.168.77.254'/>
    </dhcp>
  </ip>
</network>
"""
"""What virsh net-dumpxml says of a network default that was given other addresses."""


@dataclass
class Person:
    """Somebody with a shell in this checkout, and a VAGRANT_HOME and data folder of their own."""

    variables: dict[str, str] = field(repr=False)

    def run(self, *words: str, cwd: Path = REPOSITORY, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=cwd, env={**self.variables, **more}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=SECONDS, check=False,
        )  # fmt: skip

    def vagrant(self, *words: str, cwd: Path = REPOSITORY, **more: str) -> str:
        done = self.run("vagrant", *words, cwd=cwd, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def in_machine(self, command: str) -> str:
        return self.vagrant("ssh", "lab-7.3", "-c", command)

    def add(self, *words: str) -> dict[str, str]:
        done = self.run(INVOKE, "boxes.add", "--json", *words)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)
        assert isinstance(row, dict)
        return row


@pytest.fixture(scope="module")
def person(vagrant_host: VagrantHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    folder = tmp_path_factory.mktemp("person")
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LAB_")},
        "VAGRANT_HOME": str(vagrant_host.home),
        "VAGRANT_DOTFILE_PATH": str(folder / "dot-vagrant"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "LAB_PREFIX": PREFIX,
    }
    before = inventory()
    made = Person(variables)
    yield made
    made.run("vagrant", "destroy", "-f", "lab-7.3")
    after = inventory()
    assert not [name for name in after.domains if name.startswith(PREFIX)]
    assert (after.networks, after.active, after.bridges) == (before.networks, before.active, before.bridges)


def test_there_is_a_machine_for_each_locked_kernel_and_no_list_of_them(person: Person) -> None:
    said = person.vagrant("status", "--machine-readable")

    states = {line.split(",")[1]: line.split(",")[3] for line in said.splitlines() if line.split(",")[2] == "state"}
    assert states == {f"lab-{line}": "not_created" for line in lock.read().kernels}
    assert not [line for line in lock.read().kernels if f'"{line}"' in (REPOSITORY / "Vagrantfile").read_text()]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("LAB_MEMORY", "much", "LAB_MEMORY=much is not a number from 256 to 65536"),
        ("LAB_MEMORY", "16", "LAB_MEMORY=16 is not a number from 256 to 65536"),
        ("LAB_CPUS", "0", "LAB_CPUS=0 is not a number from 1 to 64"),
        ("LAB_ACCEL", "warp", "LAB_ACCEL=warp is none of auto, kvm, tcg"),
    ],
)
def test_a_setting_that_means_nothing_is_told(person: Person, name: str, value: str, says: str) -> None:
    done = person.run("vagrant", "status", **{name: value})

    assert done.returncode != 0
    assert says in done.stderr


@pytest.mark.parametrize(
    ("virsh", "addresses"),
    [
        (f"cat <<'XML'\n{OTHER_NETWORK}XML\n", "192.168.77.1/255.255.255.0"),
        ("echo 'error: failed to connect to the hypervisor' >&2; exit 1", "192.168.122.0/24"),
    ],
    ids=["given-others", "no-libvirtd"],
)
def test_machines_are_where_the_default_network_is(person: Person, tmp_path: Path, virsh: str, addresses: str) -> None:
    (tmp_path / "virsh").write_text(f"#!/bin/sh\n{virsh}\n")
    (tmp_path / "virsh").chmod(0o755)
    program = 'module Vagrant; def self.configure(_); end; end; load "./Vagrantfile"; puts lab_network'

    done = person.run("ruby", "-e", program, PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert (done.stdout, done.stderr) == (f"{addresses}\n", "")


def test_a_machine_without_a_box_says_what_builds_one(person: Person, tmp_path: Path) -> None:
    done = person.run("vagrant", "up", "lab-7.2", "--provider", "libvirt", KMLAB_CACHE=str(tmp_path))

    assert done.returncode != 0
    assert "there is no box of 7.2 yet: invoke boxes.build --kernel 7.2" in done.stdout + done.stderr
    assert "lab-7.2" not in " ".join(inventory().domains)


def test_plain_vagrant_brings_a_kernel_up_and_replaces_the_well_known_key(person: Person) -> None:
    built = person.run(INVOKE, "boxes.build", "--kernel", "7.3")
    assert built.returncode == 0, built.stderr

    person.vagrant("up", "lab-7.3", "--provider", "libvirt", LAB_CPUS="1", LAB_MEMORY="768", LAB_ACCEL="tcg")

    assert person.in_machine("uname -r") == lock.read().kernels["7.3"].release
    assert person.in_machine("nproc") == "1"
    assert 600_000 < int(person.in_machine("grep MemTotal /proc/meminfo").split()[1]) < 768 * 1024
    known = (GUEST / "box" / "authorized_keys").read_text().split()[1]
    keys = person.in_machine("cat /root/.ssh/authorized_keys")
    assert keys.startswith("ssh-")
    assert known not in keys
    assert f"{PREFIX}lab-7.3" in inventory().domains
    (interface,) = virsh("domiflist", f"{PREFIX}lab-7.3").stdout.strip().splitlines()
    assert interface.split()[1:3] == ["network", NETWORK], "the one that doctor and setup.sh see to"


def test_a_box_whose_disk_a_machine_stands_on_is_not_replaced(person: Person, vagrant_host: VagrantHost) -> None:
    version = plans.version(lock.read())
    info = vagrant_host.home / "boxes" / "kmlab-VAGRANTSLASH-7.3" / version / "libvirt" / "info.json"
    real = info.read_text()
    info.write_text(real.replace('"disk_sha256": "', '"disk_sha256": "other'))
    try:
        done = person.run(INVOKE, "boxes.add", "--kernel", "7.3")
    finally:
        info.write_text(real)

    assert done.returncode == UsageError.exit_code
    assert f"{PREFIX}lab-7.3" in done.stderr
    assert "vagrant destroy lab-7.3" in done.stderr
    assert person.in_machine("true") == ""


def test_what_is_on_the_disk_stays_over_halt_and_up_and_goes_with_destroy(person: Person) -> None:
    person.in_machine("echo kept > /root/kept")

    person.vagrant("halt", "lab-7.3")
    person.vagrant("up", "lab-7.3", LAB_CPUS="1", LAB_MEMORY="768", LAB_ACCEL="tcg")
    assert person.in_machine("cat /root/kept") == "kept"
    assert "EXT4-fs warning" not in person.in_machine("dmesg"), "the file system was left clean"

    person.vagrant("destroy", "-f", "lab-7.3")
    assert f"{PREFIX}lab-7.3" not in inventory().domains


def test_the_line_that_shares_a_folder_works_in_a_project_of_ones_own(person: Person, tmp_path: Path) -> None:
    line = re.search(r"^#   lab\.(vm\.synced_folder .*)$", (REPOSITORY / "Vagrantfile").read_text(), re.MULTILINE)
    assert line is not None
    (tmp_path / "Vagrantfile").write_text(PROJECT.replace("LINE", line[1]).replace("ADDRESSES", network_addresses()))
    (tmp_path / "mine.txt").write_text("shared")
    data = {"VAGRANT_DOTFILE_PATH": str(tmp_path / ".vagrant")}
    try:
        person.vagrant("up", "--provider", "libvirt", cwd=tmp_path, **data)
        assert person.vagrant("ssh", "-c", "cat /vagrant/mine.txt", cwd=tmp_path, **data) == "shared"
    finally:
        person.vagrant("destroy", "-f", cwd=tmp_path, **data)


def test_boxes_are_added_once_and_replaced_where_they_have_other_bytes(person: Person, tmp_path: Path) -> None:
    home = {"VAGRANT_HOME": str(tmp_path / "home")}
    fresh = Person({**person.variables, **home})
    version = plans.version(lock.read())

    added, again = fresh.add("--kernel", "7.3"), fresh.add("--kernel", "7.3")
    info = tmp_path / "home" / "boxes" / "kmlab-VAGRANTSLASH-7.3" / version / "libvirt" / "info.json"
    real = info.read_text()
    info.write_text(real.replace('"disk_sha256": "', '"disk_sha256": "other'))
    replaced = fresh.add("--kernel", "7.3")

    assert (added["state"], again["state"], replaced["state"]) == ("added", "there", "replaced")
    assert fresh.vagrant("box", "list").split() == ["kmlab/7.3", "(libvirt,", f"{version})"]
    assert info.read_text() == real
    assert copies.standing_on(installed.volume("kmlab/7.3", version)) is None, "the old disk is gone from the pool"


def test_a_newer_box_is_an_update_in_place(person: Person, tmp_path: Path) -> None:
    fresh = Person({**person.variables, "VAGRANT_HOME": str(tmp_path / "home")})
    fresh.add("--kernel", "7.3")
    boxes = tmp_path / "home" / "boxes" / "kmlab-VAGRANTSLASH-7.3"
    version = plans.version(lock.read())
    (boxes / version).rename(boxes / "20200101.0.1")  # as if it had been added long ago

    assert fresh.add("--kernel", "7.3")["state"] == "added"
    assert sorted(path.name for path in boxes.iterdir() if path.is_dir()) == ["20200101.0.1", version]
