"""What is seen of Vagrant's machines on the host: command lines, ids, host keys, boxes; with recorded words."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vm.deadline import Deadline
from vm.errors import HangError, MachineError
from vm.paths import Layout
from vm.registry import Process, Registration
from vm.vagrant import domain, firstcopy, hostkey
from vm.vagrant.domain import Placed
from vm.vagrant.provider import variables

QEMU = (Path(__file__).parent / "fixtures" / "vagrant" / "qemu-command-line.txt").read_text().splitlines()
"""The words of a QEMU that libvirt 9.0 had started for a machine of Vagrant's."""

UUID = QEMU[QEMU.index("-uuid") + 1]


def test_a_command_line_says_what_the_machine_is() -> None:
    seen = domain.seen(QEMU)

    assert seen == domain.Seen(
        program=Path("/usr/bin/qemu-system-x86_64"),
        accelerator="tcg",
        cpu_model=QEMU[QEMU.index("-cpu") + 1],
        machine_type="pc-q35-7.2",
        cpus=2,
        memory_mib=1024,
    )
    assert seen.cpu_model.startswith("Haswell-noTSX,pcid=off,tsc-deadline=off,invpcid=off,")


def test_newer_versions_of_libvirt_write_memory_with_a_unit() -> None:
    words = [word if word != "1024" else "size=1048576k" for word in QEMU]

    seen = domain.seen(words)

    assert seen is not None
    assert seen.memory_mib == 1024


def test_a_command_line_that_does_not_say_all_says_nothing() -> None:
    assert domain.seen(["qemu-system-x86_64", "-uuid", UUID]) is None


def test_a_process_is_found_by_the_uuid_whatever_its_name() -> None:
    child = subprocess.Popen(["sh", "-c", "sleep 1000 & wait", "any", "-uuid", UUID], start_new_session=True)
    try:
        until = time.monotonic() + 10
        while (found := domain.find(UUID)) is None:
            assert time.monotonic() < until
        assert found.process.pid == child.pid
        assert domain.find(UUID.replace("c", "d")) is None
    finally:
        subprocess.run(["pkill", "-KILL", "-s", str(child.pid)], check=False)
        child.wait()
    assert domain.find(UUID) is None


def test_the_threads_of_the_guests_cpus_are_told_by_their_names(tmp_path: Path) -> None:
    for thread, name in ((7, "qemu-system-x86"), (9, "CPU 1/TCG"), (11, "CPU 0/TCG"), (12, "worker")):
        task = tmp_path / "7" / "task" / str(thread)
        task.mkdir(parents=True)
        (task / "comm").write_text(f"{name}\n")

    assert domain.cpu_threads(7, tmp_path) == (11, 9)
    assert domain.cpu_threads(8, tmp_path) == ()


@pytest.mark.parametrize("text", ["", "not-a-uuid", "../../etc/passwd"])
def test_an_id_that_is_none_means_no_machine(tmp_path: Path, text: str) -> None:
    path = tmp_path / "machines" / "lab-6.1" / "libvirt" / "id"
    path.parent.mkdir(parents=True)
    path.write_text(text)

    assert domain.machine_id(tmp_path, "lab-6.1") == ""
    assert domain.created(tmp_path) == []


def test_machines_of_other_projects_are_not_the_labs(tmp_path: Path) -> None:
    for name in ("lab-6.1", "default", "lab-6.12", "label"):
        path = tmp_path / "machines" / name / "libvirt" / "id"
        path.parent.mkdir(parents=True)
        path.write_text(UUID)

    assert domain.created(tmp_path) == ["lab-6.1", "lab-6.12"]


def test_the_last_host_key_on_the_console_counts(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_text("KMLAB-HOST-KEY ssh-ed25519 AAAAold\r\n[ 1.0] x\r\nKMLAB-HOST-KEY ssh-ed25519 AAAAnew\r\n")

    assert hostkey.on_console(log) == "ssh-ed25519 AAAAnew"
    assert log.read_bytes()[hostkey.last_boot(log) :].startswith(b"ssh-ed25519 AAAAnew")


def test_a_console_without_a_key_or_that_is_not_there_gives_none_at_once(tmp_path: Path) -> None:
    began = time.monotonic()

    assert hostkey.wait_on_console(tmp_path / "absent.log", Deadline.after(30)) == ""
    assert time.monotonic() - began < 1
    assert hostkey.last_boot(tmp_path / "absent.log") == 0


def test_a_machine_is_asked_for_its_ed25519_key_alone() -> None:
    asked: list[list[str]] = []

    def scan(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "192.168.121.7 ssh-ed25519 AAAAC3Nz\n", "# SSH-2.0-OpenSSH")

    assert hostkey.ask("192.168.121.7", 22, Deadline.after(30), scan) == "ssh-ed25519 AAAAC3Nz"
    assert asked[0][-5:] == ["-t", "ed25519", "-p", "22", "192.168.121.7"]


def test_a_machine_that_does_not_tell_its_key_is_an_error_with_the_last_words() -> None:
    silent = subprocess.CompletedProcess([], 1, "", "getaddrinfo: no route to host")

    with pytest.raises(MachineError, match="does not tell its host key: getaddrinfo: no route"):
        hostkey.ask("192.168.121.7", 22, Deadline.after(30), lambda *_, **__: silent)


# The first machine of a box.


@dataclass
class Pool:
    """libvirt's pool with the copy of one box's disk, and Vagrant's home with the box.

    :param sizes: bytes of the copy each time that it is looked at, the last one for ever; none: there is no copy.
    """

    sizes: list[int]
    deleted: list[str] = field(default_factory=list)

    def virsh(self, *words: str) -> subprocess.CompletedProcess[str]:
        if words[0] == "vol-delete":
            self.deleted.append(words[1])
            self.sizes = []
        if not self.sizes:
            return subprocess.CompletedProcess(words, 1, "", "error: Storage volume not found")
        size = self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0]
        return subprocess.CompletedProcess(words, 0, f"  <physical unit='bytes'>{size}</physical>\n", "")


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A box of 6.1 in Vagrant's home, with a disk of 1000 bytes."""
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path))
    monkeypatch.setattr(firstcopy, "GROWS_SECONDS", 0.01)
    folder = tmp_path / "boxes" / "kmlab-VAGRANTSLASH-6.1" / "1.2.3" / "libvirt"
    folder.mkdir(parents=True)
    (folder / "box.img").write_bytes(b"x" * 1000)
    return folder


