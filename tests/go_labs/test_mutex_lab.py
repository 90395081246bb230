"""lab.toml of the mutex lab, held against the rules for labs and against its workload."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from go_labs import spec
from provision import options
from reports import verdicts
from vm.errors import UsageError

GO = Path(sys.executable).parent / "go"
MODULE = spec.LABS
LAST_SEGMENT = 510


def lab() -> spec.Lab:
    return spec.find("mutex").lab


def test_criteria_and_gates_can_be_judged() -> None:
    verdicts.check(lab())

    assert [claim.id for claim in lab().claims] == [f"2.4-{letter}" for letter in "abcdef"]


@pytest.mark.parametrize("given", ["sizes=0", "readers=101", "goroutines=257", "repetitions=0", "rep=61", "gc=2.1"])
def test_options_out_of_range_are_refused(given: str) -> None:
    with pytest.raises(UsageError, match="out of range"):
        options.resolve(lab(), options.parse_assignments([given]))


def test_the_full_sweep_has_segments_enough() -> None:
    values = {name: len(text.split(",")) for name, text in options.resolve(lab(), {}, full=True).items()}
    pairs = int(options.resolve(lab(), {}, full=True)["pairs"])

    free = values["readers"] * values["goroutines"] * values["lengths"] * 2
    traced = values["sizes"] * 3 + 5 + free + 3
    profiled = values["sizes"] * 3 + 3 + pairs * 2

    assert max(traced, profiled) <= LAST_SEGMENT


@pytest.fixture(scope="session")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("workload") / "mutex"
    environment = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run([GO, "build", "-o", program, "./mutex"], cwd=MODULE, check=True, env=environment)
    return program


@pytest.mark.build
def test_more_segments_than_there_are_is_an_error(workload: Path) -> None:
    readers = ",".join(str(n) for n in range(101))

    done = subprocess.run(
        [workload, "--sections=free", f"--readers={readers}", "--goroutines=1,2,3"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "more than 510 segments" in done.stderr
    assert done.stdout == ""
