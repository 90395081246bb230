from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from tests.vm.archive import FIXTURES, KEYRING, configuration, copy_archive, deb, mirror_of
from vm import kernels, lock
from vm.errors import ConfigError, IntegrityError, MirrorError, UsageError
from vm.kernels import Configuration
from vm.mirror import Mirror
from vm.model import ArtefactHash, Lock, Package
from vm.paths import Layout

FIVE_TEN = ("5.10", ["bullseye-security"])
SIX_ONE = ("6.1", ["bookworm-security"])
SIX_TWELVE = ("6.12", ["trixie", "trixie-security"])
SEVEN_THREE = ("7.3", ["trixie-backports"])
HASH = ArtefactHash(sha256="ab" * 32, size=7, parts={"root": "cd" * 32})


def make(
    layout: Layout,
    config: Configuration,
    old: Lock | None = None,
    only: tuple[str, ...] = (),
    mirror: Mirror | None = None,
) -> Lock:
    source = mirror or mirror_of(FIXTURES / "archive")
    return lock.make(config, layout, old=old, only=only, source=lambda: source, keyring=KEYRING)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lock:
    """The lock of four lines, tools and base on the recorded mirror."""
    folder = tmp_path_factory.mktemp("lock")
    layout = Layout(cache=folder, state=folder, runs=folder)
    return make(layout, configuration(FIVE_TEN, SIX_ONE, SIX_TWELVE, SEVEN_THREE))


def names(packages: list[Package]) -> list[str]:
    return [package.name for package in packages]


def test_each_line_is_its_newest_release(made: Lock) -> None:
    assert {line: kernel.release for line, kernel in made.kernels.items()} == {
        "5.10": "5.10.0-46-cloud-amd64",
        "6.1": "6.1.0-56-cloud-amd64",
        "6.12": "6.12.117+deb13-cloud-amd64",
        "7.3": "7.3.4+deb13-cloud-amd64",
    }


def test_an_older_kernels_packages_are_image_and_headers_without_a_compiler(made: Lock) -> None:
    assert names(made.kernels["6.1"].packages) == [
        "linux-headers-6.1.0-56-cloud-amd64",
        "linux-headers-6.1.0-56-common",
        "linux-image-6.1.0-56-cloud-amd64",
    ]


def test_a_newer_kernels_image_is_a_shell_with_its_parts_beside_it(made: Lock) -> None:
    assert names(made.kernels["7.3"].packages) == [
        "linux-base-7.3.4+deb13-cloud-amd64",
        "linux-binary-7.3.4+deb13-cloud-amd64",
        "linux-headers-7.3.4+deb13-cloud-amd64",
        "linux-headers-7.3.4+deb13-common",
        "linux-image-7.3.4+deb13-cloud-amd64",
        "linux-modules-7.3.4+deb13-cloud-amd64",
    ]


def test_equal_versions_come_from_the_suite_that_is_named_first(made: Lock) -> None:
    assert made.kernels["6.12"].suite == "trixie"
    assert {package.archive for package in made.kernels["6.12"].packages} == {"debian"}


def test_all_that_is_listed_is_signed(made: Lock) -> None:
    assert all(package.signed for kernel in made.kernels.values() for package in kernel.packages)
    assert all(suite.signed_by for suite in made.suites.values())


def test_the_epoch_is_the_newest_indexs_date(made: Lock) -> None:
    assert made.source_date_epoch == 1795313345  # 2026-11-22T02:09:05Z, trixie-updates


def test_a_lock_that_is_written_and_read_is_the_same(made: Lock, tmp_path: Path) -> None:
    written = lock.write(made, tmp_path / "lab.lock.json")

    assert lock.read(tmp_path / "lab.lock.json") == written == made
    assert [path.name for path in tmp_path.iterdir()] == ["lab.lock.json"]


def test_the_text_has_a_package_per_line_and_names_no_mirror(made: Lock, tmp_path: Path) -> None:
    lock.write(made, tmp_path / "lab.lock.json")
    lines = (tmp_path / "lab.lock.json").read_text(encoding="utf-8").splitlines()

    kmod = next(line for line in lines if '"name": "kmod"' in line)
    assert json.loads(kmod.rstrip(","))["path"].startswith("pool/main/k/kmod/")
    assert not any("://" in line for line in lines)


