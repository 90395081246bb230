"""Labs and machines with --provider vagrant, on real ones: libvirt and Vagrant as the host has them.

The images of the real cache are used; Vagrant's home and data, machines and records are this test's own. Tests of the
person's machine share one and go through its life in order: each start takes half a minute where it is emulated.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.vagrant_host import VagrantHost, inventory, virsh
from vm.errors import VagrantError
from vm.paths import REPOSITORY, Layout
from vm.registry import Registry
from vm.vagrant import domain
from vm.vagrant.versions import SOUND_QEMU, qemu_version

pytestmark = [pytest.mark.vagrant, pytest.mark.build]

INVOKE = Path(sys.executable).parent / "invoke"
SHORT = ["sizes=4,16", "rounds=2", "readers=0,100", "goroutines=4", "rep=0.01", "starve=0.1", "pairs=2", "costs=20"]
"""Options that keep every section of the lab and shorten it."""
RELEASES = {"5.10": "5.10.0-", "6.1": "6.1.0-", "7.3": "7.3."}


@dataclass(frozen=True)
class Desk:
    """A person's shell in a checkout: their own folders, and what they type."""

    folder: Path
    variables: dict[str, str]

    @property
    def data(self) -> Path:
        return self.folder / "dot-vagrant"

    @property
    def layout(self) -> Layout:
        return replace(Layout.from_environment(), state=self.folder / "state", runs=self.folder / "runs")

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=REPOSITORY, env=self.variables, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [INVOKE, *words], cwd=REPOSITORY, env=self.variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def invoke(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(INVOKE, *words)

    def ok(self, *words: str) -> str:
        done = self.invoke(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def vagrant(self, *words: str) -> str:
        done = self.run("vagrant", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self, *words: str) -> list[dict[str, object]]:
        found = json.loads(self.ok("vm.status", "--json", *words))
        assert isinstance(found, list)
        return found

    def lab(self, *words: str) -> dict[str, object]:
        """Run the mutex lab and return its record.

        QEMU 7.2, for Debian 12 without its backports, now and then locks up where it emulates several CPUs. The lab
        tells it, and is run again there, twice at most; what else goes wrong goes wrong, and with a newer QEMU all.
        """
        old = int(qemu_version(self.layout).partition(".")[0]) < SOUND_QEMU
        options = [word for option in SHORT for word in ("--set", option)]
        command = ["lab", "mutex", "--seed", "7", "--json", *options, *words]
        for _ in range(3):
            done = self.invoke(*command)
            locked_up = " is locked up: watchdog: BUG: soft lockup" in done.stderr
            if not old or done.returncode != VagrantError.exit_code or not locked_up:
                break
        assert done.returncode == 0, done.stderr
        (run,) = json.loads(done.stdout)["runs"]
        found = json.loads((Path(run["path"]) / "run.json").read_text())
        assert isinstance(found, dict)
        return found

    def ups(self) -> int:
        """Return how often Vagrant has brought the person's machine up for the lab."""
        log = self.folder / "state" / "machines" / "lab-6.1" / "vagrant.log"
        return log.read_text().count("vagrant up lab-6.1: status 0")


@pytest.fixture(scope="module")
def desk(vagrant_host: VagrantHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    before = inventory()
    variables = {
        **{name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "KMLAB_ARCHIVE")},
        "KMLAB_STATE": str(folder / "state"),
        "KMLAB_RUNS": str(folder / "runs"),
        "VAGRANT_HOME": str(vagrant_host.home),
        "VAGRANT_DOTFILE_PATH": str(folder / "dot-vagrant"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "COLUMNS": "200",
    }
    made = Desk(folder, variables)
    yield made
    made.invoke("vm.down", "--all", "--provider", "vagrant")
    left = {name for name in inventory().domains - before.domains if "-run-" in name or name.endswith("lab-6.1")}
    assert left == set()


# One machine of a person's, through its life.


@pytest.fixture(scope="module")
def mine(desk: Desk) -> Desk:
    said = desk.ok("vm.up", "--kernel", "6.1", "--provider", "vagrant")
    assert said.startswith("lab-6.1: 6.1.0-")
    return desk


def test_a_machine_that_the_lab_started_is_one_of_vagrants(mine: Desk) -> None:
    (row,) = mine.rows()

    assert (row["name"], row["provider"], row["owner"], row["state"]) == ("lab-6.1", "vagrant", "person", "running")
    assert ",lab-6.1,state,running" in mine.vagrant("status", "lab-6.1", "--machine-readable")
    assert mine.vagrant("ssh", "lab-6.1", "-c", "uname -r").startswith("6.1.0-")


def test_a_lab_on_a_machine_that_is_up_pays_no_up(mine: Desk) -> None:
    record = mine.lab("--machine", "lab-6.1", "--provider", "vagrant")

    timings, provenance = record["timings"], record["provenance"]
    assert isinstance(timings, dict)
    assert isinstance(provenance, dict)
    assert "start_seconds" not in timings
    assert mine.ups() == 1
    assert provenance["provider"] == "vagrant"
    assert str(provenance["provider_details"]).startswith("Vagrant ")


def test_a_reset_brings_the_first_start_back_with_a_clock_that_is_right(mine: Desk) -> None:
    ask = "ls /root; date +%s; cat /proc/sys/kernel/random/uuid"
    mine.ok("ssh", "--name", "lab-6.1", "--command", "touch /root/mark && sync")
    drawn = []
    for _ in range(2):
        assert mine.ok("vm.reset", "--name", "lab-6.1") == "lab-6.1: as new (its snapshot was restored)\n"
        before = time.time()
        *files, clock, number = mine.ok("ssh", "--name", "lab-6.1", "--command", ask).split()
        assert "mark" not in files
        assert before - 6 < int(clock) < time.time() + 5
        drawn.append(number)

    assert drawn[0] != drawn[1], "two restores of one snapshot drew the same number"


def test_one_that_was_halted_and_renamed_behind_our_back_is_brought_up_again(mine: Desk) -> None:
    before = domain.machine_id(mine.data, "lab-6.1")
    ups = mine.ups()
    mine.vagrant("halt", "lab-6.1")
    (row,) = mine.rows()
    assert row["state"] == "halted"
    assert virsh("domrename", before, "kmlab-renamed-lab-6.1").returncode == 0

    done = mine.invoke("ssh", "--kernel", "6.1", "--command", "uname -r")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6.1.0-")
    assert "machine lab-6.1 was halted, or turned itself off: it is brought up again" in done.stderr
    assert mine.ups() == ups + 1
    assert domain.machine_id(mine.data, "lab-6.1") == before


def test_a_panic_is_told_and_a_reset_mends_it(mine: Desk) -> None:
    done = mine.invoke("ssh", "--name", "lab-6.1", "--command", "sleep 1; echo c >/proc/sysrq-trigger; sleep 60")

    assert "Kernel panic - not syncing" not in done.stdout
    assert "panicked: sysrq triggered crash" in done.stderr
    mine.ok("vm.reset", "--name", "lab-6.1")
    assert mine.ok("ssh", "--name", "lab-6.1", "--command", "uname -r").startswith("6.1.0-")


def test_one_that_was_destroyed_behind_our_back_is_told_with_the_command(mine: Desk) -> None:
    mine.vagrant("destroy", "-f", "lab-6.1")

    done = mine.invoke("ssh", "--name", "lab-6.1", "--command", "uname -r")

    assert "machine lab-6.1 was destroyed outside of this lab" in done.stderr
    assert "invoke vm.up --provider vagrant --kernel 6.1" in done.stderr
    assert "Traceback" not in done.stderr
    assert mine.rows() == []


def test_one_of_plain_vagrant_up_is_listed_taken_over_and_ended(desk: Desk) -> None:
    desk.vagrant("up", "lab-6.1", "--provider", "libvirt")
    (row,) = desk.rows()
    assert (row["provider"], row["state"], row["registered"]) == ("vagrant", "running", False)
    assert "there is no machine" in desk.invoke("vm.down", "--kernel", "6.1").stderr, "not meant without --provider"

    done = desk.invoke("ssh", "--name", "lab-6.1", "--provider", "vagrant", "--command", "uname -r")

    assert done.stdout.startswith("6.1.0-"), done.stderr
    assert "its host key is taken as it shows it now" in done.stderr
    assert desk.ok("vm.down", "--name", "lab-6.1") == "lab-6.1: ended\n"
    assert domain.created(desk.data) == []


# Machines of runs.


def runs_domains() -> set[str]:
    return {name for name in inventory().domains if name.startswith("kmlab-run-")}


def test_a_lab_has_a_machine_of_its_own_and_leaves_nothing(desk: Desk) -> None:
    before = inventory()

    record = desk.lab("--kernel", "6.1", "--provider", "vagrant")

    timings, provenance = record["timings"], record["provenance"]
    assert isinstance(timings, dict)
    assert isinstance(provenance, dict)
    assert provenance["provider"] == "vagrant"
    assert timings["start_seconds"] > 0
    assert timings["stop_seconds"] > 0
    losses, equality = record["losses"], record["equality"]
    assert isinstance(losses, list)
    assert isinstance(equality, list)
    assert len(equality) > 10
    assert [row for row in equality if row["traced"] != row["expected"]] == []
    assert inventory().domains <= before.domains
    assert {name for _, name in inventory().volumes - before.volumes if "_vagrant_box_image_" not in name} == set()
    assert desk.rows() == []


def test_two_machines_of_different_kernels_run_at_once(desk: Desk) -> None:
    words = ["--provider", "vagrant", "--command", "uname -r"]
    both = {line: desk.start("ssh", "--kernel", line, *words) for line in ("5.10", "7.3")}

    said = {line: child.communicate() for line, child in both.items()}

    for line, (out, errors) in said.items():
        assert out.startswith(RELEASES[line]), errors
    assert runs_domains() == set()


def test_two_first_machines_of_one_box_do_not_disturb_each_other(desk: Desk) -> None:
    """Vagrant copies a box's disk into libvirt's pool once, and takes half a copy for a whole one."""
    for pool, name in inventory().volumes:
        if name.startswith("kmlab-VAGRANTSLASH-7.3_"):
            virsh("vol-delete", name, "--pool", pool)
    words = ["ssh", "--kernel", "7.3", "--provider", "vagrant", "--command", "uname -r"]
    both = [desk.start(*words), desk.start(*words)]

    for child in both:
        out, errors = child.communicate()
        assert out.startswith("7.3."), errors


def test_a_killed_runs_machine_is_destroyed_by_the_next_sweep(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    child = desk.start("ssh", "--kernel", "6.1", "--provider", "vagrant", "--command", "sleep 1000")
    until = time.monotonic() + 300
    while not [row for row in desk.rows() if row["state"] == "running"]:
        assert time.monotonic() < until
        assert child.poll() is None
        time.sleep(1)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert len(runs_domains()) == 1
    said: list[str] = []

    monkeypatch.setenv("VAGRANT_HOME", desk.variables["VAGRANT_HOME"])
    cleared = Registry(desk.layout).sweep(said.append)

    assert len(cleared) == 1
    assert "has lost its owner: Vagrant destroys it, which takes some seconds" in said[0]
    assert runs_domains() == set()


# What does not go together.


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--cold"], "--cold means nothing with --provider vagrant"),
        (["--system-qemu"], "--system-qemu means nothing with --provider vagrant"),
        (["--clock", "virtual"], "--clock means nothing with --provider vagrant"),
    ],
)
def test_what_such_machines_do_not_have_is_refused_at_once(desk: Desk, words: list[str], says: str) -> None:
    done = desk.invoke("lab", "mutex", "--kernel", "6.1", "--provider", "vagrant", *words)

    assert done.returncode == 10
    assert says in done.stderr
