from __future__ import annotations

from pathlib import Path

import pytest

from reports import record
from reports.schema import Record
from tests.reports import made


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
