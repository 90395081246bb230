"""The SSH adapter against a real server on loopback."""

from __future__ import annotations

import dataclasses
import io
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.ssh import Shell, connect
from provision.transfer import pull, push
from tests.provision.sshserver import serving
from vm.deadline import Deadline
from vm.errors import HangError, IntegrityError, OutputError, QemuDiedError, SshError
from vm.machine import SshTarget


@pytest.fixture
def target(tmp_path: Path) -> Iterator[SshTarget]:
    with serving(tmp_path) as served:
        yield served


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_keys_that_vagrant_makes_are_read_whatever_their_kind(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "private_key"
    kinds = {"rsa": ["-t", "rsa", "-m", "PEM"], "ed25519": ["-t", "ed25519"]}
    subprocess.run(["ssh-keygen", "-q", "-N", "", *kinds[kind], "-f", path], check=True)
    with serving(tmp_path) as served, pytest.raises(SshError, match="refused the key of root"):
        connect(dataclasses.replace(served, private_key=path), soon())


@pytest.fixture
def shell(target: SshTarget) -> Iterator[Shell]:
    with connect(target, Deadline.after(10)) as connected:
        yield connected


def soon() -> Deadline:
    return Deadline.after(20)


def test_a_command_gives_output_errors_and_status(shell: Shell) -> None:
    done = shell.run("echo out; echo err >&2; exit 7", soon())
    assert (done.status, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_a_key_that_cannot_be_read_is_told_with_its_path(target: SshTarget, tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("no key")
    for name in ("broken", "absent"):
        with pytest.raises(SshError, match=f"{name} cannot be read"):
            connect(dataclasses.replace(target, private_key=tmp_path / name), soon())


def test_words_are_quoted_so_that_they_arrive_as_given(shell: Shell) -> None:
    done = shell.run(["printf", "%s|", "a b", "$HOME", "it's"], soon())
    assert done.stdout == b"a b|$HOME|it's|"


def test_check_names_the_command_and_its_last_words(shell: Shell) -> None:
    with pytest.raises(SshError, match="ended with status 1 in the machine: no such thing"):
        shell.run("echo first >&2; echo no such thing >&2; exit 1", soon()).check()


def test_several_megabytes_go_both_ways_unchanged(shell: Shell) -> None:
    data = bytes(range(256)) * 20_000
    sink = io.BytesIO()
    shell.run("cat", soon(), stdin=io.BytesIO(data), stdout=sink).check()
    assert sink.getvalue() == data


def test_a_command_that_does_not_read_its_input_does_not_hang(shell: Shell) -> None:
    assert shell.run("exit 3", soon(), stdin=b"x" * 50_000_000).status == 3


def test_output_without_end_is_cut_off(shell: Shell) -> None:
    with pytest.raises(OutputError, match="wrote more than 1 MiB"):
        shell.run("yes", soon(), limit=1 << 20)


def test_a_command_that_hangs_ends_at_the_deadline(shell: Shell) -> None:
    with pytest.raises(HangError, match="`sleep 60` was not over within"):
        shell.run("sleep 60", Deadline.after(0.3))


def test_an_interrupt_at_any_moment_of_a_command_is_prompt_and_leaves_the_connection_usable(shell: Shell) -> None:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for moment in range(1, 40):
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - an alarm before it would end the whole session
                signal.setitimer(signal.ITIMER_REAL, moment / 500)
                shell.run("sleep 60", soon())
    finally:
        signal.signal(signal.SIGALRM, before)

    assert shell.run("echo there", soon()).text().strip() == "there"


def test_another_host_key_is_refused(target: SshTarget, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with serving(tmp_path / "other") as other:
        wrong = dataclasses.replace(target, host_key=other.host_key)
        with pytest.raises(IntegrityError, match="host key that is not this machine's"):
            connect(wrong, soon())


def test_a_key_that_is_not_accepted_is_an_ssh_error(target: SshTarget, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with serving(tmp_path / "other") as other:
        wrong = dataclasses.replace(target, private_key=other.private_key)
        with pytest.raises(SshError, match="refused the key"):
            connect(wrong, soon())


def test_a_login_that_the_server_cut_off_is_tried_again(tmp_path: Path) -> None:
    with serving(tmp_path, impatient=2) as target, connect(target, soon()) as shell:
        assert shell.run("echo in", soon()).text() == "in"


def test_a_login_that_is_always_cut_off_ends_at_the_deadline(tmp_path: Path) -> None:
    with serving(tmp_path, impatient=100) as target, pytest.raises(HangError, match="connecting over SSH"):
        connect(target, Deadline.after(0.6))


def test_a_server_without_a_banner_is_a_hang(tmp_path: Path) -> None:
    with serving(tmp_path, silent=True) as mute, pytest.raises(HangError, match="connecting over SSH"):
        connect(mute, Deadline.after(0.4))


def test_connecting_stops_when_the_machine_is_gone(target: SshTarget) -> None:
    def gone() -> None:
        raise QemuDiedError("QEMU ended")

    nowhere = dataclasses.replace(target, port=1)
    with pytest.raises(QemuDiedError):
        connect(nowhere, soon(), gone)


def test_a_broken_connection_is_an_ssh_error(shell: Shell) -> None:
    shell.close()
    with pytest.raises(SshError, match="broke"):
        shell.run("true", soon())


def test_files_travel_to_the_machine_and_back(shell: Shell, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    back.mkdir()
    source = tmp_path / "binary"
    source.write_bytes(b"\x7fELF" + bytes(100_000))
    push(shell, {"binary": source, "deep/plan.json": b"{}"}, str(there), soon())
    assert (there / "binary").stat().st_mode & 0o111
    names = pull(shell, str(there), back, soon())
    assert sorted(names) == ["binary", "deep/plan.json"]
    assert (back / "binary").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        ("ln -s /etc/passwd link", "not a file"),
        ("mkfifo pipe", "not a file"),
    ],
)
def test_what_is_not_a_file_is_refused(shell: Shell, tmp_path: Path, make: str, words: str) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    back.mkdir()
    shell.run(f"cd {there} && {make}", soon()).check()
    with pytest.raises(OutputError, match=words):
        pull(shell, str(there), back, soon())
