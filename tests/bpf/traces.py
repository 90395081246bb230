"""Recordings of runtime/trace that the tests read, and the program that they were made by."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from provision import gobuild, toolchains
from vm.paths import Layout

FIXTURES = Path(__file__).parent / "fixtures" / "gotrace"
PLANTED = FIXTURES / "planted"

VERSIONS = ("1.21.13", "1.22.10", "1.24.11", "1.27.3")
"""One of each format that differs in what is asserted; the newest is the default."""


def record(version: str, into: Path) -> None:
    """Run the planted program as Go ``version`` builds it; its recordings go to ``into``."""
    layout = Layout.from_environment()
    program = gobuild.build(PLANTED, toolchains.go_for(version, layout), layout)
    environment = {**os.environ, "KMLAB_OUT": str(into), "GOMAXPROCS": "2"}
    subprocess.run([program], env=environment, stdout=subprocess.DEVNULL, check=True, timeout=60)


if __name__ == "__main__":
    for name in VERSIONS:
        with tempfile.TemporaryDirectory() as folder:
            record(name, Path(folder))
            for path in Path(folder).glob("*.trace"):
                shutil.copyfile(path, FIXTURES / f"{path.stem}-{name}.trace")
