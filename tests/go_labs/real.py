"""Labs run for real by tests: the command line of a person, and what it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reports import record
from reports.schema import Record
from vm.paths import REPOSITORY

INVOKE = Path(sys.executable).parent / "invoke"


@dataclass(frozen=True)
class Found:
    """What came of a run: verdicts, exact counts that differ, losses."""

    record: Record
    outcomes: dict[str, str]
    checked: int
    different: list[str]
    lost: int

    def value(self, metric: str) -> float | None:
        """Value of a metric; that it is there at all is asserted."""
        found = self.record.metric(metric)
        assert found is not None, metric
        return found.value


def real_run(lab: str, kernel: str, go: str, settings: Sequence[str] = (), *words: str) -> Found:
    """Run ``lab`` on ``kernel`` with Go ``go``, with a folder for records of its own; the command must go well."""
    with tempfile.TemporaryDirectory() as runs:
        command = [INVOKE, "lab", lab, "--kernel", kernel, "--go", go, "--json", "--runs", runs, *words]
        command += [word for setting in settings for word in ("--set", setting)]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=dict(os.environ), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (run,) = json.loads(done.stdout)["runs"]
        found = record.read(Path(run["path"]))
    return Found(
        record=found,
        outcomes={verdict.claim: verdict.outcome for verdict in found.verdicts},
        checked=sum(row.traced is not None for row in found.equality),
        different=[
            f"{row.parameters} {row.counter}: {row.expected}, traced {row.traced}"
            for row in found.equality
            if not row.equal
        ],
        lost=sum(loss.count for loss in found.losses),
    )
