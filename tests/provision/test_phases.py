"""Phase commands, and the script that runs a workload beside kernel-side tools, run for real on the host."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from go_labs.evidence import PhaseEvidence
from go_labs.spec import Phase
from provision import phases
from provision.phases import Containment, Workload
from vm.errors import LabFailedError, OutputError, ProbeError

SCRIPT = Path(phases.__file__).parent / "guest" / "with_tools.sh"
CONTAINED = SCRIPT.with_name("contained.sh")
WORKLOAD = Workload("/lab/1", "mutex", ("--readers=0,50", "--seconds=2"))


def test_the_timed_phase_runs_the_workload_alone_with_a_time_out_and_a_bound() -> None:
    command = phases.command(WORKLOAD, Phase(name="timed", sections=["free"], timeout=30), seed=7)
    assert command == (
        "cd /lab/1 && mkdir -p out/timed && export KMLAB_OUT=out/timed && ulimit -f 131072 && "
        "exec sh ./contained.sh run 1 out/timed 16777217 "
        """sh -c 'exec "$@" >out/timed/workload.json 2>out/timed/stderr </dev/null' sh timeout -k 5 30 """
        "./mutex --phase=timed --sections=free --seed=7 --readers=0,50 --seconds=2"
    )


def test_a_program_that_is_no_lab_gets_its_own_arguments_and_no_others() -> None:
    phase = Phase(name="traced", sections=[], probes=["mutex"], protocol="none")
    program = Workload("/lab/1", "program/serve", ("--port=1", "a b"))
    assert phases.command(program, phase, seed=7).endswith("-- ./program/serve --port=1 'a b' 2>out/traced/loader.err")


def test_the_traced_phase_puts_the_loader_in_front() -> None:
    command = phases.command(WORKLOAD, Phase(name="traced", sections=["forced"], probes=["mutex"], timeout=30), seed=7)
    assert "./labtrace run --plan plan.json" in command
    assert "--max-events 1000000 " in command
    assert command.endswith(
        "-- ./mutex --phase=traced --sections=forced --seed=7 --readers=0,50 --seconds=2 2>out/traced/loader.err"
    )


def test_tools_get_as_long_to_read_from_disk_where_an_idle_second_is_a_minute() -> None:
    phase = Phase(name="kernel", sections=["free"], tools=["bcc/futex"], timeout=30)

    usual = phases.command(WORKLOAD, phase, seed=7)
    counted = phases.command(WORKLOAD, phase, seed=7, clock="virtual")

    assert "with_tools.sh out/kernel 180 -t" in usual
    assert "with_tools.sh out/kernel 10800 -t" in counted
    assert "-- timeout -k 5 30 ./mutex" in counted, "a workload's time-out is in the machine's own seconds"


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
    slow.write_text("sleep 4\n" + TOOL)

    done = run_with_tools(
        tmp_path, "-t", "slow", f"sh {slow}", "-t", "good", tool, "--", "sleep", "4", seconds="1"
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
PROGRAM = Phase(name="timed", sections=[], timeout=30, protocol="none")


def contained(seconds: float = 1.0, *, left: int = 0, out_of_memory: int = 0, cut: Sequence[str] = ()) -> Containment:
    return Containment(began=100.0, ended=100.0 + seconds, left=left, out_of_memory=out_of_memory, cut=list(cut))


def ended(folder: Path, phase: Phase, status: int, containment: Containment, **files: str) -> PhaseEvidence:
    """What :func:`phases.run` would make of a command that ended like this."""
    end = phases._outcome(status, containment, phase, folder, leave(folder, **files))
    return PhaseEvidence(
        name=phase.name,
        exit_status=end.status,
        wall_seconds=1.0,
        workload_seconds=end.seconds,
        files={},
        error=end.error,
        failed=end.failed,
        remarks=["disturbed"] if end.disturbed else [],
    )


REFUSED = '{"error": "load_refused", "message": "go_park: invalid argument"}'
LATE = '{"error": "timeout", "message": "the target ran longer than 30s and was ended"}'


@pytest.mark.parametrize(
    ("phase", "status", "containment", "files", "words", "kind", "disturbed"),
    [
        (TIMED, 124, contained(30.1), {}, "not over within 30 s", LabFailedError, True),
        (TIMED, 124, contained(29.99), {}, "not over within 30 s", LabFailedError, True),
        (TIMED, 137, contained(35.0), {}, "not over within 30 s", LabFailedError, True),
        (TIMED, 137, contained(2.0), {}, "was ended by SIGKILL", LabFailedError, True),
        (TIMED, 137, contained(out_of_memory=1), {}, "ran out of memory", LabFailedError, True),
        (TIMED, 2, contained(cut=["workload.json"]), {}, "wrote more than 16 MiB to stdout", OutputError, True),
        (TRACED, 7, contained(cut=["stderr"]), {}, "wrote more than 16 MiB to stderr", OutputError, True),
        (TIMED, 9, contained(), {"stderr": "boom \x1b[31m"}, "ended with status 9: boom �[31m", LabFailedError, False),
        (
            TIMED,
            2,
            contained(),
            {"stderr": "panic: no such thing\n\ngoroutine 1 [running]:\nmain.main()\n\t/main.go:3"},
            "ended with status 2: panic: no such thing",
            LabFailedError,
            False,
        ),
        (TIMED, 0, contained(), {}, "left no output", OutputError, False),
        (TIMED, 0, contained(), {"workload": "<b>"}, "not the JSON that the protocol asks for", OutputError, False),
        (
            TRACED,
            3,
            contained(),
            {"loader.err": REFUSED},
            "the kernel refused a BPF program: go_park",
            ProbeError,
            False,
        ),
        (TRACED, 6, contained(), {"loader.err": LATE}, "the workload was not over in time", LabFailedError, True),
        (TRACED, 1, contained(), {"loader.err": "Killed"}, "without a report: Killed", ProbeError, True),
        (TRACED, 0, contained(), {}, "ended with status 255", LabFailedError, False),
        (PROGRAM, 3, contained(), {"stderr": "no file"}, "ended with status 3: no file", LabFailedError, False),
    ],
)
def test_a_failed_phase_becomes_the_error_of_its_kind(
    tmp_path: Path,
    phase: Phase,
    status: int,
    containment: Containment,
    files: dict[str, str],
    words: str,
    kind: type[LabFailedError],
    disturbed: bool,
) -> None:
    evidence = ended(tmp_path, phase, status, containment, **files)
    failure = phases.failure("mutex", evidence)
    assert type(failure) is kind
    assert failure is not None
    assert words in failure.message
    assert (evidence.remarks == ["disturbed"]) is disturbed


def test_a_program_that_is_no_lab_needs_no_document(tmp_path: Path) -> None:
    evidence = ended(tmp_path, PROGRAM, 0, contained(2.5))
    assert (evidence.error, evidence.workload_seconds) == ("", 2.5)


def run_contained(out: Path, limit: int, *words: str) -> tuple[subprocess.CompletedProcess[str], Containment]:
    done = subprocess.run(
        ["/bin/sh", str(CONTAINED), "run", f"test-{os.getpid()}", str(out), str(limit), *words],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done, msgspec.json.decode(done.stdout, type=Containment)


def test_the_containment_passes_the_status_on_and_says_how_it_went(tmp_path: Path) -> None:
    done, said = run_contained(tmp_path / "out", 100, "sh", "-c", "exit 5")
    assert done.returncode == 5
    assert said.ended >= said.began > 0
    assert (said.left, said.out_of_memory, said.cut) == (0, 0, [])


def test_what_was_printed_beyond_the_limit_is_cut_and_named(tmp_path: Path) -> None:
    loud = f"head -c 200000 /dev/zero >{tmp_path}/workload.json; head -c 99 /dev/zero >{tmp_path}/stderr"
    done, said = run_contained(tmp_path, 100000, "sh", "-c", loud)
    assert done.returncode == 0
    assert said.cut == ["workload.json"]
    assert (tmp_path / "workload.json").stat().st_size == 65536
    assert (tmp_path / "stderr").stat().st_size == 99


def test_a_document_of_just_the_largest_size_is_whole(tmp_path: Path) -> None:
    _, said = run_contained(tmp_path, 1000, "sh", "-c", f"head -c 1000 /dev/zero >{tmp_path}/workload.json")
    assert said.cut == []


def test_a_phase_that_went_well_is_no_failure() -> None:
    evidence = PhaseEvidence(name="timed", exit_status=0, wall_seconds=1.0, workload_seconds=0.9, files={})
    assert phases.failure("mutex", evidence) is None
