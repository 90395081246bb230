"""Probe sets: which functions of Go's runtime a lab's counters need, by Go version.

To add a set, add an entry to :data:`SETS` (and its programs to ``bpf/src``); nothing else names the sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from vm.errors import UsageError

Line = tuple[int, int]
"""A Go line: ``(1, 24)``."""

Point = Literal["pp", "ret", "entry"]
"""Where in a function: the ``push %rbp`` after the stack check, each RET, or the first instruction."""


@dataclass(frozen=True, slots=True)
class Name:
    """A function's name, from Go line ``since`` to Go line ``until``, both included."""

    symbol: str
    since: Line = (1, 0)
    until: Line = (999, 0)


@dataclass(frozen=True, slots=True)
class Hook:
    """One program at one point of one function.

    :param names: the function's names over time; exactly one is meant by any version.
    :param required: whether a binary without the function is refused. The linker drops what a program cannot reach: an
        optional one that is absent cannot be called, so that its count is known to be zero.
    :param runtime: whether the function is part of Go itself, so that its absence in an unknown version may mean that
        it has another name there.
    """

    id: str
    program: str
    names: tuple[Name, ...]
    point: Point = "pp"
    required: bool = True
    runtime: bool = True

    def name(self, line: Line) -> str:
        """Return the name in Go ``line``."""
        return next(n.symbol for n in self.names if n.since <= line <= n.until)


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """Hooks that belong together.

    :param reasons: wait reasons that its programs compare with: short name → the runtime's words.
    :param offsets: struct fields that its programs read (``bpf.dwarf.FIELDS``).
    """

    name: str
    hooks: tuple[Hook, ...]
    reasons: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))
    offsets: tuple[str, ...] = ()


_GOROUTINE = ("goid", "parent_goid", "wait_reason", "g_m", "m_p")

_MARK = Hook("mark", "go_mark", (Name("kmlab/labkit.mark"),), required=False, runtime=False)
"""``labkit.Mark``'s body: tells the programs which segment runs. Absent in programs that are no lab."""

_PARK = Hook("park", "go_park", (Name("runtime.gopark"),))
_EXECUTE = Hook("execute", "go_execute", (Name("runtime.execute"),))

MUTEX = ProbeSet(
    name="mutex",
    hooks=(
        # sync.Mutex became a shell around internal/sync.Mutex in Go 1.24.
        Hook(
            "mutex.slow",
            "go_lock_slow",
            (
                Name("sync.(*Mutex).lockSlow", until=(1, 23)),
                Name("internal/sync.(*Mutex).lockSlow", since=(1, 24)),
            ),
        ),
        Hook("sem", "go_semacquire", (Name("runtime.semacquire1"),)),
        Hook("sem.rw_reader", "go_sem_rw_reader", (Name("sync.runtime_SemacquireRWMutexR"),), required=False),
        Hook("sem.rw_writer", "go_sem_rw_writer", (Name("sync.runtime_SemacquireRWMutex"),), required=False),
        _PARK,
        _EXECUTE,
        _MARK,
    ),
    reasons=MappingProxyType(
        {
            "mutex": "sync.Mutex.Lock",
            "rwmutex_read": "sync.RWMutex.RLock",
            "rwmutex_write": "sync.RWMutex.Lock",
            "semacquire": "semacquire",
        }
    ),
    offsets=_GOROUTINE,
)

_TARGET = (Name("main.calibrationTarget"),)

CALIBRATION = ProbeSet(
    name="calibration",
    hooks=(
        Hook("cal.pp", "cal_pp", _TARGET, runtime=False),
        Hook("cal.entry", "cal_entry", _TARGET, point="entry", runtime=False),
        Hook("cal.ret", "cal_ret", _TARGET, point="ret", runtime=False),
    ),
)
"""What the loader measures the cost of a probe with, on a function of its own."""

SETS = {s.name: s for s in (MUTEX, CALIBRATION)}
"""All probe sets by name."""


def find_sets(names: Sequence[str]) -> list[ProbeSet]:
    """Return the sets called ``names``, each once.

    :raises UsageError: there is no such set, or none is asked for.
    """
    unknown = [name for name in names if name not in SETS]
    if unknown or not names:
        what = f"there is no probe set {unknown[0]!r}" if unknown else "no probe set is asked for"
        raise UsageError(what, f"probe sets: {', '.join(sorted(SETS))}")
    return [SETS[name] for name in dict.fromkeys(names)]
