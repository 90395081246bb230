"""KVM absent, forbidden, useless and working are four things; programs stand in for QEMU."""

import os
import stat
from pathlib import Path

import pytest

from tests.vm.qemu_parts import StandIn, make_parts
from vm.deadline import Deadline
from vm.errors import SetupError
from vm.paths import Layout
from vm.qemu import accel
from vm.qemu.accel import Kvm
from vm.qemu.command import TRIAL_MARKER

CONSOLE = "for word; do case $word in file,id=console,path=*) log=${word#file,id=console,path=};; esac; done; "
BOOTS = StandIn(CONSOLE + f'echo run >> {{runs}}; echo {TRIAL_MARKER} > "$log"; sleep 1000')
DIES = StandIn(
    "echo run >> {runs}; echo 'KVM internal error. Suberror: 1' >&2; echo 'emulation failure' >&2; sleep 1000"
)
HANGS = StandIn("echo run >> {runs}; sleep 1000")


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of /dev/kvm that can be opened."""
    path = tmp_path / "kvm"
    path.touch()
    glance = accel.glance
    monkeypatch.setattr(accel, "glance", lambda device=path: glance(device))
    return path


def prepared(tmp_path: Path, program: StandIn) -> StandIn:
    return StandIn(program.script.replace("{runs}", str(tmp_path / "runs")))


def runs(tmp_path: Path) -> int:
    log = tmp_path / "runs"
    return len(log.read_text().split()) if log.exists() else 0


def test_an_absent_device_is_told(tmp_path: Path) -> None:
    report = accel.glance(tmp_path / "none")

    assert report.state is Kvm.ABSENT
    assert report.hint


def test_a_device_without_permission_is_told_with_the_command_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "kvm").touch()
    monkeypatch.setattr(os, "open", refuse)

    report = accel.glance(tmp_path / "kvm")

    assert report.state is Kvm.NO_PERMISSION
    assert "usermod -aG kvm" in report.hint


@pytest.mark.usefixtures("device")
def test_a_kernel_that_boots_proves_kvm_and_is_not_asked_twice(tmp_path: Path, layout: Layout) -> None:
    parts = make_parts(tmp_path, prepared(tmp_path, BOOTS))

    first = accel.examine(layout, parts, Deadline.after(30))
    second = accel.examine(layout, parts, Deadline.after(30))

    assert first.state is second.state is Kvm.WORKS
    assert runs(tmp_path) == 1
    assert accel.choose("auto", layout, parts, Deadline.after(30)) == "kvm"


@pytest.mark.usefixtures("device")
def test_a_kernel_that_dies_under_kvm_makes_it_unusable_whatever_qemu_says(tmp_path: Path, layout: Layout) -> None:
    parts = make_parts(tmp_path, prepared(tmp_path, DIES))

    report = accel.examine(layout, parts, Deadline.after(30))

    assert report.state is Kvm.UNUSABLE
    assert "KVM internal error" in report.detail
    assert accel.choose("auto", layout, parts, Deadline.after(30)) == "tcg"
    with pytest.raises(SetupError, match="present but unusable") as caught:
        accel.choose("kvm", layout, parts, Deadline.after(30))
    assert "--accel" in caught.value.hint


@pytest.mark.usefixtures("device")
def test_a_kernel_that_hangs_under_kvm_makes_it_unusable(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "TRIAL_SECONDS", 0.3)
    parts = make_parts(tmp_path, prepared(tmp_path, HANGS))

    assert accel.examine(layout, parts, Deadline.after(30)).state is Kvm.UNUSABLE


@pytest.mark.usefixtures("device")
def test_a_trial_that_was_cut_short_is_not_remembered(tmp_path: Path, layout: Layout) -> None:
    parts = make_parts(tmp_path, prepared(tmp_path, HANGS))

    accel.examine(layout, parts, Deadline.after(0.2))

    assert accel.remembered(layout, "10.0.13").state is Kvm.UNTRIED


@pytest.mark.usefixtures("device")
def test_another_qemu_is_tried_anew(tmp_path: Path, layout: Layout) -> None:
    parts = make_parts(tmp_path, prepared(tmp_path, BOOTS))
    accel.examine(layout, parts, Deadline.after(30))

    assert accel.remembered(layout, "10.0.13").state is Kvm.WORKS
    assert accel.remembered(layout, "11.0.0").state is Kvm.UNTRIED


def test_emulation_by_name_asks_nothing(tmp_path: Path, layout: Layout) -> None:
    assert accel.choose("tcg", layout, make_parts(tmp_path), Deadline.after(1)) == "tcg"


def test_the_device_keeps_its_mode(device: Path) -> None:
    before = stat.S_IMODE(device.stat().st_mode)

    accel.glance(device)

    assert stat.S_IMODE(device.stat().st_mode) == before
