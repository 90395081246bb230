from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.vm.archive import FIXTURES, KEYRING, TRIXIE, copy_archive, mirror_of
from vm import apt
from vm.apt import Apt, Index, signers
from vm.errors import ConfigError, DiskFullError, IntegrityError, MirrorError, SetupError
from vm.mirror import ARCHIVES, Mirror


@pytest.fixture(scope="module")
def trixie(tmp_path_factory: pytest.TempPathFactory) -> Apt:
    """Apt for trixie's three suites of the recorded mirror, updated."""
    found = Apt(tmp_path_factory.mktemp("apt"), mirror_of(FIXTURES / "archive"), TRIXIE, keyring=KEYRING)
    found.update()
    return found


def test_a_suite_tells_its_date_and_who_signed_it(tmp_path: Path) -> None:
    suites = Apt(tmp_path, mirror_of(FIXTURES / "archive"), ["trixie-security"], keyring=KEYRING).update()

    suite = suites["trixie-security"]
    assert suite.archive == "debian-security"
    assert suite.date == "2026-11-21T00:53:03Z"
    assert suite.signed_by == signers(FIXTURES / "archive/debian-security/dists/trixie-security/InRelease", KEYRING)


def test_the_real_signature_of_debian_is_verified_to_its_primary_key() -> None:
    found = signers(FIXTURES / "trixie-security.InRelease", FIXTURES / "debian-trixie-security.gpg")

    assert found == ["5E04A1E3223A19A20706E20F9904613D4CCE68C6"]  # Debian Security Archive Automatic Signing Key (13)


def test_a_real_index_that_was_changed_by_a_byte_has_no_good_signature(tmp_path: Path) -> None:
    content = (FIXTURES / "trixie-security.InRelease").read_bytes()
    changed = tmp_path / "InRelease"
    changed.write_bytes(content.replace(b"Suite: stable-security", b"Suite: stable_security"))

    with pytest.raises(IntegrityError, match="InRelease is not signed by a key of"):
        signers(changed, FIXTURES / "debian-trixie-security.gpg")


def test_the_closure_of_kmod_is_what_it_depends_on(trixie: Apt) -> None:
    found = {package.name for package in trixie.closure(["kmod"])}

    assert found == {
        *("gcc-14-base", "kmod", "libc6", "libgcc-s1", "libkmod2", "libssl3t64", "libzstd1"),
        *("openssl-provider-legacy", "zlib1g"),
    }


def test_a_base_system_holds_every_essential_package(trixie: Apt) -> None:
    found = {package.name: package for package in trixie.closure(["tini"], essential=True)}

    assert {"tini", "base-files", "dash", "dpkg", "libc6", "util-linux"} <= set(found)
    assert found["dpkg"].path.startswith("pool/main/d/dpkg/dpkg_")


def test_the_security_suites_newer_version_is_taken_and_its_archive_kept(trixie: Apt) -> None:
    stanzas = trixie.index.versions("linux-image-6.12.117+deb13-cloud-amd64")

    assert [(stanza.suite, stanza.package.archive) for stanza in stanzas] == [
        ("trixie", "debian"),
        ("trixie-security", "debian-security"),
    ]
    assert stanzas[1].package.path.startswith("pool/updates/main/")


def test_a_package_that_is_not_listed_is_named(trixie: Apt) -> None:
    with pytest.raises(ConfigError, match="no package qemu-system-vax in trixie, trixie-updates, trixie-security"):
        trixie.closure(["kmod", "qemu-system-vax"])


def test_dependencies_that_cannot_be_met_are_named(trixie: Apt) -> None:
    with pytest.raises(ConfigError, match=r"dependencies cannot be met: .*linux-image.* Depends: initramfs-tools"):
        trixie.closure(["linux-image-6.12.117+deb13-cloud-amd64"])


@pytest.mark.parametrize("name", ["InRelease", "main/binary-amd64/Packages"])
def test_a_changed_index_is_refused(tmp_path: Path, name: str) -> None:
    archive = copy_archive(tmp_path / "archive")
    changed = archive / "debian/dists/trixie-backports" / name
    changed.write_bytes(changed.read_bytes().replace(b"linux", b"lenux").replace(b"Label: Debian", b"Label: Dobian"))

    with pytest.raises(IntegrityError, match="the index of trixie-backports is not what Debian signed"):
        Apt(tmp_path / "apt", mirror_of(archive), ["trixie-backports"], keyring=KEYRING).update()


