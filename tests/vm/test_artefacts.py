"""The artefact cache: whole or not there, the lock's bytes or none."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from vm import kernels, lock, tree
from vm.artefacts import SEAL, Artefact, Plan, Store, check, command, disk_usage, glance, inputs_hash, read
from vm.boxes import plans
from vm.errors import BuildError, DiskFullError, IntegrityError
from vm.progress import Silent
from vm.tree import Manifest

EPOCH = 1_700_000_000
PLAN = Plan("tools", "tools", inputs_hash("tools", 1, ["abc"]))
LARGE = b"x" * 100_000


def builder(program: bytes = LARGE) -> Callable[[Path], Manifest]:
    """A build that leaves an image and a tree."""

    def build(folder: Path) -> Manifest:
        entries = tree.plain(tree.canonical([tree.file("usr/bin/qemu", program, 0o755), tree.file("etc/a", b"a\n")]))
        (folder / "image").write_bytes(b"image")
        (folder / "root").mkdir()
        tree.write_folder(entries, folder / "root", EPOCH)
        return Manifest.of(entries)

    return build


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "artefacts", Silent())


def notes(store: Store) -> list[str]:
    assert isinstance(store.progress, Silent)
    return store.progress.notes


def names(store: Store) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir() if not path.name.endswith(".lock"))


def never(_: Path) -> Manifest:
    raise AssertionError("built although it is there")


def touch_up(path: Path, content: bytes) -> None:
    """Change a file's bytes and nothing that a glance sees."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_is_built_is_found_again(store: Store) -> None:
    built = store.obtain(PLAN, builder())

    assert store.obtain(PLAN, never).hash == built.hash
    assert names(store) == [PLAN.name]
    check(built)


