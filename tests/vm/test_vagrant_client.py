"""The adapter around Vagrant, with a program on PATH that stands in for it and plays what the real one once said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from vm.deadline import Deadline
from vm.errors import HangError, Interrupted, SetupError, VagrantError
from vm.vagrant import domain
from vm.vagrant.client import InstalledBox, Login, Vagrant

RECORDED = Path(__file__).parent / "fixtures" / "vagrant"

# Writes down how it was called, then does what FAKE_SCRIPT says.
STAND_IN = """#!/bin/bash
{python} - "$@" <<'PROGRAM'
import json, os, sys
named = {{k: v for k, v in os.environ.items() if k.startswith(("VAGRANT", "LIBVIRT", "LAB_", "LC_"))}}
told = {{"argv": sys.argv[1:], "env": named, "cwd": os.getcwd(), "session": os.getsid(0), "parent": os.getppid()}}
with open(os.environ["FAKE_RECORD"], "a") as file:
    file.write(json.dumps(told) + "\\n")
PROGRAM
read -t 1 && echo "stdin was not empty"
eval "$FAKE_SCRIPT"
"""

SSH_CONFIG = """Host lab-6.1
  HostName 192.168.121.42
  User root
  Port 22
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile /home/kim/lab/.vagrant/machines/lab-6.1/libvirt/private_key
  IdentitiesOnly yes
  LogLevel FATAL
