"""The article's own tools, as far as they need no kernel: what they make of recorded output, and how they fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from vm.paths import REPOSITORY

BCC, BPFTRACE = REPOSITORY / "bpf" / "bcc", REPOSITORY / "bpf" / "bpftrace"
RECORDED = Path(__file__).parent / "fixtures" / "bpftrace"

PLAYER = """#!{python}
import signal, sys, time
ended = []
signal.signal(signal.SIGINT, lambda *_: ended.append(1))
said = open({recorded!r}).read().splitlines(keepends=True)
print("".join(line for line in said if "printf" in line), end="", flush=True)
while not ended:
    time.sleep(0.01)
print("".join(line for line in said if "printf" not in line), end="")
"""
"""A bpftrace that says what was recorded: its words at once, its maps when it is ended."""

CHATTERER = """#!{python}
import ctypes, signal, sys
libc, good, ended = ctypes.CDLL(None), True, []
signal.signal(signal.SIGINT, lambda *_: ended.append(1))

def say(line):
    global good
    words = line.encode() + b"\\n"
    good = good and libc.write(1, words, len(words)) == len(words)

say('{{"type": "printf", "data": "ready"}}')
while not ended:
    say('{{"type": "helper_error", "helper": "map_lookup_elem", "retcode": 0}}')
