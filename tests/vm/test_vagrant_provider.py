"""What the Vagrant provider does, with a Vagrant that this process plays; real machines are in test_vagrant_vm.py."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.vm.qemu_parts import KERNEL, make_parts
from tests.vm.vagrant_fake import BOX, HOST_KEY, SECONDS, Bench, FakeHost
from vm.deadline import Deadline
from vm.errors import HangError, KernelPanicError, MachineError, UsageError, VagrantError
from vm.machine import MachineRequest
from vm.paths import Layout
from vm.registry import Process
from vm.vagrant import domain, firstcopy, hostkey, remains, versions
from vm.vagrant.provider import SNAPSHOT, VagrantProvider


@pytest.fixture
def bench(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    data = tmp_path / "dot-vagrant"
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(data))
    monkeypatch.setattr(versions, "_version", lambda _, program: f"1 of {program.name}")
    monkeypatch.setattr(versions, "_program", Path)
    monkeypatch.setattr(hostkey, "ask", lambda *_: f"{HOST_KEY}asked")
    monkeypatch.setattr(firstcopy, "is_there", lambda *_: True)
    monkeypatch.setattr("os.geteuid", lambda: 0)  # who is not root has no console log
    host, said, resumed = FakeHost(), list[str](), list[str]()
    parts = make_parts(tmp_path)
    provider = VagrantProvider(
        layout,
        lambda _: parts,
        lambda _: KERNEL,
        lambda _: BOX,
        said.append,
        lambda machine, _: resumed.append(machine.name),
        host.client,
    )
    yield Bench(provider, host, data, said, resumed)
    host.end()


# A run's own machine.


def test_a_runs_machine_has_vagrants_data_and_a_domain_of_its_own(bench: Bench) -> None:
    machine = bench.start(memory_mib=512, cpus=3)

    assert machine.placed.data == str(machine.folder / "vagrant")
    assert bench.host.variables[-1] == {
        "LAB_PREFIX": f"kmlab-{machine.name}-",
        "LAB_CONSOLE": str(machine.folder / "console.log"),
        "LAB_MEMORY": "512",
        "LAB_CPUS": "3",
        "LAB_ACCEL": "tcg",
    }
    assert bench.commands() == ["up lab-6.1"]


def test_it_logs_in_as_vagrant_says_and_trusts_the_key_on_the_console_alone(bench: Bench) -> None:
    machine = bench.start()

    assert (machine.ssh.host, machine.ssh.port, machine.ssh.user) == ("192.168.121.7", 22, "root")
    assert machine.ssh.host_key == f"{HOST_KEY}1"
    assert bench.said == []


def test_the_facts_are_what_qemu_was_started_with(bench: Bench) -> None:
    facts = bench.start(memory_mib=512).facts()

    assert (facts.provider, facts.start, facts.clock, facts.accelerator) == ("vagrant", "cold", "emulated", "tcg")
    assert (facts.machine_type, facts.cpu_model) == ("pc-q35-7.2", "Haswell-noTSX,pcid=off")
    assert (facts.cpus, facts.memory_mib) == (2, 1024), "not what was asked for, but what runs"
    assert facts.provider_details == f"Vagrant 1 of vagrant, libvirt, box {BOX}"
    assert (facts.base_sha256, facts.bundle_sha256, facts.lock_digest) == ("base", "bundle", "lock")


def test_at_its_end_it_is_destroyed_and_leaves_its_logs(bench: Bench) -> None:
    with bench.start() as machine:
        assert machine.alive()
        bench.commands()

    assert bench.commands() == ["destroy lab-6.1"]
    assert sorted(path.name for path in machine.folder.iterdir()) == ["console.log", "machine.json", "vagrant.log"]
    assert bench.provider.registry.all() == []
    assert bench.host.running == {}


def test_a_start_that_fails_leaves_nothing_but_logs(bench: Bench) -> None:
    bench.host.fails["login"] = "ssh-config: the machine is not ready for SSH"

    with pytest.raises(VagrantError, match="not ready for SSH"):
        bench.start(name="failed")

    assert bench.commands() == ["up lab-6.1", "destroy lab-6.1"]
    left = sorted(path.name for path in bench.provider.registry.path("failed").iterdir())
    assert left == ["console.log", "machine.json", "vagrant.log"]
    assert bench.host.running == {}


def test_a_deadline_that_passes_destroys_the_machine(bench: Bench) -> None:
    request = MachineRequest(KERNEL, accel="tcg")

    with pytest.raises(HangError, match="vagrant up"):
        bench.provider.start(request, Deadline.after(0))

    assert bench.provider.registry.all() == []


def test_a_machine_that_cannot_be_destroyed_stays_registered_and_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remains, "run_virsh", lambda *words: subprocess.CompletedProcess(words, 1, "", "no libvirtd"))
    machine = bench.start(name="stuck")
    bench.host.fails["destroy"] = "libvirtd does not answer"

    machine.stop()

    assert "libvirtd does not answer; it is tried again" in bench.said[-1]
    assert [each.name for each in bench.provider.registry.all()] == ["stuck"]


def test_virsh_removes_what_vagrant_cannot(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = bench.start(name="stuck")
    identity, asked = machine.placed.uuid, list[tuple[str, ...]]()

    def virsh(*words: str) -> subprocess.CompletedProcess[str]:
        asked.append(words)
        if words[:2] == ("destroy", identity):
            bench.host.halt(identity)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(remains, "run_virsh", virsh)
    bench.host.fails["destroy"] = "the Vagrantfile is broken"
    machine.stop()

    undefined = [words for words in asked if words[0] == "undefine"]
    assert [words[1] for words in undefined] == [identity, "kmlab-stuck-lab-6.1"]
    assert "--remove-all-storage" in undefined[0]
    assert ("vol-delete", "kmlab-stuck-lab-6.1.img", "--pool", "default") in asked
    assert bench.provider.registry.all() == []


def test_a_dead_runs_machine_is_destroyed_at_the_next_start_which_says_so(bench: Bench) -> None:
    orphan = bench.start(name="orphan")
    child = subprocess.Popen(["sleep", "1000"])
    dead = Process.of(child.pid)
    child.kill()
    child.wait()
    orphan.update(owner_process=dead)
    bench.commands()

    bench.start(name="next")

    assert bench.commands() == ["destroy lab-6.1", "up lab-6.1"]
    assert "orphan has lost its owner: Vagrant destroys it, which takes some seconds" in bench.said[0]
    assert [each.name for each in bench.provider.registry.all()] == ["next"]


def test_two_machines_at_once_do_not_meet(bench: Bench) -> None:
    one, two = bench.start(), bench.start()

    assert one.placed.uuid != two.placed.uuid
    assert one.placed.data != two.placed.data
    one.stop()
    assert two.alive()
    assert not one.alive()


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"clock": "virtual"}, "host's clock"),
        ({"port": 2222}, "no port"),
        ({"owner": "person", "name": "mine"}, "lab-6.1, not mine"),
    ],
)
def test_what_such_machines_do_not_have_is_refused(bench: Bench, wishes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        bench.start(**wishes)

    assert bench.host.asked == []


def test_a_kernel_of_ones_own_has_no_box(bench: Bench) -> None:
    own = msgspec.structs.replace(KERNEL, support="own")

    with pytest.raises(UsageError, match="no box of 6") as refused:
        bench.provider.start(MachineRequest(own), Deadline.after(SECONDS))

    assert "invoke kernels" in refused.value.hint


# What happens to a machine while it is in use.


def test_a_panic_is_told_with_the_kernels_words(bench: Bench) -> None:
    machine = bench.start()
    with machine.console_path.open("a") as log:
        log.write("[   12.3] Kernel panic - not syncing: sysrq triggered crash\n")

    with pytest.raises(KernelPanicError, match="sysrq triggered crash"):
        machine.check()


def test_a_machine_that_is_locked_up_is_told_with_what_may_help(bench: Bench) -> None:
    machine = bench.start()
    with machine.console_path.open("a") as log:
        log.write("[  194.0] watchdog: BUG: soft lockup - CPU#1 stuck for 156s! [python3:341]\n")

    with pytest.raises(VagrantError, match=r"is locked up: .*stuck for 156s"):
        machine.check()


def test_a_machine_that_starts_again_by_itself_is_told_while_it_is_in_use(bench: Bench) -> None:
    machine = bench.start()
    machine.check()
    with machine.console_path.open("a") as log:
        log.write(f"KMLAB-HOST-KEY {HOST_KEY}1\n")

    with pytest.raises(VagrantError, match="was restarted while it was in use"):
        machine.check()
    machine.check()  # whoever uses it next begins with a machine that is up


def test_a_panic_of_before_is_over_where_the_machine_came_up_again(bench: Bench) -> None:
    machine = bench.person()
    with machine.console_path.open("a") as log:
        log.write(f"Kernel panic - not syncing: sysrq triggered crash\nKMLAB-HOST-KEY {HOST_KEY}1\n")

    bench.provider.get("lab-6.1").check()


def test_a_machine_that_was_halted_or_destroyed_meanwhile_is_told_so(bench: Bench) -> None:
    halted, destroyed = bench.start(), bench.start()
    bench.host.halt(halted.placed.uuid)
    bench.provider.client(destroyed).destroy("lab-6.1", Deadline.after(SECONDS))

    with pytest.raises(VagrantError, match="was halted"):
        halted.check()
    with pytest.raises(VagrantError, match="was destroyed while it was in use"):
        destroyed.check()


def test_whether_it_lives_is_seen_without_asking_vagrant(bench: Bench) -> None:
    machine = bench.start()
    bench.host.asked.clear()

    for _ in range(100):
        machine.check()

    assert bench.host.asked == []
    assert machine.pid > 0


def test_where_the_process_cannot_be_seen_vagrant_is_asked_now_and_then(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain, "find", lambda _: None)
    bench.host.boot = lambda identity: bench.host.running.update({identity: subprocess.Popen(["true"])})  # type: ignore[method-assign, assignment]
    machine = bench.start()
    bench.host.asked.clear()

    assert all(machine.alive() for _ in range(50))

    assert bench.host.asked == ["state lab-6.1"]
    assert (machine.pid, machine.cpu_threads) == (0, ())
    bench.host.running.clear()


def test_a_runs_machine_is_reset_by_destroying_it_and_a_new_start(bench: Bench) -> None:
    machine = bench.start()
    before = machine.placed.uuid
    bench.commands()

    machine.reset(Deadline.after(SECONDS))

    assert bench.commands() == ["destroy lab-6.1", "up lab-6.1"]
    assert machine.how_reset == "it was destroyed and brought up again"
    assert machine.placed.uuid != before
    assert machine.ssh.host_key == f"{HOST_KEY}2", "the new machine has a new key"
    machine.check()


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
    identity = bench.plain_up()

    found = bench.provider.get("lab-6.1")

    assert found.placed.uuid == identity
    assert found.placed.snapshot == "", "the snapshot went with the old one"
    assert "destroyed and made anew by others" in bench.said[-1]


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
