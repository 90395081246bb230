"""The version that is recorded is that of the package."""

import tomllib

from vm.paths import REPOSITORY
from vm.version import VERSION


def test_the_recorded_version_is_that_of_pyproject() -> None:
    assert tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"] == VERSION
