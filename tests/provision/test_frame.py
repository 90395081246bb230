"""The frame that every task runs in: what a failure prints, and the status it ends with."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from provision.frame import Signalled, framed, show, ssh_status, status_of
from vm import errors
from vm.paths import REPOSITORY

ALL = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.LabError)]


@pytest.mark.parametrize("kind", ALL)
def test_each_error_gives_its_own_status_and_two_lines(
    kind: type[errors.LabError], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = status_of(kind("it is broken", "mend it"), tmp_path)

    shown = capsys.readouterr()
    assert status == kind.exit_code
    assert shown.out == ""
    assert shown.err == "error: it is broken\nhint: mend it\n"


def test_a_defect_leaves_its_traceback_in_a_log_and_not_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        {"a": 1}["no such key"]
    except KeyError as error:
        status = status_of(error, tmp_path / "logs")

    said = capsys.readouterr().err
    log = Path(re.search(r"hint: the details are in (.+)", said)[1])  # type: ignore[index]
    assert status == 70
    assert "Traceback" not in said
    assert "the lab itself failed: KeyError" in said
    assert "Traceback" in log.read_text()


def test_a_defect_is_told_even_where_no_log_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")

    status = status_of(ValueError("odd"), tmp_path / "logs")

    assert status == 70
    assert "its log could not be written" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_such_wherever_it_is_met(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = status_of(OSError(number, os.strerror(number), "/runs/x"), tmp_path)

    assert status == errors.DiskFullError.exit_code
    assert "no space left for /runs/x" in capsys.readouterr().err


def test_escape_sequences_of_others_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show("the workload said \x1b]0;owned\x07\x1b[2J", "hint\x1b[31m")

    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "told"), [(10, 210), (12, 212), (24, 224), (50, 250), (70, 254), (130, 130), (143, 143)]
)
def test_ssh_tells_its_own_failures_in_a_range_of_its_own(code: int, told: int) -> None:
    assert ssh_status(code) == told


def test_framed_translates_the_status_and_keeps_the_signature() -> None:
    def task(name: str, kernel: str = "6.1") -> None:
        """Say no."""
        raise errors.SshError(f"no {name} {kernel}")

    with pytest.raises(SystemExit) as ended:
        framed(task, status=ssh_status)("a", kernel="6.12")

    assert ended.value.code == 224
    assert framed(task).__doc__ == "Say no."


def test_a_status_that_the_task_chose_is_left_alone() -> None:
    def task() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as ended:
        framed(task)()

    assert ended.value.code == 3


def test_sigterm_is_a_failure_with_the_shells_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(Signalled(signal.SIGTERM), tmp_path) == 143
    assert "SIGTERM" in capsys.readouterr().err


PROGRAM = """
import sys, time
from provision.frame import framed

def work() -> None:
    try:
        print("working", flush=True)
        time.sleep(30)
    finally:
        time.sleep(0.5)
        print("cleaned up", flush=True)

framed(work)()
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_a_signal_unwinds_the_program_and_is_told(number: signal.Signals, status: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"

    process.send_signal(number)
    out, err = process.communicate(timeout=20)

    assert process.returncode == status
    assert out == "cleaned up\n"
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_a_second_ctrl_c_does_not_break_the_clean_up_off() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()

    process.send_signal(signal.SIGINT)
    # The clean-up takes half a second; the second signal falls into it.
    while process.poll() is None and not _handled(process.pid):
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert out == "cleaned up\n"
    assert "cleaning up" in err


def _handled(pid: int) -> bool:
    """Whether the process sleeps again with no SIGINT pending: it has taken the first one."""
    status = Path(f"/proc/{pid}/status").read_text()
    pending = int(re.search(r"^ShdPnd:\s+(\w+)", status, re.MULTILINE)[1], 16)  # type: ignore[index]
    return "State:\tS" in status and not pending & 1 << (signal.SIGINT - 1)


def test_a_reader_that_goes_away_ends_the_program_quietly() -> None:
    program = "from provision.frame import framed\nframed(lambda: [print('x' * 1000) for _ in range(1000)])()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()

    said = process.stderr.read()

    assert process.wait(20) == 141
    assert said == b""


def test_a_reader_that_went_away_while_rich_printed_ends_the_program_as_it_would_a_shells() -> None:
    script = (
        "from rich.console import Console\n"
        "from provision.frame import framed\n"
        "framed(lambda: [Console().print('a line ' * 50) for _ in range(1000)])()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()

    assert process.stderr.read() == b""
    assert process.wait(60) == 141
