"""Who may use which CPUs: threads that note what runs when, on made-up hosts, without any machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from go_labs.spec import Phase
from provision import hostshare
from provision.matrix import cores as module
from provision.matrix.cores import Cores, Seat
from vm.errors import Interrupted
from vm.machine import Machine

PATIENCE = 30.0
"""Seconds after which a thread that waits for ever fails the test instead of hanging it."""

TIMED = Phase(name="timed", sections=["free"])
TRACED = Phase(name="traced", sections=["free"])


def machine(pid: int, cpus: int = 2, clock: str = "emulated") -> Machine:
    facts = SimpleNamespace(cpus=cpus, clock=clock)
    made = SimpleNamespace(pid=pid, cpu_threads=(pid + 1, pid + 2), facts=lambda: facts)
    return cast(Machine, made)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> dict[int, set[int]]:
    """Process → the CPUs that it was put on last, instead of putting anything anywhere."""
    found: dict[int, set[int]] = {}
    monkeypatch.setattr(hostshare, "pin", lambda pid, on: found.__setitem__(pid, set(on)))
    monkeypatch.setattr(hostshare, "children", set)
    monkeypatch.setattr(hostshare, "threads", lambda machine: dict.fromkeys(machine.cpu_threads, (0, 0)))
    monkeypatch.setattr(module, "_LOOK", 0.01)
    return found


@dataclass
class Worker:
    """A thread whose work waits at gates; ``inside`` is set while its body runs."""

    work: Callable[[Worker], None]
    inside: threading.Event = field(default_factory=threading.Event)
    leave: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.work(self)
        except BaseException as error:
            self.error = error

    def stay(self) -> None:
        self.inside.set()
        assert self.leave.wait(PATIENCE)

    def entered(self) -> bool:
        return self.inside.wait(PATIENCE)

    def over(self) -> None:
        self.leave.set()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error


def sharer(cores: Cores) -> Worker:
    def work(me: Worker) -> None:
        with cores.seat():
            me.stay()

    return Worker(work)


def phase(cores: Cores, pid: int, which: Phase = TIMED, cpus: int = 2, found: list[object] | None = None) -> Worker:
    def work(me: Worker) -> None:
        with cores.seat() as seat:
            with cores.around(seat)(which, machine(pid, cpus)) as watch:
                me.stay()
            if found is not None:
                found.append(watch)

    return Worker(work)


def eventually(true: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.001)
    return True


def waits_for_turn(cores: Cores, count: int = 1) -> bool:
    return eventually(lambda: cores._waiting == count)


def test_a_timed_phase_on_a_small_host_is_alone_and_the_others_go_on_after_it(pinned: dict[int, set[int]]) -> None:
    cores = Cores({0, 1})
    first = sharer(cores)
    assert first.entered()

    timed = phase(cores, 100)
    assert waits_for_turn(cores)
    assert not timed.inside.is_set()  # the sharer is not put out in the middle of what it does
    first.over()
    assert timed.entered()
    assert pinned[100] == {0, 1}

    late = [sharer(cores) for _ in range(3)]
    assert not any(each.inside.wait(0.03) for each in late)
    timed.over()
    assert all(each.entered() for each in late)
    for each in late:
        each.over()


@pytest.mark.usefixtures("pinned")
def test_nothing_ever_runs_beside_a_timed_phase_on_a_small_host() -> None:
    cores = Cores({0, 1})
    lock = threading.Lock()
    now = {"timed": 0, "other": 0}
    seen: list[tuple[int, int]] = []

    @contextmanager
    def noted(what: str) -> Iterator[None]:
        with lock:
            now[what] += 1
            seen.append((now["timed"], now["other"]))
        yield
        with lock:
            now[what] -= 1

    def work(number: int) -> None:
        for _ in range(15):
            with cores.seat() as seat:
                around = cores.around(seat)
                with noted("other"):
                    pass
                with around(TIMED, machine(number * 100)), noted("timed"):
                    time.sleep(0.0005)
                with around(TRACED, machine(number * 100)), noted("other"):
                    time.sleep(0.0005)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()

    assert len(seen) == 3 * 15 * 3
    assert {(timed, other) for timed, other in seen if timed} == {(1, 0)}


@pytest.mark.usefixtures("pinned")
def test_a_stream_of_sharers_does_not_starve_a_timed_phase() -> None:
    cores = Cores({0, 1})
    done = threading.Event()

    def stream(_me: Worker) -> None:
        while not done.is_set():
            with cores.seat():
                time.sleep(0.0002)

    sharers = [Worker(stream) for _ in range(3)]
    timed = phase(cores, 100)

    assert timed.entered()
    timed.over()
    done.set()
    for each in sharers:
        each.over()


@pytest.mark.usefixtures("pinned")
def test_a_phase_that_shares_lets_a_timed_one_that_waits_go_first() -> None:
    cores = Cores({0, 1})
    go = threading.Event()

    def work(me: Worker) -> None:
        with cores.seat() as seat:
            me.inside.set()
            assert go.wait(PATIENCE)
            with cores.around(seat)(TRACED, machine(200)):
                order.append("traced")

    order: list[str] = []
    shares = Worker(work)
    assert shares.entered()
    timed = phase(cores, 100)
    assert waits_for_turn(cores)
    go.set()
    assert timed.entered()
    order.append("timed")
    timed.over()
    shares.over()

    assert order == ["timed", "traced"]


@pytest.mark.usefixtures("pinned")
def test_several_timed_phases_take_turns_before_anything_else() -> None:
    cores = Cores({0, 1})
    first = phase(cores, 100)
    assert first.entered()
    timed = [phase(cores, 200), phase(cores, 300)]
    # Both still want a seat: they sit when the first is over, and then ask for their turn.
    first.over()

    assert eventually(lambda: any(each.inside.is_set() for each in timed))
    one, other = sorted(timed, key=lambda each: not each.inside.is_set())
    assert not other.inside.is_set()
    one.over()
    assert other.entered()
    other.over()


@pytest.mark.usefixtures("pinned")
def test_the_wait_after_a_timed_phase_is_counted_too() -> None:
    cores = Cores({0, 1})
    found: list[object] = []
    first = phase(cores, 100, found=found)
    assert first.entered()
    cores._waiting += 1  # another timed phase waits: the first may not sit down again

    first.leave.set()
    first.thread.join(0.3)  # it waits all the while, however late it was woken
    assert first.thread.is_alive()
    with cores._changed:
        cores._waiting -= 1
        cores._changed.notify_all()
    first.over()

    (watch,) = found
    assert isinstance(watch, hostshare.Watch)
    assert watch.waited > 0.02


def test_two_timed_phases_run_at_once_only_where_nobody_else_sits(pinned: dict[int, set[int]]) -> None:
    cores = Cores(range(4))
    one, two = phase(cores, 100), phase(cores, 200)
    assert one.entered()
    assert two.entered()
    assert pinned[100] | pinned[200] == {0, 1, 2, 3}
    assert not pinned[100] & pinned[200]
    one.over()
    two.over()

    shares = sharer(cores)
    assert shares.entered()
    one = phase(cores, 100)
    assert one.entered()
    assert pinned[100] == {0, 1}
    assert pinned[os.getpid()] == {2, 3}
    two = Worker(lambda me: _second(cores, me))
    assert waits_for_turn(cores)
    assert not two.inside.wait(0.03)
    shares.over()
    assert two.entered()
    assert pinned[200] == {2, 3}
    for each in (one, two):
        each.over()


def _second(cores: Cores, me: Worker) -> None:
    with cores.seat() as seat, cores.around(seat)(TIMED, machine(200)):
        me.stay()


def test_sharers_and_this_process_move_away_and_back(pinned: dict[int, set[int]]) -> None:
    cores = Cores(range(4))
    shares = phase(cores, 200, TRACED)
    assert shares.entered()
    assert pinned[os.getpid()] == {0, 1, 2, 3}

    timed = phase(cores, 100)
    assert timed.entered()
    assert pinned[100] == {0, 1}
    assert pinned[200] == pinned[os.getpid()] == {2, 3}

    timed.over()
    assert pinned[200] == pinned[os.getpid()] == {0, 1, 2, 3}
    shares.over()


def test_a_machine_that_starts_is_kept_off_the_cores_of_a_timed_phase(
    pinned: dict[int, set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 555 is QEMU before anybody could tell its number, 100 the machine of the timed phase: children both.
    monkeypatch.setattr(hostshare, "children", lambda: {100, 555})
    cores = Cores(range(4))

    timed = phase(cores, 100)
    assert timed.entered()
    assert pinned[100] == {0, 1}
    assert pinned[555] == {2, 3}
    timed.over()
    assert pinned[100] == pinned[555] == {0, 1, 2, 3}


def test_this_process_knows_its_children() -> None:
    import subprocess

    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    assert child.pid in hostshare.children()
    child.stdin.close()
    child.wait(30)
    assert child.pid not in hostshare.children()


@pytest.mark.parametrize(("clock", "used"), [("kvm", 2), ("emulated", 2), ("virtual", 1)])
def test_cpus_that_take_turns_need_one_of_the_host(clock: str, used: int) -> None:
    assert module.host_cpus(machine(100, 2, clock).facts()) == used


def test_a_machine_with_more_cpus_than_the_host_takes_all(pinned: dict[int, set[int]]) -> None:
    timed = phase(Cores({3, 5}), 100, cpus=8)

    assert timed.entered()
    assert pinned[100] == {3, 5}
    timed.over()


@pytest.mark.usefixtures("pinned")
def test_what_a_timed_phase_got_is_told_with_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([{101: (5, 1), 102: (0, 0)}, {101: (2_000_000_005, 1), 102: (0, 500_000_000)}])
    monkeypatch.setattr(hostshare, "threads", lambda _machine: next(readings))
    found: list[object] = []
    phase(Cores(range(4)), 100, found=found).over()

    (watch,) = found
    assert isinstance(watch, hostshare.Watch)
    assert watch.share is not None
    assert (watch.share.cores, watch.share.neighbours) == ([0, 1], 0)
    assert (watch.share.cpu_seconds, watch.share.wait_seconds) == (2.0, 0.5)


@pytest.mark.usefixtures("pinned")
def test_whoever_shares_counts_most_neighbours_of_the_phase_alone() -> None:
    cores = Cores({0, 1}, share=True)
    found: list[object] = []
    timed = phase(cores, 100, found=found)
    assert timed.entered()
    others = [sharer(cores) for _ in range(2)]
    assert all(each.entered() for each in others)
    for each in others:
        each.over()
    timed.over()
    alone = phase(cores, 100, found=found)
    assert alone.entered()
    alone.over()

    shares = [watch.share for watch in found if isinstance(watch, hostshare.Watch)]
    assert [share.neighbours for share in shares if share] == [2, 0]
    assert [share.cores for share in shares if share] == [[0, 1], [0, 1]]


@pytest.mark.usefixtures("pinned")
def test_stopping_ends_every_wait() -> None:
    stop = threading.Event()
    cores = Cores({0, 1}, stopped=stop.is_set)
    timed = phase(cores, 100)
    assert timed.entered()
    waiting = [sharer(cores), phase(cores, 300)]

    stop.set()
    for each in waiting:
        each.thread.join(PATIENCE)
        assert isinstance(each.error, Interrupted)
        assert not each.inside.is_set()
    timed.over()  # its own block ends as it would, and what it says is up to its next wait


@pytest.mark.usefixtures("pinned")
def test_stopping_ends_the_wait_for_a_turn_and_leaves_nobody_waiting() -> None:
    stop = threading.Event()
    cores = Cores({0, 1}, stopped=stop.is_set)
    shares = sharer(cores)
    assert shares.entered()
    timed = phase(cores, 100)
    assert waits_for_turn(cores)

    stop.set()
    timed.thread.join(PATIENCE)
    assert isinstance(timed.error, Interrupted)
    assert cores._waiting == 0
    shares.over()
    stop.clear()
    after = sharer(cores)
    assert after.entered()
    after.over()


@pytest.mark.usefixtures("pinned")
def test_a_phase_that_fails_gives_its_cores_back() -> None:
    cores = Cores({0, 1})

    def fails(seat: Seat) -> None:
        with cores.around(seat)(TIMED, machine(100)):
            raise RuntimeError("lost")

    with cores.seat() as seat, pytest.raises(RuntimeError, match="lost"):
        fails(seat)

    after = phase(cores, 200)
    assert after.entered()
    after.over()


def test_pinning_reaches_all_threads_and_passes_over_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    here = threading.get_native_id()
    done: list[tuple[int, set[int]]] = []

    def setaffinity(thread: int, on: set[int]) -> None:
        done.append((thread, on))
        if thread == here:
            raise ProcessLookupError

    monkeypatch.setattr(os, "sched_setaffinity", setaffinity)
    with_thread = Worker(lambda me: me.stay())
    assert with_thread.entered()
    hostshare.pin(os.getpid(), {1})
    hostshare.pin(0, {0})

    assert {here, with_thread.thread.native_id} <= {thread for thread, _ in done}
    assert all(on == {1} for _, on in done)
    with_thread.over()


def test_readings_of_other_threads_give_no_share() -> None:
    assert hostshare.share({}, {}, [0], 0) is None
    assert hostshare.share({1: (0, 0)}, {2: (9, 9)}, [0], 0) is None
    assert hostshare.threads(machine(2**22 + 10)) == {}  # numbers that no thread has


def test_a_phase_of_a_run_of_its_own_is_watched_alone() -> None:
    busy = cast(Machine, SimpleNamespace(cpu_threads=(threading.get_native_id(),)))

    with hostshare.alone(TIMED, busy) as watch:
        assert watch.share is None
        until = time.thread_time() + 0.002
        while time.thread_time() < until:
            pass

    assert watch.share is not None
    assert watch.share.cores == sorted(os.sched_getaffinity(0))
    assert watch.share.neighbours == 0


def test_timed_phases_of_two_matrices_take_turns(tmp_path: Path) -> None:
    mine, other = (module.HostTurn(tmp_path / "state" / "lock", lambda: False) for _ in range(2))
    inside = threading.Event()

    def wait_for_it() -> None:
        with other:
            inside.set()

    waiting = threading.Thread(target=wait_for_it)
    with mine:
        with mine:  # another timed phase of the same matrix
            waiting.start()
        assert not inside.is_set()
    assert inside.wait(PATIENCE)
    waiting.join(PATIENCE)


def test_whoever_is_stopped_gives_up_waiting_for_the_other_matrix(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with module.HostTurn(file, lambda: False), pytest.raises(Interrupted), module.HostTurn(file, lambda: True):
        pytest.fail("it had its turn")
    with module.HostTurn(file, lambda: True):
        pass
