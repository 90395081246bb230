"""Boxes as far as they need no build: the disk's layout, GRUB's configuration, versions, catalogues."""

from __future__ import annotations

import gzip
import hashlib
import inspect
import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from tasks import kernels_lock
from vm import lock
from vm.artefacts import Artefact, Seal
from vm.boxes import build, catalog, disk, grub, installed, plans
from vm.boxes.boxes import Box
from vm.boxes.disk import Partition
from vm.errors import BuildError, UsageError
from vm.initramfs import GUEST
from vm.model import ArtefactHash, Lock
from vm.paths import Layout
from vm.qemu.command import kernel_command_line
from vm.tools import ToolsRoot

FIXTURES = Path(__file__).parent / "fixtures"
MEBI = 1 << 20


def artefact(path: Path, files: dict[str, str]) -> Artefact:
    """A sealed artefact as a box's is."""
    nothing = ArtefactHash(sha256="0" * 64, size=0, parts={})
    seal = Seal(
        schema=1,
        kind="box",
        name=path.name,
        inputs="",
        artefact=nothing,
        files=files,
        stamps={},
        built=0.0,
        seconds=0.0,
    )
    return Artefact(path, seal)


def test_partitions_follow_one_another_on_whole_mebibytes() -> None:
    found = disk.layout([3 * MEBI, MEBI + 512, 5])

    assert found == [Partition(MEBI, 3 * MEBI), Partition(4 * MEBI, MEBI + 512), Partition(6 * MEBI, 5)]


def test_the_boot_sector_says_where_partitions_lie_and_which_one_is_booted() -> None:
    sector = disk.boot_sector(b"\x90" * grub.BOOT_CODE, [Partition(MEBI, 2 * MEBI), Partition(3 * MEBI, MEBI)], "6.1")

    assert len(sector) == 512
    assert sector[:440] == b"\x90" * 440
    assert sector[510:] == b"\x55\xaa"
    rows = [struct.unpack_from("<B3xB3xII", sector, 446 + 16 * index) for index in range(4)]
    assert rows == [(0x80, 0x83, 2048, 4096), (0, 0x83, 6144, 2048), (0, 0, 0, 0), (0, 0, 0, 0)]
    # A disk's signature is its own, and the same whoever builds it.
    assert sector[440:444] == hashlib.sha256(b"6.1").digest()[:4]


def test_a_disk_holds_what_it_is_made_of_and_keeps_holes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"a" * MEBI)
    with second.open("wb") as sparse:
        sparse.truncate(64 * MEBI)
        sparse.seek(48 * MEBI)
        sparse.write(b"b" * 4096)

    disk.write(tmp_path / "raw", b"c" * grub.BOOT_CODE, b"core", [first, second], "6.1")

    raw = (tmp_path / "raw").read_bytes()
    assert raw[512:516] == b"core"
    assert raw[MEBI : 2 * MEBI] == first.read_bytes()
    assert raw[2 * MEBI :] == second.read_bytes()
    assert (tmp_path / "raw").stat().st_blocks * 512 < 4 * MEBI


def test_grub_that_would_reach_into_the_first_partition_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"a" * MEBI)

    with pytest.raises(BuildError, match="does not fit before the first partition"):
        disk.write(tmp_path / "raw", b"", b"x" * MEBI, [tmp_path / "part"], "6.1")


@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
def test_a_box_starts_its_kernel_with_the_options_that_the_labs_own_machines_have(accelerator: str) -> None:
    said = grub.command_line(accelerator, "/dev/vda")  # type: ignore[arg-type]

    assert kernel_command_line(accelerator) in said  # type: ignore[arg-type]
    assert said.endswith(" lab.root=/dev/vda2 lab.bundle=/dev/vda3")
    assert said.removeprefix("BOOT_IMAGE=") in grub.configuration("/dev/vda", screen=False)


def test_the_vagrantfile_says_what_runs_the_cpus_in_the_words_that_grub_reads() -> None:
    assert f'"type=11,value={grub.ACCELERATOR_STRING}#{{accelerator}}"' in Path("Vagrantfile").read_text()
    assert f'"$said" = "{grub.ACCELERATOR_STRING}tcg"' in grub.configuration("/dev/vda", screen=False)


def test_init_takes_over_every_file_that_a_box_brings() -> None:
    source = (GUEST / "init.c").read_text()

    for name in (*build.BOX_FILES, "hostname"):
        assert f'keep("/box/{name}", "/root" BOX "/{name}"' in source
    assert {path.name for path in (GUEST / "box").iterdir()} == set(build.BOX_FILES)


def test_a_version_is_the_date_of_the_newest_index_and_the_recipe() -> None:
    locked = lock.read()
    newest = max(suite.date for suite in locked.suites.values())

    day, time, recipe = plans.version(locked).split(".")

    assert newest.startswith(f"{day[:4]}-{day[4:6]}-{day[6:]}T")
    assert time == str(int(newest[11:19].replace(":", "")))
    assert int(recipe) == plans.RECIPE


RECORDED = json.loads((FIXTURES / "box-versions.json").read_text())
"""Version → hash of each box that a lock has had under it. Lines are added and never changed: somebody has that box."""


def renamed(known: Mapping[str, str], locked: Lock) -> list[str]:
    """Return the boxes of a lock that are known with other bytes."""
    return [name for name, box in locked.box_artefacts.items() if known.get(name, box.sha256) != box.sha256]


def test_a_version_of_a_box_has_the_same_bytes_for_ever() -> None:
    locked = lock.read()
    version, hashes = plans.version(locked), {name: box.sha256 for name, box in locked.box_artefacts.items()}
    known = RECORDED.get(version, {})

    changed = renamed(known, locked)
    assert not changed, f"raise vm/boxes/recipe, and build with --record: {version} is recorded: {changed}"
    missing = json.dumps({version: hashes}, indent=2, sort_keys=True)
    assert known == hashes, f"add to tests/vm/fixtures/box-versions.json: {missing}"


