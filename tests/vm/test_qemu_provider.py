"""What a provider does when QEMU does not; programs stand in for QEMU. Real machines are in test_machine_vm.py."""

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vm.qemu_parts import KERNEL, StandIn, make_parts
from vm.deadline import Deadline
from vm.errors import HangError, MachineError, PortError, QemuDiedError, UsageError
from vm.machine import MachineRequest
from vm.paths import Layout
from vm.qemu.control import Control
from vm.qemu.parts import qemu_version
from vm.qemu.process import find, listening
from vm.qemu.provider import QemuProvider


def provider(layout: Layout, tmp_path: Path, script: str) -> QemuProvider:
    parts = make_parts(tmp_path, StandIn(script))
    return QemuProvider(layout, lambda _: parts)


def cold(**wishes: object) -> MachineRequest:
    return MachineRequest(KERNEL, accel="tcg", start="cold", **wishes)  # type: ignore[arg-type]


def test_a_qemu_that_ends_at_once_is_told_with_its_words(layout: Layout, tmp_path: Path) -> None:
    machines = provider(layout, tmp_path, "echo 'cannot set up guest memory' >&2; exit 1")

    with pytest.raises(QemuDiedError, match=r"status 1\): cannot set up guest memory"):
        machines.start(cold(), Deadline.after(30))

    assert machines.registry.all() == []


def test_a_port_that_qemu_could_not_get_is_told(layout: Layout, tmp_path: Path) -> None:
    words = "Could not set up host forwarding rule 'tcp:127.0.0.1:2222-10.0.2.15:22'"
    machines = provider(layout, tmp_path, f'echo "{words}" >&2; exit 1')

    with pytest.raises(PortError, match="port 2222"):
        machines.start(cold(port=2222), Deadline.after(30))


def test_a_qemu_that_says_nothing_is_a_hang_and_is_killed(layout: Layout, tmp_path: Path) -> None:
    machines = provider(layout, tmp_path, "sleep 1000")

    with pytest.raises(HangError):
        machines.start(cold(name="mute"), Deadline.after(0.5))

    assert find(machines.registry.path("mute")) is None
    assert machines.registry.all() == []


def test_what_a_failed_start_leaves_is_its_logs(layout: Layout, tmp_path: Path) -> None:
    machines = provider(layout, tmp_path, "echo no >&2; exit 1")

    with pytest.raises(QemuDiedError):
        machines.start(cold(name="failed"), Deadline.after(30))

    left = sorted(path.name for path in machines.registry.path("failed").iterdir())
    assert left == ["machine.json", "qemu.log"]


def test_the_version_is_asked_once_per_tools_root(layout: Layout) -> None:
    tools, other = StandIn(), StandIn(sha256="other", version="11.0.0")

    assert [qemu_version(layout, tools), qemu_version(layout, tools)] == ["10.0.13", "10.0.13"]
    assert qemu_version(layout, other) == "11.0.0"
    assert tools.asked == 1


def test_a_qemu_that_cannot_save_states_starts_cold_and_says_so(layout: Layout, tmp_path: Path) -> None:
    said: list[str] = []
    parts = make_parts(tmp_path, StandIn("exit 1", version="8.2.2"))
    machines = QemuProvider(layout, lambda _: parts, said.append)

    with pytest.raises(QemuDiedError):
        machines.start(MachineRequest(KERNEL, accel="tcg", start="warm", name="old"), Deadline.after(30))

    assert any("QEMU 8.2.2 cannot save states" in words for words in said)
    left = machines.registry.read("old")
    assert left is not None
    assert left.facts is not None
    assert left.facts.start == "cold"


def test_a_virtual_clock_needs_no_trial_of_kvm_and_is_remembered_with_the_machine(
    layout: Layout, tmp_path: Path
) -> None:
    machines = provider(layout, tmp_path, f"echo $* > {tmp_path}/words; exit 1")

    with pytest.raises(QemuDiedError):
        machines.start(MachineRequest(KERNEL, clock="virtual", start="cold", name="counted"), Deadline.after(30))

    assert "-accel tcg,thread=single -icount shift=1,sleep=off" in (tmp_path / "words").read_text()
    left = machines.registry.read("counted")
    assert left is not None
    assert left.facts is not None
    assert (left.facts.clock, left.facts.accelerator) == ("virtual", "tcg")


def test_a_virtual_clock_under_kvm_is_refused_with_what_would_do() -> None:
    with pytest.raises(UsageError, match="instructions of an emulated CPU") as refused:
        MachineRequest(KERNEL, accel="kvm", clock="virtual")

    assert "choose tcg" in refused.value.hint


@pytest.mark.parametrize(
    "wishes", [{"name": "../up"}, {"name": "A"}, {"cpus": 0}, {"memory_mib": 1}, {"port": 70000}, {"name": "x" * 60}]
)
def test_a_request_that_cannot_be_meant_is_refused(wishes: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        cold(**wishes)


def guest(folder: Path, answers: Callable[[socket.socket], None]) -> threading.Thread:
    """Play the guest's side of the control channel."""
    ready = threading.Event()

    def play() -> None:
        with listening(folder, ("control",)) as sockets:
            server = socket.socket(fileno=os.dup(sockets["control"]))
            ready.set()
            with server, server.accept()[0] as connection:
                answers(connection)

    thread = threading.Thread(target=play)
    thread.start()
    ready.wait(10)
    return thread


def nothing_wrong() -> None:
    return


def test_the_guest_is_told_time_and_entropy_and_never_the_same_twice(tmp_path: Path) -> None:
    lines: list[str] = []

    def answers(connection: socket.socket) -> None:
        with connection.makefile("rw") as file:
            for _ in range(2):
                lines.append(file.readline())
                file.write("OK\r\n")
                file.flush()

    thread = guest(tmp_path, answers)
    with Control(tmp_path, "control", nothing_wrong) as control:
        control.resume(Deadline.after(10))
        control.resume(Deadline.after(10))
    thread.join(10)

    words = [line.split() for line in lines]
    assert [word[0] for word in words] == ["resume", "resume"]
    assert abs(int(words[0][1]) - time.time_ns()) < 60e9
    assert len(words[0][2]) == 64
    assert words[0][2] != words[1][2]


def test_a_guest_that_could_not_is_an_error(tmp_path: Path) -> None:
    def answers(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"ERROR 1\n")

    thread = guest(tmp_path, answers)
    with (
        Control(tmp_path, "control", nothing_wrong) as control,
        pytest.raises(MachineError, match="the guest answered ERROR 1"),
    ):
        control.resume(Deadline.after(10))
    thread.join(10)


def test_noise_on_the_line_is_not_an_answer(tmp_path: Path) -> None:
    def answers(connection: socket.socket) -> None:
        connection.sendall(b"READY 6.1.0-56-cloud-amd64\nnoise\n\nOK\n")
        connection.recv(1000)

    thread = guest(tmp_path, answers)
    with Control(tmp_path, "control", nothing_wrong) as control:
        assert control.wait_ready(Deadline.after(10)) == "6.1.0-56-cloud-amd64"
        control.settle(Deadline.after(10))
    thread.join(10)


def test_a_wait_notices_that_the_machine_is_gone(tmp_path: Path) -> None:
    def gone() -> None:
        raise QemuDiedError("it died")

    thread = guest(tmp_path, lambda _: time.sleep(1))
    with Control(tmp_path, "control", gone) as control, pytest.raises(QemuDiedError, match="it died"):
        control.wait_ready(Deadline.after(10))
    thread.join(10)
