"""How a matrix stands, what comes next, and when it should be over."""

from __future__ import annotations

import threading
import time

import pytest

from go_labs.matrix import MatrixPlan
from provision.matrix.state import Line, Standing, State
from tests.provision import matrices
from tests.provision.matrices import ended


def state(plan: MatrixPlan | None = None, jobs: int = 1, seconds: float = 10.0) -> State:
    plan = plan or matrices.plan(repeats=2)
    return State(plan, {}, {run.number: seconds for run in plan.runs}, jobs)


def left(standing: Standing) -> float:
    assert standing.left is not None
    return standing.left


def test_runs_are_taken_in_the_plans_order_and_each_once() -> None:
    made = state()

    taken = [made.take() for _ in range(7)]
    assert [(each[0].number, each[1]) for each in taken if each] == [(n, 1) for n in range(1, 7)]
    assert taken[6] is None
    assert not made.over


def test_a_run_that_failed_comes_next_again_and_only_once() -> None:
    made = state()
    first = made.take()
    assert first is not None
    made.end(first[0], ended(1, "timed_out"))

    again = made.take()
    assert again == (first[0], 2)
    made.end(first[0], ended(1, "timed_out", attempt=2))
    following = made.take()
    assert following is not None
    assert (following[0].number, following[1]) == (2, 1)


def test_it_is_over_when_every_run_is_done_and_wakes_whoever_waits() -> None:
    made = state()
    woken = threading.Event()

    def wait() -> None:
        with made.changed:
            while not made.over:
                made.changed.wait(30)
        woken.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while (taken := made.take()) is not None:
        made.end(taken[0], ended(taken[0].number))

    assert made.over
    assert woken.wait(30)
    thread.join(30)


def test_what_ended_earlier_is_not_taken_again() -> None:
    plan = matrices.plan(repeats=1)
    earlier = {1: [ended(1)], 2: [ended(2, "timed_out", attempt=3)]}
    made = State(plan, earlier, {}, 1)

    taken = [made.take(), made.take(), made.take()]
    assert [(each[0].number, each[1]) for each in taken if each] == [(2, 4), (3, 1)]


def test_counts_are_told_by_kernel_with_the_baselines_second_time_among_it() -> None:
    made = state(matrices.plan(repeats=2))  # 5.10 twice and 6.1, two repeats
    lines = {cell.id: cell.kernel_line for cell in made.plan.cells}
    for outcome in ("passed", "timed_out"):
        taken = made.take()
        assert taken is not None
        made.end(taken[0], ended(taken[0].number, outcome))  # type: ignore[arg-type]
    running = made.take()
    assert running is not None
    made.doing(running[0], "phase timed")

    standing = made.standing()
    by_line = {line.kernel: line for line in standing.lines}
    planned = [lines[run.cell] for run in made.plan.runs]
    assert list(by_line) == list(dict.fromkeys(lines.values()))
    for name, line in by_line.items():
        assert line.waiting + len(line.running) + line.passed + line.failed == planned.count(name)
    assert (standing.done, standing.total, standing.failed) == (1, 6, 0)  # a first failure is not over yet
    assert [line.running[0][:2] for line in standing.lines if line.running] == [("mutex", "phase timed")]
    assert by_line[lines[made.plan.runs[0].cell]].passed == 1


def test_a_run_counts_as_failed_when_its_second_attempt_failed_too() -> None:
    made = state(matrices.plan(repeats=1))
    run = made.plan.runs[0]
    for attempt in (1, 2):
        assert made.take() == (run, attempt)
        made.end(run, ended(1, "lab_failed", attempt=attempt))

    standing = made.standing()
    assert (standing.done, standing.failed) == (1, 1)
    assert sum(line.failed for line in standing.lines) == 1


def test_the_expected_end_is_the_rest_over_the_machines_at_once() -> None:
    assert left(state(seconds=10).standing()) == pytest.approx(60)
    assert left(state(seconds=10, jobs=3).standing()) == pytest.approx(20)
    assert State(matrices.plan(), {}, {}, 1).standing().left is None


def test_the_expected_end_follows_how_long_runs_took() -> None:
    made = state(seconds=10)
    for _ in range(2):
        taken = made.take()
        assert taken is not None
        made.end(taken[0], ended(taken[0].number, seconds=20.0))

    assert left(made.standing()) == pytest.approx(4 * 10 * 2)


def test_a_failure_at_once_does_not_make_the_rest_look_short() -> None:
    made = state(seconds=10)
    taken = made.take()
    assert taken is not None
    made.end(taken[0], ended(1, "machine_lost", seconds=0.1))

    assert left(made.standing()) == pytest.approx(60)


def test_a_run_under_way_shortens_the_rest_by_no_more_than_what_was_expected_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    made = state(seconds=10)
    made.take()

    now[0] += 4
    assert left(made.standing()) == pytest.approx(56)
    now[0] += 400
    assert left(made.standing()) == pytest.approx(50)
    running = [line for line in made.standing().lines if line.running]
    assert [line.running for line in running] == [[("mutex", "starts", 404.0)]]


def test_the_end_is_zero_seconds_away_when_all_is_done() -> None:
    made = state()
    while (taken := made.take()) is not None:
        made.end(taken[0], ended(taken[0].number))

    standing = made.standing()
    assert left(standing) == 0
    assert standing.lines == [Line("5.10", 0, [], 4, 0), Line("6.1", 0, [], 2, 0)] or standing.lines == [
        Line("6.1", 0, [], 2, 0),
        Line("5.10", 0, [], 4, 0),
    ]


def test_news_is_each_attempt_that_ended_in_order() -> None:
    made = state(matrices.plan(repeats=1))
    run = made.plan.runs[0]
    made.end(run, ended(1, "lab_failed"))
    made.end(run, ended(1, attempt=2))

    assert [(told.number, entry.attempt) for told, entry in made.news] == [(1, 1), (1, 2)]
    assert [entry.outcome for entry in made.ended()[1]] == ["lab_failed", "passed"]