def test_an_index_that_a_stranger_signed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="not what Debian signed"):
        Apt(tmp_path, mirror_of(FIXTURES / "archive"), ["forky-backports"], keyring=KEYRING).update()


def test_an_index_that_nobody_signed_is_refused(tmp_path: Path) -> None:
    archive = copy_archive(tmp_path / "archive")
    signed = archive / "debian/dists/trixie-backports/InRelease"
    lines = signed.read_text(encoding="utf-8").split("-----BEGIN PGP SIGNATURE-----")[0].splitlines()[3:]
    signed.with_name("Release").write_text("\n".join(lines) + "\n", encoding="utf-8")
    signed.unlink()

    with pytest.raises(IntegrityError):
        Apt(tmp_path / "apt", mirror_of(archive), ["trixie-backports"], keyring=KEYRING).update()


def test_an_index_past_its_time_is_refused_unless_an_old_date_is_wanted(tmp_path: Path) -> None:
    mirror = mirror_of(FIXTURES / "archive")

    with pytest.raises(IntegrityError, match="out of date"):
        Apt(tmp_path / "now", mirror, ["forky-updates"], keyring=KEYRING).update()

    old = Apt(tmp_path / "old", mirror, ["forky-updates"], keyring=KEYRING, check_valid_until=False).update()
    assert old["forky-updates"].date == "2025-01-06T00:00:00Z"


def test_a_mirror_that_is_not_there_is_no_integrity_error(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match="the index of trixie cannot be fetched"):
        Apt(tmp_path / "apt", mirror_of(tmp_path / "nowhere"), ["trixie"], keyring=KEYRING).update()


def test_the_second_base_of_an_archive_is_tried(tmp_path: Path) -> None:
    good = mirror_of(FIXTURES / "archive")
    bases = {archive: (f"file://{tmp_path}/nowhere", *good.bases(archive)) for archive in ARCHIVES}

    suites = Apt(tmp_path / "apt", Mirror(bases, "test"), ["trixie-backports"], keyring=KEYRING).update()

    assert set(suites) == {"trixie-backports"}


def test_a_host_without_debians_keys_is_told_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught:
        Apt(tmp_path, mirror_of(FIXTURES / "archive"), ["trixie"], keyring=tmp_path / "none.gpg")

    assert caught.value.hint == "apt-get install debian-archive-keyring"


def test_the_hosts_own_apt_configuration_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = tmp_path / "apt.conf"
    hostile.write_text(
        'Acquire::Languages "none";\nAPT::Install-Recommends "true";\nDir "/nowhere";\n', encoding="utf-8"
    )
    monkeypatch.setenv("APT_CONFIG", str(hostile))
    found = Apt(tmp_path / "apt", mirror_of(FIXTURES / "archive"), TRIXIE, keyring=KEYRING)
    found.update()

    assert any(package.name == "kmod" for package in found.closure(["kmod"]))


def test_a_broken_stanza_is_an_error_and_no_guess() -> None:
    index = Index([("trixie", "Package: half\nVersion: 1\n")])

    with pytest.raises(IntegrityError, match="the index of trixie has a broken stanza"):
        index.find("half")


def test_programs_of_the_host_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "gpgv" else f"/usr/bin/{name}")

    with pytest.raises(SetupError, match="gpgv is not installed"):
        Apt(tmp_path, mirror_of(FIXTURES / "archive"), ["trixie"], keyring=KEYRING)


def test_the_archive_of_a_suite_follows_from_its_name() -> None:
    assert apt.archive_of("bookworm-security") == "debian-security"
    assert apt.archive_of("trixie-backports") == "debian"


def test_a_full_disk_is_told_from_a_mirror_that_fails() -> None:
    words = "E: Write error - write (28: No space left on device)\n"

    assert isinstance(apt._translate(words, ["trixie"]), DiskFullError)


def test_a_disk_without_room_for_indexes_is_told_before_apt_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "INDEX_SPACE", 1 << 60)

    with pytest.raises(DiskFullError, match="indexes need"):
        Apt(tmp_path / "apt", mirror_of(FIXTURES / "archive"), ["trixie"], keyring=KEYRING).update()

    assert list((tmp_path / "apt").iterdir()) == []
