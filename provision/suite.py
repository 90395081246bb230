"""Running the project's own tests, as ``invoke test`` does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from vm.errors import HangError
from vm.paths import REPOSITORY

LIMIT_SECONDS = 120 * 60
"""After this long the suite counts as hung: more than twice the 50 minutes that it took beside other work, from an
empty cache on two cores. What a single test may take is bounded by pytest's own time-out."""


TEARDOWN_SECONDS = 90.0
"""What fixtures get to take down what they started: Vagrant needs some seconds for each machine, libvirtd's end too."""


def markers(unit: bool, machines: bool) -> list[str]:
    """Return pytest's selection: neither or both means everything.

    :param unit: only what needs no machine and builds no artefact.
    :param machines: only what boots a machine, Vagrant's too.
    """
    if unit == machines:
        return []
    return ["-m", "not vm and not vagrant and not build"] if unit else ["-m", "vm or vagrant"]


def run(arguments: Sequence[str], limit: float = LIMIT_SECONDS) -> int:
    """Run pytest on this repository with ``arguments`` and return its exit status; its output is passed through.

    pytest and everything that it started get SIGTERM, then SIGKILL, if this ends early.

    :raises HangError: the suite was not over within ``limit`` seconds.
    """
    command = [sys.executable, "-m", "pytest", *arguments]
    process = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        raise HangError(f"the tests were not over within {limit / 60:.0f} minutes", "run a part: -k NAME") from None
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the tests' session if it still runs: politely first, so that fixtures stop their machines."""
    if process.poll() is not None:
        return
    for number, patience in ((signal.SIGINT, TEARDOWN_SECONDS), (signal.SIGKILL, 5.0)):
        os.killpg(process.pid, number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        return
