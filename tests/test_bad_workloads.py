"""Workloads that misbehave, on real machines: bounded, told as what they are, nothing left, the record kept."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.test_main_job import INVOKE, environment, invoke, machines
from vm.paths import REPOSITORY

__all__ = ["environment"]  # A fixture: real images, and machines and records of this module's own.

pytestmark = [pytest.mark.vm, pytest.mark.build]

BAD = REPOSITORY / "tests" / "provision" / "fixtures" / "bad"
WATCHED = ("timed", "traced", "kernel")
"""Its phases that can misbehave: nothing attached, probes, kernel-side tools. The last, ``profiled``, looks around."""


def misbehave(how: str, environment: dict[str, str], *words: str) -> tuple[int, dict[str, str], Path, str]:
    """Run the lab; return exit status, failed phases with why, the record's folder and what was said on stderr."""
    done = invoke("lab", str(BAD), "--set", f"how={how}", "--seed", "1", "--json", *words, environment=environment)
    (run,) = json.loads(done.stdout)["runs"]
    return done.returncode, run["failed_phases"], Path(run["path"]), done.stderr


def seen_at_the_end(record: Path) -> dict[str, int]:
    """What the last phase found in the machine: other processes of the workload, files that it had left."""
    output = json.loads((record / "profiled" / "workload.json").read_text())
    (counts,) = [segment["counts"] for segment in output["segments"] if segment["section"] == "look"]
    return {name: counts.get(name, 0) for name in ("others", "leftovers")}


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("how", "status", "words", "reset"),
    [
        ("dies", 30, "ended with status 1: bad: it was told to die", False),
        ("panics", 30, "ended with status 2: panic: runtime error: invalid memory address", False),
        ("chatters", 32, "is not the JSON that the protocol asks for", False),
        ("hangs", 30, "not over", True),
        ("floods", 32, "wrote more than 16 MiB to stdout", True),
    ],
)
def test_it_is_told_as_what_it_is_in_every_kind_of_phase(
    how: str, status: int, words: str, reset: bool, environment: dict[str, str]
) -> None:
    code, failed, record, said = misbehave(how, environment, "--set", "where=all", "--kernel", "6.1")

    assert code == status
    assert set(failed) == set(WATCHED)
    assert [why for why in failed.values() if words not in why] == []
    assert said.count("the machine is reset") == (3 if reset else 0)
    assert seen_at_the_end(record) == {"others": 0, "leftovers": 0 if reset else 1}
    assert size_of(record) < 8 << 20
    assert machines(environment) == []


def test_memory_that_runs_out_ends_the_workload_and_nothing_else(environment: dict[str, str]) -> None:
    code, failed, record, _ = misbehave("eats", environment, "--set", "where=traced", "--kernel", "6.1")

    assert code == 30
    assert list(failed) == ["traced"]
    assert "ran out of memory" in failed["traced"]
    assert seen_at_the_end(record) == {"others": 0, "leftovers": 0}


@pytest.mark.parametrize("kernel", ["5.10", "7.3"])  # without and with cgroup.kill
def test_children_in_sessions_of_their_own_are_ended_with_the_phase(kernel: str, environment: dict[str, str]) -> None:
    code, failed, record, _ = misbehave("forks", environment, "--set", "where=all", "--kernel", kernel)

    assert (code, failed) == (0, {})
    assert seen_at_the_end(record)["others"] == 0
    notes = json.loads((record / "run.json").read_text())["notes"]
    assert notes == [f"Phase {name}: 2 processes that outlived the workload were ended." for name in WATCHED]


def test_a_persons_machine_keeps_its_state_and_nothing_of_the_run(environment: dict[str, str]) -> None:
    def ask(command: str) -> str:
        done = invoke("ssh", "--name", "mine", "--command", command, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    up = invoke("vm.up", "--kernel", "6.1", "--name", "mine", environment=environment)
    assert up.returncode == 0, up.stderr
    try:
        ask("echo kept > /root/mark")
        code, failed, record, said = misbehave("hangs", environment, "--machine", "mine")
        assert (code, list(failed)) == (30, ["timed"])
        assert "its folder removed" in said
        assert seen_at_the_end(record) == {"others": 0, "leftovers": 0}

        process = subprocess.Popen(
            [INVOKE, "lab", str(BAD), "--machine", "mine", "--set", "how=hangs", "--set", "where=all"],
            cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        assert process.stderr.readline() == "phase timed\n"
        time.sleep(2)  # Into the phase; before it, there is nothing to end, which is as well.
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130

        assert ask("cat /root/mark; ls /lab; cat /proc/[0-9]*/comm | grep -cx bad || true") == "kept\nkit\n0\n"
        assert ask("ls -d /sys/fs/cgroup/kmlab-* 2>/dev/null || true") == ""
    finally:
        invoke("vm.down", "--name", "mine", environment=environment)


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same lab, expecting one wait more than there are."""
    folder = tmp_path_factory.mktemp("labs") / "bad"
    shutil.copytree(BAD, folder)
    text = (folder / "lab.toml").read_text()
    (folder / "lab.toml").write_text(
        text.replace('default = "well"', 'default = "lies"').replace('"timed"\nchoices', '"traced"\nchoices')
    )
    module = (folder / "go.mod").read_text()
    (folder / "go.mod").write_text(module.replace("../../../../go_labs", str(REPOSITORY / "go_labs")))
    return folder


def test_the_self_test_finds_equal_counts_in_every_build(environment: dict[str, str]) -> None:
    done = invoke(
        "selftest", "--labs", f"{BAD}", "--kernel", "6.1", "--go", "1.21,1.27", "--build", "plain,stripped+pie",
        "--json", environment=environment,
    )  # fmt: skip
    found = json.loads(done.stdout)

    assert (done.returncode, found["exact"]) == (0, True), done.stderr
    assert [(row["go"][:4], row["build"], row["check"]["checked"]) for row in found["rows"]] == [
        (go, build, 7) for go in ("1.21", "1.27") for build in ("plain", "stripped,pie")
    ]
    assert machines(environment) == []


def test_the_self_test_tells_every_difference_and_keeps_the_record(liar: Path, environment: dict[str, str]) -> None:
    done = invoke(
        "selftest", "--labs", str(liar), "--kernel", "6.1", "--go", "1.27", "--sizes", "3", environment=environment
    )

    assert done.returncode == 50
    assert "DIFFERS: 2 of 3 equal" in done.stdout
    assert "segment 1 (goroutines 3): park_mutex 3, expected 4" in done.stdout
    record = Path(done.stdout.splitlines()[-1].rpartition(": ")[2])
    assert json.loads((record / "run.json").read_text())["lab"]["name"] == "bad"


def test_a_self_test_that_is_stopped_keeps_its_table(environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [INVOKE, "selftest", "--labs", str(BAD), "--kernel", "6.1", "--go", "1.27,1.24,1.21"],
        cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    line = next(line for line in process.stderr if line.startswith("bad on 6.1"))
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert line.startswith("bad on 6.1, Go 1.27")
    assert "7 of 7 equal" in out
    assert machines(environment) == []
    assert [path for path in Path(environment["KMLAB_RUNS"]).iterdir() if path.name.startswith(".")] == []
