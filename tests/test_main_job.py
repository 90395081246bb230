"""README's main job and the commands around machines, on real ones: oldest, named and newest default kernel.

The images of the real cache are used (built where they are not there); machines and records are this test's own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vm.paths import REPOSITORY

pytestmark = [pytest.mark.vm, pytest.mark.build]

INVOKE = Path(sys.executable).parent / "invoke"

KERNELS = {"5.10": "5.10.", "6.1": "6.1.", "7.3": "7.3."}

SHORT = ["sizes=4,16", "rounds=2", "readers=0,100", "goroutines=4", "rep=0.01", "starve=0.1", "pairs=2", "costs=20"]
"""Options that keep every section and shorten it; the default load is what ``invoke bench`` runs."""

CLAIMS = ["2.4-a", "2.4-b", "2.4-c", "2.4-d", "2.4-e", "2.4-f"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The real cache, and machines and records of this module's own; what is left of them is ended."""
    own = tmp_path_factory.mktemp("job")
    settings = {
        **{name: value for name, value in os.environ.items() if name != "NO_COLOR"},
        "KMLAB_STATE": str(own / "state"),
        "KMLAB_RUNS": str(own / "runs"),
        "COLUMNS": "200",
    }
    yield settings
    subprocess.run([INVOKE, "vm.down", "--all"], cwd=REPOSITORY, env=settings, capture_output=True, check=False)


def invoke(
    *words: str, environment: dict[str, str], given: int = subprocess.DEVNULL
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [INVOKE, *words], cwd=REPOSITORY, env=environment, stdin=given, capture_output=True, text=True, check=False
    )


def machines(environment: dict[str, str]) -> list[dict[str, object]]:
    rows = json.loads(invoke("vm.status", "--json", environment=environment).stdout)
    assert isinstance(rows, list)
    return rows


@pytest.fixture(scope="module", params=KERNELS)
def run(request: pytest.FixtureRequest, environment: dict[str, str]) -> dict[str, object]:
    """The lab, run once per kernel; what it printed on stdout."""
    options = [word for option in SHORT for word in ("--set", option)]
    done = invoke("lab", "mutex", "--kernel", request.param, "--seed", "7", "--json", *options, environment=environment)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["runs"]) == 1
    found = document["runs"][0]
    assert found["kernel_release"].startswith(KERNELS[request.param])
    assert isinstance(found, dict)
    return found


def record(run: dict[str, object]) -> dict[str, object]:
    found = json.loads((Path(str(run["path"])) / "run.json").read_text())
    assert isinstance(found, dict)
    return found


def test_every_claim_gets_its_verdict(run: dict[str, object]) -> None:
    verdicts = run["verdicts"]
    assert isinstance(verdicts, list)

    assert [verdict["claim"] for verdict in verdicts] == CLAIMS
    assert {verdict["verdict"] for verdict in verdicts} <= {"confirmed", "refuted", "undecided", "not_testable"}
    assert all(verdict["sentence"] for verdict in verdicts)


def test_forced_counts_equal_the_traced_ones(run: dict[str, object]) -> None:
    rows = record(run)["equality"]
    assert isinstance(rows, list)

    assert len(rows) > 10
    assert [row for row in rows if row["traced"] != row["expected"]] == []


def test_no_count_is_short_and_every_wait_is_accounted_for(run: dict[str, object]) -> None:
    losses = record(run)["losses"]
    assert isinstance(losses, list)
    trace = json.loads((Path(str(run["path"])) / "traced" / "trace.json").read_text())

    def total(name: str) -> int:
        return sum(counters.get(name, 0) for counters in trace["counters"].values())

    # 7.3 now and then misses the hit that ends a wait: such a wait is counted when it begins and told as expired.
    assert losses
    assert [loss for loss in losses if loss["count"] and loss["name"] != "expired"] == []
    assert trace["losses"]["expired"] <= 1
    begun = total("park_mutex") + total("park_rw_reader") + total("park_rw_writer")
    assert begun == total("resumed") + trace["losses"]["expired"] + trace["unfinished"]


def test_every_phase_ran(run: dict[str, object]) -> None:
    phases = record(run)["phases"]
    assert isinstance(phases, list)

    assert [phase["name"] for phase in phases] == ["timed", "traced", "profiled", "kernel"]
    assert [phase["error"] for phase in phases] == [""] * 4


