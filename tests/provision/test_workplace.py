"""A run's place on a machine: a real SSH server on this host stands in for the machine, and nothing else is made up."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from go_labs.evidence import PhaseEvidence
from go_labs.spec import Phase
from provision import payload, workplace
from provision.payload import GUEST_SCRIPTS, Kit, Payload
from provision.workplace import Workplace
from tests.provision.sshserver import serving
from vm.deadline import Deadline
from vm.errors import KernelPanicError
from vm.machine import MachineFacts, SshTarget

OUTPUT = {"schema": 1, "lab": "bad", "go": "go1.27.3", "gomaxprocs": 2, "self_test": {"goids": [7]}, "segments": []}

WELL = f"#!/bin/sh\necho '{json.dumps(OUTPUT)}'\n"
DIES = "#!/bin/sh\necho no luck >&2\nexit 4\n"
HANGS = "#!/bin/sh\nsleep 3477 &\nsleep 3478\n"
FLOODS = "#!/bin/sh\nwhile :; do echo 'as much as goes in'; done\n"


@dataclass
class HostAsMachine:
    """What a workplace asks of a machine; a reset is counted."""

    ssh: SshTarget
    console_path: Path
    name: str = "stand-in"
    resets: int = 0
    panicked: bool = False
    facts_asked: list[str] = field(default_factory=list)

    def facts(self) -> MachineFacts:
        raise NotImplementedError

    pid = 0
    cpu_threads = ()

    def alive(self) -> bool:
        return not self.panicked

    def check(self) -> None:
        if self.panicked:
            raise KernelPanicError("it panicked")

    def reset(self, deadline: Deadline) -> None:
        deadline.check("resetting")
        self.resets += 1

    def stop(self) -> None:
        """End nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End nothing."""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostAsMachine]:
    monkeypatch.setattr(workplace, "GUEST_FOLDER", str(tmp_path / "lab"))
    monkeypatch.setattr(payload, "KITS", str(tmp_path / "lab" / "kit"))
    with serving(tmp_path) as target:
        yield HostAsMachine(target, tmp_path / "console.log")


def loaded(script: str) -> Payload:
    files: dict[str, Path | bytes] = {path.name: path for path in GUEST_SCRIPTS.glob("*.sh")}
    return Payload(
        files={"bad": script.encode()}, kit=Kit(files, "5e" * 32, Path("gotrace")), program="bad", binary=Path("bad"),
        plan=b"", go_version="go1.27.3", build="plain",
    )  # fmt: skip


def phase(timeout: float = 20.0) -> Phase:
    return Phase(name="timed", sections=["forced"], timeout=timeout)


def place(machine: HostAsMachine, script: str, *, owned: bool = True) -> tuple[Workplace, list[str]]:
    said: list[str] = []
    made = Workplace(machine, loaded(script), (), 1, Deadline.after(60), said.append, owned)
    return made, said


def run(work: Workplace, staging: Path, timeout: float = 20.0) -> PhaseEvidence:
    staging.mkdir()
    return work.run(phase(timeout), staging)


def runs_of(machine_folder: Path) -> list[str]:
    return sorted(path.name for path in machine_folder.iterdir() if path.name != "kit")


def test_a_phase_that_goes_well_leaves_the_place_as_it_is(machine: HostAsMachine, tmp_path: Path) -> None:
    made, said = place(machine, WELL)
    with made as work:
        before = runs_of(tmp_path / "lab")
        evidence = run(work, tmp_path / "first")
        assert runs_of(tmp_path / "lab") == before
    assert (evidence.error, evidence.exit_status, evidence.remarks) == ("", 0, [])
    assert (machine.resets, said) == (0, [])


def test_a_workload_that_dies_by_itself_needs_no_reset(machine: HostAsMachine, tmp_path: Path) -> None:
    made, _ = place(machine, DIES)
    with made as work:
        evidence = run(work, tmp_path / "first")
    assert (evidence.exit_status, evidence.failed) == (4, "workload")
    assert evidence.error.endswith("ended with status 4: no luck")
    assert machine.resets == 0


@pytest.mark.parametrize(
    ("script", "timeout", "failed", "words"),
    [(HANGS, 0.5, "workload", "not over within 0.5 s"), (FLOODS, 60.0, "output", "wrote more than 16 MiB to stdout")],
)
def test_a_machine_of_the_runs_own_is_reset_and_goes_on(
    machine: HostAsMachine, tmp_path: Path, script: str, timeout: float, failed: str, words: str
) -> None:
    made, said = place(machine, script)
    with made as work:
        evidence = run(work, tmp_path / "first", timeout)
        work.change(loaded(WELL), ())
        after = run(work, tmp_path / "second")

    assert (evidence.failed, after.error) == (failed, "")
    assert words in evidence.error
    assert machine.resets == 1
    assert said == ["the workload was ended: the machine is reset"]
    assert evidence.remarks[-1].endswith("the machine was reset before anything else ran in it")
    assert (tmp_path / "first" / "kernel.log").exists()  # Of the machine as it was before the reset.
    assert sum(path.stat().st_size for path in (tmp_path / "first" / "timed").iterdir()) < 100_000


def test_a_persons_machine_is_not_reset_but_left_as_it_was(machine: HostAsMachine, tmp_path: Path) -> None:
    made, said = place(machine, HANGS, owned=False)
    with made as work:
        before = runs_of(tmp_path / "lab")
        evidence = run(work, tmp_path / "first", 0.5)
        after = runs_of(tmp_path / "lab")

    assert machine.resets == 0
    assert len(before) == len(after) == 1
    assert before != after
    assert runs_of(tmp_path / "lab") == []
    assert "machine stand-in" in said[0]
    assert "was not reset" in evidence.remarks[-1]
    deadline = time.monotonic() + 10
    while "sleep 347" in (listed := processes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "sleep 347" not in listed


def processes() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_a_machine_that_no_longer_answers_is_the_workloads_doing(machine: HostAsMachine, tmp_path: Path) -> None:
    # The script that contains a workload is what answers: one that ends it takes the answer away.
    made, _ = place(machine, "#!/bin/sh\nkill -KILL $(ps -o ppid= -p $PPID)\n")
    with made as work:
        evidence = run(work, tmp_path / "first")
    assert (evidence.failed, evidence.exit_status) == ("workload", None)
    assert machine.resets == 1


def test_a_kernel_that_panicked_ends_the_run(machine: HostAsMachine, tmp_path: Path) -> None:
    made, _ = place(machine, "#!/bin/sh\nsleep 6\n")
    with made as work:
        machine.panicked = True
        with pytest.raises(KernelPanicError):
            run(work, tmp_path / "first")
    assert machine.resets == 0
