"""A matrix as a person sees it while it runs, as it is planned, and when it is over."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from go_labs.matrix import Unfit
from provision.matrix import listing, view, work
from provision.matrix.estimate import Estimate
from provision.matrix.logs import Log
from provision.matrix.state import Line, Standing, State
from tests.provision import matrices
from tests.provision.matrices import ended
from vm.errors import UsageError

STANDING = Standing(
    lines=[
        Line("5.10", 12, [("mutex", "phase traced", 41.4)], 7, 0),
        Line("6.1", 3, [("gmp", "starts", 2.0), ("lifecycle", "phase \x1b[31mkernel", 610.0)], 120, 4),
        Line("6.1.0-a-kernel-of-my-own+", 0, [], 0, 0),
    ],
    done=131, total=149, failed=4, left=3720.0,
)  # fmt: skip


def drawn(standing: Standing, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False, highlight=False)
    console.print(view.table(standing))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_has_a_row_per_kernel_and_fits(width: int) -> None:
    lines = drawn(STANDING, width)

    assert len(lines) == 4
    assert all(len(line) <= width for line in lines)
    assert lines[0].split() == ["kernel", "waits", "passed", "failed", "runs", "now"]
    assert lines[1].split() == ["5.10", "12", "7", "0", "mutex", "41", "s", "(phase", "traced)"]
    assert lines[2].split()[:6] == ["6.1", "3", "120", "4", "gmp", "2"]
    assert lines[3].split() == ["6.1.0-a-kernel-of-my-own+", "0", "0", "0"]
    assert not any("\x1b" in line for line in lines)


def test_where_there_is_room_all_that_runs_is_shown() -> None:
    assert "lifecycle 610 s (phase �[31mkernel)" in drawn(STANDING, 120)[2]
    assert "…" in drawn(STANDING, 80)[2]


def test_the_line_below_says_how_far_it_is_and_when_it_should_be_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view.time, "time", lambda: 1_800_000_000.0)
    at = view.time.strftime("%H:%M", view.time.localtime(1_800_003_720.0))

    assert view.below(STANDING) == f"131 of 149 runs done, 4 failed; about 1 h 2 min left, until {at}"
    assert view.below(Standing([], 149, 149, 0, 0.0)) == "149 of 149 runs done"
    assert view.below(Standing([], 0, 9, 0, None)) == "0 of 9 runs done"


def one_run() -> State:
    return State(matrices.plan(lines=("5.10",), repeats=1), {}, {1: 60.0, 2: 60.0}, 1)


def test_an_attempt_that_ended_is_told_in_a_line_without_what_a_terminal_would_obey() -> None:
    state = one_run()
    run = state.plan.runs[0]

    assert view.told(state, run, ended(1, seconds=41.2)).plain == "mutex on 5.10, repeat 1: passed (41 s)"
    bad = ended(1, "kernel_splat", 2, words="BUG: \x1b]0;owned\x07\nnext [red]x[/red] \u202etxt" + "y" * 400)
    said = view.told(state, run, bad).plain
    assert said.startswith("mutex on 5.10, repeat 1: kernel complained (10 s, attempt 2): BUG: �]0;owned��next [red]x")
    assert said.isprintable()
    assert len(said) < 300


def test_where_nobody_looks_each_end_is_a_plain_line_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    state = one_run()
    with view.shown(state) as refresh:
        refresh()
        run = state.plan.runs[0]
        state.take()
        state.end(run, ended(1, "machine_lost", words="no answer"))
        refresh()
        state.take()
        state.end(run, ended(1, attempt=2))
        refresh()
        refresh()

    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(
        "mutex on 5.10, repeat 1: machine lost (10 s): no answer; 0 of 2 runs done; about 2 min left, until "
    )
    assert lines[1].startswith("mutex on 5.10, repeat 1: passed (10 s, attempt 2); 1 of 2 runs done; about 10 s left")
    assert "\x1b" not in err


def test_a_terminal_gets_a_table_that_is_drawn_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    state = one_run()
    with view.shown(state) as refresh:
        state.take()
        refresh()
        for number in range(9):
            state.end(state.plan.runs[0], ended(1, "lab_failed", words=f"reason {number}"))
        refresh()

    said = terminal.getvalue()
    assert "runs now" in said
    assert "mutex 0 s (starts)" in said
    assert "reason 8" in said
    assert "reason 2" not in said  # the last six alone
    assert capsys.readouterr().out == ""


def test_a_plan_says_what_would_be_run_how_long_it_takes_and_that_nothing_was_started(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = matrices.plan(
        labs=("mutex", "leak"), lines=("5.10", "6.1"), repeats=4, judged=2,
        unfit=[Unfit(lab="leak", cell="k1", why="old")],
    )  # fmt: skip
    seconds = {run.number: 60.0 for run in plan.runs}
    expected = Estimate(seconds, 3 << 30, known=5, largest=1 << 20)
    listing.show_plan(plan, expected, 2, 2, 90 << 30, {"mutex": "3% in 80 of 100"})

    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0] == "2 labs × 2 kernels (5.10, 6.1) × 4 repeats, 2 of them with all phases" or lines[0] == (
        "2 labs × 2 kernels (6.1, 5.10) × 4 repeats, 2 of them with all phases"
    )
    assert lines[1] == "baseline 5.10, which runs a second time under another name; clock: host; seed 7"
    assert any(line.split()[:4] == ["mutex", plan.lab("mutex").primary, "12", "6"] for line in lines)
    assert any(line.startswith("not run: leak on ") and line.endswith(": old") for line in lines)
    assert "  … and 6 more (--json has all)" in lines
    assert "expected: 9 min with 2 at once, from earlier runs for 5 of 18; 3.0 GiB of 90.0 GiB that are free" in lines
    assert lines[-1] == "nothing was started"
    assert not any("k1" in line or "k2" in line for line in lines)


def test_a_plan_for_machines_holds_the_plan_itself() -> None:
    plan = matrices.plan(repeats=1)
    made = listing.plan_document(plan, Estimate({1: 30.0, 2: 30.0, 3: 40.0}, 12, 2, 4), 2, 2, {"labs": []})

    assert json.loads(json.dumps(made))["plan"]["seed"] == 7
    assert made["expected"] == {"seconds": 50.0, "bytes": 12, "runs": 3, "known_runs": 2}
    assert made["jobs"] == 2


def test_an_end_is_told_in_a_line_and_for_machines(tmp_path: Path) -> None:
    done = work.Summary(tmp_path, matrices.plan(repeats=2), 6, 3, {"timed_out": 2, "gate_failed": 1}, 4)

    assert listing.summary_words(done) == "3 of 6 runs passed; 1 gate failed, 2 timed out; 4 were tried twice"
    assert listing.summary_document(done)["failed"] == {"timed_out": 2, "gate_failed": 1}


def test_names_of_matrices_are_found_below_their_folder_and_paths_are_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("here", "there", "matrices/20260101T000000Z-aaaa"):
        (tmp_path / name).mkdir(parents=True)

    found = listing.given_paths(["here", "20260101T000000Z-aaaa", "./there"], tmp_path / "matrices")
    assert found == [Path("here"), tmp_path / "matrices" / "20260101T000000Z-aaaa", Path("there")]


def test_a_folder_that_is_not_there_is_told_with_the_matrices_that_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no .*20260102") as none:
        listing.given_paths(["20260102T000000Z-bbbb"], tmp_path / "matrices")
    assert "no matrix is in" in none.value.hint

    made = tmp_path / "matrices" / "20260101T000000Z-aaaa"
    made.mkdir(parents=True)
    (made / "plan.json").write_text("{}")
    with pytest.raises(UsageError) as near:
        listing.given_paths(["20260102T000000Z-bbbb"], tmp_path / "matrices")
    assert made.name in near.value.hint


def test_a_log_has_a_name_that_says_which_attempt_and_lines_with_seconds(tmp_path: Path) -> None:
    run = matrices.plan(repeats=1).runs[0]
    log = Log(tmp_path / "logs", run, 2, "6.1.0-mine/../x y")

    def attempt() -> None:
        with log:
            log.say("phase timed")
            log.add("console.log", "Oops\x00")
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError):
        attempt()
    log.say("machine lost")

    assert log.name == "0001-mutex-6.1.0_mine_.._x_y-b1-2.log"
    assert [path.name for path in (tmp_path / "logs").iterdir()] == [log.name]
    lines = log.path.read_text().splitlines()
    assert lines[0].startswith("    0.0")
    assert " s  began at 20" in lines[0]
    assert lines[1].endswith(" s  phase timed")
    assert lines[3:5] == ["---- console.log ----", "Oops\x00"]
    assert lines[-2].endswith(" s  ended by RuntimeError: lost")
    assert lines[-1].endswith(" s  machine lost")
