"""How a matrix stands: what waits, runs, passed, failed. Shared by its workers, read by whoever shows it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from go_labs.matrix import Ended, MatrixPlan, PlannedRun, counted, is_done


@dataclass(slots=True)
class Running:
    """An attempt under way.

    :param since: ``time.monotonic`` of its beginning. :param doing: what it does, in a few words.
    """

    run: PlannedRun
    attempt: int
    since: float
    doing: str = "starts"


@dataclass(frozen=True, slots=True)
class Line:
    """How things stand for one kernel line; its second time as the baseline counts with it."""

    kernel: str
    waiting: int
    running: list[tuple[str, str, float]]
    passed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a matrix stands.

    :param left: seconds to its expected end; None where nothing is known. :param lines: by kernel.
    """

    lines: list[Line]
    done: int
    total: int
    failed: int
    left: float | None


class State:
    """The runs of a plan.

    :param attempts: what has ended already, by run. :param expected: seconds by run.
    """

    def __init__(
        self, plan: MatrixPlan, attempts: Mapping[int, Iterable[Ended]], expected: Mapping[int, float], jobs: int
    ) -> None:
        self.plan = plan
        self.changed = threading.Condition()
        self._attempts = {number: list(ended) for number, ended in attempts.items()}
        self._expected = expected
        self._jobs = jobs
        self._lines = {cell.id: cell.kernel_line for cell in plan.cells}
        self._waiting: deque[tuple[PlannedRun, int]] = deque(
            (run, self._next(run.number)) for run in plan.runs if not is_done(self._attempts.get(run.number, []))
        )
        self.running: dict[int, Running] = {}
        self._open = len(self._waiting)
        self._spent = self._foreseen = 0.0
        self.news: deque[tuple[PlannedRun, Ended]] = deque()

    def _next(self, number: int) -> int:
        return max((each.attempt for each in self._attempts.get(number, [])), default=0) + 1

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done."""
        with self.changed:
            return self._open == 0

    def take(self) -> tuple[PlannedRun, int] | None:
        """Return the next attempt in the plan's order and note that it runs; None where just now there is none."""
        with self.changed:
            if not self._waiting:
                return None
            run, attempt = self._waiting.popleft()
            self.running[run.number] = Running(run, attempt, time.monotonic())
            self.changed.notify_all()
            return run, attempt

    def doing(self, run: PlannedRun, words: str) -> None:
        """Note what an attempt does now."""
        with self.changed:
            if run.number in self.running:
                self.running[run.number].doing = words
                self.changed.notify_all()

    def end(self, run: PlannedRun, ended: Ended) -> None:
        """Note that an attempt ended; one that failed for the first time comes next again, on a fresh machine."""
        with self.changed:
            self.running.pop(run.number, None)
            tried = self._attempts.setdefault(run.number, [])
            tried.append(ended)
            if ended.outcome == "passed":  # how long a failure took tells nothing of the runs that are left
                self._spent += ended.seconds
                self._foreseen += self._expected.get(run.number, ended.seconds)
            if is_done(tried):
                self._open -= 1
            else:
                self._waiting.appendleft((run, ended.attempt + 1))
            self.news.append((run, ended))
            self.changed.notify_all()

    def ended(self) -> dict[int, list[Ended]]:
        """Return all attempts that ended, by run."""
        with self.changed:
            return {number: list(tried) for number, tried in self._attempts.items()}

    def standing(self) -> Standing:
        """Return how things stand."""
        with self.changed:
            verdicts = {run.number: counted(self._attempts.get(run.number, [])) for run in self.plan.runs}
            done = {run.number for run in self.plan.runs if is_done(self._attempts.get(run.number, []))}
            failed = {n for n in done if (v := verdicts[n]) is not None and v.outcome != "passed"}
            lines = [self._line(name, done, failed) for name in dict.fromkeys(self._lines.values())]
            return Standing(lines, len(done), len(self.plan.runs), len(failed), self._left(done))

    def _line(self, name: str, done: set[int], failed: set[int]) -> Line:
        mine = {run.number for run in self.plan.runs if self._lines[run.cell] == name}
        now = time.monotonic()
        running = [(r.run.lab, r.doing, now - r.since) for n, r in self.running.items() if n in mine]
        return Line(
            kernel=name,
            waiting=len(mine - done) - len(running),
            running=running,
            passed=len((mine & done) - failed),
            failed=len(mine & failed),
        )

    def _left(self, done: set[int]) -> float | None:
        """Return seconds to the end: what is expected of the rest, stretched as what is over was, over the jobs."""
        rest = sum(seconds for number, seconds in self._expected.items() if number not in done)
        now = time.monotonic()
        rest -= sum(min(now - r.since, self._expected.get(n, 0.0)) for n, r in self.running.items())
        if not self._expected:
            return None
        stretch = self._spent / self._foreseen if self._foreseen else 1.0
        return max(0.0, rest) * stretch / self._jobs