def test_a_lock_edited_by_hand_is_refused_and_says_what_to_do(made: Lock, tmp_path: Path) -> None:
    path = tmp_path / "lab.lock.json"
    lock.write(made, path)
    path.write_text(path.read_text(encoding="utf-8").replace("6.1.192-2", "6.1.192-3"), encoding="utf-8")

    with pytest.raises(ConfigError, match="edited by hand") as caught:
        lock.read(path)

    assert "invoke kernels.lock" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no JSON"),
        ("[]", "has schema None"),
        ('{"schema": 99}', "has schema 99"),
        ('{"schema": 1, "kernels": 3}', "does not hold together"),
    ],
)
def test_what_is_no_lock_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "lab.lock.json"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=says):
        lock.read(path)


def test_a_missing_lock_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        lock.read(tmp_path / "none.json")

    assert caught.value.hint == "Make one: invoke kernels.lock"


def test_artefact_hashes_are_filled_in_by_name(made: Lock, tmp_path: Path) -> None:
    filled = lock.with_artefact(lock.with_artefact(made, "tools", HASH), "kernel:6.1", HASH)

    lock.write(filled, tmp_path / "lab.lock.json")
    found = lock.read(tmp_path / "lab.lock.json")
    assert (found.tools.artefact, found.base.artefact, found.kernels["6.1"].artefact) == (HASH, None, HASH)
    assert "tools\n    artefact hash abababababababab… filled in" in lock.difference(made, filled).text


@pytest.mark.parametrize("name", ["kernel:6.10", "6.1", "root"])
def test_an_artefact_that_is_not_there_is_refused(made: Lock, name: str) -> None:
    with pytest.raises(UsageError, match="there is no artefact"):
        lock.with_artefact(made, name, HASH)


def older(made: Lock) -> Lock:
    """A lock of the day before: another 6.1, an earlier epoch, artefacts built."""
    kernel = made.kernels["6.1"]
    packages = [
        msgspec.structs.replace(package, name=package.name.replace("-56-", "-55-"), version="6.1.192-1")
        for package in kernel.packages
    ]
    before = msgspec.structs.replace(kernel, release="6.1.0-55-cloud-amd64", version="6.1.192-1", packages=packages)
    old = msgspec.structs.replace(made, kernels={**made.kernels, "6.1": before}, source_date_epoch=1)
    for name in ("tools", "base", "kernel:6.1", "kernel:7.3"):
        old = lock.with_artefact(old, name, HASH)
    return old


def test_one_line_locked_again_changes_that_line_alone(made: Lock, layout: Layout) -> None:
    old = older(made)
    config = configuration(FIVE_TEN, SIX_ONE, SIX_TWELVE, SEVEN_THREE)

    new = make(layout, config, old, ("6.1",))

    assert new.kernels["6.1"].release == "6.1.0-56-cloud-amd64"
    assert new.kernels["6.1"].artefact is None
    assert new.source_date_epoch == 1
    assert (new.tools, new.base, new.kernels["7.3"]) == (old.tools, old.base, old.kernels["7.3"])


def test_everything_locked_again_takes_a_new_epoch_and_opens_every_artefact(made: Lock, layout: Layout) -> None:
    new = make(layout, configuration(FIVE_TEN, SIX_ONE, SIX_TWELVE, SEVEN_THREE), older(made))

    assert new.source_date_epoch == made.source_date_epoch
    assert (new.tools.artefact, new.kernels["7.3"].artefact) == (None, None)


def test_everything_locked_again_without_a_change_keeps_epoch_and_artefacts(made: Lock, layout: Layout) -> None:
    old = lock.with_artefact(msgspec.structs.replace(made, source_date_epoch=1), "base", HASH)

    new = make(layout, configuration(FIVE_TEN, SIX_ONE, SIX_TWELVE, SEVEN_THREE), old)

    assert new == old


def test_boxes_are_opened_by_another_date_alone_because_their_version_says_it(made: Lock, layout: Layout) -> None:
    old = lock.with_artefact(msgspec.structs.replace(made, source_date_epoch=1), "box:libvirt:6.1", HASH)
    suites = {name: msgspec.structs.replace(suite, date="2020-01-01T00:00:00Z") for name, suite in old.suites.items()}
    lines = configuration(FIVE_TEN, SIX_ONE, SIX_TWELVE, SEVEN_THREE)

    assert make(layout, lines, old).box_artefacts == {"libvirt:6.1": HASH}
    assert make(layout, lines, msgspec.structs.replace(old, suites=suites)).box_artefacts == {}


