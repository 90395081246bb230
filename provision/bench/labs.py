"""What a lab costs beyond its own phases, what its default load loses, and how long its report takes to render."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from provision.bench.figures import Figure, Unmeasured
from vm.errors import LabFailedError
from vm.paths import REPOSITORY

Render = Callable[[Path, Path | None], Path]
"""Writes the page of a record to a file (``reports.html.render``)."""

OVERHEAD_LIMIT = 5.0
RENDER_LIMIT = 1.0
LAB_SECONDS = 1800
RENDERINGS = 9


class _Phase(msgspec.Struct):
    wall_seconds: float
    workload_seconds: float
    name: str
    error: str = ""


class _Loss(msgspec.Struct):
    phase: str
    name: str
    count: int


class _Record(msgspec.Struct):
    """What of ``run.json`` is needed here; this room does not know its whole shape."""

    phases: list[_Phase]
    losses: list[_Loss]


def whole_lab(line: str, rounds: int, render: Render, say: Callable[[str], None]) -> list[Figure | Unmeasured]:
    """Run ``invoke lab mutex`` as a person does, warm, and return what it took beyond its phases, losses, rendering.

    :raises LabFailedError: it failed.
    """
    beyond, beyond_work, lost, rendering = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="kmlab-bench-") as scratch:
        for number in range(rounds):
            seconds, folder = _run(line, Path(scratch))
            found = msgspec.json.decode((folder / "run.json").read_bytes(), type=_Record)
            failed = [phase.name for phase in found.phases if phase.error]
            if failed:
                return [Unmeasured(name="lab", reason=f"phases failed: {', '.join(failed)}")]
            beyond.append(seconds - sum(phase.wall_seconds for phase in found.phases))
            beyond_work.append(seconds - sum(phase.workload_seconds for phase in found.phases))
            lost.append(float(sum(loss.count for loss in found.losses)))
            say(f"lab {number + 1}: {seconds:.1f} s, {beyond[-1]:.1f} s beyond its phases, {lost[-1]:.0f} lost")
        for _ in range(RENDERINGS):
            began = time.monotonic()
            render(folder, folder / "again.html")
            rendering.append(time.monotonic() - began)
        pages = [float((folder / "again.html").stat().st_size) / 2**20]
    phases = "the phases as the host sees them (connecting, attaching and pulling among them)"
    return [
        Figure(
            name="lab", meaning=f"`invoke lab mutex`, warm: wall time beyond {phases}",
            unit="s", samples=beyond, limit=OVERHEAD_LIMIT,
        ),
        Figure(
            name="lab, all", meaning="the same beyond the time that the workload itself took in the machine",
            unit="s", samples=beyond_work,
        ),
        Figure(name="lost", meaning="events lost at the default load, all reasons", unit="", samples=lost, limit=0),
        Figure(name="render", meaning="report from a record", unit="s", samples=rendering, limit=RENDER_LIMIT),
        Figure(name="page", meaning="size of the report", unit="MiB", samples=pages, limit=2.0),
    ]  # fmt: skip


def _run(line: str, runs: Path) -> tuple[float, Path]:
    command = [
        str(Path(sys.executable).parent / "invoke"),
        "lab",
        "mutex",
        "--kernel",
        line,
        "--json",
        "--runs",
        str(runs),
    ]
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LAB_SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise LabFailedError(f"the lab was not over within {LAB_SECONDS} s") from error
    seconds = time.monotonic() - began
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-2:]
        raise LabFailedError(f"invoke lab ended with status {done.returncode}: {' '.join(last)}")
    return seconds, Path(json.loads(done.stdout)["runs"][0]["path"])
