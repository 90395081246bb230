"""Keys are OpenSSH's own form, private to their owner, and never shown."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from vm.keys import identity_initramfs, make_identity, make_key_pair, write_secret


def test_openssh_reads_the_private_key_and_derives_the_same_public_key(tmp_path: Path) -> None:
    pair = make_key_pair()
    path = tmp_path / "key"
    write_secret(path, pair.private)

    from paramiko import Ed25519Key

    key = Ed25519Key.from_private_key_file(str(path))

    assert f"{key.get_name()} {key.get_base64()}" == pair.public
    if shutil.which("ssh-keygen"):
        derived = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True).stdout
        assert derived.split()[:2] == pair.public.split()


def test_a_secret_is_its_owners_only_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        write_secret(tmp_path / "key", b"secret")
    finally:
        os.umask(previous)

    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_secret_is_not_written_through_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FileExistsError):
        write_secret(tmp_path / "key", b"secret")

    assert (tmp_path / "elsewhere").read_text() == "mine"


def test_two_identities_share_nothing() -> None:
    first, second = make_identity("lab-6-1"), make_identity("lab-6-1")

    assert len({first.host.public, first.client.public, second.host.public, second.client.public}) == 4


def test_the_private_key_that_logs_in_stays_on_the_host() -> None:
    identity = make_identity("lab-6-1")

    archive = identity_initramfs(identity)

    assert identity.host.private in archive
    assert identity.client.public.encode() in archive
    assert identity.client.private not in archive
    assert b"lab-6-1\n" in archive


def test_a_key_pair_does_not_show_its_private_half() -> None:
    pair = make_key_pair()

    assert "PRIVATE" not in repr(pair)
    assert "PRIVATE" not in repr(make_identity("x"))
