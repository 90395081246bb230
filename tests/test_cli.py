"""The command line as a person meets it: a process, its two streams, its exit status."""

from __future__ import annotations

import json
import os
import re
import shutil
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
    (["labs.new", "My-Lab"], 10, "'My-Lab' is no name for a lab", "my_lab"),
    (["labs.new", "mutex"], 10, "mutex is a lab of the repository", "my_mutex"),
    (["labs.new", "go_labs"], 10, "go_labs is there already", "another name"),
    (["labs.new", "nowhere/my_lab"], 10, "cannot be made", "must be there"),
    (["claims", "--lab", "mutx"], 10, "no lab 'mutx'", "mutex"),
    (["claims", "--lab", "mutex,,mutex"], 10, "empty element", "comma"),
    (["claims", "--kernel", "6.10"], 10, "no kernel '6.10'", "6.1"),
    (["claims", "--kernel", "6.1,6.1"], 10, "twice", "6.1"),
    (["claims", "--out", "page.html"], 10, "--out means nothing without --html", "add --html"),
    (["claims", "--html", "--out", "nowhere/page.html"], 40, "cannot be written", "--out"),
    (["claims", "--runs", "setup.sh"], 10, "setup.sh is no folder", "give a folder"),
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


def own_lab(root: Path) -> Path:
    from provision import skeleton

    return skeleton.create(str(root / "my_lab"))


OWN: list[tuple[str, str, str, int, str, str]] = [
    ("lab.toml", "", "", 11, "has no lab.toml", "invoke labs.new"),
    ("lab.toml", "oracle =", "oracel =", 11, "has no field 'oracel'", "did you mean oracle"),
    ("lab.toml", 'name = "my_lab"', 'name = "another"', 11, "its folder is 'my_lab'", "rename the folder"),
    (
        "lab.toml",
        'metric = "free.parked_share"',
        'metric = "free.shares"',
        11,
        "names 'free.shares'",
        "free.parked_share",
    ),
    ("lab.toml", 'default = "4,16"', 'default = "0"', 10, "sizes=0 is out of range 1 to 1024", "waiting goroutines"),
    (
        "analysis.py",
        "import annotations",
        "import nothing_of_that_name",
        11,
        "analysis.py cannot be imported",
        "mend it",
    ),
    ("main.go", "", "", 15, "has no Go source", "Go program"),
    ("go.mod", "", "", 15, "is in no Go module", "go mod init"),
    ("go.mod", "replace kmlab =>", "// replace kmlab =>", 15, "go.mod leads to no kmlab", "go mod edit"),
    ("go.mod", "/go_labs", "/moved/go_labs", 15, "go.mod leads to no kmlab", "-replace kmlab="),
]
"""File of a lab of one's own, what is changed in it (nothing: the file is missing), status, error and hint."""


@pytest.mark.parametrize(
    ("file", "old", "new", "status", "said", "hint"), OWN, ids=[f"{row[1]} {row[4]}" for row in OWN]
)
def test_a_lab_of_ones_own_that_does_not_hold_together_is_told_before_anything_is_built_or_started(
    file: str, old: str, new: str, status: int, said: str, hint: str, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = own_lab(tmp_path)
    if old:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))
    else:
        for path in [folder / file, *(folder.glob("*.go") if file == "main.go" else [])]:
            path.unlink(missing_ok=True)

    done = invoke("-r", str(REPOSITORY), "lab", "./my_lab", "--kernel", "6.1", environment=environment, cwd=tmp_path)

    lines = done.stderr.splitlines()
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "runs").exists()


def test_a_new_lab_is_made_here_and_said_how_it_is_tried(environment: dict[str, str], tmp_path: Path) -> None:
    done = invoke("-r", str(REPOSITORY), "labs.new", "queue", environment=environment, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "./queue: go.mod, lab.toml, main.go, main_test.go, analysis.py",
        "run it:  invoke lab ./queue --kernel 6.1",
        "test it: cd ./queue && go test",
    ]
    assert (tmp_path / "queue" / "main.go").is_file()


def test_labs_are_listed_with_title_section_claims_and_length(environment: dict[str, str]) -> None:
    row = next(line for line in invoke("labs", environment=environment).stdout.splitlines() if line.startswith("mutex"))

    assert re.split(r"  +", row.strip()) == [
        "mutex", "2.4", "45 s", "sync.Mutex and sync.RWMutex under contention",
        "2.4-a, 2.4-b, 2.4-c, 2.4-d, 2.4-e, 2.4-f",
    ]  # fmt: skip


def test_the_ledger_names_what_it_left_out_on_stderr_alone(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "runs" / "half-made").mkdir(parents=True)

    done = invoke("claims", "--json", "--kernel", "7.3,6.1", environment=environment)

    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "left out 1 broken record:"
    assert "half-made: no run.json" in done.stderr
    document = json.loads(done.stdout)
    assert document["kernels"] == ["7.3", "6.1"]
    assert [each["name"] for each in document["broken"]] == ["half-made"]
    assert {"2.4-a", "2.4-f"} <= {row["claim"] for row in document["claims"]}


def test_the_ledgers_page_is_written_below_the_records_or_where_one_says(
    environment: dict[str, str], tmp_path: Path
) -> None:
    for words, place in (
        ([], tmp_path / "runs" / "claims.html"),
        (["--out", str(tmp_path / "x.html")], tmp_path / "x.html"),
    ):
        done = invoke("claims", "--html", *words, environment=environment)
        assert done.stdout == f"page: {place}\n"
        assert place.read_text().startswith("<!doctype html>")

    assert json.loads(invoke("claims", "--html", "--json", environment=environment).stdout)["page"].endswith(
        "claims.html"
    )


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


@pytest.mark.parametrize(
    "words", [["labs"], ["labs.list"], ["kernels"], ["images.list"], ["vm.status"]], ids=lambda w: w[0]
)
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


def test_setup_tells_every_package_that_it_installs() -> None:
    text = (REPOSITORY / "setup.sh").read_text()
    lists = re.findall(r"^readonly (?:VAGRANT_)?PACKAGES=\(([^)]*)\)", text, re.MULTILINE)
    done = subprocess.run(["./setup.sh", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert len(lists) == 2
    assert {name for names in lists for name in names.split()} <= set(done.stdout.split())


def test_a_second_setup_changes_nothing_and_asks_no_network() -> None:
    stamp = REPOSITORY / ".venv" / ".kmlab-stamp"
    before = stamp.stat().st_mtime_ns
    unreachable = {**os.environ, "http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}

    done = subprocess.run(["./setup.sh"], cwd=REPOSITORY, env=unreachable, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["setup: ready; now: .venv/bin/invoke lab mutex --kernel 6.1"]
    assert stamp.stat().st_mtime_ns == before


def test_setup_does_not_clear_another_checkouts_environment_through_a_link(tmp_path: Path) -> None:
    for name in ("setup.sh", "requirements.txt"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    theirs = tmp_path / "theirs"
    (theirs / "bin").mkdir(parents=True)
    (theirs / "bin" / "pip").write_text("#!/home/kim/lab/.venv/bin/python\n")
    (tmp_path / ".venv").symlink_to(theirs)

    done = subprocess.run(["./setup.sh"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == errors.SetupError.exit_code
    assert "is a link to an environment" in done.stderr
    assert (theirs / "bin" / "pip").exists()


def test_time_is_not_spent_on_what_is_not_asked_for(environment: dict[str, str]) -> None:
    # No figure is judged here (bench does); this only finds a list of tasks that hangs.
    began = time.monotonic()
    assert invoke("--list", environment=environment).returncode == 0
    assert time.monotonic() - began < 60
