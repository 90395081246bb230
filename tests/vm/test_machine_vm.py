"""Real machines: cold, warm, reset, and each way in which one can be lost."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.house import House
from provision.ssh import Shell, connect
from vm.deadline import Deadline
from vm.errors import HangError, KernelPanicError, MachineError, PortError, QemuDiedError, SetupError, UsageError
from vm.machine import MachineRequest
from vm.model import Kernel
from vm.paths import REPOSITORY, Layout
from vm.qemu import accel
from vm.qemu.command import Hardware
from vm.qemu.console import classify
from vm.qemu.process import find
from vm.qemu.provider import QemuMachine, QemuProvider
from vm.qemu.qmp import Qmp
from vm.qemu.warm import RAM

pytestmark = pytest.mark.vm

KERNELS = ["5.10", "6.1", "7.3"]
SECONDS = 120.0


class Host:
    """A provider with folders of its own, which takes the artefacts that every other test takes."""

    def __init__(self, folder: Path) -> None:
        self.house = House.open()
        self.layout = Layout(cache=folder / "cache", state=folder / "state", runs=folder / "runs")
        self.said: list[str] = []
        self.provider = QemuProvider(self.layout, lambda kernel: self.house.images(kernel).parts, self.said.append)

    def kernel(self, line: str) -> Kernel:
        return self.house.kernel(line)

    def start(self, line: str = "6.1", seconds: float = SECONDS, **wishes: object) -> QemuMachine:
        request = MachineRequest(self.kernel(line), accel="tcg", **wishes)  # type: ignore[arg-type]
        return self.provider.start(request, Deadline.after(seconds))

    def elsewhere(self, program: str) -> subprocess.Popen[str]:
        """Run a program in another process, with this host as ``host``."""
        head = f"""
            import sys, time
            from pathlib import Path
            from tests.vm.test_machine_vm import Host
            host = Host(Path({str(self.layout.cache.parent)!r}))
        """
        text = textwrap.dedent(head) + textwrap.dedent(program)
        return subprocess.Popen([sys.executable, "-c", text], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("host"))
    yield host
    assert host.provider.registry.all() == [], "a test left a machine"


def log_in(machine: QemuMachine) -> Shell:
    return connect(machine.ssh, Deadline.after(SECONDS), machine.check)


def ask(machine: QemuMachine, command: str) -> str:
    with log_in(machine) as shell:
        return shell.run(command, Deadline.after(SECONDS)).check().text()


def wait_for(machine: QemuMachine, seconds: float = 60.0) -> None:
    """Look after a machine until something is wrong with it."""
    deadline = Deadline.after(seconds)
    while not deadline.expired:
        machine.check()
        time.sleep(0.02)


@pytest.mark.parametrize("line", KERNELS)
def test_a_cold_machine_is_what_was_asked_for(host: Host, line: str) -> None:
    with host.start(line, start="cold") as machine:
        facts = machine.facts()
        told = ask(
            machine,
            "uname -r; cat /proc/cmdline; cat /sys/devices/system/clocksource/clocksource0/current_clocksource; nproc;"
            "hostname; ls -d /lib/modules/$(uname -r)/build/include; findmnt -no FSTYPE /sys/fs/bpf;"
            "modprobe veth && echo ok",
        ).splitlines()
        seen = classify(machine.console_path.read_text())

    assert told == [
        host.kernel(line).release,
        facts.cmdline,
        "tsc",
        "2",
        f"lab-{line.replace('.', '-')}",
        f"/lib/modules/{host.kernel(line).release}/build/include",
        "bpf",
        "ok",
    ]
    assert seen == []
    assert (facts.start, facts.accelerator, facts.clock) == ("cold", "tcg", "emulated")


@pytest.mark.parametrize("line", KERNELS)
def test_two_restores_have_the_right_time_and_other_random_numbers(host: Host, line: str) -> None:
    """Without reseeding both would draw the same numbers, and ten restores would be one sample."""
    draws = []
    for _ in range(2):
        with host.start(line) as machine:
            question = "head -c 16 /dev/urandom | od -An -tx1; head -1 /proc/self/maps; date +%s.%N; uname -r"
            before = time.time()
            number, layout, guest_time, release = ask(machine, question).splitlines()
            draws.append((number, layout.split()[0]))
            assert release == host.kernel(line).release
            assert machine.facts().start == "warm"
            assert before - 5.0 < float(guest_time) < time.time() + 5.0

    assert draws[0][0] != draws[1][0]
    assert draws[0][1] != draws[1][1]


def test_a_saved_state_is_private_and_small(host: Host) -> None:
    with host.start() as machine:
        key = machine.ssh.private_key
        assert stat.S_IMODE(key.stat().st_mode) == 0o600

    state = next(state for state in host.provider.warm.states() if state.record.release == host.kernel("6.1").release)

    assert state.disk_usage <= 150 << 20
    assert stat.S_IMODE(state.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(state.path("id_ed25519").stat().st_mode) == 0o600
    assert stat.S_IMODE(state.path("initrd").stat().st_mode) == 0o600


@pytest.mark.parametrize("start", ["warm", "cold"])
def test_reset_throws_everything_away_and_keeps_the_address(host: Host, start: str) -> None:
    with host.start(start=start) as machine:
        before = machine.ssh
        ask(machine, "touch /root/mine /tmp/mine && sync")

        machine.reset(Deadline.after(SECONDS))

        assert ask(machine, "ls /root/mine /tmp/mine 2>&1 | grep -c 'No such file'") == "2"
        assert machine.ssh == before


def test_machines_side_by_side_do_not_meet(host: Host) -> None:
    with host.start(name="one") as one, host.start(name="two") as two:
        ask(one, "touch /root/mine")

        assert one.ssh.port != two.ssh.port
        assert ask(two, "ls /root") == ""


def test_a_damaged_state_is_made_again_and_that_is_said(host: Host) -> None:
    host.start().stop()
    state = next(state for state in host.provider.warm.states() if state.record.release == host.kernel("6.1").release)
    with state.path(RAM).open("r+b") as ram:
        ram.seek(state.record.files[RAM].extents[-1].start + 5)
        ram.write(b"damage")
    host.said.clear()

    with host.start() as machine:
        assert ask(machine, "uname -r") == host.kernel("6.1").release

    assert any("is damaged: ram is not as it was saved; it is made again" in words for words in host.said)


def test_a_panic_is_told_with_the_kernels_words(host: Host) -> None:
    with host.start() as machine:
        with log_in(machine) as shell:
            shell.run("(sleep 2; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 &", Deadline.after(30))

            with pytest.raises(KernelPanicError, match="sysrq triggered crash"):
                wait_for(machine)

        machine.wait_ended(Deadline.after(30))  # the kernel still prints its stack, then reboots, which ends QEMU
        console = machine.console_path
    assert "Kernel panic" in console.read_text()


def test_a_killed_qemu_is_told_from_a_panic(host: Host) -> None:
    with host.start() as machine:
        os.kill(machine.pid, signal.SIGKILL)

        with pytest.raises(QemuDiedError, match="signal 9"):
            wait_for(machine)


def test_a_machine_that_does_not_come_up_in_time_is_a_hang_and_is_ended(host: Host) -> None:
    with pytest.raises(HangError, match="within"):
        host.start(start="cold", seconds=2.5, name="slow")

    assert find(host.provider.registry.path("slow")) is None
    assert (host.provider.registry.path("slow") / "console.log").exists()


def test_a_port_that_is_taken_is_told(host: Host) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]

        with pytest.raises(PortError, match=str(port)):
            host.start(port=port)


def test_a_machine_that_cannot_get_its_memory_is_a_qemu_that_died(host: Host) -> None:
    """A terabyte of address space where the process may have a gigabyte."""
    program = """
        import resource
        from vm.errors import QemuDiedError
        parts = host.house.images(host.kernel("6.1")).parts
        host.provider.start  # everything is imported and built
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        try:
            host.start(start="cold", memory_mib=2048, name="hungry")
        except QemuDiedError as error:
            print("died:", error.message)
    """
    with host.elsewhere(program) as other:
        assert other.stdout is not None
        assert "died: " in other.stdout.read()


def test_kill_9_of_the_owner_leaves_no_qemu(host: Host) -> None:
    program = """
        machine = host.start(name="orphan")
        print(machine.pid, flush=True)
        time.sleep(1000)
    """
    with host.elsewhere(program) as other:
        assert other.stdout is not None
        qemu = int(other.stdout.readline())
        assert Path(f"/proc/{qemu}").exists()
        other.kill()

    deadline = Deadline.after(10)
    while Path(f"/proc/{qemu}").exists() and not deadline.expired:
        time.sleep(0.01)
    assert not Path(f"/proc/{qemu}").exists()
    assert host.provider.registry.sweep() == ["orphan"]
    assert "overlay.qcow2" not in os.listdir(host.provider.registry.path("orphan"))  # noqa: PTH208 - names suffice


@pytest.mark.parametrize("after", [0.0, 0.1, 1.0])
def test_ctrl_c_at_any_moment_leaves_nothing_running(host: Host, after: float) -> None:
    program = """
        print("starting", flush=True)
        try:
            host.start(start="cold", name="interrupted")
        except KeyboardInterrupt:
            pass
    """
    with host.elsewhere(program) as other:
        assert other.stdout is not None
        other.stdout.readline()
        time.sleep(after)
        other.send_signal(signal.SIGINT)
        other.wait(timeout=60)

    folder = host.provider.registry.path("interrupted")
    host.provider.registry.sweep()
    assert find(folder) is None
    assert host.provider.registry.all() == []


def test_a_persons_machine_outlives_its_process_and_is_found_by_name(host: Host) -> None:
    program = """
        machine = host.start(name="mine", owner="person")
        print(machine.pid, flush=True)
    """
    with host.elsewhere(program) as other:
        assert other.stdout is not None
        qemu = int(other.stdout.readline())
    try:
        machine = host.provider.get("mine")
        assert machine.pid == qemu
        assert machine.facts().start == "warm"
        ask(machine, "touch /root/mine")

        machine.reset(Deadline.after(SECONDS))

        found_again = host.provider.get("mine")
        assert found_again.pid == machine.pid != qemu
        assert ask(found_again, "ls /root") == ""
        with pytest.raises(UsageError, match="mine is there already"):
            host.start(name="mine")
    finally:
        host.provider.registry.end("mine")

    assert find(host.provider.registry.path("mine")) is None
    with pytest.raises(UsageError, match="no machine named mine runs"):
        host.provider.get("mine")


def test_kvm_is_used_only_if_a_kernel_really_booted_under_it(host: Host) -> None:
    parts = host.house.images(host.kernel("6.1")).parts

    report = accel.examine(host.layout, parts, Deadline.after(SECONDS))

    if report.state is accel.Kvm.WORKS:
        assert accel.choose("auto", host.layout, parts, Deadline.after(SECONDS)) == "kvm"
        request = MachineRequest(host.kernel("6.1"), accel="kvm")
        with host.provider.start(request, Deadline.after(SECONDS)) as machine:
            assert machine.facts().clock == "kvm"
            assert ask(machine, "uname -r") == host.kernel("6.1").release
        return
    assert accel.choose("auto", host.layout, parts, Deadline.after(SECONDS)) == "tcg"
    with pytest.raises(SetupError, match=str(report.state)):
        accel.choose("kvm", host.layout, parts, Deadline.after(SECONDS))


def test_a_state_that_qemu_refuses_is_made_again(host: Host) -> None:
    """As if QEMU had changed without a new version: the checksums fit, the content does not."""
    host.start().stop()
    store = host.provider.warm
    state = next(state for state in store.states() if state.record.release == host.kernel("6.1").release)
    record = state.record
    with store.building(record.release, record.key) as temporary:
        for path in state.folder.iterdir():
            if path.name not in (RAM, "state.json"):
                path.rename(temporary / path.name)
        (temporary / RAM).write_bytes(b"not a migration stream" * 1000)
        store.seal(temporary, record.release, record)
    host.said.clear()

    with host.start() as machine:
        assert ask(machine, "uname -r") == record.release

    assert any("it is made again" in words for words in host.said)


def test_a_qemu_that_is_killed_while_it_restores_says_nothing_against_the_state(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does where memory runs out."""
    host.start().stop()
    states = host.provider.warm.states()
    restore = Qmp.restore

    def killed(qmp: Qmp, *arguments: Any) -> None:
        qemu = find(host.provider.registry.path("victim"))
        assert qemu is not None
        os.kill(qemu.pid, signal.SIGKILL)
        restore(qmp, *arguments)

    monkeypatch.setattr(Qmp, "restore", killed)
    with pytest.raises(QemuDiedError, match="signal 9"):
        host.start(name="victim")

    assert host.provider.warm.states() == states


