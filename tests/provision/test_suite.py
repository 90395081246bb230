"""The tests' own run: what is left of a suite that is ended early has the time to take down what it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from provision import suite


def test_machines_of_vagrants_get_the_time_that_their_end_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three machines and libvirtd, on a busy host; it was 20 s, in which a domain could be left behind."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
    granted: list[float] = []
    sent: list[int] = []

    def wait(patience: float) -> None:
        granted.append(patience)
        raise subprocess.TimeoutExpired("pytest", patience)

    with monkeypatch.context() as patched:
        patched.setattr(os, "killpg", lambda _, number: sent.append(number))
        patched.setattr(child, "wait", wait)
        suite._end(child)
    child.kill()
    child.wait()

    assert sent == [signal.SIGINT, signal.SIGKILL]
    assert granted[0] >= 90
