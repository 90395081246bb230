"""What the Vagrant provider does, with a Vagrant that this process plays; real machines are in test_vagrant_vm.py."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.vm.qemu_parts import KERNEL, make_parts
from tests.vm.vagrant_fake import BOX, HOST_KEY, SECONDS, Bench, FakeHost
from vm.deadline import Deadline
from vm.errors import HangError, KernelPanicError, UsageError, VagrantError
from vm.machine import MachineRequest
from vm.paths import Layout
from vm.registry import Process
from vm.vagrant import domain, firstcopy, hostkey, remains, versions
from vm.vagrant.machine import KEEPALIVE_SECONDS
from vm.vagrant.provider import VagrantProvider


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


def test_a_connection_that_the_machine_forgot_is_noticed(bench: Bench) -> None:
    """libvirt starts a machine again that panicked: without a packet now and then nobody would learn of it."""
    assert bench.start().ssh.keepalive == KEEPALIVE_SECONDS > 0


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
