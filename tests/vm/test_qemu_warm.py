"""Saved states: what shapes their key, and that damage is found."""

import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vm.qemu_parts import EMULATED, make_parts
from vm.errors import IntegrityError
from vm.qemu.parts import Parts
from vm.qemu.warm import KEPT_STATES, RAM, STATE_SCHEMA, StateRecord, WarmState, WarmStore, checksum, extents, state_key

MEBIBYTE = 1 << 20


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return make_parts(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> WarmStore:
    return WarmStore(tmp_path / "warm")


def save(store: WarmStore, key: str = "k" * 64) -> WarmState:
    """A state with a sparse memory file, as QEMU writes it."""
    with store.building("6.1.0", key) as temporary:
        with (temporary / RAM).open("wb") as ram:
            ram.write(b"header")
            ram.seek(8 * MEBIBYTE)
            ram.write(b"page" * 1024)
            ram.truncate(16 * MEBIBYTE)
        (temporary / "disk.qcow2").write_bytes(b"disk")
        record = StateRecord(
            schema=STATE_SCHEMA,
            key=key,
            release="6.1.0",
            qemu_version="10.0.13",
            accelerator="tcg",
            saved=0.0,
            seconds=5.0,
            files={},
        )
        return store.seal(temporary, "6.1.0", record)


def test_a_saved_state_is_found_by_its_key_and_is_whole(store: WarmStore) -> None:
    saved = save(store)

    found = store.find("6.1.0", "k" * 64)

    assert found is not None
    assert found.record == saved.record
    found.verify()
    assert store.find("6.1.0", "other") is None
    assert store.states() == [found]


def test_a_state_is_its_owners_only(store: WarmStore) -> None:
    assert stat.S_IMODE(save(store).folder.stat().st_mode) == 0o700


def test_nothing_is_left_of_a_state_whose_making_failed(store: WarmStore) -> None:
    def fail() -> None:
        with store.building("6.1.0", "k") as temporary:
            (temporary / RAM).write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert [path for path in store.folder.iterdir() if not path.name.startswith(".lock-")] == []


@pytest.mark.parametrize("position", [2, 8 * MEBIBYTE + 17])
def test_one_changed_byte_of_the_memory_is_found(store: WarmStore, position: int) -> None:
    saved = save(store)
    with saved.path(RAM).open("r+b") as ram:
        ram.seek(position)
        ram.write(b"X")

    with pytest.raises(IntegrityError, match="ram is not as it was saved"):
        saved.verify()


def test_a_shortened_file_is_found(store: WarmStore) -> None:
    saved = save(store)
    os.truncate(saved.path("disk.qcow2"), 2)

    with pytest.raises(IntegrityError, match=r"disk\.qcow2 is not as it was saved"):
        saved.verify()


def test_a_missing_file_is_found(store: WarmStore) -> None:
    saved = save(store)
    saved.path(RAM).unlink()

    with pytest.raises(IntegrityError, match="cannot be read"):
        saved.verify()


def test_holes_are_not_read(store: WarmStore) -> None:
    saved = save(store)

    where = extents(saved.path(RAM))

    assert sum(extent.end - extent.start for extent in where) < MEBIBYTE
    assert saved.disk_usage < MEBIBYTE


def test_a_checksum_covers_where_the_data_lies(store: WarmStore) -> None:
    path = save(store).path(RAM)

    assert checksum(path, 1, extents(path)) != checksum(path, 2, extents(path))


def test_two_that_want_the_same_state_wait_for_each_other(store: WarmStore) -> None:
    order: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with store.building("6.1.0", "k"):
            inside.set()
            leave.wait(10)
            order.append("first is done")

    def second() -> None:
        with store.building("6.1.0", "k"):
            order.append("second begins")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    inside.wait(10)
    threads[1].start()
    leave.set()
    for thread in threads:
        thread.join(10)

    assert order == ["first is done", "second begins"]


def test_what_a_dead_builder_left_is_cleared_by_the_next(store: WarmStore) -> None:
    store.folder.mkdir()
    stale = store.folder / ".new-1-6.1.0-k"
    stale.mkdir()

    with store.building("6.1.0", "k"):
        assert not stale.exists()


def test_a_discarded_state_is_gone(store: WarmStore) -> None:
    saved = save(store)

    store.discard(saved)
    store.discard(saved)

    assert store.states() == []


def test_of_many_states_of_one_kernel_the_least_recently_used_go(store: WarmStore) -> None:
    for number in range(KEPT_STATES):
        saved = save(store, f"{number:016d}")
        os.utime(saved.path("state.json"), (number, number))
    store.find("6.1.0", f"{0:016d}")

    save(store, "newest" * 10)

    assert store.find("6.1.0", f"{0:016d}") is not None
    assert store.find("6.1.0", f"{1:016d}") is None
    assert len(store.states()) == KEPT_STATES


def test_all_that_shapes_a_state_is_in_its_key(parts: Parts) -> None:
    keys = {
        state_key(parts, EMULATED, "10.0.13"),
        state_key(parts, EMULATED, "10.0.14"),
        state_key(parts, replace(EMULATED, cpus=4), "10.0.13"),
        state_key(parts, replace(EMULATED, memory_mib=2048), "10.0.13"),
        state_key(parts, replace(EMULATED, accelerator="kvm"), "10.0.13", "one CPU"),
        state_key(parts, replace(EMULATED, accelerator="kvm"), "10.0.13", "another CPU"),
        state_key(replace(parts, bundle_sha256="other"), EMULATED, "10.0.13"),
        state_key(replace(parts, base_sha256="other"), EMULATED, "10.0.13"),
    }

    assert len(keys) == 8


def test_where_the_artefacts_lie_is_not_in_the_key(parts: Parts) -> None:
    elsewhere = replace(parts, base_image=Path("/elsewhere/base.ext4"), vmlinuz=Path("/elsewhere/vmlinuz"))

    assert state_key(parts, EMULATED, "10.0.13") == state_key(elsewhere, EMULATED, "10.0.13")