"""


@dataclass(frozen=True, slots=True)
class Fake:
    """The program that stands in, and a client that meets it."""

    folder: Path
    client: Vagrant
    does: Callable[[str], None]

    @property
    def calls(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.folder / "record").read_text().splitlines()]

    @property
    def arguments(self) -> list[object]:
        return [call["argv"] for call in self.calls]

    @property
    def log(self) -> str:
        return self.client.log.read_text()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    program = tmp_path / "bin" / "vagrant"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("FAKE_SCRIPT", ":")
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    client = Vagrant(tmp_path / "data", tmp_path / "logs" / "vagrant.log", checkout=checkout)
    return Fake(tmp_path, client, lambda script: monkeypatch.setenv("FAKE_SCRIPT", script))


def soon(seconds: float = 30) -> Deadline:
    return Deadline.after(seconds)


def played(name: str) -> str:
    return f"cat {RECORDED / name}"


def test_every_call_addresses_one_machine_and_asks_for_nothing(fake: Fake) -> None:
    fake.client.up("lab-6.1", soon())
    fake.client.halt("lab-6.1", soon())
    fake.client.destroy("lab-6.1", soon())
    fake.client.snapshot_save("lab-6.1", "first", soon())
    fake.client.snapshot_restore("lab-6.1", "first", soon())
    fake.client.box_add(Path("/boxes/6.1.json"), "libvirt", soon(), force=True)
    fake.client.box_remove("kmlab/6.1", "libvirt", "20260101.1.1", soon())

    assert fake.arguments == [
        ["--no-tty", "up", "lab-6.1", "--no-provision", "--provider=libvirt"],
        ["--no-tty", "halt", "lab-6.1"],
        ["--no-tty", "destroy", "lab-6.1", "--force"],
        ["--no-tty", "snapshot", "save", "lab-6.1", "first"],
        ["--no-tty", "snapshot", "restore", "lab-6.1", "first", "--no-provision"],
        ["--no-tty", "box", "add", "/boxes/6.1.json", "--force", "--provider", "libvirt"],
        ["--no-tty", "box", "remove", "kmlab/6.1", "--provider", "libvirt", "--box-version", "20260101.1.1", "--force"],
    ]


def test_vagrant_is_told_where_and_how_and_the_persons_own_wishes_do_not_reach_it(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAGRANT_LOG", "debug")
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", "/elsewhere")
    monkeypatch.setenv("VAGRANT_HOME", "/home/kim/.vagrant.d")
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "qemu:///session")
    monkeypatch.setenv("LAB_CPUS", "1")
    client = Vagrant(fake.client.data, fake.client.log, checkout=fake.client.checkout, variables={"LAB_CPUS": "4"})

    client.up("lab-6.1", soon())

    (call,) = fake.calls
    environment = call["env"]
    assert isinstance(environment, dict)
    assert environment["VAGRANT_DOTFILE_PATH"] == str(fake.client.data)
    assert environment["VAGRANT_CWD"] == str(fake.client.checkout) == call["cwd"]
    assert environment["VAGRANT_HOME"] == "/home/kim/.vagrant.d"
    assert environment["VAGRANT_NO_COLOR"] == "1"
    assert environment["LAB_CPUS"] == "4"
    assert environment["LC_ALL"] == "C.UTF-8"
    assert environment["LIBVIRT_DEFAULT_URI"] == domain.URI == "qemu:///system"
    assert "VAGRANT_LOG" not in environment


def test_a_call_has_a_session_of_its_own_and_no_input(fake: Fake) -> None:
    fake.client.up("lab-6.1", soon())

    (call,) = fake.calls
    assert call["session"] == call["parent"] != os.getsid(0)
    assert "stdin was not empty" not in fake.log


def test_states_are_vagrants_own_words(fake: Fake) -> None:
    fake.does(played("states.txt"))
    assert fake.client.states(soon()) == {"lab-a": "not_created", "lab-b": "not_created"}
    assert fake.arguments == [["status", "--machine-readable"]]

    fake.does(f"sed s/not_created/shutoff/ {RECORDED / 'states.txt'}")
    assert fake.client.state("lab-a", soon()) == "shutoff"  # python-vagrant alone says poweroff


def test_a_machine_that_is_not_named_is_no_state(fake: Fake) -> None:
    fake.does(played("states.txt"))

    with pytest.raises(VagrantError, match=r"vagrant status lab-6\.1 names no state"):
        fake.client.state("lab-6.1", soon())


def test_boxes_are_read_from_machine_readable_lines(fake: Fake) -> None:
    fake.does(played("box_list.txt"))
    assert fake.client.boxes(soon()) == [InstalledBox("kmlab/tiny", "libvirt", "20260101.1.1")]

    fake.does("echo '1795703220,,ui,warn,There are no installed boxes! Use `vagrant box add` to add some.'")
    assert fake.client.boxes(soon()) == []


def test_a_login_is_asked_for_once_until_the_machine_may_have_changed(fake: Fake) -> None:
    fake.does(f"cat <<'END'\n{SSH_CONFIG}END")
    wanted = Login(
        "192.168.121.42", 22, "root", Path("/home/kim/lab/.vagrant/machines/lab-6.1/libvirt/private_key")
    )  # fmt: skip

    assert [fake.client.login("lab-6.1", soon()) for _ in range(3)] == [wanted] * 3
    assert fake.arguments == [["--no-tty", "ssh-config", "lab-6.1"]]

    fake.client.forget("lab-6.1")
    fake.client.login("lab-6.1", soon())
    fake.client.up("lab-6.1", soon())
    fake.client.login("lab-6.1", soon())
    assert len(fake.calls) == 4


def test_a_login_without_a_port_is_an_error_and_is_not_kept(fake: Fake) -> None:
    fake.does("echo 'Host lab-6.1'; echo '  HostName 192.168.121.42'")

    for _ in range(2):
        with pytest.raises(VagrantError, match=r"does not say where to log in: 'Port'"):
            fake.client.login("lab-6.1", soon())
    assert len(fake.calls) == 2


def test_snapshots_are_names_and_never_vagrants_remarks(fake: Fake) -> None:
    fake.does(played("snapshot_list.txt"))
    assert fake.client.snapshots("lab-a", soon()) == ["x", "y z"]
    assert fake.arguments == [["--no-tty", "snapshot", "list", "lab-a"]]

    fake.does(played("snapshot_list_not_created.txt"))
    assert fake.client.snapshots("lab-a", soon()) == []


def test_a_snapshot_that_vagrant_skips_with_status_0_was_not_taken(fake: Fake) -> None:
    fake.does(played("snapshot_save.txt"))
    fake.client.snapshot_save("lab-a", "x", soon())

    fake.does(played("snapshot_save_not_created.txt"))
    with pytest.raises(VagrantError, match="lab-a is not created"):
        fake.client.snapshot_save("lab-a", "x", soon())


def test_the_words_of_a_failure_are_in_the_error_and_all_of_them_in_the_log(fake: Fake) -> None:
    fake.does("echo 'Bringing machine up'; echo 'the disk is of no known format' >&2; exit 3")

    with pytest.raises(VagrantError) as caught:
        fake.client.up("lab-6.1", soon())

    assert caught.value.exit_code == 26
    assert caught.value.message.startswith("vagrant up lab-6.1 failed with status 3: ")
    assert "the disk is of no known format" in caught.value.message
    assert str(fake.client.log) in caught.value.hint
    assert "vagrant up lab-6.1: status 3 after " in fake.log
    assert "Bringing machine up\nthe disk is of no known format\n" in fake.log


def test_the_log_grows_by_every_call_those_that_go_well_too(fake: Fake) -> None:
    fake.does("echo fine")
    fake.client.halt("lab-6.1", soon())
    fake.client.halt("lab-7.3", soon())

    assert fake.log.count("\nfine\n") == 2
    assert fake.log.index("halt lab-6.1: status 0") < fake.log.index("halt lab-7.3: status 0")


def children(script_pids: Path) -> list[int]:
    return [int(word) for word in script_pids.read_text().split()]


def gone(pid: int) -> bool:
    """Whether a process is no more, or nobody but its parent's absence keeps it from being so (a zombie)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize("stubborn", ["", "trap '' TERM; "])
