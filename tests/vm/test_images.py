"""Images: what is listed, checked and cleared; what a build writes into the lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.archive import package
from vm import base, bundle, images, lock, tools, tree
from vm.artefacts import Artefact, Plan, Store
from vm.images import Builder, Built
from vm.model import LOCK_SCHEMA, Kernel, Lock, Root
from vm.paths import Layout
from vm.progress import Silent
from vm.tree import Manifest

RELEASE = "6.1.0-56-cloud-amd64"


@pytest.fixture
def small_lock() -> Lock:
    """A lock of one kernel, without hashes."""
    kernel = Kernel(
        line="6.1", release=RELEASE, version="6.1.174-1", suite="bookworm-security", support="default",
        packages=[package(b"kernel", "linux-image")],
    )  # fmt: skip
    return Lock(
        schema=LOCK_SCHEMA,
        source_date_epoch=1_700_000_000,
        suites={},
        tools=Root(suite="trixie", packages=[package(b"qemu", "qemu")]),
        base=Root(suite="trixie", packages=[package(b"sshd", "sshd")]),
        boxes=Root(suite="trixie", packages=[package(b"grub", "grub")]),
        kernels={"6.1": kernel},
    )


def fill(folder: Path) -> Manifest:
    """A build that leaves one file."""
    (folder / "image").write_bytes(b"image" * 1000)
    return Manifest.of([tree.file("usr/bin/x", b"x")])


def stored(layout: Layout, *plans: Plan) -> list[Artefact]:
    store = Store(layout.artefacts, Silent())
    return [store.obtain(plan, fill) for plan in plans]


def everything(small_lock: Lock) -> list[Plan]:
    return [tools.plan(small_lock), base.plan(small_lock), bundle.plan(small_lock, small_lock.kernels["6.1"])]


def downloaded(layout: Layout, small_lock: Lock) -> None:
    """The packages of the lock, one that it does not name, and one that was cut off."""
    layout.downloads.mkdir(parents=True)
    for locked in [*small_lock.tools.packages, *small_lock.base.packages]:
        (layout.downloads / locked.sha256).write_bytes(b"x" * locked.size)
    (layout.downloads / ("0" * 64)).write_bytes(b"old")
    (layout.downloads / f"{'1' * 64}.part").write_bytes(b"half")


def test_what_is_there_is_taken_without_any_network(small_lock: Lock, layout: Layout) -> None:
    stored(layout, *everything(small_lock))

    found = Builder(small_lock, layout).images(small_lock.kernels["6.1"])

    assert found.parts.base_image.name == "base.ext4"
    assert found.parts.bundle_image.parent.name.startswith(f"kernel-{RELEASE}-")
    assert found.parts.lock_digest == small_lock.digest
    assert found.tools.root.parent.name.startswith("tools-")


def test_listing_tells_what_the_lock_would_use(small_lock: Lock, layout: Layout) -> None:
    old = Plan("base", "base", "f" * 64)
    stored(layout, *everything(small_lock), old)

    rows = {row.name: row for row in images.listing(small_lock, layout)}

    assert {row.kind for row in rows.values()} == {"tools", "base", "kernel"}
    assert [name for name, row in rows.items() if not row.in_lock] == [old.name]
    assert all(row.state == "whole" and row.size > 5000 and row.age < 600 for row in rows.values())


def test_listing_tells_what_was_changed(small_lock: Lock, layout: Layout) -> None:
    (artefact,) = stored(layout, tools.plan(small_lock))
    (artefact.path / "image").write_bytes(b"other")

    (row,) = images.listing(small_lock, layout)

    assert row.state.endswith("was changed after it was built (image)")


def test_all_bytes_are_read_where_asked_for(small_lock: Lock, layout: Layout) -> None:
    good, bad, _ = stored(layout, *everything(small_lock))
    (bad.path / "manifest").write_text("")

    rows = {row.name: row.problem for row in images.check_all(small_lock, layout)}

    assert rows[good.path.name] == ""
    assert "manifest" in rows[bad.path.name]
    assert len(rows) == 3


def test_a_whole_artefact_that_is_not_the_locks_is_a_problem(small_lock: Lock, layout: Layout) -> None:
    (artefact,) = stored(layout, tools.plan(small_lock))
    other = images.with_hashes(small_lock, [Built("tools", artefact, True)])
    assert other.tools.artefact is not None
    wrong = lock.with_artefact(small_lock, "tools", type(other.tools.artefact)(sha256="0" * 64, size=1, parts={}))

    (row,) = images.check_all(wrong, layout)

    assert "not what the lock says" in row.problem


def test_cleaning_keeps_what_the_lock_names(small_lock: Lock, layout: Layout) -> None:
    kept = stored(layout, *everything(small_lock))
    (old,) = stored(layout, Plan("base", "base", "f" * 64))
    downloaded(layout, small_lock)
    (layout.artefacts / ".base-1.tmp").mkdir()
    (layout.warm / "state").mkdir(parents=True)

    removed = images.clean(small_lock, layout)

    assert {(each.kind, each.name) for each in removed} == {
        ("leftover", "base-1"),
        ("artefact", old.path.name),
        ("download", "0" * 64),
        ("download", f"{'1' * 64}.part"),
    }
    assert all(artefact.path.is_dir() for artefact in kept)
    assert sum(1 for _ in layout.downloads.iterdir()) == 2
    assert (layout.warm / "state").is_dir()
    assert next(each.size for each in removed if each.kind == "artefact") > 5000


def test_cleaning_everything_spares_states_in_use(small_lock: Lock, layout: Layout) -> None:
    stored(layout, *everything(small_lock))
    downloaded(layout, small_lock)
    for name in ("used", "unused"):
        (layout.warm / name).mkdir(parents=True)

    images.clean(small_lock, layout, everything=True, warm_in_use=["used"])

    assert images.listing(small_lock, layout) == []
    assert list(layout.downloads.iterdir()) == []
    assert [path.name for path in layout.warm.iterdir()] == ["used"]


def test_an_empty_cache_is_clean(small_lock: Lock, layout: Layout) -> None:
    assert images.clean(small_lock, layout) == []
    assert images.listing(small_lock, layout) == []


def test_hashes_go_into_the_lock_where_it_has_none(small_lock: Lock, layout: Layout) -> None:
    first, second, third = stored(layout, *everything(small_lock))
    built = [Built("tools", first, True), Built("base", second, True), Built("kernel:6.1", third, True)]

    filled = images.with_hashes(small_lock, built)

    assert filled.tools.artefact == first.hash
    assert filled.kernels["6.1"].artefact == third.hash
    assert filled.digest == lock.digest(filled)


def test_hashes_that_the_lock_has_are_replaced_only_on_purpose(small_lock: Lock, layout: Layout) -> None:
    (artefact,) = stored(layout, tools.plan(small_lock))
    other = type(artefact.hash)(sha256="0" * 64, size=1, parts={})
    locked = lock.with_artefact(small_lock, "tools", other)
    built = [Built("tools", artefact, True)]

    assert images.with_hashes(locked, built) == locked
    assert images.with_hashes(locked, built, renew=True).tools.artefact == artefact.hash


def test_a_kernel_of_ones_own_is_not_written_into_the_lock(small_lock: Lock, layout: Layout) -> None:
    (artefact,) = stored(layout, Plan("kernel", "kernel-mine", "a" * 64))

    assert images.with_hashes(small_lock, [Built("kernel:mine", artefact, True)]) == small_lock
