"""Phase commands, and the script that runs a workload beside kernel-side tools, run for real on the host."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from go_labs.evidence import PhaseEvidence
from go_labs.spec import Phase
from provision import phases
from provision.phases import Workload
from vm.errors import LabFailedError, OutputError, ProbeError

SCRIPT = Path(phases.__file__).parent / "guest" / "with_tools.sh"
WORKLOAD = Workload("/lab/1", "mutex", ("--readers=0,50", "--seconds=2"))


def test_the_timed_phase_runs_the_workload_alone_with_a_time_out_and_a_bound() -> None:
    command = phases.command(WORKLOAD, Phase(name="timed", sections=["free"], timeout=30), seed=7)
    assert command == (
        "cd /lab/1 && mkdir -p out/timed && export KMLAB_OUT=out/timed && ulimit -f 131072 && "
        "exec timeout -k 5 30 ./mutex --phase=timed "
        "--sections=free --seed=7 --readers=0,50 --seconds=2 >out/timed/workload.json 2>out/timed/stderr </dev/null"
    )


def test_the_traced_phase_puts_the_loader_in_front() -> None:
    command = phases.command(WORKLOAD, Phase(name="traced", sections=["forced"], probes=["mutex"], timeout=30), seed=7)
    assert "./labtrace run --plan plan.json" in command
    assert command.endswith(
        "-- ./mutex --phase=traced --sections=forced --seed=7 --readers=0,50 --seconds=2 2>out/traced/loader.err"
    )


def test_a_phase_may_override_an_option() -> None:
    phase = Phase(name="timed", sections=["free"], options={"seconds": "9"})
    assert "--seconds=9" in phases.workload_words(WORKLOAD, phase, seed=1)
    assert "--seconds=2" not in phases.workload_words(WORKLOAD, phase, seed=1)


def run_with_tools(out: Path, *words: str, seconds: str = "5") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(SCRIPT), str(out), seconds, *words], capture_output=True, text=True, timeout=60, check=False
    )


TOOL = """trap 'echo "{\\"hits\\": 3}"; exit' INT
echo READY >&2
while :; do sleep 0.05; done
"""


@pytest.fixture
def tool(tmp_path: Path) -> str:
    """A command that behaves as a kernel-side tool must."""
    script = tmp_path / "tool.sh"
    script.write_text(TOOL)
    return f"sh {script}"


def test_tools_are_ready_before_the_workload_and_end_after_it(tmp_path: Path, tool: str) -> None:
    done = run_with_tools(tmp_path, "-t", "watch", tool, "--", "sh", "-c", "echo work; exit 5")
    assert done.returncode == 5
    assert (tmp_path / "workload.json").read_text() == "work\n"
    assert json.loads((tmp_path / "tool-watch.json").read_text()) == {"hits": 3}
    assert not list(tmp_path.glob("*.pid"))


def test_a_tool_that_fails_leaves_its_words_and_the_others_go_on(tmp_path: Path, tool: str) -> None:
    done = run_with_tools(tmp_path, "-t", "bad", "sh -c 'echo no probe >&2; exit 1'", "-t", "good", tool, "--", "true")
    assert done.returncode == 0
    assert (tmp_path / "tool-bad.err").read_text() == "no probe\n"
    assert json.loads((tmp_path / "tool-good.json").read_text()) == {"hits": 3}


def test_what_a_tool_saw_that_was_ready_too_late_is_not_kept(tmp_path: Path, tool: str) -> None:
    slow = tmp_path / "slow.sh"
    slow.write_text("sleep 2\n" + TOOL)

    done = run_with_tools(
        tmp_path, "-t", "slow", f"sh {slow}", "-t", "good", tool, "--", "sleep", "2", seconds="1"
    )  # fmt: skip

    assert done.returncode == 0
    late = json.loads((tmp_path / "tool-slow.json").read_text())
    assert late == {"schema": 1, "error": "it was not attached within 1 s"}
    assert json.loads((tmp_path / "tool-good.json").read_text()) == {"hits": 3}


def test_without_any_tool_the_workload_does_not_run(tmp_path: Path) -> None:
    done = run_with_tools(tmp_path, "-t", "bad", "false", "--", "sh", "-c", "echo work")
    assert done.returncode == phases.TOOLS_NOT_READY
    assert not (tmp_path / "workload.json").exists()


def leave(folder: Path, **files: str) -> dict[str, str]:
    """Write files as a phase leaves them; return them by role."""
    for name, text in files.items():
        (folder / name).write_text(text)
    return {name: name for name in files}


TRACED = Phase(name="traced", sections=["forced"], probes=["mutex"])
TIMED = Phase(name="timed", sections=["free"], timeout=30)


@pytest.mark.parametrize(
    ("phase", "status", "files", "words", "kind"),
    [
        (TIMED, 124, {}, "not over within 30 s", LabFailedError),
        (TIMED, 9, {"stderr": "boom \x1b[31m"}, "ended with status 9: boom �[31m", LabFailedError),
        (TIMED, 0, {}, "left no output", OutputError),
        (TIMED, 0, {"workload": "<b>"}, "not the JSON that the protocol asks for", OutputError),
        (
            TRACED,
            3,
            {"loader.err": '{"error": "load_refused", "message": "go_park: invalid argument"}'},
            "the kernel refused a BPF program: go_park: invalid argument",
            ProbeError,
        ),
        (TRACED, 1, {"loader.err": "Killed"}, "the tracer ended without a report: Killed", ProbeError),
        (TRACED, 0, {}, "ended with status 255", LabFailedError),
    ],
)
def test_a_failed_phase_becomes_the_error_of_its_kind(
    tmp_path: Path, phase: Phase, status: int, files: dict[str, str], words: str, kind: type[LabFailedError]
) -> None:
    end = phases._outcome(status, phase, tmp_path, leave(tmp_path, **files))
    evidence = PhaseEvidence(
        name=phase.name,
        exit_status=end.status,
        wall_seconds=1.0,
        workload_seconds=end.seconds,
        files={},
        error=end.error,
        failed=end.failed,
    )
    failure = phases.failure("mutex", evidence)
    assert type(failure) is kind
    assert failure is not None
    assert words in failure.message


def test_a_phase_that_went_well_is_no_failure() -> None:
    evidence = PhaseEvidence(name="timed", exit_status=0, wall_seconds=1.0, workload_seconds=0.9, files={})
    assert phases.failure("mutex", evidence) is None