def test_other_bytes_under_a_recorded_version_are_seen() -> None:
    locked = lock.read()
    same = locked.box_artefacts["libvirt:6.1"].sha256

    assert renamed({"libvirt:6.1": "0" * 64, "virtualbox:6.1": "1" * 64}, locked) == ["libvirt:6.1", "virtualbox:6.1"]
    assert renamed({"libvirt:6.1": same}, locked) == []
    # What the recipe was raised for: the first one had given other bytes.
    assert "libvirt:6.1" in renamed(RECORDED["20261125.22231.1"], locked)


def test_a_root_without_grubs_boot_record_names_a_command_that_there_is(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"has no boot\.img") as caught:
        grub.boot_record(ToolsRoot(tmp_path, ""))

    task, option, name = caught.value.hint.removeprefix("invoke ").split()
    assert (task, option) == ("kernels.lock", "--line")
    assert name in lock.ROOTS
    assert option[2:] in inspect.signature(kernels_lock.body).parameters


def test_a_kernel_of_ones_own_has_no_box() -> None:
    locked = lock.read()
    own = msgspec.structs.replace(locked.kernels["6.1"], release="6.1.99-mine")

    with pytest.raises(UsageError, match="there is no box of 6") as caught:
        plans.plan(locked, own, "libvirt")
    assert "invoke kernels" in caught.value.hint


def test_the_lock_has_a_hash_of_every_box() -> None:
    locked = lock.read()

    assert set(locked.box_artefacts) == {f"{provider}:{line}" for provider in plans.FORMS for line in locked.kernels}


def test_what_shapes_a_box_shapes_its_key() -> None:
    locked = lock.read()
    later = {name: msgspec.structs.replace(suite, date="2099-01-01T00:00:00Z") for name, suite in locked.suites.items()}

    names = {
        plans.plan(locked, locked.kernels["6.1"], "libvirt").name,
        plans.plan(locked, locked.kernels["6.1"], "virtualbox").name,
        plans.plan(locked, locked.kernels["7.3"], "libvirt").name,
        plans.plan(msgspec.structs.replace(locked, suites=later), locked.kernels["6.1"], "libvirt").name,
    }

    assert len(names) == 4


@pytest.mark.parametrize("digits", [8, 7, 6])
def test_a_content_id_follows_from_the_content_however_many_digits_qemu_img_drew(digits: int, tmp_path: Path) -> None:
    """Three disks of the same content; qemu-img writes the id that it draws without leading zeros."""
    recorded = gzip.decompress((FIXTURES / "vmdk" / f"cid-{digits}.vmdk.gz").read_bytes())
    path = tmp_path / "disk.vmdk"
    path.write_bytes(recorded)
    build.name_content(path)

    named = path.read_bytes()
    descriptor = named[512 : 21 * 512].rstrip(b"\0").decode("ascii").splitlines()
    assert descriptor[2:4] == ["CID=557fe2d5", "parentCID=ffffffff"]
    assert descriptor[4:] == recorded[512 : 21 * 512].partition(b"\0")[0].decode("ascii").splitlines()[4:]
    assert (named[:512], named[21 * 512 :]) == (recorded[:512], recorded[21 * 512 :])


def test_another_content_has_another_id(tmp_path: Path) -> None:
    recorded = gzip.decompress((FIXTURES / "vmdk" / "cid-8.vmdk.gz").read_bytes())
    path = tmp_path / "disk.vmdk"
    path.write_bytes(recorded[:-1] + b"x")
    build.name_content(path)

    assert b"\nCID=557fe2d5\n" not in path.read_bytes()
    assert re.search(rb"\nCID=[0-9a-f]{8}\n", path.read_bytes())


def test_a_file_without_a_descriptor_gets_no_content_id(tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(b"KDMV".ljust(1024, b"\0"))
    with pytest.raises(BuildError, match="no descriptor"):
        build.name_content(tmp_path / "none")


def made_up(locked: Lock, tmp_path: Path) -> list[Box]:
    """Both boxes of 6.1, as if they had been built."""
    return [
        Box(
            locked.kernels["6.1"], provider, plans.version(locked),
            artefact(tmp_path / provider, {plans.box_file(provider, locked.kernels["6.1"]): f"{index:064x}"}),
            fresh=True,
        )
        for index, provider in enumerate(plans.FORMS)
    ]  # fmt: skip


def test_a_catalogue_names_version_place_and_checksum_of_each_box(layout: Layout, tmp_path: Path) -> None:
    locked = lock.read()

    written = catalog.write(layout, made_up(locked, tmp_path))

    assert written == layout.boxes / "6.1.json"
    said = json.loads(written.read_text())
    assert said["name"] == "kmlab/6.1"
    [only] = said["versions"]
    assert only["version"] == plans.version(locked)
    assert [each["name"] for each in only["providers"]] == ["libvirt", "virtualbox"]
    assert only["providers"][1]["checksum"] == f"{1:064x}"
    assert only["providers"][0]["url"] == f"file://{tmp_path}/libvirt/kmlab-6.1-libvirt.box"


def test_a_box_that_vagrant_has_is_known_by_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = lock.read()
    box = made_up(locked, tmp_path)[0]
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "home"))
    assert installed.disk_installed(box) == ""

    folder = tmp_path / "home" / "boxes" / "kmlab-VAGRANTSLASH-6.1" / box.version / "libvirt"
    folder.mkdir(parents=True)
    (folder / "info.json").write_text('{"disk_sha256": "abc"}')

    assert installed.disk_installed(box) == "abc"
