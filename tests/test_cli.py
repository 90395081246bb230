"""The command line as a person meets it: a process, its two streams, its exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from vm import errors
from vm import lock as locks
from vm.paths import REPOSITORY

INVOKE = Path(sys.executable).parent / "invoke"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home of this test's own, and no colours asked for or against."""
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR" and not name.startswith("KMLAB_")}
    own = {f"KMLAB_{name}": str(tmp_path / name.lower()) for name in ("CACHE", "STATE", "RUNS")}
    return {**kept, **own, "COLUMNS": "200"}


def invoke(*words: str, environment: Mapping[str, str], cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [INVOKE, *words],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


BAD: list[tuple[list[str], int, str, str]] = [
    (["lab", "mutex", "--kernel", "6.10"], 10, "no kernel '6.10'", "6.1"),
    (["lab", "mutex", "--kernel", "6.1,6.1"], 10, "twice", "6.1"),
    (["lab", "mutex", "--kernel", "6.1,,7.3"], 10, "kernel ''", "invoke kernels"),
    (["lab", "mutex"], 10, "which kernel", "--kernel 6.1"),
    (["lab", "mutexx", "--kernel", "6.1"], 10, "no lab 'mutexx'", "mutex"),
    (["lab", "./nowhere", "--kernel", "6.1"], 10, "no lab folder", "lab.toml"),
    (["lab", "mutex", "--kernel", "6.1", "--go", "1.20"], 10, "1.20", "1.21"),
    (["lab", "mutex", "--kernel", "6.1", "--build", "piee"], 10, "--build 'piee'", "pie"),
    (["lab", "mutex", "--kernel", "6.1", "--build", "plain,pie"], 10, "plain and something else", "plain"),
    (["trace", "./nowhere", "--kernel", "6.1"], 10, "no program ./nowhere", "Go binary"),
    (["trace", "/bin/sh", "--kernel", "6.1"], 31, "is not a Go program", "go build"),
    (["trace", "/bin/sh", "--kernel", "6.1", "--timeout", "soon"], 10, "--timeout 'soon'", "86400"),
    (["trace", "/bin/sh", "--kernel", "6.1", "--probes", "mutx"], 10, "--probes 'mutx'", "mutex"),
    (["selftest", "--labs", "mutx"], 10, "no lab 'mutx'", "mutex"),
    (["selftest", "--labs", "mutex", "--sizes", "0"], 10, "sizes=0", ""),
    (["selftest", "--labs", "mutex", "--go", "1.20"], 10, "1.20", "1.21"),
    (["lab", "mutex", "--kernel", "6.1", "--seed", "-1"], 10, "--seed", "0 to"),
    (["lab", "mutex", "--kernel", "6.1", "--seed", "1.0"], 10, "--seed", "0 to"),
    (["lab", "mutex", "--kernel", "6.1", "--accel", "kvmm"], 10, "--accel", "kvm"),
    (["lab", "mutex", "--kernel", "6.1", "--set", "readers=200"], 10, "readers=200", ""),
    (["lab", "mutex", "--kernel", "6.1", "--set", "readers=many"], 10, "readers", ""),
    (["lab", "mutex", "--kernel", "6.1", "--set", "readrs=1"], 10, "readrs", "readers"),
    (["lab", "mutex", "--kernel", "6.1", "--set", "readers"], 10, "option=value", "--set"),
    (["lab", "mutex", "--kernel", "6.1", "--machine", "ghost"], 10, "ghost", "vm.up"),
    (["lab", "mutex", "--kernel", "./setup.sh"], 14, "setup.sh is not a package", ""),
    (["lab", "mutex", "--kernel", "./nowhere"], 11, "nowhere", ""),
    (["plan", "setup.sh"], 31, "setup.sh is not an ELF file", "Go program"),
    (["plan", "/bin/ls"], 31, "ls", "go build"),
    (["plan", "no-such-file"], 31, "no-such-file", ""),
    (["plan", str(INVOKE), "--sets", "mutx"], 10, "mutx", "mutex"),
    (["report", "no-such-record"], 40, "no-such-record", ""),
    (["report", "go_labs/mutex"], 40, "run.json", ""),
    (["ssh", "--kernel", "6.1"], 210, "needs a terminal", "--command"),
    (["ssh", "--kernel", "6.10", "--command", "true"], 210, "no kernel '6.10'", "6.1"),
    (["ssh", "--name", "ghost", "--command", "true"], 210, "ghost", "vm.up"),
    (["ssh", "--command", "true"], 210, "no machine of yours", "vm.up"),
    (["vm.up", "--kernel", "6.1", "--name", "../evil"], 10, "../evil", "a-z"),
    (["vm.reset", "--name", "ghost"], 10, "ghost", "vm.up"),
    (["vm.down", "--kernel", "6.1"], 10, "no machine of kernel 6.1", "vm.up"),
    (["kernels.lock", "--line", "9.9", "--dry-run"], 10, "9.9", ""),
    (["images.build", "--kernel", "6.10"], 10, "no kernel '6.10'", "6.1"),
    (["bench", "--only", "wram"], 10, "wram", "warm"),
    (["bench", "--rounds", "0"], 10, "--rounds", "1 to"),
]


@pytest.mark.parametrize(("words", "status", "said", "hint"), BAD, ids=[" ".join(row[0]) for row in BAD])
def test_bad_input_gets_one_error_one_hint_and_its_status(
    words: list[str], status: int, said: str, hint: str, environment: dict[str, str]
) -> None:
    done = invoke(*words, environment=environment)

    lines = done.stderr.splitlines()
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert hint in "".join(line for line in lines if line.startswith("hint: "))


def test_errors_have_no_colours_where_nobody_looks(environment: dict[str, str]) -> None:
    assert "\x1b" not in invoke("lab", "mutexx", "--kernel", "6.1", environment=environment).stderr


@pytest.mark.parametrize(("setting", "coloured"), [("", True), ("1", False)])
def test_no_color_is_honoured_at_a_terminal(setting: str, coloured: bool, environment: dict[str, str]) -> None:
    ours, theirs = os.openpty()
    done = subprocess.Popen(
        [INVOKE, "lab", "mutexx", "--kernel", "6.1"],
        cwd=REPOSITORY, env={**environment, "NO_COLOR": setting, "TERM": "xterm"}, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)

    said = b""
    while chunk := _read(ours):
        said += chunk
    done.wait(60)
    os.close(ours)

    assert b"error:" in said
    assert (b"\x1b[" in said) is coloured


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux tells the end of a terminal with EIO
        return b""


@pytest.mark.parametrize("words", [["labs"], ["kernels"], ["images.list"], ["vm.status"]], ids=lambda w: w[0])
def test_json_and_nothing_else_is_on_stdout(words: list[str], environment: dict[str, str]) -> None:
    done = invoke(*words, "--json", environment=environment)

    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), list)


