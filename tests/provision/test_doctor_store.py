"""The doctor on what the lab itself keeps: lock, cache, mirror, tools, kernels. Nothing here is built."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from provision import doctor
from provision.checks import store
from provision.checks.host import Answer, Finding, ThisHost
from vm import lock as locks
from vm.errors import BuildError, ConfigError, MirrorError
from vm.images import Checked, Listed
from vm.kernels import resolve
from vm.mirror import Mirror
from vm.model import Lock
from vm.paths import Layout
from vm.qemu.accel import Kvm, KvmReport
from vm.qemu.process import ProcessId
from vm.registry import Process, Registry
from vm.tools import ToolsRoot
from vm.vagrant import domain
from vm.vagrant.domain import Domain, Placed


class Tools(ToolsRoot):
    """A tools root whose programs are names; what they answer is made up by the host below."""

    def command(self, program: str, *arguments: str | Path) -> list[str]:
        return [program, *map(str, arguments)]

    @property
    def qemu_version(self) -> str:
        return "10.0.13"


class Broken(Tools):
    @property
    def qemu_version(self) -> str:
        raise BuildError("qemu-system-x86_64 ended with status 127", "")


class Answering(ThisHost):
    """A host on which each program answers by its name."""

    def __init__(self, answers: Mapping[str, Answer], installed: Sequence[str] = ()) -> None:
        self.answers = answers
        self.installed = installed

    def run(self, command: Sequence[str], seconds: float = 10, given: str = "") -> Answer:
        assert seconds > 0
        return self.answers[f"{command[0]} {'monitor' if given and '-netdev' not in command else command[-1]}"]

    def which(self, program: str) -> str | None:
        return f"/usr/bin/{program}" if program in self.installed else None


TOOLS = Tools(Path("/tools"), "0" * 64)

# What QEMU 10.0.13 and 7.2 answer, shortened.
NEW = '{"return": [{"state": false, "capability": "xbzrle"}, {"state": false, "capability": "mapped-ram"}]}'
OLD = '{"return": [{"state": false, "capability": "xbzrle"}]}'
# What QEMU without user networking says by its source (net/net.c, 10.0).
NO_NETWORK = "qemu-system-x86_64: -netdev user,id=probe: network backend 'user' is not compiled into this binary"


def row(kind: str, name: str, *, in_lock: bool = True, state: str = "whole") -> Listed:
    return Listed(kind, name, 1 << 20, "", "", in_lock=in_lock, age=0.0, state=state)


def machine(layout: Layout, name: str, *, alive: bool, vagrant: Placed | None = None) -> None:
    """Register a person's machine that came up; its process is this one, or one that has ended."""
    registry = Registry(layout)
    me = Process.of(os.getpid())
    assert me is not None
    qemu = me if alive else msgspec.structs.replace(me, started=me.started - 1)
    made = registry.create(name, "person", "vagrant" if vagrant else "qemu")
    registry.write(msgspec.structs.replace(made, qemu=qemu, ready=True, vagrant=vagrant))


BUILT = [row("tools", "tools-1"), row("base", "base-1"), row("kernel", "kernel-6.1")]


def test_a_lock_that_cannot_be_read_fails_with_its_own_hint() -> None:
    def broken() -> Lock:
        raise ConfigError("lab.lock.json was edited by hand", "invoke kernels.lock")

    finding, lock = store.lock(broken)

    assert lock is None
    assert (finding.result, finding.fix) == ("fail", "invoke kernels.lock")


def test_the_lock_of_this_checkout_can_be_used() -> None:
    finding, lock = store.lock(locks.read)

    assert lock is not None
    assert finding.result in ("ok", "warn")
    assert finding.detail.startswith("11 kernels, ")


def test_an_empty_cache_is_a_warning_because_the_first_run_fills_it() -> None:
    found = store.cache([row("kernel", "kernel-6.1")], None)

    assert (found.result, found.fix) == ("warn", ".venv/bin/invoke images.build")
    assert not store.is_built([row("kernel", "kernel-6.1")])


def test_a_whole_cache_is_ok_and_says_how_much_was_looked_at() -> None:
    assert "--deep" in store.cache(BUILT, None).detail
    assert "every byte" in store.cache(BUILT, [Checked("base-1", "")]).detail
    assert store.is_built(BUILT)


