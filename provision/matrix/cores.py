"""Who may use which of the host's CPUs: a timed phase has its own, everything else shares what is left.

A timed phase *takes* as many CPUs as its machine has; nothing else of the matrix runs on these meanwhile. All other
work (starting machines, tracing, sealing records) *sits* on the CPUs that nobody has taken, and is moved when these
change. On a host with no more CPUs than one machine, that means: while a phase is timed, nothing else of the matrix
runs at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from go_labs.spec import TIMED, Phase
from provision import hostshare
from provision.hostshare import Watch
from vm.errors import Interrupted
from vm.machine import Machine, MachineFacts

_LOOK = 0.5
"""Seconds after which a wait looks whether it is still wanted."""


@dataclass(slots=True, eq=False)
class Seat:
    """One worker's place on the host.

    :param pid: of its machine; 0 where it has none. :param neighbours: most others that sat beside it since it was
        reset.
    """

    pid: int = 0
    neighbours: int = 0
    cores: set[int] = field(default_factory=set)


def host_cpus(facts: MachineFacts) -> int:
    """Return how many CPUs of the host a machine can use: one where its own take turns (``thread=single``)."""
    return 1 if facts.clock == "virtual" else facts.cpus


class HostTurn:
    """Timed phases of this process, kept apart from those of another matrix on the same host by a lock on a file.

    It is held while any timed phase of this process runs, and given up when the last one ends, or the process does.
    """

    def __init__(self, file: Path, stopped: Callable[[], bool]) -> None:
        self._file = file
        self._stopped = stopped
        self._lock = threading.Lock()
        self._count = 0
        self._descriptor = -1

    def __enter__(self) -> None:
        with self._lock:
            if self._count == 0:
                self._descriptor = self._taken()
            self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                os.close(self._descriptor)

    def _taken(self) -> int:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while not _locked(descriptor):
            if self._stopped():
                os.close(descriptor)
                raise Interrupted("interrupted", "what was finished is kept")
            time.sleep(_LOOK)
        return descriptor


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Cores:
    """The host's CPUs.

    :param cpus: those that may be used. :param share: whether timed phases sit like everything else.
    :param stopped: whether whoever waits shall give up.
    :param turn: keeps timed phases of several processes apart; None where there is but this one.
    """

    def __init__(
        self,
        cpus: Collection[int],
        *,
        share: bool = False,
        stopped: Callable[[], bool] = lambda: False,
        turn: HostTurn | None = None,
    ) -> None:
        self._all = frozenset(cpus)
        self._share = share
        self._stopped = stopped
        self._turn_of_host: contextlib.AbstractContextManager[None] = contextlib.nullcontext() if turn is None else turn
        self._taken: set[int] = set()
        self._timed: set[int] = set()
        self._seats: set[Seat] = set()
        self._waiting = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def seat(self) -> Iterator[Seat]:
        """Sit among those that share; waits while there is no room, or a timed phase waits for its turn.

        :raises Interrupted: the matrix was stopped meanwhile.
        """
        seat = Seat()
        self._sit(seat)
        try:
            yield seat
        finally:
            with self._changed:
                self._seats.discard(seat)
                self._arrange()

    def around(self, seat: Seat) -> Callable[[Phase, Machine], contextlib.AbstractContextManager[Watch]]:
        """Return what surrounds each phase of the worker that sits on ``seat`` (``provision.hostshare.Around``)."""

        @contextlib.contextmanager
        def watched(phase: Phase, machine: Machine) -> Iterator[Watch]:
            watch = Watch()
            seat.pid = machine.pid
            with self._turn(seat, machine, watch) if phase.name == TIMED else self._breath(seat, watch) as cores:
                before = hostshare.threads(machine)
                yield watch
                # Before the seat is taken again, which may well be beside others.
                watch.share = hostshare.share(before, hostshare.threads(machine), sorted(cores), seat.neighbours)

        return watched

    @contextlib.contextmanager
    def _breath(self, seat: Seat, watch: Watch) -> Iterator[set[int]]:
        """Let a timed phase that waits go first, then go on sitting."""
        with self._changed:
            if self._waiting and not self._share:
                self._seats.discard(seat)
                self._arrange()
        watch.waited = self._sit(seat)
        with self._changed:
            seat.neighbours = len(self._seats) - 1
            cores = set(seat.cores)
        yield cores

    @contextlib.contextmanager
    def _turn(self, seat: Seat, machine: Machine, watch: Watch) -> Iterator[set[int]]:
        """Take CPUs for a timed phase, and sit again afterwards."""
        if self._share:
            with self._breath(seat, watch) as cores:
                yield cores
            return
        watch.waited, cores = self._take(seat, host_cpus(machine.facts()))
        try:
            began = time.monotonic()
            with self._turn_of_host:
                watch.waited += time.monotonic() - began
                yield cores
        finally:
            with self._changed:
                self._taken -= cores
                self._timed.discard(seat.pid)
                self._arrange()
            with contextlib.suppress(Interrupted):  # whoever was stopped says so at its next wait
                watch.waited += self._sit(seat)

    def _sit(self, seat: Seat) -> float:
        """Sit down, if ``seat`` does not sit yet; return seconds waited."""
        with self._changed:
            if seat in self._seats:
                return 0.0
            waited = self._wait(lambda: self._share or (not self._waiting and len(self._free()) > 0))
            self._seats.add(seat)
            self._arrange()
            return waited

    def _take(self, seat: Seat, wanted: int) -> tuple[float, set[int]]:
        """Leave the seat and take ``wanted`` CPUs, or all where there are fewer; return seconds waited and the CPUs."""
        with self._changed:
            self._seats.discard(seat)
            self._arrange()
            count = min(wanted, len(self._all))
            self._waiting += 1
            try:
                # Those that sit need a CPU, too: they are not put out in the middle of what they do.
                waited = self._wait(lambda: len(self._free()) >= count + (1 if self._seats else 0))
            finally:
                self._waiting -= 1
                self._changed.notify_all()
            cores = set(sorted(self._free())[:count])
            self._taken |= cores
            self._timed.add(seat.pid)
            seat.neighbours, seat.cores = 0, cores
            hostshare.pin(seat.pid, cores)
            self._arrange()
            return waited, cores

    def _wait(self, ready: Callable[[], bool]) -> float:
        began = time.monotonic()
        while not ready():
            if self._stopped():
                raise Interrupted("interrupted", "what was finished is kept")
            self._changed.wait(_LOOK)
        return time.monotonic() - began

    def _free(self) -> frozenset[int]:
        return self._all - self._taken

    def _arrange(self) -> None:
        """Put everybody who sits, and this process itself, on the CPUs that nobody has taken; wake whoever waits.

        A machine that starts has no seat's pid yet, and a tool never has one: they are this process's children.
        """
        free = set(self._free())
        if free:
            hostshare.pin(os.getpid(), free)  # first: what is started from now on inherits it
            for child in hostshare.children() - self._timed - {seat.pid for seat in self._seats}:
                hostshare.pin(child, free)
        for seat in self._seats:
            seat.cores = free or set(self._all)
            seat.neighbours = max(seat.neighbours, len(self._seats) - 1)
            hostshare.pin(seat.pid, seat.cores)
        self._changed.notify_all()
