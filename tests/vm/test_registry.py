"""Who owns which machine, and what is cleared when an owner is dead."""

import contextlib
import os
import stat
import time
from pathlib import Path

import msgspec
import pytest

from vm.errors import UsageError
from vm.paths import Layout
from vm.qemu.process import spawn
from vm.registry import KEPT_LOGS, Process, Registration, Registry


@pytest.fixture
def registry(layout: Layout) -> Registry:
    return Registry(layout)


def owned_by(registry: Registry, registration: Registration, owner: Process) -> Registration:
    changed = msgspec.structs.replace(registration, owner_process=owner)
    registry.write(changed)
    return changed


def test_a_machine_is_found_again_by_its_name(registry: Registry) -> None:
    created = registry.create("mine", "person")

    assert registry.read("mine") == created
    assert registry.all() == [created]
    assert stat.S_IMODE(registry.path("mine").stat().st_mode) == 0o700


def test_two_machines_of_one_name_are_refused(registry: Registry) -> None:
    registry.create("mine", "person")

    with pytest.raises(UsageError, match="mine is there already") as caught:
        registry.create("mine", "run")

    assert "vm.down" in caught.value.hint


def test_made_up_names_differ(registry: Registry) -> None:
    assert registry.create("", "run").name != registry.create("", "run").name


def test_an_ended_machine_leaves_its_logs_and_frees_its_name(registry: Registry) -> None:
    registry.create("mine", "run")
    folder = registry.path("mine")
    (folder / "console.log").write_text("the last words")
    (folder / "overlay.qcow2").write_text("a disk")
    (folder / "id_ed25519").write_text("a key")

    registry.end("mine")

    assert sorted(path.name for path in folder.iterdir()) == ["console.log", "machine.json"]
    assert registry.all() == []
    assert registry.create("mine", "run").name == "mine"


def test_the_sweep_clears_what_a_dead_run_left(registry: Registry, dead: Process) -> None:
    owned_by(registry, registry.create("orphan", "run"), dead)
    registry.create("mine", "run")

    assert registry.sweep() == ["orphan"]
    assert [each.name for each in registry.all()] == ["mine"]


def test_the_sweep_leaves_a_persons_machine_alone(registry: Registry, dead: Process) -> None:
    registration = owned_by(registry, registry.create("mine", "person"), dead)
    registry.write(msgspec.structs.replace(registration, ready=True))

    assert registry.sweep() == []
    assert [each.name for each in registry.all()] == ["mine"]


def test_the_sweep_clears_a_persons_machine_that_never_came_up(registry: Registry, dead: Process) -> None:
    """`kill -9` while it starts: QEMU is detached and its number was never written down."""
    owned_by(registry, registry.create("mine", "person"), dead)
    folder = registry.path("mine")
    qemu = spawn(["sh", "-c", "sleep 1000 & wait", "kmlab-mine"], folder, environment={}, detached=True)
    time.sleep(0.1)

    assert registry.sweep() == ["mine"]

    assert qemu.wait(timeout=10) == -9
    with contextlib.suppress(ProcessLookupError):  # what it may have started by then
        os.killpg(qemu.pid, 9)


def test_the_sweep_keeps_the_youngest_logs(registry: Registry) -> None:
    for number in range(KEPT_LOGS + 3):
        name = f"m{number:02d}"
        registration = registry.create(name, "run")
        registry.write(msgspec.structs.replace(registration, owner="ended", created=float(number)))

    registry.sweep()

    assert sorted(path.name for path in registry.folder.iterdir()) == [f"m{n:02d}" for n in range(3, KEPT_LOGS + 3)]


def test_a_folder_without_a_registration_is_cleared_only_when_it_is_old(registry: Registry) -> None:
    registry.create("mine", "run")
    young, old = registry.path("young"), registry.path("old")
    young.mkdir()
    old.mkdir()
    os.utime(old, (time.time() - 3600, time.time() - 3600))

    registry.sweep()

    assert young.exists()
    assert not old.exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": 99}'])
def test_a_registration_that_cannot_be_read_is_no_machine(registry: Registry, content: bytes) -> None:
    registry.create("mine", "run")
    Path(registry.path("mine"), "machine.json").write_bytes(content)

    assert registry.read("mine") is None
    assert registry.all() == []


def test_a_registration_of_before_there_was_vagrant_is_one_of_qemu(registry: Registry) -> None:
    registry.create("mine", "person")
    path = registry.path("mine") / "machine.json"
    old = {k: v for k, v in msgspec.json.decode(path.read_bytes()).items() if k not in ("provider", "vagrant")}
    path.write_bytes(msgspec.json.encode(old))

    found = registry.read("mine")

    assert found is not None
    assert (found.provider, found.vagrant) == ("qemu", None)