def test_an_artefact_of_an_older_lock_counts_for_nothing() -> None:
    old = [row("tools", "tools-0", in_lock=False), row("base", "base-0", in_lock=False)]

    assert not store.is_built(old)
    assert store.cache(old, None).result == "warn"


def test_damage_is_named_whether_seen_at_a_glance_or_read() -> None:
    glance = store.cache([*BUILT[:2], row("kernel", "kernel-6.1", state="changed after it was built")], None)
    deep = store.cache(BUILT, [Checked("base-1", "base-1 is corrupt (base.ext4)")])

    assert (glance.result, glance.detail) == ("warn", "kernel-6.1: changed after it was built")
    assert (deep.result, deep.detail) == ("warn", "base-1 is corrupt (base.ext4)")
    assert glance.fix == deep.fix == ".venv/bin/invoke images.build"


def test_a_damaged_box_is_mended_by_the_command_that_builds_boxes() -> None:
    name = f"box-libvirt-6.1.0-56-cloud-amd64-{'0' * 16}"

    found = store.cache([*BUILT, row("box", name, state="changed after it was built")], None)

    assert found.fix == ".venv/bin/invoke boxes.build --kernel 6.1.0-56-cloud-amd64 --provider libvirt"


MIRROR = Mirror({"debian": ("http://m.example/debian",), "debian-security": ("http://m.example/sec",)}, "host")


@pytest.mark.parametrize(
    ("answer", "built", "result"), [("", False, "ok"), ("timed out", False, "fail"), ("timed out", True, "warn")]
)
def test_a_silent_mirror_is_a_failure_only_where_it_is_needed(answer: str, built: bool, result: str) -> None:
    found = store.packages_mirror(locks.read(), built=built, find=lambda: MIRROR, ask=lambda _url, _seconds: answer)

    assert found.result == result


def test_the_mirror_is_asked_for_a_package_of_the_lock() -> None:
    asked: list[str] = []

    def ask(url: str, _seconds: float) -> str:
        asked.append(url)
        return ""

    store.packages_mirror(locks.read(), built=True, find=lambda: MIRROR, ask=ask)

    assert asked[0].startswith("http://m.example/")
    assert asked[0].endswith(".deb")


def test_no_mirror_at_all_is_told_with_the_way_out() -> None:
    def none() -> Mirror:
        raise MirrorError("no Debian mirror is known", "Set KMLAB_MIRROR")

    found = store.packages_mirror(None, built=False, find=none)

    assert (found.result, found.fix) == ("fail", "Set KMLAB_MIRROR")


def test_a_file_mirror_is_looked_for_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "package.deb").touch()

    assert store.reach(f"file://{tmp_path}/package.deb", 1) == ""
    assert store.reach(f"file://{tmp_path}/other.deb", 1) == "no such file"


def test_a_port_where_nobody_listens_is_an_answer_too() -> None:
    assert store.reach("http://127.0.0.1:9/debian", 2) != ""


@pytest.mark.parametrize(
    ("monitor", "network", "result", "words"),
    [
        (NEW, Answer(0, NEW), "ok", "10.0.13"),
        (OLD, Answer(0, OLD), "fail", "mapped-ram"),
        (NEW, Answer(1, NO_NETWORK), "fail", "user networking"),
    ],
)
def test_qemu_is_asked_what_it_can_do(monitor: str, network: Answer, result: str, words: str) -> None:
    host = Answering({f"{store.QEMU} monitor": Answer(0, monitor), f"{store.QEMU} user,id=probe": network})

    found = store.qemu(host, TOOLS)

    assert found.result == result
    assert words in found.detail


def test_qemu_that_does_not_run_fails_and_one_not_built_does_not() -> None:
    assert store.qemu(Answering({}), Broken(Path("/tools"), "")).result == "fail"
    assert store.qemu(Answering({}), None).result == "warn"


CLANG = "Debian clang version 19.1.7 (3+b1)\nTarget: bpf\nThread model: posix"