def test_the_difference_is_what_a_review_needs(made: Lock, layout: Layout) -> None:
    old = older(made)
    new = make(layout, configuration(FIVE_TEN, SIX_ONE, SIX_TWELVE, SEVEN_THREE), old, ("6.1",))

    assert lock.difference(old, new).text.splitlines() == [
        "kernel 6.1",
        "    release 6.1.0-55-cloud-amd64 -> 6.1.0-56-cloud-amd64",
        "    artefact must be built again: its hash is open",
        "    ~ linux-headers-6.1.0-56-cloud-amd64 6.1.192-1 -> 6.1.192-2",
        "    ~ linux-headers-6.1.0-56-common 6.1.192-1 -> 6.1.192-2",
        "    ~ linux-image-6.1.0-56-cloud-amd64 6.1.192-1 -> 6.1.192-2",
    ]


def test_what_should_alarm_a_reviewer_is_marked(made: Lock) -> None:
    kmod = next(package for package in made.tools.packages if package.name == "kmod")
    others = [package for package in made.tools.packages if package.name not in {"kmod", "libkmod2"}]
    downgraded = msgspec.structs.replace(next(p for p in made.tools.packages if p.name == "libkmod2"), version="1")
    changed = [*others, msgspec.structs.replace(kmod, sha256="0" * 64), downgraded]
    new = msgspec.structs.replace(made, tools=msgspec.structs.replace(made.tools, packages=changed))

    lines = lock.difference(made, new).text.splitlines()

    assert lines[0] == "tools"
    assert lines[1] == f"    ! kmod {kmod.version}: hash changed with the same version!"
    assert lines[2].endswith("-> (older!) 1")


def test_no_difference_is_said_and_false(made: Lock) -> None:
    assert not lock.difference(made, made)
    assert lock.difference(made, made).text == "nothing changed"


def test_a_line_that_is_not_configured_cannot_be_locked(made: Lock, layout: Layout) -> None:
    with pytest.raises(UsageError, match=r"6\.10 cannot be locked"):
        make(layout, configuration(SIX_ONE), made, ("6.10",))


def test_a_line_that_no_suite_has_is_named(layout: Layout) -> None:
    with pytest.raises(ConfigError, match=r"no kernel 6\.6 \(cloud-amd64\) in trixie-backports"):
        make(layout, configuration(("6.6", ["trixie-backports"])))


