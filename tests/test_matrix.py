"""Matrices on real machines: killed, interrupted, robbed of a machine, gone on with; every kind of failure; a known
difference found, and the same medians whatever the host does.

All run under the virtual clock but those that fail: what is compared then does not depend on the host.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from go_labs import matrix
from go_labs.matrix import Begun, Ended, Opened, Voided
from reports import record
from tests.test_bad_workloads import BAD
from tests.test_main_job import INVOKE, environment, invoke, machines
from tests.test_virtual_clock import busy_core
from vm.paths import REPOSITORY

__all__ = ["environment"]  # A fixture: real images, and machines and records of this module's own.

pytestmark = [pytest.mark.vm, pytest.mark.build]

STEADY = REPOSITORY / "tests" / "go_labs" / "fixtures" / "steady"
PLANTED = ["--labs", str(STEADY), "--kernels", "6.1,6.12", "--set", "steady.planted=6.12", "--repeats", "6"]
PLANTED += ["--seed", "5"]
SMALL = ["--labs", str(STEADY), "--kernels", "6.1", "--repeats", "3", "--seed", "3", "--jobs", "1"]
VIRTUAL = ["--clock", "virtual"]
PATIENCE = 300.0
"""Seconds to wait for what takes a few."""


def ran(environment: dict[str, str], *words: str) -> dict[str, Any]:
    done = invoke("matrix", *words, "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def values(found: dict[str, Any]) -> dict[str, list[float]]:
    """The primary metric by kernel, and of the baseline's second time."""
    (lab,) = found["comparison"]["labs"]
    primary = lab["primary"]
    rows = {**primary["values"], "control": primary["control"]}
    return {name: [value["value"] for value in row] for name, row in rows.items()}