say('{{"type": "map", "data": {{"@total": 7}}}}')
"""
"""A bpftrace that says more than anybody reads and, as std::cout does, nothing after a write that a signal ended."""

REFUSED = """#!/bin/sh
echo 'ERROR: Error attaching probe: kprobe:mutex_lock' >&2
exit 255
"""


def play(tmp_path: Path, script: str) -> dict[str, str]:
    """Put a ``bpftrace`` first on PATH; return the environment that has it."""
    program = tmp_path / "bpftrace"
    program.write_text(script)
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def watched(tmp_path: Path, name: str, said: Path | None = None) -> dict[str, Any]:
    """Run ``_run.py`` on a script until it is ready, end it, and return its document."""
    environment = play(tmp_path, PLAYER.format(python=sys.executable, recorded=str(said or RECORDED / f"{name}.jsonl")))
    with subprocess.Popen(
        [sys.executable, BPFTRACE / "_run.py", BPFTRACE / f"{name}.bt", "mutex"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as child:  # fmt: skip
        assert child.stderr is not None
        assert child.stderr.readline() == "READY\n"
        child.send_signal(signal.SIGINT)
        stdout, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    document = json.loads(stdout)
    assert isinstance(document, dict)
    return document


def test_futex_calls_are_counted_by_word_and_kind(tmp_path: Path) -> None:
    document = watched(tmp_path, "futex")

    assert document["tool"] == "bpftrace/futex"
    assert (document["hits"], document["total"]) == (384, 723)
    assert document["operations"] == {"wait": 196, "wake": 188, "other": 0}
    assert sum(document["addresses"].values()) == sum(document["processes"].values()) == document["hits"]
    assert document["addresses"]["0x72df50"] == 21
    assert sum(count for _, _, count in document["heat"]) == document["operations"]["wait"]
    assert document["heat"][0][0] == 0
    # A thread that does not wait has no entry to find: no loss.
    assert document["losses"] == {"helper": 0}


def test_switches_are_counted_by_segment_state_and_call(tmp_path: Path) -> None:
    document = watched(tmp_path, "sched_switch")

    assert (document["hits"], document["total"]) == (339, 1448)
    assert sum(count for *_, count in document["left"]) == document["hits"]
    states = {state for _, state, _, _ in document["left"]}
    assert {0, 1} <= states
    # -1: a thread that left a CPU outside of any system call.
    assert -1 in {call for _, _, call, _ in document["left"]}
    assert sum(document["idle"].values()) >= sum(document["ran"].values()) > 0
    assert document["losses"] == {"helper": 0}


def test_a_signal_in_the_middle_of_many_words_does_not_cost_the_maps(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, BPFTRACE / "_run.py", BPFTRACE / "sched_switch.bt", "gmp"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=play(tmp_path, CHATTERER.format(python=sys.executable)),
    ) as child:  # fmt: skip
        assert child.stderr is not None
        assert child.stderr.readline() == "READY\n"
        time.sleep(0.3)  # time to fill a pipe, if it were one
        child.send_signal(signal.SIGINT)
        stdout, _ = child.communicate(timeout=60)

    assert json.loads(stdout)["total"] == 7


def test_counts_of_a_key_on_several_cpus_are_added(tmp_path: Path) -> None:
    said = tmp_path / "said.jsonl"
    said.write_text(
        '{"type": "printf", "data": "ready\\n"}\n'
        '{"type": "map", "data": {"@total": 9}}\n'
        '{"type": "map", "data": {"@left": {"0,1,1,203": 4, "1,1,1,203": 3, "1,2,0,0": 2}}}\n'
        '{"type": "map", "data": {"@idle": {"0,1": 1, "1,1": 1}}}\n'
    )
    document = watched(tmp_path, "sched_switch", said)

    assert document["left"] == [[1, 1, 202, 7], [2, 0, -1, 2]]
    assert document["idle"] == {"1": 2}


def test_maps_that_were_never_printed_are_an_error_and_not_zeros(tmp_path: Path) -> None:
    said = tmp_path / "said.jsonl"
    said.write_text('{"type": "printf", "data": "ready\\n"}\n')
    with subprocess.Popen(
        [sys.executable, BPFTRACE / "_run.py", BPFTRACE / "sched_switch.bt", "gmp"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=play(tmp_path, PLAYER.format(python=sys.executable, recorded=str(said))),
    ) as child:  # fmt: skip
        assert child.stderr is not None
        assert child.stderr.readline() == "READY\n"
        child.send_signal(signal.SIGINT)
        stdout, _ = child.communicate(timeout=60)

    assert child.returncode == 1
    assert json.loads(stdout)["error"] == "bpftrace ended with status 0"


def test_addresses_of_the_kernels_mutexes_are_kernel_addresses(tmp_path: Path) -> None:
    document = watched(tmp_path, "mutex_lock")

    assert (document["hits"], document["total"]) == (25, 1410)
    assert sum(document["addresses"].values()) == 25
    assert all(int(address, 16) >> 63 for address in document["addresses"])
    assert all(stack["frames"][0] == "mutex_lock+1" for stack in document["stacks"])
    assert sum(stack["count"] for stack in document["stacks"]) == 25


def test_a_probe_that_cannot_be_attached_is_an_error_and_not_a_zero(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, BPFTRACE / "_run.py", BPFTRACE / "mutex_lock.bt", "mutex"],
        capture_output=True, text=True, check=False, timeout=60, env=play(tmp_path, REFUSED),
    )  # fmt: skip
    document = json.loads(done.stdout)

    assert done.returncode == 1
    assert "READY" not in done.stderr
    assert document["error"] == "ERROR: Error attaching probe: kprobe:mutex_lock"
    assert "hits" not in document


@pytest.mark.parametrize("name", ["mutex_lock", "futex", "prog_list", "sched_switch"])
def test_a_bcc_tool_that_cannot_load_says_so_in_its_document(name: str) -> None:
    # This Python has no bcc, which is one way of not being able to.
    done = subprocess.run(
        [sys.executable, BCC / f"{name}.py", "mutex"], capture_output=True, text=True, check=False, timeout=60
    )
    document = json.loads(done.stdout)

    assert done.returncode == 1
    assert done.stderr == ""
    assert document == {"schema": 1, "tool": f"bcc/{name}", "target": "mutex", "error": "No module named 'bcc'"}


@pytest.mark.parametrize("words", [[], ["mutex", "channel"], ["a-name-of-sixteen"], [""]])
def test_a_bcc_tool_wants_one_name_as_the_kernel_keeps_it(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, BCC / "futex.py", *words], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("usage:")


def test_every_tool_is_there_for_both_engines() -> None:
    bcc = {path.stem for path in BCC.glob("[a-z]*.py")}

    # bpftrace loads only what it attaches, so a program that is attached to nothing needs bcc.
    assert bcc - {"prog_list"} == {path.stem for path in BPFTRACE.glob("[a-z]*.bt")}
