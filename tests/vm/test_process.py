"""Children of builds: last words become the error, none outlives an interruption."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vm import process
from vm.errors import BuildError, DiskFullError, Interrupted, SetupError
from vm.paths import REPOSITORY


def test_output_and_input() -> None:
    assert process.run(["cat"], feed=lambda stream: stream.write(b"words")) == b"words"


def test_output_may_go_to_a_file(tmp_path: Path) -> None:
    assert process.run(["echo", "words"], output=tmp_path / "out") == b""
    assert (tmp_path / "out").read_bytes() == b"words\n"


def test_last_words_of_a_failure_are_the_hint() -> None:
    with pytest.raises(BuildError, match="sh failed with status 3") as caught:
        process.run(["sh", "-c", "seq 30 >&2; exit 3"])

    assert caught.value.hint.endswith("\n29\n30")
    assert "\n18\n" not in caught.value.hint


def test_a_child_that_reads_nothing_is_judged_by_its_status() -> None:
    with pytest.raises(BuildError, match="false failed with status 1"):
        process.run(["false"], feed=lambda stream: [stream.write(b"x" * 65536) for _ in range(100)])


def test_a_full_disk_is_told_from_other_failures() -> None:
    with pytest.raises(DiskFullError, match="sh found no space left"):
        process.run(["sh", "-c", "echo 'write: No space left on device' >&2; exit 1"])


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(SetupError, match="no-such-program is not installed"):
        process.run(["no-such-program"])


def test_behind_the_loader_the_programs_own_name_is_told() -> None:
    assert process.name_of(["/x/ld.so", "--library-path", "/x", "--argv0", "mke2fs", "/x/mke2fs"]) == "mke2fs"


def test_the_hosts_locale_zone_and_proxies_do_not_reach_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    monkeypatch.setenv("http_proxy", "http://proxy")
    monkeypatch.setenv("DPKG_ROOT", "/elsewhere")

    said = process.run(["env"], environment={"SOURCE_DATE_EPOCH": "1"}).decode().split()

    assert {"LC_ALL=C.UTF-8", "TZ=UTC0", "SOURCE_DATE_EPOCH=1"} <= set(said)
    assert not [line for line in said if line.startswith(("http_proxy", "DPKG_ROOT"))]


def test_stop_ends_a_child_and_all_that_it_started(tmp_path: Path) -> None:
    pids, errors = tmp_path / "pids", []

    def work() -> None:
        try:
            process.run(["sh", "-c", f"sleep 600 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"])
        except Interrupted as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while not pids.exists():
        time.sleep(0.01)
    try:
        process.STOP.now()
        thread.join(30)
    finally:
        process.STOP.reset()

    assert len(errors) == 1
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


def test_a_child_ends_if_this_process_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from vm.process import run; "
    code += "run(sys.argv[1:], dies_with_us=True)"
    script = f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600"

    with subprocess.Popen([sys.executable, "-c", code, "sh", "-c", script]) as parent:
        while not pid.exists():
            time.sleep(0.01)
        parent.kill()

    assert not alive(int(pid.read_text()))


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet (a zombie) does not."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.01)
    os.kill(pid, 9)
    return True
