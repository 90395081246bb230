"""Vagrant for those who are not root: who may use libvirtd, who starts it, and what setup.sh and .ci/run do for them.

No libvirtd is asked here: programs that stand in for virsh, sudo and the like say what the real ones say.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from tests import vagrant_host as daemons
from tests.vagrant_host import Running
from vm.errors import SetupError
from vm.paths import REPOSITORY
from vm.registry import Process
from vm.vagrant.trouble import JOIN_GROUP

REFUSED = "error: Failed to connect socket to '/var/run/libvirt/libvirt-sock': Permission denied"
USED = "error: Network is already in use by interface enp1s0"


@dataclass(frozen=True)
class Stage:
    """A folder that is first on PATH, for programs that stand in, and a log of how they were called."""

    folder: Path

    def stand_in(self, program: str, script: str) -> None:
        file = self.folder / program
        file.write_text(f'#!/bin/bash\necho "{program} $*" >>"{self.folder}/calls"\n{script}\n')
        file.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Stage(folder)


# Who starts libvirtd for the tests


@dataclass(frozen=True)
class Kim:
    """Somebody who is not root and may call sudo."""

    stage: Stage
    state: Path
    me: Process

    def sudo_starts(self) -> None:
        """Let ``sudo … up`` start daemons for Kim."""
        running = msgspec.json.encode(Running(daemons=[], owner=self.me)).decode()
        host = self.state / "host.json"
        self.stage.stand_in(
            "sudo",
            f"case $* in *up*) echo '{running}' >'{host}'; touch '{self.state}/runs' ;; *down*) rm '{host}' ;; esac",
        )

    def sudo_calls(self) -> list[str]:
        return [found[1] for call in self.stage.calls if (found := re.search(r"tests\.vagrant_host (\w+)", call))]


@pytest.fixture
def kim(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kim:
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.setattr(daemons, "STATE", state)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    stage.stand_in("virsh", f"[ -e '{state}/runs' ] && echo default || {{ echo \"{REFUSED}\" >&2; exit 1; }}")
    me = Process.of(os.getpid())
    assert me is not None
    return Kim(stage, state, me)


def test_daemons_that_sudo_started_are_used_by_who_is_in_the_group(kim: Kim) -> None:
    kim.sudo_starts()

    assert daemons.up(kim.me)
    assert kim.sudo_calls() == ["up"]


def test_daemons_that_sudo_started_and_one_may_not_use_are_ended_and_the_group_is_told(kim: Kim) -> None:
    kim.sudo_starts()
    kim.stage.stand_in("virsh", f'echo "{REFUSED}" >&2; exit 1')

    with pytest.raises(SetupError, match="may not be used by you") as caught:
        daemons.up(kim.me)

    assert caught.value.hint == JOIN_GROUP
    assert kim.sudo_calls() == ["up", "down"]


def test_a_libvirtd_of_somebody_elses_that_one_may_not_use_is_left_alone(kim: Kim) -> None:
    kim.stage.stand_in("sudo", "echo runs already")
    kim.stage.stand_in("virsh", f'echo "{REFUSED}" >&2; exit 1')

    with pytest.raises(SetupError, match="may not be used by you"):
        daemons.up(kim.me)

    assert kim.sudo_calls() == ["up"]


def test_abandoned_daemons_are_taken_over_through_sudo(kim: Kim, dead: Process) -> None:
    (kim.state / "host.json").write_bytes(msgspec.json.encode(Running(daemons=[], owner=dead)))
    (kim.state / "runs").touch()
    kim.sudo_starts()

    assert daemons.up(kim.me), "they are to be taken down"
    assert kim.sudo_calls() == ["up"]


def test_daemons_whose_owner_lives_are_used_and_left_alone(kim: Kim) -> None:
    (kim.state / "host.json").write_bytes(msgspec.json.encode(Running(daemons=[], owner=kim.me)))
    (kim.state / "runs").touch()

    assert not daemons.up(None)
    assert kim.sudo_calls() == []


def test_a_libvirtd_that_says_nothing_is_told_with_a_way_out(stage: Stage) -> None:
    stage.stand_in("virsh", "exec sleep 60")

    with pytest.raises(SetupError, match=r"libvirtd has said nothing for 0 s \(virsh version\)") as caught:
        daemons.virsh("version", seconds=0.3)

    assert "hides /dev/kvm" in caught.value.hint


# setup.sh


def check_network() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", "source ./setup.sh; check_libvirt_runs; echo goes on"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip


def virsh_words(stage: Stage) -> list[str]:
    return [call.removeprefix("virsh -q -c qemu:///system ") for call in stage.calls if call.startswith("virsh ")]


def test_setup_goes_on_where_the_network_cannot_start_and_says_so(stage: Stage) -> None:
    stage.stand_in("sudo", 'shift; exec "$@"')
    stage.stand_in("virsh", f'case $* in *net-start*) echo "{USED}" >&2; exit 1 ;; *--all*) echo default ;; esac')

    done = check_network()

    assert (done.stdout, done.returncode) == ("goes on\n", 0), done.stderr
    assert USED in done.stderr
    assert "setup: it does not start, and until it does Vagrant starts no machine" in done.stderr
    assert "net-edit default" in done.stderr


def test_setup_defines_and_starts_a_network_that_is_not_there(stage: Stage) -> None:
    stage.stand_in("sudo", 'shift; exec "$@"')
    stage.stand_in("virsh", "")

    done = check_network()

    assert (done.stdout, done.returncode) == ("goes on\n", 0), done.stderr
    assert [words for words in virsh_words(stage) if not words.startswith("net-list")] == [
        "version",
        "net-define /usr/share/libvirt/networks/default.xml",
        "net-start default",
    ]


def test_setup_leaves_a_network_alone_that_runs(stage: Stage) -> None:
    stage.stand_in("virsh", "echo default")

    done = check_network()

    assert (done.stdout, done.stderr) == ("goes on\n", "")
    assert set(virsh_words(stage)) == {"version", "net-list --name"}


# .ci/run


@pytest.mark.parametrize(
    ("session", "database", "asked"),
    [
        ("kim", "kim libvirt", ["sg libvirt", "sg kim"]),
        ("kim libvirt", "kim libvirt", []),
        ("kim", "kim", []),
        ("root", "root", []),
    ],
    ids=["just-added", "logged-in-again", "not-in-it", "root"],
)
def test_continuous_integration_takes_up_a_group_that_the_session_does_not_have_yet(
    stage: Stage, tmp_path: Path, session: str, database: str, asked: list[str]
) -> None:
    checkout = tmp_path / "checkout"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".ci").mkdir()
    (checkout / ".ci" / "run").write_text((REPOSITORY / ".ci" / "run").read_text())
    for name in ("setup.sh", ".venv/bin/invoke"):
        (checkout / name).write_text(f'#!/bin/bash\necho "{name} $*"\n[[ {name} == setup.sh ]] || exit 7\n')
        (checkout / name).chmod(0o755)
    stage.stand_in("id", f'case "$*" in -un|-gn) echo kim ;; -nG) echo {session} ;; "-nG kim") echo {database} ;; esac')
    stage.stand_in("sg", 'exec sh -c "$3"')

    done = subprocess.run(["bash", ".ci/run"], cwd=checkout, capture_output=True, text=True, check=False)

    assert done.stdout == "setup.sh --with-vagrant\n.venv/bin/invoke test\n", done.stderr
    assert done.returncode == 7, "the tests' own status"
    assert [" ".join(call.split()[:2]) for call in stage.calls if call.startswith("sg ")] == asked
