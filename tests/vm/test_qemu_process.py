"""Children that die with their owner, whatever kills it; shown with `sleep` in QEMU's place."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vm.errors import QemuDiedError, SetupError
from vm.paths import REPOSITORY
from vm.qemu import process
from vm.qemu.process import ProcessId

SLEEP = ["sleep", "1000"]


def named(folder: Path) -> list[str]:
    """A process whose command line names the machine, as QEMU's does."""
    return ["sh", "-c", "sleep 1000 & wait", f"kmlab-{folder.name}"]


def gone(pid: int) -> bool:
    for _ in range(500):
        if ProcessId.of(pid) is None:
            return True
        time.sleep(0.01)
    return False


def owner(folder: Path, detached: bool) -> subprocess.Popen[str]:
    """Another Python that starts a child, says its number and waits to be killed."""
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom vm.qemu.process import spawn\n"
        f"child = spawn({SLEEP!r}, Path({str(folder)!r}), environment={{}}, detached={detached})\n"
        "print(child.pid, flush=True)\ntime.sleep(1000)\n"
    )
    return subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def test_a_run_owned_child_dies_when_its_owner_is_killed(tmp_path: Path) -> None:
    parent = owner(tmp_path, detached=False)
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert ProcessId.of(child) is not None

        parent.kill()

    assert gone(child)


def test_a_person_owned_child_lives_on(tmp_path: Path) -> None:
    parent = owner(tmp_path, detached=True)
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()

    try:
        assert not gone_soon(child)
        assert os.getsid(child) == child
    finally:
        os.kill(child, signal.SIGKILL)


def gone_soon(pid: int) -> bool:
    time.sleep(0.3)
    return ProcessId.of(pid) is None


def test_a_child_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    """PR_SET_PDEATHSIG goes by the thread that forked, so asking threads must not fork themselves."""
    children: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: children.append(process.spawn(SLEEP, tmp_path, environment={})))
    thread.start()
    thread.join()

    try:
        assert not gone_soon(children[0].pid)
    finally:
        process.end(children[0])


def test_a_child_whose_parent_is_not_the_one_that_was_meant_gives_up(tmp_path: Path) -> None:
    """The parent died before the child asked for its death signal: the guard sees another parent."""
    marker = tmp_path / "ran"

    status = subprocess.run(
        ["sh", "-c", process._GUARD, "kmlab", "1", "touch", str(marker)],
        check=False,
    ).returncode

    assert status == 125
    assert not marker.exists()


def test_a_program_that_is_not_there_is_a_setup_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no-such-program"):
        process.spawn(["no-such-program"], tmp_path, environment={}, detached=True)


def test_only_the_process_of_that_folder_is_killed(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    child = process.spawn(named(mine), mine, environment={}, detached=True)
    identity = ProcessId.of(child.pid)
    assert identity is not None
    try:
        time.sleep(0.1)
        identity.kill(other)
        assert identity.alive
        assert process.find(other) is None
        assert process.find(mine) == identity

        identity.kill(mine)
        assert not identity.alive
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def test_a_process_of_the_same_number_but_another_start_is_not_alive() -> None:
    me = ProcessId.of(os.getpid())
    assert me is not None

    assert me.alive
    assert not ProcessId(me.pid, me.started - 1).alive


def test_sockets_work_in_a_folder_whose_path_is_too_long_for_them(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / ("longer" * 20)
    folder.mkdir(parents=True)
    assert len(str(folder)) > 108

    with process.listening(folder, ("qmp",)) as sockets:
        with process.short_path(folder, "qmp") as path, socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        assert list(sockets) == ["qmp"]


def test_the_last_words_of_a_qemu_that_died_are_in_its_error(tmp_path: Path) -> None:
    (tmp_path / "qemu.log").write_text("qemu-system-x86_64: cannot set up guest memory: Cannot allocate memory\n")

    error = process.died(tmp_path, -9)

    assert isinstance(error, QemuDiedError)
    assert "signal 9" in error.message
    assert "Cannot allocate memory" in error.message
