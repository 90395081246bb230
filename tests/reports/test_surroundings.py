"""What surrounded a run, from readings that are made up."""

from __future__ import annotations

from typing import Any

import pytest

from go_labs.evidence import HostShare
from reports import surroundings
from reports.analysis import PhaseData, RunData
from reports.schema import Metric
from tests.reports import made


def run(phases: dict[str, HostShare | None], guest: Any = None) -> RunData:
    return RunData(
        lab=made.folder().lab,
        provenance=made.provenance(),
        phases={
            name: PhaseData(name=name, exit_status=0, wall_seconds=9.0, workload_seconds=8.0, host=host)
            for name, host in phases.items()
        },
        facts={} if guest is None else {"guest": guest},
    )


def share(ran: float, waited: float) -> HostShare:
    return HostShare(cores=[0, 1], neighbours=0, cpu_seconds=ran, wait_seconds=waited)


def told(data: RunData) -> dict[str, Metric]:
    return {metric.name: metric for metric in surroundings.metrics(data)}


def test_the_share_of_waiting_is_that_of_the_timed_phase() -> None:
    found = told(run({"traced": share(1.0, 9.0), "timed": share(9.0, 1.0)}))["host.wait_share"]

    assert (found.value, found.phase, found.absent) == (0.1, "timed", "")
    assert not found.is_timing  # the host measured it: no emulated time, no counted instructions


def test_without_a_timed_phase_the_first_one_is_looked_at() -> None:
    found = told(run({"traced": share(3.0, 1.0), "kernel": share(1.0, 9.0)}))["host.wait_share"]

    assert (found.value, found.phase) == (0.25, "traced")


@pytest.mark.parametrize("phases", [{}, {"timed": None}, {"timed": share(0.0, 0.0)}], ids=str)
def test_what_nobody_looked_at_is_absent_with_the_reason(phases: dict[str, HostShare | None]) -> None:
    found = told(run(phases))["host.wait_share"]

    assert found.value is None
    assert found.absent == "the machine's process was not looked at"


def test_stolen_time_is_steal_over_all_cpu_time_without_counting_guests_twice() -> None:
    guest = {
        "stat_before": "cpu  100 0 50 1000 10 0 5 20 30 0",
        "stat_after": "cpu  160 0 60 1090 15 0 5 35 70 0\n",
    }
    found = told(run({}, guest))["guest.stolen_share"]

    # user 60, system 10, idle 90, iowait 5, steal 15
    assert found.value == pytest.approx(15 / 180)


STAT = "cpu  100 0 50 1000 10 0 5 20 30 0"


@pytest.mark.parametrize(
    "guest",
    [
        None,
        "not a table",
        {},
        {"stat_before": STAT},
        {"stat_before": STAT, "stat_after": STAT},  # no time passed
        {"stat_before": STAT, "stat_after": "cpu  1 2 3"},
        {"stat_before": STAT, "stat_after": STAT.replace("cpu ", "cpu0")},
        {"stat_before": STAT, "stat_after": STAT.replace("1000", "-5")},
        {"stat_before": STAT, "stat_after": STAT.replace("1000", "٣")},
        {"stat_before": STAT, "stat_after": STAT + " 7"},  # of another kernel: more words
        {"stat_before": STAT, "stat_after": 5},
    ],
    ids=str,
)
def test_readings_that_cannot_be_meant_give_no_figure(guest: Any) -> None:
    found = told(run({}, guest))["guest.stolen_share"]

    assert found.value is None
    assert found.absent == "the guest's /proc/stat was not read twice"
