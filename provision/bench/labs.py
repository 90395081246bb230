"""What a lab costs beyond its own phases, what its default load loses, and how long its report takes to render."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from go_labs import spec
from provision.bench.figures import Figure, Unmeasured
from vm.errors import LabFailedError
from vm.paths import REPOSITORY

Render = Callable[[Path, Path | None], Path]
"""Writes the page of a record to a file (``reports.html.render``)."""

OVERHEAD_LIMIT = 5.0
RENDER_LIMIT = 1.0
LAB_SECONDS = 1800
SOAK = "20m"
SOAK_SECONDS = 3600
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


class _Metric(msgspec.Struct):
    name: str
    value: float | None = None
    absent: str = ""


class _Record(msgspec.Struct):
    """What of ``run.json`` is needed here; this room does not know its whole shape."""

    phases: list[_Phase]
    losses: list[_Loss]
    metrics: list[_Metric] = []


def whole_lab(line: str, rounds: int, render: Render, say: Callable[[str], None]) -> list[Figure | Unmeasured]:
    """Run ``invoke lab mutex`` as a person does, warm, and return what it took beyond its phases, losses, rendering.

    :raises LabFailedError: it failed.
    """
    beyond, beyond_work, lost, rendering = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="kmlab-bench-") as scratch:
        for number in range(rounds):
            seconds, folder = run(line, Path(scratch))
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


def losses(line: str, say: Callable[[str], None]) -> list[Figure | Unmeasured]:
    """Run each lab once at its default load and return what its traces lost.

    :raises LabFailedError: one failed.
    """
    made: list[Figure | Unmeasured] = []
    with tempfile.TemporaryDirectory(prefix="kmlab-bench-") as scratch:
        for name in spec.names():
            _, folder = run(line, Path(scratch), name)
            found = msgspec.json.decode((folder / "run.json").read_bytes(), type=_Record)
            lost = float(sum(loss.count for loss in found.losses))
            say(f"{name}: {lost:.0f} lost")
            meaning = f"events lost by lab {name} at its default load, all reasons"
            made.append(Figure(name=f"lost, {name}", meaning=meaning, unit="", samples=[lost], limit=0))
    return made


def soak(line: str, say: Callable[[str], None]) -> list[Figure | Unmeasured]:
    """Run the lifecycle lab for :data:`SOAK` and return by how much memory grew on both sides.

    :raises LabFailedError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="kmlab-bench-") as scratch:
        _, folder = run(line, Path(scratch), "lifecycle", "--duration", SOAK, seconds=SOAK_SECONDS)
        record = msgspec.json.decode((folder / "run.json").read_bytes(), type=_Record)
    figures = {metric.name: metric for metric in record.metrics}
    made: list[Figure | Unmeasured] = []
    for name, who, limit in (("soak.tracer_growth", "the loader", 0.0), ("soak.target_growth", "the program", None)):
        metric = figures[name]
        if metric.value is None:
            made.append(Unmeasured(name=name, reason=metric.absent))
            continue
        say(f"{name}: {metric.value:.0f} KiB")
        meaning = f"memory of {who} after the first minute, over {SOAK}"
        made.append(Figure(name=name, meaning=meaning, unit="KiB", samples=[metric.value], limit=limit))
    return made


def phases_of(record: Path) -> float:
    """Return the seconds that the phases of a record took, as the host saw them.

    :raises LabFailedError: one failed.
    """
    found = msgspec.json.decode((record / "run.json").read_bytes(), type=_Record)
    failed = [phase.name for phase in found.phases if phase.error]
    if failed:
        raise LabFailedError(f"phases failed: {', '.join(failed)}")
    return sum(phase.wall_seconds for phase in found.phases)


def run(
    line: str,
    runs: Path,
    name: str = "mutex",
    *more: str,
    seconds: int = LAB_SECONDS,
    environment: Mapping[str, str] = os.environ,
) -> tuple[float, Path]:
    """Run ``invoke lab`` as a person does; return seconds, and the record.

    :param environment: all that it gets; this process's own where none is given.
    :raises LabFailedError: it failed, or was not over in time.
    """
    invoke = str(Path(sys.executable).parent / "invoke")
    command = [invoke, "lab", name, "--kernel", line, "--json", "--runs", str(runs), *more]
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
            check=False, env=dict(environment),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise LabFailedError(f"the lab was not over within {seconds} s") from error
    took = time.monotonic() - began
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-2:]
        raise LabFailedError(f"invoke lab ended with status {done.returncode}: {' '.join(last)}")
    return took, Path(json.loads(done.stdout)["runs"][0]["path"])