def test_a_box_is_there_where_vagrant_has_it_and_libvirt_all_of_its_disk(box: Path) -> None:
    assert firstcopy.is_there("6.1", "1.2.3", Pool([1000]).virsh)
    assert not firstcopy.is_there("6.1", "1.2.3", Pool([]).virsh)
    assert not firstcopy.is_there("6.1", "1.2.3", Pool([999]).virsh)
    shutil.rmtree(box)
    assert not firstcopy.is_there("6.1", "1.2.3", Pool([1000]).virsh)


def test_half_a_disk_that_somebody_left_is_removed_before_vagrant_takes_it_for_a_whole_one(
    box: Path, layout: Layout
) -> None:
    assert box.is_dir()
    pool, said = Pool([400]), list[str]()

    with firstcopy.turn(layout, "6.1", "1.2.3", Deadline.after(30), said.append, pool.virsh):
        assert pool.deleted == ["kmlab-VAGRANTSLASH-6.1_vagrant_box_image_1.2.3_box.img"]
        pool.sizes = [1000]

    assert len(pool.deleted) == 1
    assert "half the disk of box kmlab/6.1 is there" in said[0]


def test_a_disk_that_grows_is_one_that_plain_vagrant_copies_and_is_left_to_it(box: Path, layout: Layout) -> None:
    assert box.is_dir()
    pool = Pool([400, 400, 700, 900, 1000])

    with firstcopy.turn(layout, "6.1", "1.2.3", Deadline.after(30), lambda _: None, pool.virsh):
        pass

    assert pool.deleted == []


def copy(layout: Layout, pool: Pool, size: int, error: BaseException) -> None:
    """Copy a disk as far as ``size`` and fail."""
    with firstcopy.turn(layout, "6.1", "1.2.3", Deadline.after(30), lambda _: None, pool.virsh):
        pool.sizes = [size]
        raise error


def test_whoever_is_interrupted_while_it_copies_leaves_no_half_of_a_disk(box: Path, layout: Layout) -> None:
    assert box.is_dir()
    pool = Pool([])

    with pytest.raises(KeyboardInterrupt):
        copy(layout, pool, 600, KeyboardInterrupt())

    assert len(pool.deleted) == 1


def test_a_whole_disk_outlives_a_start_that_fails(box: Path, layout: Layout) -> None:
    assert box.is_dir()
    pool = Pool([])

    with pytest.raises(HangError):
        copy(layout, pool, 1000, HangError("vagrant up was not over"))

    assert pool.deleted == []


def test_the_first_machine_of_a_box_is_waited_for_and_later_ones_are_not(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [False]
    monkeypatch.setattr(firstcopy, "is_there", lambda *_: there[0])
    said: list[str] = []
    order: list[str] = []

    def second() -> None:
        with firstcopy.turn(layout, "6.1", "1.2.3", Deadline.after(30), said.append):
            order.append("second")

    with firstcopy.turn(layout, "6.1", "1.2.3", Deadline.after(30), said.append):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join()
    there[0] = True
    with firstcopy.turn(layout, "6.1", "1.2.3", Deadline.after(30), said.append):
        second()

    assert order == ["first", "second", "second"]
    assert len(said) == 1


def test_waiting_for_another_machine_ends_with_the_deadline(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firstcopy, "is_there", lambda *_: False)

    with (
        firstcopy.turn(layout, "6.1", "1", Deadline.after(30), lambda _: None),
        pytest.raises(HangError, match=r"waiting for box kmlab/6\.1"),
        firstcopy.turn(layout, "6.1", "1", Deadline.after(0.2), lambda _: None),
    ):
        pass


def test_only_root_is_given_a_console_log_because_libvirt_lets_nobody_else_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = Placed(data=str(tmp_path), machine="lab-6.1", prefix="kmlab-run-1-")
    me = Process(pid=1, started=1)
    registered = Registration(
        schema=1, name="run-1", owner="run", owner_process=me, created=0.0, provider="vagrant", vagrant=placed
    )

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert variables(registered, tmp_path) == {"LAB_PREFIX": "kmlab-run-1-"}

    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert variables(registered, tmp_path)["LAB_CONSOLE"] == str(tmp_path / "console.log")
