"""The base image: nothing random, nothing secret, nothing of the host."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from debian.deb822 import Packages

from tests.vm.archive import FIXTURES
from tests.vm.test_tools import package
from vm import base, tree
from vm.errors import IntegrityError
from vm.tree import Entry

RECORDED = (FIXTURES / "mmdebstrap-root.txt").read_text().splitlines()


def recorded_root() -> list[Entry]:
    """mmdebstrap's root as recorded, every file telling the host's name and address."""
    parents = {path.rpartition("/")[0] for path in RECORDED}
    secret = b"of-the-host 192.0.2.7"
    return [tree.folder(path) if path in parents else tree.file(path, secret) for path in RECORDED]


@pytest.mark.parametrize(
    "path",
    [
        "etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_rsa_key.pub", "etc/machine-id", "etc/hostname", "etc/hosts",
        "etc/resolv.conf", "etc/apt/sources.list", "etc/apt/apt.conf.d/99mmdebstrap", "etc/shadow-", "etc/.pwd.lock",
        "var/log/dpkg.log", "var/cache/ldconfig/aux-cache", "var/cache/debconf/config.dat", "var/lib/apt/lists/lock",
        "var/lib/dpkg/status-old", "var/lib/dpkg/lock", "dev/null", "run/lock", "root/.ssh",
        "root/.ssh/authorized_keys",
        "usr/share/man/man1/ls.1.gz", "usr/share/locale/de/LC_MESSAGES/sudo.mo", "usr/share/doc/tini/changelog.gz",
        "home/somebody/.profile", "root/.bash_history",
    ],
)  # fmt: skip
def test_what_does_not_go_into_the_image(path: str) -> None:
    assert not base.stays(path)


@pytest.mark.parametrize(
    "path",
    [
        "etc/passwd", "etc/shadow", "etc/ssh/sshd_config", "etc/ld.so.cache", "var/lib/dpkg/status", "root/.bashrc",
        "var/lib/dpkg/info/tini.list", "usr/share/doc/tini/copyright", "usr/share/doc/tini", "usr/bin/sudo",
        "usr/share/zoneinfo/Etc/UTC", "var/log", "dev", "tmp",
    ],
)  # fmt: skip
def test_what_does(path: str) -> None:
    assert base.stays(path)


def test_nothing_of_the_host_is_left_of_a_recorded_root() -> None:
    entries = {entry.path: entry for entry in base.clean(recorded_root())}

    named = [name for name, entry in entries.items() if name in base.IDENTITY and b"of-the-host" in entry.data()]
    assert named == []
    assert [path for path in entries if "ssh_host" in path or path.startswith(("dev/", "run/", "var/log/"))] == []
    assert entries["etc/hostname"].data() == b"lab\n"
    assert entries["etc/machine-id"].data() == entries["etc/resolv.conf"].data() == b""


def test_mount_points_and_the_guests_files_are_there() -> None:
    entries = {entry.path: entry for entry in base.clean(recorded_root())}

    assert set(base.MOUNT_POINTS) <= entries.keys()
    assert entries["tmp"].mode == 0o1777
    assert entries["root"].mode == 0o700
    assert b"PasswordAuthentication no" in entries["usr/lib/kmlab/sshd_config"].data()


def test_time_of_the_build_leaves_no_trace_in_dpkgs_records() -> None:
    now = Entry("var/lib/dpkg/status", tree.Kind.FILE, 0o644, content=b"", mtime=1_700_000_000)
    later = Entry("var/lib/dpkg/status", tree.Kind.FILE, 0o644, content=b"", mtime=1_700_000_123)

    tars = []
    for entry in (now, later):
        stream = io.BytesIO()
        tree.write_tar(base.clean([entry]), stream, 1_800_000_000)
        tars.append(stream.getvalue())

    assert tars[0] == tars[1]
    with tarfile.open(fileobj=io.BytesIO(tars[0])) as archive:
        assert archive.getmember("var/lib/dpkg/status").mtime == 1_800_000_000


def test_the_repository_holds_the_locked_packages_and_an_index(tmp_path: Path) -> None:
    made = [package(tmp_path, name, {f"usr/bin/{name}": b""}) for name in ("tini", "sudo")]

    base.repository(tmp_path / "repository", [each for each, _ in made], {each.sha256: path for each, path in made})

    with (tmp_path / "repository/Packages").open() as stream:
        stanzas = list(Packages.iter_paragraphs(stream, use_apt_pkg=False))
    assert [stanza["Package"] for stanza in stanzas] == ["sudo", "tini"]
    for stanza in stanzas:
        path = tmp_path / "repository" / stanza["Filename"]
        assert path.stat().st_mode & 0o044 == 0o044
        assert path.stat().st_size == int(stanza["Size"])


def test_a_file_that_only_its_owner_may_read_is_copied(tmp_path: Path) -> None:
    locked, path = package(tmp_path, "tini", {})
    path.chmod(0o600)

    base.repository(tmp_path / "repository", [locked], {locked.sha256: path})

    copy = tmp_path / "repository/tini_1.0_amd64.deb"
    assert copy.stat().st_mode & 0o777 == 0o644
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_another_package_is_refused(tmp_path: Path) -> None:
    locked, _ = package(tmp_path, "tini", {})
    _, other = package(tmp_path, "sudo", {})

    with pytest.raises(IntegrityError, match=r"tini 1\.0: the file is sudo 1\.0"):
        base.repository(tmp_path / "repository", [locked], {locked.sha256: other})


def test_guest_files_are_part_of_the_inputs(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    before = base.folder_hash(tmp_path)
    (tmp_path / "a").write_bytes(b"b")

    assert base.folder_hash(tmp_path) != before


def test_scratch_of_a_dead_process_is_swept_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    dead = tmp_path / "kmlab-base-dead"
    (dead / "mmdebstrap.x").mkdir(parents=True)
    (dead / ".held").touch()

    with base.open_to_others("kmlab-base-", tmp_path) as living:
        (living / "repository").mkdir()

        assert base.sweep_scratch(tmp_path, "kmlab-base-") == []
        assert not dead.exists()
        assert living.stat().st_mode & 0o7777 == 0o1777

    assert list(tmp_path.iterdir()) == []
