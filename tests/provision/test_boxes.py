"""Giving boxes to Vagrant: what becomes of the old disk in libvirt's pool. Vagrant and virsh are played."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from provision import boxes
from tests.vm.test_boxes import artefact
from vm import lock
from vm.boxes import installed, plans
from vm.boxes.boxes import Box
from vm.boxes.plans import ProviderName
from vm.deadline import Deadline
from vm.errors import SetupError, UsageError
from vm.vagrant import copies
from vm.vagrant.client import InstalledBox

WORDS = Path(__file__).parents[1] / "vm" / "fixtures" / "vagrant"
"""What virsh of libvirt 9.0 said."""
IMAGES = "/var/lib/libvirt/images"
MACHINE = "kmlab-run-30989-6f9548-lab-5.10.img"
VERSION = "20261125.22231.1"


@dataclass
class Virsh:
    """A pool with the copies of three boxes, and the disk of a machine of the first one where it stands.

    :param fails: command → what virsh says on stderr instead of doing it.
    """

    standing: bool = True
    fails: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def __call__(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        said, trouble = "", self.fails.get(command, "")
        if trouble:
            return subprocess.CompletedProcess(command, 1, "", trouble)
        if command == "vol-list":
            lines = (WORDS / "vol_list.txt").read_text().splitlines(keepends=True)
            said = "".join(line for line in lines if self.standing or MACHINE not in line)
        elif command == "vol-dumpxml" and words[0] == f"{IMAGES}/{MACHINE}":
            said = (WORDS / "vol_on_box.xml").read_text()
        elif command == "vol-dumpxml" and "5.10" in words[0]:
            said = (WORDS / "vol_box.xml").read_text()
        elif command == "vol-dumpxml":  # gone since it was listed
            return subprocess.CompletedProcess(command, 1, "", (WORDS / "vol_absent.txt").read_text())
        elif command == "vol-delete":
            self.removed.append(words[0])
        return subprocess.CompletedProcess(command, 0, said, "")


@dataclass
class Vagrant:
    """Has the boxes that it is said to have, and remembers those that it was given."""

    has: list[InstalledBox] = field(default_factory=list)
    given: list[tuple[str, bool]] = field(default_factory=list)

    def boxes(self, _deadline: Deadline) -> Sequence[InstalledBox]:
        return self.has

    def box_add(self, metadata: Path, _provider: str, _deadline: Deadline, *, force: bool) -> None:
        self.given.append((metadata.name, force))


@pytest.fixture
def box_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BoxMaker:
    """A Vagrant home of this test's own."""
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "home"))
    return BoxMaker(tmp_path)


@dataclass
class BoxMaker:
    """Makes boxes, whose disks are hashes, and adds them to Vagrant's home."""

    folder: Path
    vagrant: Vagrant = field(default_factory=Vagrant)

    def __call__(self, line: str, *, provider: ProviderName = "libvirt", has: str = "") -> Box:
        """Return a box with the disk ``new``; Vagrant has it of that version with the disk ``has``, if any."""
        kernel = lock.read().kernels[line]
        folder = self.folder / f"box-{provider}-{line}"
        folder.mkdir()
        box = Box(kernel, provider, VERSION, artefact(folder, {plans.box_file(provider, kernel): "0" * 64}), fresh=True)
        said = json.dumps({"disk_sha256": "new"}).encode()
        with tarfile.open(box.path, "w") as members:
            member = tarfile.TarInfo("info.json")
            member.size = len(said)
            members.addfile(member, io.BytesIO(said))
        if has:
            self.vagrant.has.append(InstalledBox(box.name, provider, VERSION))
            path = installed.folder(box.name, VERSION, provider)
            path.mkdir(parents=True)
            (path / "info.json").write_text(json.dumps({"disk_sha256": has}))
        return box

    def give(self, found: Sequence[Box], virsh: Virsh) -> list[str]:
        """Give boxes to Vagrant; return what became of each."""
        rows = boxes.give(found, self.vagrant, self.catalogue, lambda _: None, virsh)
        return [row.state for row in rows]

    def catalogue(self, box: Box) -> Path:
        path = self.folder / f"{box.kernel.line}.json"
        path.touch()
        return path


def test_a_box_that_replaces_one_of_its_version_takes_the_old_disk_out_of_the_pool(box_of: BoxMaker) -> None:
    virsh = Virsh(standing=False)

    states = box_of.give([box_of("5.10", has="old")], virsh)

    assert states == ["replaced"]
    assert virsh.removed == [f"kmlab-VAGRANTSLASH-5.10_vagrant_box_image_{VERSION}_box.img"]
    assert box_of.vagrant.given == [("5.10.json", True)]


def test_nothing_is_changed_where_a_machine_stands_on_a_disk_that_would_have_to_go(box_of: BoxMaker) -> None:
    virsh = Virsh()

    with pytest.raises(UsageError, match=r"machines stand on its old disk \(kmlab-run-30989-6f9548-lab-5\.10\)") as no:
        box_of.give([box_of("7.3", has="old"), box_of("5.10", has="old")], virsh)

    assert "vagrant destroy lab-5.10" in no.value.hint
    assert "invoke boxes.add --kernel 5.10" in no.value.hint
    assert (virsh.removed, box_of.vagrant.given) == ([], [])
    assert not list(box_of.folder.glob("*.json"))


def test_a_box_that_is_new_or_the_same_leaves_the_pool_alone(box_of: BoxMaker) -> None:
    virsh = Virsh()

    states = box_of.give([box_of("5.10", has="new"), box_of("6.1"), box_of("7.3", provider="virtualbox")], virsh)

    assert states == ["there", "added", "added"]
    assert virsh.removed == []
    assert box_of.vagrant.given == [("6.1.json", False), ("7.3.json", False)]


def test_virtualbox_keeps_no_copy_of_a_boxs_disk(box_of: BoxMaker) -> None:
    virsh = Virsh(fails={"vol-list": "libvirt is not asked"})

    assert box_of.give([box_of("5.10", provider="virtualbox", has="old")], virsh) == ["replaced"]


def test_a_pool_that_vagrant_has_not_made_yet_has_no_disks(box_of: BoxMaker) -> None:
    virsh = Virsh(fails={"vol-list": (WORDS / "pool_absent.txt").read_text()})

    assert box_of.give([box_of("5.10", has="old")], virsh) == ["replaced"]


@pytest.mark.parametrize("command", ["vol-list", "vol-dumpxml", "vol-delete"])
def test_a_box_is_not_replaced_where_libvirt_does_not_answer(box_of: BoxMaker, command: str) -> None:
    virsh = Virsh(standing=False, fails={command: "error: failed to connect to the hypervisor"})

    with pytest.raises(SetupError, match="failed to connect to the hypervisor") as told:
        box_of.give([box_of("5.10", has="old")], virsh)

    assert "invoke doctor" in told.value.hint
    assert box_of.vagrant.given == []


def test_who_stands_on_a_disk_is_read_from_the_pool() -> None:
    volume = f"kmlab-VAGRANTSLASH-5.10_vagrant_box_image_{VERSION}_box.img"

    assert copies.standing_on(volume, Virsh()) == [MACHINE]
    assert copies.standing_on(volume, Virsh(standing=False)) == []
    assert copies.standing_on(volume.replace("5.10", "6.12"), Virsh()) is None
