"""A lab's attempts on a real kernel, 6.1: the attach that fails, the symbol that is absent, in the kernel's words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vm.paths import REPOSITORY

pytestmark = [pytest.mark.vm, pytest.mark.build]

TRIED = Path(__file__).parent / "fixtures" / "tried"
INVOKE = Path(sys.executable).parent / "invoke"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    own = tmp_path_factory.mktemp("tried")
    return {**os.environ, "KMLAB_STATE": str(own / "state"), "KMLAB_RUNS": str(own / "runs")}


def invoke(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [INVOKE, *words], cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def machine(environment: dict[str, str]) -> Iterator[str]:
    """A machine that outlives the run, so that it can be asked what the run left behind."""
    invoke(environment, "vm.up", "--kernel", "6.1", "--name", "tried")
    yield "tried"
    invoke(environment, "vm.down", "--name", "tried")


@pytest.fixture(scope="module")
def run(environment: dict[str, str], machine: str) -> dict[str, Any]:
    said = invoke(environment, "lab", str(TRIED), "--kernel", "6.1", "--machine", machine, "--json")
    (found,) = json.loads(said)["runs"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def results(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    document = json.loads((Path(run["path"]) / "attempts.json").read_text())
    return {result["id"]: result for result in document["attempts"]}


def test_everything_was_tried(results: dict[str, dict[str, Any]]) -> None:
    assert {name: result["untried"] for name, result in results.items() if result["untried"]} == {}
    assert len(results) == 15


def test_controls_and_nothing_else_were_possible(results: dict[str, dict[str, Any]]) -> None:
    assert {name for name, result in results.items() if result["done"]} == {
        "kprobe_openat2", "sched_switch", "prev_state", "kallsyms_schedule", "chansend1", "uprobe_closechan",
        "bpftool_show",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kprobe_chansend", "No such file or directory; trace_kprobe: error: Invalid probed address or symbol"),
        ("sched_go_start", "No such file or directory: /sys/kernel/tracing/events/sched/sched_go_start/enable"),
        ("next_state", "its fields are prev_comm, prev_pid, prev_prio, prev_state, next_comm, next_pid, next_prio"),
        ("bpftool_uprobe", "Error: invalid attach/detach type"),
    ],
)
def test_a_refusal_is_in_the_words_of_who_refused(results: dict[str, dict[str, Any]], name: str, words: str) -> None:
    assert results[name]["words"] == words


def test_symbols_were_looked_through(results: dict[str, dict[str, Any]]) -> None:
    assert results["kallsyms_closechan"]["facts"]["symbols"] > 50_000


def test_the_claims_are_judged_by_them(run: dict[str, Any]) -> None:
    assert {verdict["claim"]: verdict["verdict"] for verdict in run["verdicts"]} == {
        "2.2-b": "refuted", "2.3-d": "refuted", "2.5-b": "confirmed", "4.4-b": "refuted"
    }  # fmt: skip


def test_nothing_stays_in_the_machine(run: dict[str, Any], environment: dict[str, str], machine: str) -> None:
    asked = (
        "cd /sys/kernel/tracing; cat kprobe_events uprobe_events; ls events | grep kmlab; "
        "cat events/sched/sched_switch/enable; bpftool prog show name trivial | wc -l"
    )
    assert run["path"]
    assert invoke(environment, "ssh", "--name", machine, "--command", asked).split() == ["0", "0"]