@pytest.mark.parametrize(
    ("answer", "result"),
    [(Answer(0, CLANG), "ok"), (Answer(1, "error: unknown target"), "fail"), (Answer(None, ""), "fail")],
)
def test_clang_must_know_bpf(answer: Answer, result: str) -> None:
    assert store.clang(Answering({"clang --version": answer}), TOOLS).result == result
    assert store.clang(Answering({}), None).result == "warn"


def test_go_that_does_not_run_is_mended_by_setup() -> None:
    broken = store.go(Answering({"/venv/bin/go version": Answer(None, "no such file")}), Path("/venv/bin/go"))
    whole = store.go(
        Answering({"/venv/bin/go version": Answer(0, "go version go1.27.3 linux/amd64")}), Path("/venv/bin/go")
    )

    assert (broken.result, broken.fix) == ("fail", "./setup.sh")
    assert (whole.result, whole.detail) == ("ok", "go1.27.3 linux/amd64")


@pytest.mark.parametrize(
    ("state", "result"),
    [
        (Kvm.WORKS, "ok"),
        (Kvm.UNTRIED, "ok"),
        (Kvm.ABSENT, "warn"),
        (Kvm.NO_PERMISSION, "warn"),
        (Kvm.UNUSABLE, "warn"),
    ],
)
def test_no_kvm_is_never_a_failure_because_machines_can_be_emulated(state: Kvm, result: str) -> None:
    found = store.kvm(KvmReport(state, "made up", "a hint"))

    assert found.result == result
    assert state.value in found.detail or state is Kvm.UNTRIED


def test_kernels_without_types_of_their_own_are_named() -> None:
    lock = locks.read()
    old, new = resolve("5.10", lock), resolve("7.3", lock)

    both = [(old, "CONFIG_BPF=y\n# CONFIG_DEBUG_INFO_BTF is not set\n"), (new, "CONFIG_DEBUG_INFO_BTF=y\n")]

    assert store.btf(both).detail == f"missing in {old.release}"
    assert store.btf(both[1:]).result == "ok"
    assert store.btf([]).result == "warn"


UUID = "0d7f3c3e-5a0e-4a3c-9c0a-1b2c3d4e5f60"


def test_a_machine_that_ended_by_itself_is_named_with_the_command_that_clears_it(layout: Layout) -> None:
    machine(layout, "mine", alive=True)
    machine(layout, "gone", alive=False)

    found = store.machines(layout)

    assert (found.result, found.detail) == ("warn", "ended by themselves: gone")
    assert found.fix == ".venv/bin/invoke vm.down --name gone"


def test_one_of_vagrants_that_was_halted_or_upped_outside_did_not_end_by_itself(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Placed(data=str(tmp_path), machine="lab-6.1", uuid=UUID)
    halted = Placed(data=str(tmp_path), machine="lab-7.3", uuid=UUID.replace("0", "1"))
    path = tmp_path / "machines" / "lab-7.3" / "libvirt" / "id"
    path.parent.mkdir(parents=True)
    path.write_text(halted.uuid)
    here = ProcessId.of(os.getpid())
    assert here is not None
    monkeypatch.setattr(domain, "find", lambda uuid: Domain(here, ()) if uuid == UUID else None)
    machine(layout, "lab-6.1", alive=False, vagrant=runs)
    machine(layout, "lab-7.3", alive=False, vagrant=halted)

    found = store.machines(layout)

    assert (found.result, found.fix) == ("ok", "")
    assert found.detail == "1 running, 1 halted"


def test_a_host_is_sound_unless_something_failed() -> None:
    ok = Finding(check="a", result="ok", detail="")
    warn = Finding(check="b", result="warn", detail="")
    fail = Finding(check="c", result="fail", detail="", fix="mend it")

    assert doctor.sound([ok, warn])
    assert not doctor.sound([ok, warn, fail])


def test_the_doctor_prints_what_to_mend_and_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.show([Finding(check="memory", result="fail", detail="900 MiB available", fix="add memory")])

    assert capsys.readouterr().out.splitlines() == [
        "FAIL  memory  900 MiB available",
        "              fix: add memory",
        "the main job cannot run: 1 to mend",
    ]


def test_the_doctor_leaves_everything_as_it_found_it(layout: Layout) -> None:
    findings = doctor.examine(layout=layout)

    assert len(findings) > 15
    assert not layout.cache.exists()
    assert not layout.state.exists()
    assert not layout.runs.exists()
