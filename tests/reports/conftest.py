from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reports import compare, record, synthetic
from reports.comparison import Comparison
from reports.schema import Record
from tests.reports import made, matrices
from vm.paths import REPOSITORY


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of the made-up run; tests that change one seal their own."""
    root = tmp_path_factory.mktemp("sealed")
    return record.seal(made.staging(root / "staging"), made.folder(), root / "runs")


@pytest.fixture(scope="session")
def found(sealed: Path) -> Record:
    return record.read(sealed)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of a real run of the mutex lab (``test_recorded``)."""
    root = tmp_path_factory.mktemp("recorded")
    staging, lab = made.unpack(root)
    return record.seal(staging, lab, root / "runs")


@pytest.fixture(scope="session")
def benchstat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``benchstat``, built as pinned in tests/gotools/go.mod."""
    program = tmp_path_factory.mktemp("benchstat") / "benchstat"
    done = subprocess.run(
        [Path(sys.executable).parent / "go", "build", "-o", program, "golang.org/x/perf/cmd/benchstat"],
        cwd=REPOSITORY / "tests" / "gotools", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a made-up matrix with planted effects, failures, a retry, and a run that was cut off."""
    root = tmp_path_factory.mktemp("matrix") / "m"
    synthetic.write(root, matrices.SHAPE)
    return root


@pytest.fixture(scope="session")
def comparison(made_up: Path) -> Comparison:
    return compare.compare(made_up)
