"""A person's machine of Vagrant's, made by the lab or by plain ``vagrant up``; Vagrant is played by this process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.vm.qemu_parts import KERNEL
from tests.vm.test_vagrant_provider import bench
from tests.vm.vagrant_fake import BOX, HOST_KEY, SECONDS, Bench
from vm.deadline import Deadline
from vm.errors import MachineError, SetupError, UsageError
from vm.vagrant import domain
from vm.vagrant.machine import BY_DESTROYING
from vm.vagrant.provider import RESTORE_SECONDS, SNAPSHOT

__all__ = ["bench"]


# A person's machine.


def test_a_persons_machine_is_the_one_that_vagrant_up_makes_here(bench: Bench) -> None:
    machine = bench.person()

    assert machine.name == "lab-6.1"
    assert machine.placed.data == str(bench.data)
    assert "LAB_PREFIX" not in bench.host.variables[-1]
    assert bench.commands() == ["up lab-6.1", "snapshot_save lab-6.1"]


def test_it_is_reset_by_its_snapshot_and_gets_clock_and_entropy(bench: Bench) -> None:
    machine = bench.person()
    with machine.console_path.open("a") as log:
        log.write("[   12.3] Kernel panic - not syncing: sysrq triggered crash\n")
    bench.commands()

    machine.reset(Deadline.after(SECONDS))

    assert bench.commands() == ["snapshot_restore lab-6.1"]
    assert machine.how_reset == "its snapshot was restored"
    assert bench.resumed == ["lab-6.1"]
    machine.check()  # the panic is of before


def test_without_a_snapshot_that_works_it_is_made_anew_and_gets_another_one(bench: Bench) -> None:
    machine = bench.person()
    bench.host.snapshots.clear()
    bench.commands()

    machine.reset(Deadline.after(SECONDS))

    assert bench.commands() == [
        "snapshot_restore lab-6.1", "destroy lab-6.1", "up lab-6.1", "snapshot_save lab-6.1",
    ]  # fmt: skip
    assert machine.how_reset == "it was destroyed and brought up again"
    assert "is of no use (there is no snapshot" in bench.said[-1]
    assert machine.placed.snapshot == SNAPSHOT


def test_a_snapshot_that_hangs_leaves_time_to_make_the_machine_anew(bench: Bench) -> None:
    machine = bench.person()
    bench.commands()
    bench.host.hangs.add("snapshot_restore")

    machine.reset(Deadline.after(600))

    assert bench.commands() == ["snapshot_restore lab-6.1", "destroy lab-6.1", "up lab-6.1", "snapshot_save lab-6.1"]
    assert machine.how_reset == BY_DESTROYING
    assert bench.host.waited[0] <= RESTORE_SECONDS


def test_a_provider_without_snapshots_is_no_hindrance(bench: Bench) -> None:
    bench.host.fails["snapshot_save"] = "the provider does not support snapshots"

    machine = bench.person()

    assert machine.placed.snapshot == ""
    assert "a reset destroys it and makes it anew" in bench.said[-1]
    machine.check()


def test_one_that_runs_is_found_again_without_asking_vagrant(bench: Bench) -> None:
    started = bench.person()
    bench.host.asked.clear()

    found = bench.provider.get("lab-6.1")

    assert found.ssh == started.ssh
    assert bench.host.asked == []


def test_one_that_was_halted_is_brought_up_again_with_the_key_that_it_had(bench: Bench) -> None:
    started = bench.person()
    bench.host.halt(started.placed.uuid)
    bench.host.console = "a console without a key\n"
    bench.commands()

    found = bench.provider.get("lab-6.1")

    assert bench.commands() == ["up lab-6.1"]
    assert bench.said[-1] == "machine lab-6.1 was halted, or turned itself off: it is brought up again"
    assert found.alive()
    assert found.ssh.host_key == started.ssh.host_key
    assert found.placed.snapshot == SNAPSHOT


def test_one_that_was_destroyed_is_registered_as_ended_and_the_command_is_named(bench: Bench) -> None:
    bench.person()
    bench.plain_destroy()

    with pytest.raises(UsageError, match="was destroyed outside of this lab") as refused:
        bench.provider.get("lab-6.1")

    assert refused.value.hint.startswith("invoke vm.up --provider vagrant --kernel 6.1")
    assert bench.provider.registry.all() == []


def test_one_that_was_destroyed_is_no_hindrance_to_another_start(bench: Bench) -> None:
    bench.person()
    bench.plain_destroy()

    assert bench.person().alive()
    assert "was destroyed outside of this lab: another one is made" in bench.said[0]


def test_one_that_was_made_anew_by_others_is_taken_as_it_is(bench: Bench) -> None:
    bench.person()
    bench.plain_destroy()
    identity = bench.plain_up(cpus=3)

    found = bench.provider.get("lab-6.1")

    assert found.placed.uuid == identity
    assert found.placed.snapshot == "", "the snapshot went with the old one"
    assert (found.placed.adopted, found.facts().cpus) == (True, 3)
    assert any("destroyed and made anew by others" in words for words in bench.said)


def test_one_that_was_made_anew_of_another_box_is_not_taken_for_one_of_the_locks(bench: Bench) -> None:
    bench.person()
    bench.plain_destroy()
    bench.plain_up()
    meta = bench.data / "machines" / "lab-6.1" / "libvirt" / "box_meta"
    meta.write_text(meta.read_text().replace(BOX, "20991231.1.1"))

    with pytest.raises(UsageError, match=r"was made of box 20991231\.1\.1"):
        bench.provider.get("lab-6.1")


def test_one_that_was_halted_and_started_with_other_cpus_is_described_as_it_is_now(bench: Bench) -> None:
    machine = bench.person()
    bench.host.halt(machine.placed.uuid)
    bench.plain_up(cpus=4, memory=4096)

    facts = bench.provider.get("lab-6.1").facts()

    assert (facts.cpus, facts.memory_mib) == (4, 4096)


def test_a_new_name_of_the_domain_changes_nothing(bench: Bench) -> None:
    """Nothing asks for the name: Vagrant's id file and QEMU's command line have the UUID."""
    machine = bench.person()
    bench.host.halt(machine.placed.uuid)  # libvirt renames only what does not run
    bench.host.boot(machine.placed.uuid)

    found = bench.provider.get("lab-6.1")

    assert found.pid != 0
    assert found.pid == bench.host.running[machine.placed.uuid].pid
    assert bench.commands() == ["up lab-6.1", "snapshot_save lab-6.1"]


def test_starting_one_that_runs_is_refused_and_one_that_was_halted_is_brought_up(bench: Bench) -> None:
    machine = bench.person()
    with pytest.raises(UsageError, match="is there already"):
        bench.person()
    bench.host.halt(machine.placed.uuid)

    assert bench.person().alive()


# Machines of plain `vagrant up`.


def test_one_of_plain_vagrant_is_taken_over_with_the_key_that_it_shows(bench: Bench) -> None:
    identity = bench.plain_up()
    bench.commands()

    machine = bench.provider.get("lab-6.1")

    assert bench.commands() == []
    assert machine.placed.uuid == identity
    assert machine.ssh.host_key == f"{HOST_KEY}asked"
    assert machine.facts().kernel == KERNEL
    assert "its host key is taken as it shows it now" in bench.said[-1]


def test_one_that_cannot_be_taken_over_stays_as_it_is(bench: Bench) -> None:
    bench.plain_up()
    bench.commands()
    bench.host.fails["login"] = "no SSH"

    with pytest.raises(MachineError, match="no SSH"):
        bench.provider.get("lab-6.1")

    assert bench.commands() == []
    assert bench.provider.registry.all() == []
    assert len(bench.host.running) == 1


def test_one_whose_qemu_cannot_be_seen_is_not_guessed_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.plain_up()
    monkeypatch.setattr(domain, "find", lambda _: None)

    with pytest.raises(SetupError, match="its QEMU cannot be seen"):
        bench.provider.get("lab-6.1")

    assert bench.provider.find("lab-6.1") is None
    assert "destroy lab-6.1" not in bench.commands()


def test_one_of_another_box_is_not_taken_for_one_of_the_locks(bench: Bench) -> None:
    bench.plain_up()
    (bench.data / "machines" / "lab-6.1" / "libvirt" / "box_meta").write_text('{"version": "20260101.1.1"}')

    with pytest.raises(UsageError, match=r"was made of box 20260101\.1\.1, and the lock's is") as refused:
        bench.provider.get("lab-6.1")

    assert refused.value.hint.startswith("vagrant destroy lab-6.1")


def test_its_owners_wishes_are_left_to_the_vagrantfile(bench: Bench) -> None:
    identity = bench.plain_up()
    bench.host.halt(identity)

    bench.provider.get("lab-6.1")

    assert bench.host.variables[-1] == {}, "LAB_MEMORY and the like stay the person's own"


def test_a_machine_of_another_checkout_is_not_taken_for_this_ones(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench.person()
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "other"))
    bench.data = tmp_path / "other"
    bench.plain_up()

    with pytest.raises(UsageError, match="of another checkout"):
        bench.person()


def test_what_nobody_has_made_is_told_with_the_command(bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"no machine named lab-7\.3") as refused:
        bench.provider.get("lab-7.3")

    assert "vm.up --provider vagrant" in refused.value.hint


def test_the_console_log_can_be_read_by_the_person_whoever_writes_it(bench: Bench) -> None:
    machine = bench.start()

    assert machine.console_path.stat().st_uid == os.getuid()