def test_a_call_that_is_late_is_ended_with_all_that_it_started_and_its_last_words_are_told(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, stubborn: str
) -> None:
    monkeypatch.setattr("vm.vagrant.client._PATIENCE", 0.5)
    pids = fake.folder / "pids"
    fake.does(f"{stubborn}echo 'Waiting for an address'; sleep 300 & echo $$ $! > {pids}; wait; sleep 300")
    other = subprocess.Popen(["sleep", "300"])  # not its child: must live
    try:
        began = time.monotonic()
        with pytest.raises(HangError) as caught:
            fake.client.up("lab-6.1", soon(3))

        assert time.monotonic() - began < 10
        assert not gone(other.pid)
    finally:
        other.kill()
        other.wait()
    assert caught.value.message.startswith("vagrant up lab-6.1 was not over within 3 s")
    assert "Waiting for an address" in caught.value.message
    assert "Waiting for an address" in fake.log
    assert all(gone(pid) for pid in children(pids))


def test_a_deadline_that_is_over_starts_nothing(fake: Fake) -> None:
    with pytest.raises(HangError):
        fake.client.up("lab-6.1", soon(0))

    assert not (fake.folder / "record").exists()


def test_ctrl_c_ends_the_call_and_its_children(fake: Fake) -> None:
    pids = fake.folder / "pids"
    fake.does(f"sleep 300 & echo $$ $! > {pids}; wait")

    def press() -> None:
        while not (pids.exists() and len(pids.read_text().split()) == 2):
            time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        fake.client.up("lab-6.1", soon(60))

    assert all(gone(pid) for pid in children(pids))
    assert "vagrant up lab-6.1: interrupted, ended" in fake.log


def test_calls_in_other_threads_can_be_ended(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    # bash loses a SIGTERM that comes just when it has forked, with its child: then it takes the second signal.
    monkeypatch.setattr("vm.vagrant.client._PATIENCE", 1.0)
    pids = fake.folder / "pids"
    fake.does(f"echo $$ > {pids}; sleep 300")
    caught: list[BaseException] = []

    def work() -> None:
        try:
            fake.client.up("lab-6.1", soon(60))
        except VagrantError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not (pids.exists() and pids.read_text().strip()):
        time.sleep(0.02)
    fake.client.interrupt()
    thread.join(30)

    assert not thread.is_alive()
    (error,) = caught
    assert str(error).startswith("vagrant up lab-6.1 was ended by signal ")


def test_several_machines_at_once_share_a_log_and_mix_nothing_up(fake: Fake) -> None:
    fake.does('for i in 1 2 3 4 5; do echo "$3 line $i"; sleep 0.02; done')
    clients = [Vagrant(fake.folder / name, fake.client.log, checkout=fake.client.checkout) for name in "abcd"]
    began = threading.Barrier(len(clients))

    def work(number: int, client: Vagrant) -> None:
        began.wait()
        client.up(f"lab-{number}", soon())

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(fake.calls) == len(clients)
    for number in range(len(clients)):
        assert "".join(f"lab-{number} line {i}\n" for i in range(1, 6)) in fake.log


def test_without_vagrant_the_error_says_what_installs_it(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake.folder))

    with pytest.raises(SetupError) as caught:
        fake.client.states(soon())

    assert (caught.value.message, caught.value.hint) == ("Vagrant is not installed", "./setup.sh --with-vagrant")
