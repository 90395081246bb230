"""Which machine and which kernel a person means, decided on registrations that no QEMU stands behind."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from go_labs import spec
from go_labs.spec import LabFolder
from provision import jobs
from provision.house import House
from vm import lock as locks
from vm.errors import UsageError
from vm.machine import MachineFacts, ProviderName
from vm.paths import Layout
from vm.registry import Process, Registry
from vm.vagrant.domain import Placed


@pytest.fixture
def house(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """A lab whose folders are this test's own, Vagrant's too, and whose words nobody hears."""
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "dot-vagrant"))
    return House(layout, say=lambda _: None)


def register(
    house: House, name: str, line: str, *, alive: bool = True, provider: ProviderName = "qemu", data: str = ""
) -> None:
    """Register a machine of a person; its process is this one, so that it lives."""
    registry = Registry(house.layout)
    made = registry.create(name, "person", provider)
    facts = MachineFacts(
        provider=provider,
        kernel=house.lock.kernels[line],
        qemu_version="10.0.13",
        accelerator="tcg",
        cpu_model="max",
        machine_type="pc-q35-10.0",
        cpus=2,
        memory_mib=1024,
        clock="emulated",
        cmdline="quiet",
        start="warm",
        lock_digest="",
        tools_sha256="",
        base_sha256="",
        bundle_sha256="",
    )
    me = Process.of(os.getpid())
    assert me is not None
    process = me if alive else msgspec.structs.replace(me, started=me.started - 1)
    placed = Placed(data=data, machine=name, uuid=UUID, host="192.168.121.7") if provider == "vagrant" else None
    registry.write(msgspec.structs.replace(made, qemu=process, ready=True, port=40022, facts=facts, vagrant=placed))


UUID = "0d7f3c3e-5a0e-4a3c-9c0a-1b2c3d4e5f60"


def created_by_plain_vagrant(tmp_path: Path, name: str) -> None:
    """Leave what `vagrant up` leaves in its data folder."""
    path = tmp_path / "dot-vagrant" / "machines" / name / "libvirt" / "id"
    path.parent.mkdir(parents=True)
    path.write_text(UUID)


def test_a_name_means_the_machine_of_that_name(house: House) -> None:
    register(house, "mine", "6.1")
    register(house, "other", "6.1")

    assert house.choose("", "other") == "other"


def test_a_kernel_means_the_one_machine_of_it(house: House) -> None:
    register(house, "old", "5.10")
    register(house, "new", "7.3")

    assert house.choose("5.10", "") == "old"
    assert house.choose("7.3.4+deb13-cloud-amd64", "") == "new"


def test_nothing_means_the_only_machine_there_is(house: House) -> None:
    register(house, "mine", "6.1")

    assert house.choose("", "") == "mine"


def test_what_could_be_several_is_asked_back_with_their_names(house: House) -> None:
    register(house, "a", "6.1")
    register(house, "b", "6.1")

    with pytest.raises(UsageError, match="several") as refused:
        house.choose("6.1", "")

    assert refused.value.hint == "add --name: a, b"


def test_a_machine_that_is_not_there_is_answered_with_those_that_are(house: House) -> None:
    register(house, "mine", "6.1")

    with pytest.raises(UsageError, match="'ghost'") as refused:
        house.choose("", "ghost")

    assert "mine (6.1.0-" in refused.value.hint


def test_a_machine_that_ended_by_itself_is_shown_as_dead(house: House) -> None:
    register(house, "gone", "6.1", alive=False)
    register(house, "mine", "6.1")

    assert {row.name: row.state for row in house.machines()} == {"gone": "dead", "mine": "running"}


def test_machines_of_both_providers_are_listed_and_found_by_what_is_registered(house: House) -> None:
    register(house, "mine", "6.1")
    register(house, "lab-6.1", "6.1", provider="vagrant")

    rows = {row.name: (row.provider, row.state, row.host) for row in house.machines()}

    assert rows == {
        "lab-6.1": ("vagrant", "running", "192.168.121.7"),
        "mine": ("qemu", "running", "127.0.0.1"),
    }
    with pytest.raises(UsageError, match="several"):
        house.choose("6.1", "")


def test_a_provider_narrows_what_could_be_meant(house: House) -> None:
    register(house, "mine", "6.1")
    register(house, "lab-6.1", "6.1", provider="vagrant")

    assert replace(house, kind="vagrant").choose("6.1", "") == "lab-6.1"
    assert replace(house, kind="qemu").choose("", "") == "mine"
    with pytest.raises(UsageError, match=r"lab-6\.1 is one of vagrant, not of qemu"):
        replace(house, kind="qemu").machine("lab-6.1")


def test_one_of_vagrants_that_does_not_run_was_halted_and_is_not_dead(house: House, tmp_path: Path) -> None:
    created_by_plain_vagrant(tmp_path, "lab-6.1")
    register(house, "lab-6.1", "6.1", provider="vagrant", alive=False, data=str(tmp_path / "dot-vagrant"))

    assert [row.state for row in house.machines()] == ["halted"]


def test_one_that_plain_vagrant_destroyed_is_said_to_be_so(house: House, tmp_path: Path) -> None:
    register(house, "lab-6.1", "6.1", provider="vagrant", alive=False, data=str(tmp_path / "dot-vagrant"))

    assert [row.state for row in house.machines()] == ["destroyed"]


def test_a_machine_of_plain_vagrant_is_listed_but_meant_only_by_name_of_the_provider(
    house: House, tmp_path: Path
) -> None:
    created_by_plain_vagrant(tmp_path, "lab-6.1")

    (row,) = house.machines()
    assert (row.name, row.provider, row.registered, row.state) == ("lab-6.1", "vagrant", False, "halted")
    assert row.release == house.lock.kernels["6.1"].release
    with pytest.raises(UsageError, match="there is no machine of yours"):
        house.choose("", "")
    assert replace(house, kind="vagrant").choose("6.1", "") == "lab-6.1"
    assert replace(house, kind="qemu").machines() == []


def test_ending_all_machines_leaves_those_of_plain_vagrant(house: House, tmp_path: Path) -> None:
    created_by_plain_vagrant(tmp_path, "lab-6.1")
    register(house, "mine", "6.1", alive=False)

    assert house.end("", "", everything=True) == ["mine"]
    assert [row.name for row in house.machines()] == ["lab-6.1"]


def test_vagrant_has_no_box_of_a_kernel_of_ones_own(house: House) -> None:
    own = msgspec.structs.replace(house.kernel("5.10"), line="mine", support="own")

    house.check_kernels([own])
    with pytest.raises(UsageError, match="no box of"):
        replace(house, kind="vagrant").check_kernels([own])


def test_kernels_are_named_by_line_or_release_and_not_twice(house: House) -> None:
    found = house.kernels("6.1, 7.3.4+deb13-cloud-amd64")

    assert [kernel.line for kernel in found] == ["6.1", "7.3"]
    with pytest.raises(UsageError, match="twice"):
        house.kernels("6.1," + found[0].release)


def test_the_default_kernels_are_in_order_of_number(house: House) -> None:
    assert [kernel.line for kernel in house.default_kernels()] == ["5.10", "6.1", "6.12", "6.18", "7.3"]


def test_runs_may_lie_elsewhere_but_not_in_a_file(tmp_path: Path) -> None:
    assert House.open(runs=str(tmp_path / "new")).layout.runs == tmp_path / "new"
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no folder"):
        House.open(runs=str(tmp_path / "file"))


def test_a_lab_is_kept_from_a_kernel_that_is_too_old_for_it(house: House) -> None:
    folder = spec.find("mutex")
    picky = replace_minimum(folder, "6.12")

    jobs.check_kernel(picky, house.kernel("6.12"))
    jobs.check_kernel(picky, house.kernel("7.3"))
    with pytest.raises(UsageError, match=r"needs kernel 6\.12 or newer, not 6\.1"):
        jobs.check_kernel(picky, house.kernel("6.1"))


def test_a_kernel_of_ones_own_has_no_line_and_is_let_through(house: House) -> None:
    own = msgspec.structs.replace(house.kernel("5.10"), line="mine", support="own")

    jobs.check_kernel(replace_minimum(spec.find("mutex"), "6.12"), own)


def replace_minimum(folder: LabFolder, minimum: str) -> LabFolder:
    """The same lab, needing a newer kernel."""
    return msgspec.structs.replace(folder, lab=msgspec.structs.replace(folder.lab, kernel_minimum=minimum))


def test_layout_is_not_shared_between_houses(house: House, tmp_path: Path) -> None:
    other = House(replace(house.layout, state=tmp_path / "elsewhere"), say=lambda _: None)
    register(house, "mine", "6.1")

    assert other.machines() == []
    assert locks.read() == other.lock