def test_the_saved_state_fits_only_its_hardware(host: Host) -> None:
    parts = host.house.images(host.kernel("6.1")).parts
    with host.start(cpus=1) as machine:
        assert ask(machine, "nproc") == "1"

    small = host.provider.saved_state(parts, Hardware(1, 1024, "tcg"), Deadline.after(SECONDS))
    usual = host.provider.saved_state(parts, Hardware(2, 1024, "tcg"), Deadline.after(SECONDS))

    assert small.record.key != usual.record.key
    assert json.loads((small.folder / "state.json").read_text())["key"] == small.record.key


def test_a_machine_that_counts_is_saved_restored_and_reset_as_one(host: Host) -> None:
    parts = host.house.images(host.kernel("6.1")).parts
    began = time.time()
    with host.start(clock="virtual") as machine:
        for _ in range(2):
            slept = time.monotonic()
            count, before, after, date = ask(
                machine, "nproc; cut -d' ' -f1 /proc/uptime; sleep 200; cut -d' ' -f1 /proc/uptime; date +%s"
            ).splitlines()
            assert time.monotonic() - slept < 60, "idle time was not skipped"
            assert float(after) - float(before) >= 200
            assert int(date) >= int(began), "it is never behind the host"
            assert count == "2"
            facts = machine.facts()
            assert (facts.clock, facts.accelerator, facts.start) == ("virtual", "tcg", "warm")
            machine.reset(Deadline.after(SECONDS))
        assert classify(machine.console_path.read_text()) == []

    counted = host.provider.saved_state(parts, Hardware(2, 1024, "tcg", counted=True), Deadline.after(SECONDS))
    usual = host.provider.saved_state(parts, Hardware(2, 1024, "tcg"), Deadline.after(SECONDS))
    assert counted.record.key != usual.record.key


def test_facts_of_a_machine_that_has_ended_say_so(host: Host) -> None:
    machine = host.start()
    machine.stop()
    machine.stop()

    assert not machine.alive()
    with pytest.raises(MachineError):
        machine.check()