def test_the_hash_depends_on_contents_alone(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other", Silent())

    assert store.obtain(PLAN, builder()).hash == other.obtain(PLAN, builder()).hash
    assert store.obtain(PLAN, never).hash != Store(tmp_path / "third", Silent()).obtain(PLAN, builder(b"y")).hash


def test_other_inputs_are_another_artefact(store: Store) -> None:
    store.obtain(PLAN, builder())
    other = Plan("tools", "tools", inputs_hash("tools", 2, ["abc"]))

    store.obtain(other, builder())

    assert names(store) == sorted([PLAN.name, other.name])


@pytest.mark.parametrize("failure", [BuildError("mke2fs failed"), KeyboardInterrupt()])
def test_an_interrupted_build_leaves_nothing(store: Store, failure: BaseException) -> None:
    def build(folder: Path) -> Manifest:
        (folder / "half").write_bytes(b"half")
        raise failure

    with pytest.raises(type(failure)):
        store.obtain(PLAN, build)

    assert names(store) == []
    assert store.find(PLAN) is None


def test_what_a_killed_build_left_is_swept(store: Store) -> None:
    store.folder.mkdir()
    (store.folder / ".kernel-6.1-0123456789abcdef.tmp").mkdir()

    assert store.sweep() == ["kernel-6.1-0123456789abcdef"]
    assert names(store) == []


def test_a_build_under_way_is_not_swept(store: Store) -> None:
    store.folder.mkdir()
    (store.folder / ".base-1.tmp").mkdir()
    with (store.folder / ".base-1.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        assert store.sweep() == []

    assert (store.folder / ".base-1.tmp").is_dir()


def test_a_second_builder_waits_and_takes_what_the_first_made(store: Store) -> None:
    started, go = threading.Event(), threading.Event()

    def slowly(folder: Path) -> Manifest:
        started.set()
        assert go.wait(30)
        return builder()(folder)

    first = threading.Thread(target=store.obtain, args=(PLAN, slowly))
    second_store, found = Store(store.folder, Silent()), []
    second = threading.Thread(target=lambda: found.append(second_store.obtain(PLAN, never)))
    first.start()
    assert started.wait(30)
    second.start()
    while not notes(second_store):
        second.join(0.01)
    go.set()
    first.join()
    second.join()

    assert [artefact.path.name for artefact in found] == [PLAN.name]
    assert notes(second_store) == [f"another process builds {PLAN.name}: waiting for it"]


def test_a_build_that_differs_from_the_lock_names_the_parts_and_is_not_kept(store: Store, tmp_path: Path) -> None:
    locked = Store(tmp_path / "elsewhere", Silent()).obtain(PLAN, builder()).hash
    plan = Plan("tools", "tools", PLAN.inputs, locked)

    with pytest.raises(
        BuildError, match=r"tools does not come out as the lock says; differing: tree:usr/bin, manifest"
    ):
        store.obtain(plan, builder(b"other"))

    assert names(store) == []


def test_an_artefact_that_is_not_the_locks_any_more_is_built_again(store: Store, tmp_path: Path) -> None:
    store.obtain(PLAN, builder(b"other"))
    locked = Store(tmp_path / "elsewhere", Silent()).obtain(PLAN, builder()).hash

    again = store.obtain(Plan("tools", "tools", PLAN.inputs, locked), builder())

    assert again.hash == locked
    assert notes(store) == [f"{PLAN.name} is not what the lock says: building it again"]


def remove_image(artefact: Artefact) -> None:
    (artefact.path / "image").unlink()


def longer_image(artefact: Artefact) -> None:
    (artefact.path / "image").write_bytes(b"image!")


def new_file(artefact: Artefact) -> None:
    (artefact.path / "root/usr/bin/other").touch()


def replaced_program(artefact: Artefact) -> None:
    program = artefact.path / "root/usr/bin/qemu"
    program.write_bytes(LARGE)


def no_seal(artefact: Artefact) -> None:
    (artefact.path / SEAL).unlink()


def broken_seal(artefact: Artefact) -> None:
    (artefact.path / SEAL).write_text("{")


@pytest.mark.parametrize(
    "spoil", [remove_image, longer_image, new_file, replaced_program, no_seal, broken_seal], ids=lambda f: f.__name__
)
def test_a_glance_sees_what_was_changed_and_it_is_rebuilt_and_said(
    store: Store, spoil: Callable[[Artefact], None]
) -> None:
    built = store.obtain(PLAN, builder())
    spoil(built)

    assert store.find(PLAN) is None
    again = store.obtain(PLAN, builder())

    assert again.hash == built.hash
    assert PLAN.name in notes(store)[0]
    assert "building it again" in notes(store)[0]
    check(again)


@pytest.mark.parametrize(("name", "content"), [("image", b"imagf"), ("root/etc/a", b"b\n"), ("manifest", None)])
def test_a_check_sees_what_a_glance_cannot(store: Store, name: str, content: bytes | None) -> None:
    built = store.obtain(PLAN, builder())
    path = built.path / name
    touch_up(path, path.read_bytes()[::-1] if content is None else content)

    glance(built)
    with pytest.raises(IntegrityError, match=f"is corrupt .*{path.name}"):
        check(built)


def test_what_a_thorough_store_finds_corrupt_is_built_again(store: Store) -> None:
    built = store.obtain(PLAN, builder())
    touch_up(built.path / "image", b"imagf")
    thorough = Store(store.folder, Silent(), thorough=True)

    again = thorough.obtain(PLAN, builder())

    assert notes(thorough) == [f"{PLAN.name} is corrupt (image): building it again"]
    assert (again.path / "image").read_bytes() == b"image"
    check(again)


def test_a_seal_of_another_schema_is_refused(store: Store) -> None:
    built = store.obtain(PLAN, builder())
    seal = msgspec.structs.replace(built.seal, schema=99)
    (built.path / SEAL).write_bytes(msgspec.json.encode(seal))

    with pytest.raises(IntegrityError, match="seal of another artefact"):
        read(built.path)


def test_a_full_disk_is_told_from_a_defect(store: Store) -> None:
    def full(_: Path) -> Manifest:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError, match="no space is left"):
        store.obtain(PLAN, full)

    assert names(store) == []


def test_removing_tells_what_it_freed(store: Store) -> None:
    built = store.obtain(PLAN, builder())
    size = disk_usage(built.path)

    assert store.remove(PLAN.name) == size > len(LARGE)
    assert names(store) == []
    assert store.all() == []


@pytest.mark.parametrize(
    ("label", "command"),
    [
        ("tools", "invoke images.build"),
        ("kernel-6.1.0-56-cloud-amd64", "invoke images.build"),
        ("boxes", "invoke boxes.build"),
        (
            "box-virtualbox-7.3.4+deb13-cloud-amd64",
            "invoke boxes.build --kernel 7.3.4+deb13-cloud-amd64 --provider virtualbox",
        ),
    ],
)
def test_what_differs_or_is_corrupt_is_built_again_by_the_command_of_its_kind(
    store: Store, label: str, command: str
) -> None:
    plan = Plan(label.partition("-")[0], label, inputs_hash("any"))
    built = store.obtain(plan, builder())
    touch_up(built.path / "image", b"imagf")
    with pytest.raises(IntegrityError) as corrupt:
        check(built)
    other = Plan(plan.kind, label, inputs_hash("other"), built.hash)
    with pytest.raises(BuildError) as differs:
        store.obtain(other, builder(b"other"))

    assert corrupt.value.hint == f"Build it again: {command}"
    assert f"record the new hashes: {command} --record; " in differs.value.hint


def test_the_command_that_builds_a_locked_box_again_can_be_given_as_it_is() -> None:
    """Its words are those that the task takes: a kernel that the lock knows, a provider that there is."""
    locked = lock.read()
    for line, kernel in locked.kernels.items():
        for provider in plans.FORMS:
            words = command(plans.plan(locked, kernel, provider).name).split()
            assert words[:2] == ["invoke", "boxes.build"]
            assert kernels.resolve(words[3], locked).line == line
            assert words[5] == provider