def test_a_tampered_archive_gives_no_lock_and_leaves_the_old_one(made: Lock, layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "lab.lock.json"
    lock.write(made, path)
    before = path.read_bytes()
    archive = copy_archive(tmp_path / "archive")
    index = archive / "debian-security/dists/bookworm-security/main/binary-amd64/Packages"
    index.write_text(index.read_text(encoding="utf-8").replace("6.1.192-2", "6.1.192-9"), encoding="utf-8")

    with pytest.raises(IntegrityError):
        lock.renew(
            configuration(FIVE_TEN, SIX_ONE, SIX_TWELVE, SEVEN_THREE), layout, path=path, only=("6.1",),
            source=lambda: mirror_of(archive), keyring=KEYRING,
        )  # fmt: skip

    assert path.read_bytes() == before


def test_renewing_a_lock_edited_by_hand_makes_all_of_it_anew(made: Lock, layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "lab.lock.json"
    lock.write(made, path)
    path.write_text(path.read_text(encoding="utf-8").replace("6.1.192-2", "6.1.192-3"), encoding="utf-8")
    notes: list[str] = []
    config = configuration(FIVE_TEN, SIX_ONE, SIX_TWELVE, SEVEN_THREE)

    new, changes = lock.renew(
        config, layout, path=path, only=("6.1",), source=lambda: mirror_of(FIXTURES / "archive"), keyring=KEYRING,
        note=notes.append,
    )  # fmt: skip

    assert new == made == lock.read(path)
    assert changes
    assert notes[0].startswith("lab.lock.json was edited by hand")


class TestPackagesThatTheIndexDropped:
    """6.18 in trixie-backports: the signed image is listed, its headers are not; the pool has them for a while."""

    CONFIG = configuration(("6.18", ["trixie-backports"]))
    HEADERS = "linux-headers-6.18.15+deb13-cloud-amd64"
    COMMON = "linux-headers-6.18.15+deb13-common"
    VERSION = "6.18.15-1~bpo13+1"

    @pytest.fixture
    def archive(self, tmp_path: Path) -> Path:
        """The recorded mirror with the headers in its pool."""
        archive = copy_archive(tmp_path / "archive")
        for name, architecture in ((self.HEADERS, "amd64"), (self.COMMON, "all")):
            self.put(archive, name, architecture, deb(name, self.VERSION, architecture))
        return archive

    def put(self, archive: Path, name: str, architecture: str, content: bytes) -> None:
        path = archive / f"debian/pool/main/l/linux/{name}_{self.VERSION}_{architecture}.deb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def test_they_are_locked_from_the_pool_and_marked(self, archive: Path, layout: Layout) -> None:
        made = make(layout, self.CONFIG, mirror=mirror_of(archive))

        signed = {package.name: package.signed for package in made.kernels["6.18"].packages}
        assert signed == {self.HEADERS: False, self.COMMON: False, "linux-image-6.18.15+deb13-cloud-amd64": True}
        stored = {package.sha256 for package in made.kernels["6.18"].packages if not package.signed}
        assert {path.name for path in layout.downloads.iterdir()} == stored
        assert "(hash from the pool: no signed index lists it)" in lock.difference(None, made).text

    def test_once_locked_their_hash_stays_even_when_the_pool_changes(self, archive: Path, layout: Layout) -> None:
        made = make(layout, self.CONFIG, mirror=mirror_of(archive))
        self.put(archive, self.HEADERS, "amd64", deb(self.HEADERS, self.VERSION, "amd64", {"usr/evil": b"x"}))

        again = make(layout, self.CONFIG, made, ("6.18",), mirror_of(archive))

        assert again.kernels["6.18"].packages == made.kernels["6.18"].packages

    def test_a_file_that_is_another_package_is_refused(self, archive: Path, layout: Layout) -> None:
        self.put(archive, self.HEADERS, "amd64", deb("other", self.VERSION, "amd64"))

        with pytest.raises(IntegrityError, match="holds other"):
            make(layout, self.CONFIG, mirror=mirror_of(archive))

        assert list(layout.downloads.iterdir()) == []

    def test_a_file_that_is_no_package_is_refused(self, archive: Path, layout: Layout) -> None:
        self.put(archive, self.HEADERS, "amd64", b"<html>moved</html>")

        with pytest.raises(IntegrityError, match="is no Debian package"):
            make(layout, self.CONFIG, mirror=mirror_of(archive))

    def test_gone_from_the_pool_too_they_are_named(self, layout: Layout) -> None:
        with pytest.raises(MirrorError, match=r"linux-headers-6\.18.* is in no index and no longer in the pool"):
            make(layout, self.CONFIG)

    def test_the_users_archive_is_looked_in(self, archive: Path, layout: Layout) -> None:
        extra = (f"file://{archive}/debian",)

        made = make(layout, self.CONFIG, mirror=mirror_of(FIXTURES / "archive", extra))

        assert len(made.kernels["6.18"].packages) == 3


class TestTheLockOfThisCheckout:
    """vm/lab.lock.json as it is committed."""

    def test_it_holds_every_line_of_kernels_toml(self) -> None:
        config, found = kernels.read_configuration(), lock.read()

        assert set(found.kernels) == set(config.lines)
        assert {line: kernel.support for line, kernel in found.kernels.items()} == {
            line: kernel.support for line, kernel in config.lines.items()
        }

    def test_it_holds_every_package_that_kernels_toml_asks_for(self) -> None:
        config, found = kernels.read_configuration(), lock.read()

        assert set(config.tools.packages) <= set(names(found.tools.packages))
        assert set(config.base.packages) <= set(names(found.base.packages))

    def test_its_text_is_canonical(self, tmp_path: Path) -> None:
        lock.write(lock.read(), tmp_path / "lab.lock.json")

        assert (tmp_path / "lab.lock.json").read_bytes() == lock.LOCK.read_bytes()

    def test_every_kernel_has_image_and_headers_of_one_version(self) -> None:
        for kernel in lock.read().kernels.values():
            assert {f"linux-image-{kernel.release}", f"linux-headers-{kernel.release}"} <= set(names(kernel.packages))
            assert {package.version for package in kernel.packages} == {kernel.version}