def test_every_locked_kernel_is_listed_by_number(environment: dict[str, str]) -> None:
    rows = json.loads(invoke("kernels", "--json", environment=environment).stdout)

    lines = [row["line"] for row in rows]
    assert lines == ["5.10", "6.1", "6.12", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3"]
    assert [r["line"] for r in rows if r["support"] == "default"] == ["5.10", "6.1", "6.12", "6.18", "7.3"]
    assert not any(row["built"] or row["warm"] for row in rows)


def test_a_plan_is_printed_as_the_loader_reads_it(environment: dict[str, str]) -> None:
    program = subprocess.run([INVOKE.parent / "go", "env", "GOROOT"], capture_output=True, text=True, check=True)
    gofmt = Path(program.stdout.strip()) / "bin" / "gofmt"

    done = invoke("plan", str(gofmt), "--json", environment=environment)

    made = json.loads(done.stdout)
    assert made["schema"] == 2
    assert made["binary"]["go_version"] == "1.27.3"
    assert {"mutex.slow", "park"} <= {probe["id"].split(":")[0] for probe in made["probes"]} | {
        probe["id"] for probe in made["probes"]
    }


EDITS = {
    "a version": (r'"version": "6\.1\.192-2"', '"version": "6.1.191-1"'),
    "a hash": (r'"sha256": "[0-9a-f]{8}', '"sha256": "00000000'),
    "the schema": (r'"schema": 1', '"schema": 99'),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_lock_edited_by_hand_is_refused(edit: str, tmp_path: Path) -> None:
    pattern, replacement = EDITS[edit]
    changed = tmp_path / "lab.lock.json"
    text, count = re.subn(pattern, replacement, locks.LOCK.read_text(), count=1)
    assert count == 1
    changed.write_text(text)

    with pytest.raises(errors.ConfigError) as refused:
        locks.read(changed)

    assert "invoke kernels.lock" in refused.value.hint


def test_the_parsers_own_errors_keep_invokes_status(environment: dict[str, str]) -> None:
    for words in (["lap", "mutex"], ["lab", "mutex", "--kernle", "6.1"], ["lab"]):
        done = invoke(*words, environment=environment)
        assert done.returncode == 1
        assert done.stdout == ""
        assert "Traceback" not in done.stderr


def test_the_list_of_tasks_needs_no_heavy_module() -> None:
    code = "import sys, tasks; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)

    heavy = {"numpy", "scipy", "altair", "jinja2", "paramiko", "httpx", "capstone", "elftools", "rich"}
    assert not heavy & set(loaded.stdout.split())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_task_that_is_stopped_while_it_builds_leaves_nothing_half_made(
    number: signal.Signals, status: int, environment: dict[str, str], tmp_path: Path
) -> None:
    # A mirror that accepts and never answers: the build waits for its first package when the signal comes.
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mirror:
        port = mirror.getsockname()[1]
        settings = {**environment, "KMLAB_MIRROR": f"http://127.0.0.1:{port}", "http_proxy": "", "no_proxy": "*"}
        process = subprocess.Popen(
            [INVOKE, "images.build", "--kernel", "6.1"],
            cwd=REPOSITORY, env=settings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        mirror.settimeout(60)
        connection, _ = mirror.accept()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        connection.close()

    assert process.returncode == status, err
    assert out == ""
    assert "Traceback" not in err
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size and path.suffix != ".lock"]
    assert left == []


def test_a_reader_that_goes_away_is_no_error(environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [INVOKE, "labs", "--json"], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()

    assert process.stderr.read() == b""
    assert process.wait(60) == 141


def test_the_doctors_document_has_a_fix_for_everything_that_fails(environment: dict[str, str]) -> None:
    done = invoke("doctor", "--json", environment=environment)

    document = json.loads(done.stdout)
    by_name = {finding["check"]: finding for finding in document["findings"]}
    wanted = {"QEMU", "KVM", "disk (cache)", "memory", "mirror", "lock against cache", "clang", "Go", "BTF", "Vagrant"}
    assert wanted <= set(by_name)
    assert document["ok"] is (done.returncode == 0)
    assert all(finding["fix"] for finding in document["findings"] if finding["result"] == "fail")
    # Nothing is built in this test's own cache, and the doctor builds nothing.
    assert by_name["BTF"]["result"] == "warn"
    assert by_name["lock against cache"]["fix"] == ".venv/bin/invoke images.build"


def test_errors_document_lists_every_class_with_its_code() -> None:
    rows = re.findall(r"^\| (\d+) \| (?:`(\w+)`)? ?\|", (REPOSITORY / "docs" / "errors.md").read_text(), re.MULTILINE)
    documented = {name: int(code) for code, name in rows if name}

    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.LabError)]
    assert documented == {kind.__name__: kind.exit_code for kind in classes}
    assert {0, 1, 129, 141, 143} <= {int(code) for code, _ in rows}


def test_setup_says_no_to_an_argument_it_does_not_know() -> None:
    done = subprocess.run(
        ["./setup.sh", "--with-everything"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert done.returncode == errors.UsageError.exit_code
    assert done.stderr.startswith("error: setup.sh knows no argument")


def test_a_second_setup_changes_nothing_and_asks_no_network() -> None:
    stamp = REPOSITORY / ".venv" / ".kmlab-stamp"
    before = stamp.stat().st_mtime_ns
    unreachable = {**os.environ, "http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}

    done = subprocess.run(["./setup.sh"], cwd=REPOSITORY, env=unreachable, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["setup: ready; now: .venv/bin/invoke lab mutex --kernel 6.1"]
    assert stamp.stat().st_mtime_ns == before


def test_time_is_not_spent_on_what_is_not_asked_for(environment: dict[str, str]) -> None:
    # No figure is judged here (bench does); this only finds a list of tasks that hangs.
    began = time.monotonic()
    assert invoke("--list", environment=environment).returncode == 0
    assert time.monotonic() - began < 60