def median(numbers: list[float]) -> float:
    return sorted(numbers)[len(numbers) // 2]


@pytest.fixture(scope="module")
def planted(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A matrix over two kernels, on one of which the workload does 5% more."""
    return ran(environment, *PLANTED, *VIRTUAL, "--out", str(tmp_path_factory.mktemp("matrix") / "planted"))


def test_a_known_slowdown_is_found_and_the_baseline_does_not_differ_from_itself(planted: dict[str, Any]) -> None:
    (lab,) = planted["comparison"]["labs"]
    (found,) = [effect for effect in lab["primary"]["effects"] if not effect["control"]]
    (control,) = [effect for effect in lab["primary"]["effects"] if effect["control"]]

    assert (planted["planned"], planted["passed"]) == (18, 18)
    assert (found["kernel"], found["change"]) == ("6.12", "slower")
    assert found["ratio"] == pytest.approx(1.05, rel=0.01)
    assert control["change"] != "slower"
    assert control["ratio"] == pytest.approx(1.0, rel=0.01)
    assert planted["comparison"]["clock"] == "virtual"


def test_a_busy_host_gives_the_same_order_and_the_same_medians(
    planted: dict[str, Any], environment: dict[str, str], tmp_path: Path
) -> None:
    with busy_core():
        again = ran(environment, *PLANTED, *VIRTUAL, "--out", str(tmp_path / "again"))

    first, second = (matrix.read_plan(Path(found["path"])) for found in (planted, again))
    assert second.runs == first.runs
    assert second.cells == first.cells
    for name, numbers in values(planted).items():
        assert median(values(again)[name]) == pytest.approx(median(numbers), rel=0.01), name


def test_the_page_stands_beside_the_matrix_and_names_the_clock(planted: dict[str, Any]) -> None:
    page = Path(planted["page"]).read_text("utf-8")

    assert Path(planted["page"]).parent == Path(planted["path"])
    assert "counted instructions" in page
    assert "<script" not in page


def started(environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [INVOKE, "matrix", *words], cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something while ``process`` runs."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)


def of(folder: Path, kind: type) -> list[Any]:
    return [entry for entry in matrix.read_journal(folder) if isinstance(entry, kind)]


def qemus(environment: dict[str, str]) -> list[int]:
    """Processes of machines that matrices started and that run."""
    found = []
    for file in (Path(environment["KMLAB_STATE"]) / "machines").glob("matrix-*/machine.json"):
        registration = json.loads(file.read_text())
        if registration["owner"] == "run" and registration.get("qemu"):
            found.append(int(registration["qemu"]["pid"]))
    return [pid for pid in found if Path(f"/proc/{pid}").exists()]


def up(environment: dict[str, str]) -> list[int]:
    """Those of them that have come up."""
    found = []
    for file in (Path(environment["KMLAB_STATE"]) / "machines").glob("matrix-*/machine.json"):
        registration = json.loads(file.read_text())
        if registration["owner"] == "run" and registration.get("ready") and registration.get("qemu"):
            found.append(int(registration["qemu"]["pid"]))
    return found


def test_whatever_ends_it_a_matrix_goes_on_and_repeats_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "m"

    # A machine that dies under a run: the run is tried once more, on a fresh one.
    first = started(environment, *SMALL, *VIRTUAL, "--out", str(folder))
    until(lambda: (folder / "journal.jsonl").exists() and bool(up(environment)), first)
    os.kill(up(environment)[0], signal.SIGKILL)
    until(lambda: len(of(folder, Ended)) >= 2, first)
    lost, again, *_ = of(folder, Ended)
    assert (lost.run, lost.attempt, lost.outcome) == (1, 1, "machine_lost")
    assert (again.run, again.attempt, again.outcome) == (1, 2, "passed")

    # kill -9 in the middle of a run: the machine dies with it, and only that run is lost.
    until(lambda: len(of(folder, Begun)) > len(of(folder, Ended)) and bool(qemus(environment)), first)
    first.kill()
    first.communicate()
    before = {entry.run for entry in of(folder, Ended)}
    end = time.monotonic() + 30
    while qemus(environment):
        assert time.monotonic() < end, "a machine outlived its matrix"
        time.sleep(0.05)

    # Half a line, as a power cut leaves it; and a record that the disk did not keep.
    with (folder / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"what":"ended","at":"2026')
    broken = folder / "runs" / again.record / "timed" / "workload.json"
    broken.write_bytes(broken.read_bytes()[:-20])

    # Ctrl-C while it goes on: a hint, status 130, nothing left running, nothing half-written.
    second = started(environment, "--resume", str(folder))
    until(lambda: len(of(folder, Voided)) == 1 and len(of(folder, Ended)) > len(before) + 1, second)
    second.send_signal(signal.SIGINT)
    _, said = second.communicate(timeout=PATIENCE)
    assert second.returncode == 130
    assert f"--resume {folder}" in said
    assert qemus(environment) == []
    assert [path.name for path in (folder / "runs").iterdir() if path.name.startswith(".")] == []

    found = ran(environment, "--resume", str(folder))

    assert (found["planned"], found["done"], found["passed"], found["failed"]) == (6, 6, 6, {})
    passed = Counter(entry.run for entry in of(folder, Ended) if entry.outcome == "passed")
    assert {run: count for run, count in passed.items() if count > 1} == {1: 2}  # whose first record was broken
    entries = matrix.read_journal(folder)
    last = max(number for number, entry in enumerate(entries) if isinstance(entry, Opened))
    begun = [entry.run for entry in entries[last:] if isinstance(entry, Begun)]
    assert list(dict.fromkeys(begun)) == sorted(set(begun))
    assert {entry.run for entry in of(folder, Ended) if entry.outcome == "passed"} == {1, 2, 3, 4, 5, 6}
    assert (folder / "broken" / again.record).is_dir()
    for path in (folder / "runs").iterdir():
        place = record.read(path).provenance.place
        assert place is not None
        assert place.matrix == matrix.read_plan(folder).id
    assert machines(environment) == []

    count = len(of(folder, Begun))
    assert ran(environment, "--resume", str(folder))["done"] == 6
    assert len(of(folder, Begun)) == count


@pytest.mark.parametrize(
    ("how", "outcome", "words"),
    [
        ("dies", "lab_failed", "it was told to die"),
        ("hangs", "timed_out", "not over within"),
        ("crashes", "kernel_panic", "panicked"),
        ("complains", "kernel_splat", "by_a_test"),
    ],
)
def test_a_failure_is_told_as_what_it_is_and_tried_once_more(
    how: str, outcome: str, words: str, environment: dict[str, str], tmp_path: Path
) -> None:
    done = invoke(
        "matrix", "--labs", str(BAD), "--kernels", "6.1", "--repeats", "1", "--set", f"bad.how={how}",
        "--out", str(tmp_path / "m"), "--json", environment=environment,
    )  # fmt: skip
    found = json.loads(done.stdout)
    ended = of(tmp_path / "m", Ended)

    assert done.returncode == 30, done.stderr
    assert found["failed"] == {outcome: 2}
    assert sorted((entry.run, entry.attempt, entry.outcome) for entry in ended) == [
        (run, attempt, outcome) for run in (1, 2) for attempt in (1, 2)
    ]
    assert all(words in entry.words for entry in ended)
    assert all((tmp_path / "m" / "logs" / entry.log).read_text() for entry in ended)
    assert len(found["comparison"]["excluded"]) == 4
    assert machines(environment) == []


def test_a_complaint_that_is_known_costs_no_run(environment: dict[str, str], tmp_path: Path) -> None:
    known = tmp_path / "known.toml"
    known.write_text('[[allow]]\npattern = "WARNING: .* by_a_test"\nwhy = "a test made it up"\n')

    found = ran(
        environment, "--labs", str(BAD), "--kernels", "6.1", "--repeats", "1", "--set", "bad.how=complains",
        *VIRTUAL, "--allow", str(known), "--out", str(tmp_path / "m"),
    )  # fmt: skip

    assert (found["passed"], found["failed"]) == (2, {})
