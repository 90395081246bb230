"""The workloads' own tests under the oldest Go, the first with internal/sync, and the default.

They hold the forced sections against Go's mutex profile, so that the counts they promise are those of each version.
"""

from __future__ import annotations

import os
import subprocess

import pytest

from go_labs import spec
from provision import toolchains
from vm.paths import Layout


@pytest.mark.build
@pytest.mark.parametrize("version", ["1.21", "1.24", "1.27"])
def test_the_workloads_hold_under_go(version: str) -> None:
    go = toolchains.go_for(version, Layout.from_environment())
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOROOT": str(go.goroot)}

    done = subprocess.run(
        [go.go, "test", "-count=1", "./..."],
        cwd=spec.LABS,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok  \tkmlab/") == len(spec.names()) + 1
