from __future__ import annotations

from pathlib import Path

import pytest

from vm import kernels, lock
from vm.apt import Index
from vm.errors import ConfigError, UsageError
from vm.kernels import Lacking
from vm.model import LOCK_SCHEMA, Kernel, Lock, Package, Root

RELEASES = {
    "5.10": "5.10.0-46-cloud-amd64",
    "6.1": "6.1.0-56-cloud-amd64",
    "6.12": "6.12.117+deb13-cloud-amd64",
    "6.18": "6.18.15+deb13-cloud-amd64",
    "7.3": "7.3.4+deb13-cloud-amd64",
}


def locked(line: str, release: str) -> Kernel:
    dropped = Package(
        name=f"linux-headers-{release}", version="1", architecture="amd64", archive="debian", path="pool/x", size=1,
        sha256="0" * 64, signed=line != "6.18",
    )  # fmt: skip
    support = "selectable" if line == "6.12" else "default"
    return Kernel(line=line, release=release, version="1", suite="trixie", support=support, packages=[dropped])


LOCK = Lock(
    schema=LOCK_SCHEMA,
    source_date_epoch=0,
    suites={},
    tools=Root(suite="trixie", packages=[]),
    base=Root(suite="trixie", packages=[]),
    boxes=Root(suite="trixie", packages=[]),
    kernels={line: locked(line, release) for line, release in RELEASES.items()},
)


@pytest.mark.parametrize("text", ["6.1", " 6.1 ", "6.1.0-56-cloud-amd64"])
def test_a_line_and_a_release_name_the_same_kernel(text: str) -> None:
    assert kernels.resolve(text, LOCK).release == "6.1.0-56-cloud-amd64"


@pytest.mark.parametrize(
    ("text", "suggested"),
    [
        ("6.10", ["6.1", "6.12"]),
        ("6.11", ["6.12"]),
        ("7.4", ["7.3"]),
        ("5.1", ["5.10"]),
        ("6.1.192", ["6.1"]),
        ("v6.1", ["6.1"]),
        ("6.1.0-55-cloud-amd64", ["6.1.0-56-cloud-amd64"]),
        ("7.3.4-cloud-amd64", ["7.3.4+deb13-cloud-amd64"]),
    ],
)
def test_a_name_that_is_no_kernel_is_refused_with_the_nearest(text: str, suggested: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        kernels.resolve(text, LOCK)

    assert caught.value.message == f"there is no kernel {text!r}"
    offered = caught.value.hint.split("?")[0].removeprefix("Did you mean ").split(" or ")
    assert set(suggested) <= set(offered)


def test_a_name_that_is_like_nothing_gets_no_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        kernels.resolve("bsd", LOCK)

    assert caught.value.hint == "All of them: invoke kernels"


def test_the_list_is_in_the_order_of_numbers_and_says_what_is_built() -> None:
    rows = kernels.listing(LOCK, built=lambda kernel: kernel.line == "6.1", warm=lambda kernel: kernel.line == "7.3")

    assert [row.line for row in rows] == ["5.10", "6.1", "6.12", "6.18", "7.3"]
    assert [row.line for row in rows if row.built] == ["6.1"]
    assert [row.line for row in rows if row.warm] == ["7.3"]
    assert [row.line for row in rows if row.unsigned] == ["6.18"]


def test_the_default_lines_are_in_the_order_of_numbers() -> None:
    assert kernels.defaults(LOCK.kernels) == ["5.10", "6.1", "6.18", "7.3"]


def stanza(name: str, version: str, depends: str = "") -> str:
    lines = [f"Package: {name}", f"Version: {version}", "Architecture: amd64", "Size: 1", f"SHA256: {'0' * 64}"]
    return "\n".join([*lines, f"Filename: pool/main/l/linux/{name}_{version}_amd64.deb", f"Depends: {depends}"])


def test_a_package_that_only_depends_on_a_kernel_is_none() -> None:
    text = "\n\n".join(
        [
            stanza("linux-image-6.1-cloud-amd64", "9", "linux-image-6.1.0-0.deb11.52-cloud-amd64 (= 9)"),
            stanza("linux-image-6.1.0-0.deb11.52-cloud-amd64", "6.1.180-1~deb11u1"),
        ]
    )
    choice = kernels.choose("6.1", "cloud-amd64", Index([("bullseye-security", text)]), ["bullseye-security"])

    assert choice.release == "6.1.0-0.deb11.52-cloud-amd64"


def test_versions_are_compared_as_debian_does_and_lines_as_text() -> None:
    names = ("6.12.9+deb13", "6.12.10+deb13", "6.12.10+deb13.1", "6.1.200")
    versions = ("6.12.9-1", "6.12.10-1", "6.12.10-2", "6.1.200-1")
    pairs = zip(names, versions, strict=True)
    text = "\n\n".join(stanza(f"linux-image-{name}-cloud-amd64", version) for name, version in pairs)
    index = Index([("trixie", text)])

    assert kernels.choose("6.12", "cloud-amd64", index, ["trixie"]).release == "6.12.10+deb13.1-cloud-amd64"
    assert kernels.choose("6.1", "cloud-amd64", index, ["trixie"]).release == "6.1.200-cloud-amd64"


def test_another_flavour_is_another_kernel() -> None:
    text = "\n\n".join([stanza("linux-image-6.1.0-5-cloud-amd64", "2"), stanza("linux-image-6.1.0-4-amd64", "1")])

    assert kernels.choose("6.1", "amd64", Index([("trixie", text)]), ["trixie"]).release == "6.1.0-4-amd64"


def test_the_path_in_the_pool_follows_the_archives_rule() -> None:
    security = Lacking("linux-headers-6.1.0-55-common", "6.1.192-1", "all", "debian-security", "linux")
    library = Lacking("libx", "1:2-3", "amd64", "debian", "libxyz")

    assert security.path == "pool/updates/main/l/linux/linux-headers-6.1.0-55-common_6.1.192-1_all.deb"
    assert library.path == "pool/main/libx/libxyz/libx_2-3_amd64.deb"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("schema = 1\n[kernel", "Expected ']'"),
        ("schema = 1", "missing required field"),
        ('[kernel."6.1"]\nsuites = ["x"]\nsupport = "maybe"', "support is 'maybe'"),
        ('[kernel.mine]\nsuites = ["x"]', "neither suites nor a path"),
        ('[kernel."6.1"]\npath = "x"', "a name of its own"),
        ('[kernel."6.1"]\nsweets = ["x"]', "unknown field"),
    ],
)
def test_a_kernels_toml_that_does_not_hold_together_says_where(tmp_path: Path, text: str, says: str) -> None:
    roots = "".join(f'\n[{name}]\nsuites = ["x"]\npackages = []\n' for name in lock.ROOTS)
    path = tmp_path / "kernels.toml"
    head = 'schema = 1\nflavour = "f"\n' + roots
    path.write_text(head + text if text.startswith("[") else text, encoding="utf-8")

    with pytest.raises(ConfigError, match=says):
        kernels.read_configuration(path)


def test_the_committed_kernels_toml_has_the_lines_that_the_lab_promises() -> None:
    lines = kernels.read_configuration().lines

    chosen = {line for line, config in lines.items() if config.support == "default"}
    assert chosen == {"5.10", "6.1", "6.12", "6.18", "7.3"}
    assert set(lines) - chosen == {"6.16", "6.17", "6.19", "7.0", "7.1", "7.2"}
