"""The tasks of the matrix as a person meets them, as far as they need no machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from provision.matrix import work
from provision.matrix.journal import Journal
from tests.provision import matrices
from tests.provision.matrices import ended
from tests.test_cli import invoke


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home of this test's own, and no colours asked for or against."""
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR" and not name.startswith("KMLAB_")}
    own = {f"KMLAB_{name}": str(tmp_path / name.lower()) for name in ("CACHE", "STATE", "RUNS")}
    return {**kept, **own, "COLUMNS": "200"}


SMALL = ("matrix", "--labs", "mutex", "--kernels", "6.1,7.3")

BAD: list[tuple[tuple[str, ...], int, str, str]] = [
    (("matrix", "--labs", "mutexx", "--kernels", "6.1"), 10, "no lab 'mutexx'", "mutex"),
    (("matrix", "--labs", "mutex", "--kernels", "6.10"), 10, "no kernel '6.10'", "6.1"),
    ((*SMALL, "--repeats", "0"), 10, "--repeats 0", "1 to 1000"),
    ((*SMALL, "--set", "readers=0"), 10, "which lab?", "LAB.OPTION=VALUE"),
    ((*SMALL, "--baseline", "6.12"), 10, "--baseline 6.12", "6.1, 7.3"),
    ((*SMALL, "--delta", "0"), 10, "--delta '0'", "3%"),
    ((*SMALL, "--jobs", "0"), 10, "--jobs 0", "1 to 64"),
    ((*SMALL, "--accel", "kvmm"), 10, "--accel 'kvmm'", "kvm"),
    ((*SMALL, "--clock", "virtul"), 10, "--clock 'virtul'", "virtual"),
    ((*SMALL, "--clock", "virtual", "--accel", "kvm"), 10, "KVM does not have", "leave --clock away"),
    ((*SMALL, "--allow", "no-such-file"), 11, "no-such-file cannot be read", "[[allow]]"),
    ((*SMALL, "--allow", "setup.sh"), 11, "setup.sh is no allow list", "[[allow]]"),
    (("matrix", "--resume", "no-such-matrix"), 10, "there is no ", "no matrix is in"),
    (("matrix", "--resume", "./go_labs"), 40, "is no matrix", "invoke matrix"),
    (("matrix", "--resume"), 10, "has runs left", "--resume FOLDER"),
    (("matrix", "--resume", "x", "--plan"), 10, "--plan means nothing with --resume", "began with"),
    (("matrix", "--resume", "x", "--labs", "gmp"), 10, "--labs means nothing with --resume", "began with"),
    (("matrix", "--resume", "x", "--clock", "virtual"), 10, "--clock means nothing", "began with"),
]


@pytest.mark.parametrize(("words", "status", "said", "hint"), BAD, ids=[" ".join(row[0]) for row in BAD])
def test_bad_input_gets_one_error_one_hint_and_its_status(
    words: tuple[str, ...], status: int, said: str, hint: str, environment: dict[str, str], tmp_path: Path
) -> None:
    done = invoke(*words, environment=environment)

    lines = done.stderr.splitlines()
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert hint in "".join(line for line in lines if line.startswith("hint: "))
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_shown_and_nothing_is_made(environment: dict[str, str], tmp_path: Path) -> None:
    done = invoke(*SMALL, "--repeats", "2", "--seed", "5", "--plan", environment=environment)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "1 labs × 2 kernels (6.1, 7.3) × 2 repeats"
    assert "baseline 6.1, which runs a second time under another name; clock: host; seed 5" in lines
    assert sum(line.lstrip().startswith(f"{n}. repeat ") for line in lines for n in range(1, 7)) == 6
    assert lines[-1] == "nothing was started"
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_machines_is_one_document_and_its_seed_makes_it_again(environment: dict[str, str]) -> None:
    def planned(*words: str) -> dict[str, Any]:
        done = invoke(*SMALL, "--repeats", "2", "--plan", "--json", *words, environment=environment)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    first = planned()
    again = planned("--seed", str(first["plan"]["seed"]))
    assert first["plan"]["runs"] == again["plan"]["runs"]
    assert first["plan"]["cells"] == again["plan"]["cells"]
    assert first["expected"]["runs"] == 6
    assert first["expected"]["known_runs"] == 0
    assert first["expected"]["seconds"] > 0
    assert first["jobs"] >= 1


def test_a_matrix_of_another_lock_is_not_gone_on_with(environment: dict[str, str], tmp_path: Path) -> None:
    folder = work.create(matrices.plan(repeats=1), tmp_path / "matrices" / "20260101T000000Z-aaaa")
    with Journal(folder) as journal:
        journal.add(ended(1))

    for words in (("--resume",), ("--resume", folder.name), ("--resume", str(folder))):
        done = invoke("matrix", *words, environment=environment)
        assert done.returncode == 10
        assert "error: the lock is not the one that matrix 20261126T120000Z-abcd began with" in done.stderr
        assert "take back the change, or start another" in done.stderr
