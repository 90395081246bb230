"""The virtual clock on real machines: the same work takes the same time, and a known difference is found as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reports import html
from tests.go_labs.real import INVOKE, Found, real_run
from vm.paths import REPOSITORY

pytestmark = [pytest.mark.vm, pytest.mark.build]

STEADY = str(Path(__file__).parent / "go_labs" / "fixtures" / "steady")
GO = "1.27"


def steady(*settings: str, kernel: str = "6.1") -> Found:
    return real_run(STEADY, kernel, GO, settings, "--clock", "virtual")


@contextmanager
def busy_core() -> Iterator[None]:
    """Keep a core of the host busy."""
    load = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
        assert load.poll() is None, "the load ended early"
    finally:
        load.kill()
        load.wait()


@pytest.fixture(scope="module")
def idle() -> Found:
    """A run while this test does nothing else."""
    return steady()


def figures(found: Found) -> tuple[float, float]:
    work, call = found.value("work.ns"), found.value("syscall.ns")
    assert work is not None
    assert call is not None
    return work, call


def test_the_same_work_takes_the_same_time_while_the_host_is_busy(idle: Found) -> None:
    with busy_core():
        loaded = steady()

    assert figures(loaded) == pytest.approx(figures(idle), rel=0.01)


def test_a_record_says_what_its_clock_is_and_the_page_what_that_means(idle: Found) -> None:
    assert idle.record.provenance.clock == "virtual"
    assert idle.record.provenance.accelerator == "tcg"
    assert idle.value("kernel.splats") == 0
    assert "clock counts instructions" in html.page(idle.record)


@pytest.mark.parametrize(("line", "more"), [("6.1", 1.05), ("6.12", 1.0)])
def test_planted_work_costs_5_percent_on_its_line_and_nothing_elsewhere(idle: Found, line: str, more: float) -> None:
    """6.12 begins with 6.1, and is another line."""
    work, call = figures(steady(f"planted={line}"))

    assert work / figures(idle)[0] == pytest.approx(more, rel=0.01)
    assert call == pytest.approx(figures(idle)[1], rel=0.01)


def test_a_machine_of_a_person_keeps_its_clock_over_a_reset(tmp_path: Path) -> None:
    own = {**os.environ, "KMLAB_STATE": str(tmp_path / "state"), "KMLAB_RUNS": str(tmp_path / "runs")}

    def invoke(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [INVOKE, *words], cwd=REPOSITORY, env=own, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        return done

    def clocks() -> dict[str, str]:
        return {row["name"]: row["clock"] for row in json.loads(invoke("vm.status", "--json").stdout)}

    try:
        invoke("vm.up", "--kernel", "6.1", "--name", "counted", "--clock", "virtual")
        invoke("vm.up", "--kernel", "6.1", "--name", "plain", "--accel", "tcg")
        invoke("vm.reset", "--name", "counted")
        assert clocks() == {"counted": "virtual", "plain": "emulated"}
        run = json.loads(invoke("lab", STEADY, "--machine", "counted", "--json").stdout)["runs"][0]
        assert run["clock"] == "virtual"
        refused = invoke("lab", STEADY, "--machine", "plain", "--clock", "virtual", status=10)
        assert "has the host's clock" in refused.stderr
    finally:
        invoke("vm.down", "--all")