def test_provenance_names_what_is_needed_to_run_it_again(run: dict[str, object]) -> None:
    origin = record(run)["provenance"]
    assert isinstance(origin, dict)

    assert origin["kernel_release"] == run["kernel_release"]
    assert origin["seed"] == 7
    assert origin["options"]["readers"] == "0,100"
    assert origin["go_version"] == "go1.27.3"
    hashes = ["base_sha256", "bundle_sha256", "tools_sha256", "lab_sha256", "binary_sha256", "loader_sha256"]
    assert all(re.fullmatch(r"[0-9a-f]{64}", origin[name]) for name in hashes)


def test_the_report_is_one_small_file_that_reaches_for_nothing(run: dict[str, object]) -> None:
    page = Path(str(run["report"])).read_text()

    assert len(page.encode()) < 2 << 20
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert all(claim in page for claim in CLAIMS)


def test_an_old_record_renders_to_the_same_page(
    run: dict[str, object], environment: dict[str, str], tmp_path: Path
) -> None:
    done = invoke("report", str(run["path"]), "--out", str(tmp_path / "again.html"), environment=environment)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.html").read_bytes() == Path(str(run["report"])).read_bytes()


def test_a_labs_machine_is_gone_when_it_is_over(run: dict[str, object], environment: dict[str, str]) -> None:
    assert run["path"]
    assert machines(environment) == []


def test_a_remote_commands_status_and_streams_are_passed_through(environment: dict[str, str]) -> None:
    done = invoke("ssh", "--kernel", "6.1", "--command", "uname -r; echo oops >&2; exit 7", environment=environment)

    assert done.returncode == 7
    assert done.stdout.startswith("6.1.")
    assert done.stderr.splitlines()[-1] == "oops"
    assert machines(environment) == []


def test_a_persons_machine_lives_until_it_is_ended_and_is_new_after_a_reset(environment: dict[str, str]) -> None:
    def ask(command: str) -> str:
        done = invoke("ssh", "--name", "mine", "--command", command, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    up = invoke("vm.up", "--kernel", "6.1", "--name", "mine", environment=environment)
    assert up.returncode == 0, up.stderr
    assert [(row["name"], row["state"]) for row in machines(environment)] == [("mine", "running")]

    ask("echo broken > /root/mark")
    assert ask("cat /root/mark") == "broken"
    first = ask("cat /proc/sys/kernel/random/uuid")

    reset = invoke("vm.reset", "--name", "mine", environment=environment)
    assert reset.returncode == 0, reset.stderr
    assert ask("test -e /root/mark || echo gone") == "gone"
    assert ask("cat /proc/sys/kernel/random/uuid") != first
    assert abs(float(ask("date +%s.%N")) - time.time()) < 60

    taken = invoke("vm.up", "--kernel", "6.1", "--name", "mine", environment=environment)
    assert taken.returncode == 10
    down = invoke("vm.down", "--name", "mine", environment=environment)
    assert (down.returncode, down.stdout) == (0, "mine: ended\n")
    assert machines(environment) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_no_machine_is_left_however_its_owner_ends(
    number: signal.Signals, status: int, environment: dict[str, str]
) -> None:
    process = subprocess.Popen(
        [INVOKE, "ssh", "--kernel", "6.1", "--command", "echo up; sleep 300"],
        cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    folder = Path(environment["KMLAB_STATE"]) / "machines"
    pids = [json.loads(path.read_text())["qemu"]["pid"] for path in folder.glob("*/machine.json") if _runs(path)]
    assert pids

    process.send_signal(number)
    _, err = process.communicate(timeout=60)

    assert process.returncode == status
    assert "Traceback" not in err
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/exe").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()] == []


def _runs(path: Path) -> bool:
    registration = json.loads(path.read_text())
    return registration["owner"] == "run" and registration["qemu"] is not None


@pytest.mark.timeout(120)
def test_an_interactive_login_has_a_terminal(environment: dict[str, str]) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [INVOKE, "ssh", "--kernel", "6.1"],
        cwd=REPOSITORY, env={**environment, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    seen = b""

    try:
        # What is typed before the terminal is raw is thrown away, so the shell's prompt comes first.
        while not re.search(rb"[#$] ?(\x1b\[[?0-9a-z]*)*$", seen):
            seen += os.read(ours, 4096)
        # The shell echoes what is typed, so the answer is made of parts that are not typed together.
        os.write(ours, b"test -t 0 && echo terminal-$((20 + 22)); exit 3\r")
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:
        pass  # Linux tells the end of a terminal with EIO
    status = process.wait(60)
    os.close(ours)

    assert b"terminal-42" in seen
    assert status == 3
