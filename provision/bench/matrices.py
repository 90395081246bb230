"""What a matrix costs beside its workloads, what a kill costs it, and what comparing 1 400 runs takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from go_labs import matrix
from go_labs.matrix import RUNS, Begun, Ended
from provision.bench.figures import Figure, Unmeasured
from vm.errors import LabFailedError
from vm.paths import REPOSITORY

OVERHEAD_LIMIT = 3.0
COMPARE_SECONDS = 5.0
COMPARE_MIB = 500.0
SYNTHETIC_RUNS = 1400
LAB = "defer"
"""The shortest lab: what is measured is what lies around it."""

MATRIX_SECONDS = 1800

Synthetic = Callable[[Path, int], None]
"""Writes a made-up matrix of so many runs into a folder (``reports.synthetic``)."""


class _Phase(msgspec.Struct):
    wall_seconds: float


class _Evidence(msgspec.Struct):
    phases: list[_Phase]
    timings: dict[str, float]


def overhead(line: str, repeats: int, say: Callable[[str], None]) -> list[Figure | Unmeasured]:
    """Run a small matrix as a person does, and return what each run took beyond what the lab does in it.

    :raises LabFailedError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="kmlab-bench-") as scratch:
        folder = Path(scratch) / "matrix"
        done = subprocess.run(
            _command(line, repeats, folder),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=MATRIX_SECONDS,
        )
        if done.returncode not in (0, LabFailedError.exit_code):
            raise LabFailedError(f"invoke matrix ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
        beyond = _beyond(folder)
        tried = _attempts(folder)
        say(f"matrix: {len(beyond)} runs, {', '.join(f'{each:.2f}' for each in beyond)} s beyond phases and attempts")
    meaning = "a run of a matrix, warm: from the start of its machine to its record, beyond the lab's phases"
    both = [over + more for over, more in zip(beyond, tried, strict=True)]
    return [
        Figure(
            name="matrix", meaning=f"{meaning} and what it tries on the machine",
            unit="s", samples=beyond, limit=OVERHEAD_LIMIT,
        ),
        Figure(name="matrix, all", meaning=f"{meaning} alone", unit="s", samples=both),
    ]  # fmt: skip


def _command(line: str, repeats: int, folder: Path) -> list[str]:
    words = ["matrix", "--labs", LAB, "--kernels", line, "--repeats", str(repeats), "--jobs", "1", "--out", str(folder)]
    return [str(Path(sys.executable).parent / "invoke"), *words]


def _recorded(folder: Path) -> list[tuple[Ended, _Evidence]]:
    """Return the attempts that left a record, with it."""
    return [
        (entry, msgspec.json.decode((folder / RUNS / entry.record / "evidence.json").read_bytes(), type=_Evidence))
        for entry in matrix.read_journal(folder)
        if isinstance(entry, Ended) and entry.record
    ]


def _attempts(folder: Path) -> list[float]:
    """Return what each run's own attempts took (``lab.toml``)."""
    return [found.timings.get("attempts_seconds", 0.0) for _, found in _recorded(folder)]


def _beyond(folder: Path) -> list[float]:
    """Return the length of each attempt less what the lab itself did in it: its phases, and what it tries."""
    own = [sum(phase.wall_seconds for phase in found.phases) for _, found in _recorded(folder)]
    ended = [entry.seconds for entry, _ in _recorded(folder)]
    return [all_ - phases - tried for all_, phases, tried in zip(ended, own, _attempts(folder), strict=True)]


def killed(line: str, say: Callable[[str], None]) -> list[Figure | Unmeasured]:
    """Kill a matrix with SIGKILL in the middle of a run, go on with it, and return how many runs had to be made again.

    :raises LabFailedError: it could not be gone on with.
    """
    with tempfile.TemporaryDirectory(prefix="kmlab-bench-") as scratch:
        folder = Path(scratch) / "matrix"
        command = _command(line, 3, folder)
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + MATRIX_SECONDS
            while not _in_the_middle(folder):
                if process.poll() is not None or time.monotonic() > until:
                    return [Unmeasured(name="kill", reason="the matrix was over before it could be killed")]
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
        resumed = [command[0], "matrix", "--resume", str(folder)]
        done = subprocess.run(
            resumed, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=MATRIX_SECONDS
        )
        if done.returncode not in (0, LabFailedError.exit_code):
            raise LabFailedError(f"--resume ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
        begun = [(entry.run, entry.attempt) for entry in matrix.read_journal(folder) if isinstance(entry, Begun)]
        again = len(begun) - len(set(begun))
        say(f"kill: {again} of {len(set(begun))} attempts were made again")
    meaning = "runs that a kill -9 in the middle of a matrix cost: those that were made again after it"
    return [Figure(name="kill", meaning=meaning, unit="runs", samples=[float(again)], limit=1)]


def _in_the_middle(folder: Path) -> bool:
    entries = matrix.read_journal(folder) if folder.is_dir() else []
    return sum(isinstance(e, Ended) for e in entries) >= 2 and isinstance(entries[-1], Begun)


def comparing(rounds: int, synthetic: Synthetic, say: Callable[[str], None]) -> list[Figure | Unmeasured]:
    """Compare made-up runs as a person does, and return time and peak memory of the whole command.

    :raises LabFailedError: it failed.
    """
    seconds, memory = [], []
    with tempfile.TemporaryDirectory(prefix="kmlab-bench-") as scratch:
        folder = Path(scratch) / "synthetic"
        synthetic(folder, SYNTHETIC_RUNS)
        runs = len(matrix.read_plan(folder).runs)
        for _ in range(rounds):
            began = time.monotonic()
            peak = _peak([str(Path(sys.executable).parent / "invoke"), "compare", str(folder)])
            seconds.append(time.monotonic() - began)
            memory.append(peak)
        say(f"compare: {runs} runs, {min(seconds):.2f} to {max(seconds):.2f} s, {max(memory):.0f} MiB")
    what = f"`invoke compare` of {runs} synthetic runs, page and terminal"
    return [
        Figure(name="compare", meaning=what, unit="s", samples=seconds, limit=COMPARE_SECONDS),
        Figure(
            name="compare, memory",
            meaning=f"{what}: peak resident memory",
            unit="MiB",
            samples=memory,
            limit=COMPARE_MIB,
        ),
    ]


def _peak(command: list[str]) -> float:
    """Run ``command`` and return the MiB of its peak resident memory (``ru_maxrss``, getrusage(2))."""
    pid = os.posix_spawn(
        command[0], command, dict(os.environ),
        file_actions=[(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)],
    )  # fmt: skip
    try:
        _, status, usage = os.wait4(pid, 0)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    if os.waitstatus_to_exitcode(status):
        raise LabFailedError(f"{' '.join(command[1:])} ended with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1024
