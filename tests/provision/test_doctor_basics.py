"""The doctor on made-up hosts: each fault is seen, and its fix is a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from provision.checks import basics
from provision.checks.host import Answer, Finding, ThisHost
from vm.paths import REPOSITORY, Layout

LAYOUT = Layout(Path("/home/kim/.cache/kmlab"), Path("/home/kim/.local/state/kmlab"), Path("/home/kim/lab/runs"))

MEMINFO = "MemTotal:       {total} kB\nMemFree:          812345 kB\nMemAvailable:   {available} kB\n"


@dataclass
class MadeUpHost:
    """A Debian 12 laptop where all is well, unless a test says otherwise."""

    files: dict[str, str] = field(default_factory=dict)
    commands: dict[str, Answer] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    environ: Mapping[str, str] = field(default_factory=dict)
    uid: int = 1000
    user: str = "kim"
    free: int = 50 << 30
    locked: frozenset[Path] = frozenset()
    processors: int = 4
    time: float = 1.8e9

    def __post_init__(self) -> None:
        self.files = {
            "/etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n',
            "/etc/subuid": "kim:100000:65536\n",
            "/etc/subgid": "kim:100000:65536\n",
            "/proc/meminfo": MEMINFO.format(total=16_000_000, available=9_000_000),
            basics.KEYRING: "keys",
        } | self.files
        self.commands = {
            "uname -sm": Answer(0, "Linux x86_64"),
            "mmdebstrap --version": Answer(0, "mmdebstrap 1.3.5"),
            "mmdebstrap --unshare-helper /bin/true": Answer(0, ""),
        } | self.commands

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def exists(self, path: str) -> bool:
        return path in self.files

    def which(self, program: str) -> str | None:
        return None if program in self.missing else f"/usr/bin/{program}"

    def run(self, command: Sequence[str], seconds: float = 10, given: str = "") -> Answer:
        assert seconds > 0
        assert not given
        return self.commands[" ".join(command)]

    def free_bytes(self, path: Path) -> int:
        assert path.is_absolute()
        return self.free

    def writable(self, path: Path) -> bool:
        return path not in self.locked

    def cpus(self) -> int:
        return self.processors

    def now(self) -> float:
        return self.time


SIMPLE: list[Callable[[MadeUpHost], Finding]] = [
    basics.system,
    basics.packages,
    basics.keyring,
    basics.subordinate_ids,
    basics.name_spaces,
    basics.processors,
    basics.memory,
    lambda host: basics.folders(host, LAYOUT),
    lambda host: basics.clock(host, 1_700_000_000),
]


@pytest.mark.parametrize("check", SIMPLE)
def test_on_a_sound_host_every_check_is_ok_and_asks_for_nothing(check: Callable[[MadeUpHost], Finding]) -> None:
    finding = check(MadeUpHost())

    assert finding.result == "ok"
    assert finding.fix == ""


def test_another_machine_is_no_host() -> None:
    found = basics.system(MadeUpHost(commands={"uname -sm": Answer(0, "Darwin arm64")}))

    assert (found.result, found.detail) == ("fail", "this is Darwin arm64")


def test_another_distribution_is_a_warning() -> None:
    fedora = 'PRETTY_NAME="Fedora Linux 42"\nID=fedora\nVERSION_ID=42\n'

    found = basics.system(MadeUpHost(files={"/etc/os-release": fedora}))

    assert found.result == "warn"
    assert found.detail.startswith("Fedora Linux 42")


def test_packages_are_named_once_each() -> None:
    found = basics.packages(MadeUpHost(missing=frozenset({"newuidmap", "newgidmap", "gpgv"})))

    assert (found.result, found.detail, found.fix) == ("fail", "missing: gpgv, uidmap", "./setup.sh")


@pytest.mark.parametrize("text", ["", "ann:100000:65536\n", "kim:100000:1000\n", "kim:100000\n", "kim::x\n"])
def test_a_range_must_be_ones_own_and_large_enough(text: str) -> None:
    found = basics.subordinate_ids(MadeUpHost(files={"/etc/subgid": text}))

    assert found.result == "fail"
    assert "/etc/subgid" in found.detail
    assert "/etc/subuid" not in found.detail


def test_a_range_may_be_given_by_number() -> None:
    files = {"/etc/subuid": "1000:200000:65536\n", "/etc/subgid": "ann:1:1\n1000:200000:131072\n"}

    assert basics.subordinate_ids(MadeUpHost(files=files)).result == "ok"


REFUSED = {"mmdebstrap --unshare-helper /bin/true": Answer(1, "E: newuidmap failed: Operation not permitted")}


@pytest.mark.parametrize(
    ("files", "fix"),
    [
        ({"/proc/sys/user/max_user_namespaces": "0\n"}, "sudo sysctl user.max_user_namespaces=15000"),
        ({"/proc/sys/kernel/unprivileged_userns_clone": "0\n"}, "sudo sysctl kernel.unprivileged_userns_clone=1"),
        (
            {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n", "/etc/apparmor.d/mmdebstrap": "abi"},
            "sudo apparmor_parser --replace /etc/apparmor.d/mmdebstrap",
        ),
    ],
)
def test_why_name_spaces_are_refused_is_told_with_the_way_out(files: dict[str, str], fix: str) -> None:
    found = basics.name_spaces(MadeUpHost(files=files, commands=REFUSED))

    assert (found.result, found.fix) == ("fail", fix)


def test_an_unknown_refusal_is_told_in_the_programs_own_words() -> None:
    found = basics.name_spaces(MadeUpHost(commands=REFUSED))

    assert found.detail == "E: newuidmap failed: Operation not permitted"


def test_a_program_that_says_nothing_is_no_reason_to_fall_over() -> None:
    silent = {"mmdebstrap --unshare-helper /bin/true": Answer(None, "")}

    assert basics.name_spaces(MadeUpHost(commands=silent)).result == "fail"


def test_root_needs_no_name_space() -> None:
    assert basics.name_spaces(MadeUpHost(uid=0, user="root", commands=REFUSED)).result == "warn"


@pytest.mark.parametrize(
    ("available", "result"), [(1_000_000, "fail"), (1_200_000, "warn"), (1_600_000, "ok"), (9_000_000, "ok")]
)
def test_memory_is_what_is_available_not_what_is_there(available: int, result: str) -> None:
    meminfo = MEMINFO.format(total=64_000_000, available=available)

    assert basics.memory(MadeUpHost(files={"/proc/meminfo": meminfo})).result == result


@pytest.mark.parametrize(
    ("gib", "built", "results"),
    [(50, False, ["ok", "ok"]), (5, False, ["warn", "ok"]), (5, True, ["ok", "ok"]), (0.5, True, ["fail", "fail"])],
)
def test_disk_that_is_needed_depends_on_what_is_built(gib: float, built: bool, results: list[str]) -> None:
    found = basics.disk(MadeUpHost(free=int(gib * (1 << 30))), LAYOUT, built=built)

    assert [finding.result for finding in found] == results


def test_a_folder_that_root_left_behind_is_found() -> None:
    found = basics.folders(MadeUpHost(locked=frozenset({LAYOUT.cache})), LAYOUT)

    assert (found.result, found.fix) == ("fail", "sudo chown -R kim /home/kim/.cache/kmlab")


def test_a_clock_that_is_behind_the_lock_is_told_in_days() -> None:
    found = basics.clock(MadeUpHost(time=1_700_000_000 - 10 * 86400), 1_700_000_000)

    assert (found.result, found.detail) == ("warn", "it is 10 days before the lock was made")


def test_a_virtual_environment_that_setup_made_is_recognised() -> None:
    # What this very checkout has: the test runs in it.
    assert basics.python(ThisHost(), REPOSITORY).result == "ok"


@pytest.mark.parametrize("stamp", [None, "0" * 64])
def test_a_virtual_environment_of_other_requirements_is_told(stamp: str | None) -> None:
    files = {"/lab/requirements.txt": "altair==6.3.0"} | ({} if stamp is None else {"/lab/.venv/.kmlab-stamp": stamp})

    found = basics.python(MadeUpHost(files=files), Path("/lab"))

    assert (found.result, found.fix) == ("warn", "./setup.sh")


def test_this_host_answers_for_a_program_that_is_not_there() -> None:
    assert ThisHost().run(["no-such-program-here"]).status is None
    assert ThisHost().run(["sleep", "5"], seconds=0.1).status is None
