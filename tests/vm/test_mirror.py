from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.vm.archive import package
from vm import mirror
from vm.errors import ConfigError, MirrorError, SetupError

DEFAULT = """
    my $mirror    = 'http://default.example/debian';
    my $secmirror = 'http://security.example/debian-security';
"""
"""As mmdebstrap 1.3 to 1.5 has it (bin/mmdebstrap, get_sourceslist_by_suite), with other hosts."""

DEB822 = """\
# A comment, as image builders leave it
Types: deb
# another
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


@pytest.fixture(autouse=True)
def mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An mmdebstrap with a default of its own, before the host's on PATH."""
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text(DEFAULT, encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return program


def host(tmp_path: Path, **sources: str) -> list[str]:
    """Options that make apt read ``sources`` (name with two underscores for the dot) instead of the host's own."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for name, text in sources.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    (tmp_path / "lists/partial").mkdir(parents=True)
    options = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": folder,
        "Dir::State::lists": tmp_path / "lists",
    }
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def test_one_base_holds_both_archives() -> None:
    found = mirror.resolve({"KMLAB_MIRROR": "file:///srv/mirror/"})

    assert found.bases("debian") == ("file:///srv/mirror/debian",)
    assert found.bases("debian-security") == ("file:///srv/mirror/debian-security",)
    assert found.source == "KMLAB_MIRROR"


def test_two_bases_are_the_two_archives() -> None:
    found = mirror.resolve({"KMLAB_MIRROR": "http://a.example/debian https://b.example/sec"})

    assert found.bases("debian") == ("http://a.example/debian",)
    assert found.bases("debian-security") == ("https://b.example/sec",)


def test_a_plain_path_is_a_file_mirror() -> None:
    assert mirror.resolve({"KMLAB_MIRROR": "/srv/mirror"}).bases("debian") == ("file:///srv/mirror/debian",)


@pytest.mark.parametrize("setting", ["mirror.example", "ftp://mirror.example", "/a /b /c"])
def test_a_setting_that_is_no_base_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="KMLAB_MIRROR"):
        mirror.resolve({"KMLAB_MIRROR": setting})


def test_the_hosts_deb822_sources_are_used(tmp_path: Path) -> None:
    found = mirror.resolve({}, apt_options=host(tmp_path, debian__sources=DEB822))

    assert found.source == "host"
    assert found.bases("debian") == ("http://mirror.example/debian",)
    assert found.bases("debian-security") == ("http://mirror.example/debian-security",)


def test_the_hosts_one_line_sources_are_used(tmp_path: Path) -> None:
    lines = """\
deb http://mirror.example/debian/ trixie main non-free-firmware
deb-src http://sources.example/debian/ trixie main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://sec.example/x/ trixie-security main
"""
    found = mirror.resolve({}, apt_options=host(tmp_path, debian__list=lines))

    assert found.bases("debian") == ("http://mirror.example/debian",)
    assert found.bases("debian-security") == ("http://sec.example/x",)


def test_other_vendors_sources_are_passed_over(tmp_path: Path) -> None:
    vendors = """\
deb [signed-by=/usr/share/keyrings/vendor.gpg] http://vendor.example/stable/debian bookworm main
deb http://cloud.example/apt cloud-sdk-bookworm main
deb http://docker.example/linux/debian bookworm stable
"""
    options = host(tmp_path, a__list=vendors, debian__sources=DEB822)

    assert mirror.resolve({}, apt_options=options).bases("debian") == ("http://mirror.example/debian",)


def test_a_source_whose_index_calls_itself_another_vendors_is_passed_over() -> None:
    found = mirror.from_index_targets(
        [
            "http://vendor.example/debian/|bookworm|main|Vendor|/etc/apt/sources.list:1|Packages",
            "http://mirror.example/debian/|bookworm|main|Debian|/etc/apt/sources.list:2|Packages",
            "http://mirror.example/debian/|bookworm|main|Debian|/etc/apt/sources.list:2|Translations",
        ]
    )

    assert found == {"debian": ("http://mirror.example/debian",)}


def test_a_file_mirror_of_the_host_is_used(tmp_path: Path) -> None:
    options = host(tmp_path, debian__list="deb file:/srv/debian trixie main\n")

    assert mirror.resolve({}, apt_options=options).bases("debian") == ("file:///srv/debian",)


def test_without_a_security_source_its_archive_is_sought_beside_then_at_the_default(tmp_path: Path) -> None:
    options = host(tmp_path, debian__list="deb http://mirror.example/debian trixie main\n")

    assert mirror.resolve({}, apt_options=options).bases("debian-security") == (
        "http://mirror.example/debian-security",
        "http://security.example/debian-security",
    )


def test_a_host_that_is_not_debian_takes_mmdebstraps_default(tmp_path: Path) -> None:
    ubuntu = "deb http://ubuntu.example/ubuntu noble main\ndeb http://ubuntu.example/ubuntu noble-security main\n"
    found = mirror.resolve({}, apt_options=host(tmp_path, ubuntu__list=ubuntu))

    assert found.source == "mmdebstrap"
    assert found.bases("debian") == ("http://default.example/debian",)
    assert found.bases("debian-security") == ("http://security.example/debian-security",)


def test_an_mmdebstrap_that_does_not_tell_its_default_asks_for_the_setting(tmp_path: Path, mmdebstrap: Path) -> None:
    mmdebstrap.write_text("#!/usr/bin/perl\n", encoding="utf-8")

    with pytest.raises(SetupError) as caught:
        mirror.resolve({}, apt_options=host(tmp_path))

    assert "KMLAB_MIRROR" in caught.value.hint


def test_a_debian_mirror_with_no_security_archive_in_sight_is_an_error(tmp_path: Path, mmdebstrap: Path) -> None:
    mmdebstrap.write_text("#!/usr/bin/perl\n", encoding="utf-8")
    options = host(tmp_path, debian__list="deb http://mirror.example/d trixie main\n")

    with pytest.raises(MirrorError, match="names no Debian security archive"):
        mirror.resolve({}, apt_options=options)


def test_the_hosts_proxy_is_kept(tmp_path: Path) -> None:
    options = [*host(tmp_path, debian__sources=DEB822), "-o", "Acquire::http::Proxy=http://proxy.example:3142"]

    assert mirror.resolve({}, apt_options=options).proxy == "http://proxy.example:3142"


def test_a_package_is_sought_at_the_mirror_first_then_in_the_users_archive() -> None:
    wanted = package(b"", path="pool/main/l/linux/linux-base-7.3_7.3.4-1~bpo13+1_amd64.deb")
    found = mirror.resolve({"KMLAB_MIRROR": "/m", "KMLAB_ARCHIVE": "http://old.example/2026 /srv/kept"})

    urls = found.candidates(wanted)

    assert urls[0] == f"file:///m/debian/{wanted.path}"
    assert urls[1] == f"http://old.example/2026/debian/{wanted.path}"
    assert urls[-1] == f"file:///srv/kept/{wanted.sha256}"


def test_an_archive_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="no archive 'ubuntu'"):
        mirror.resolve({"KMLAB_MIRROR": "/m"}).bases("ubuntu")
