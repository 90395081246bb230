"""What a probe set is made of: which program at which point of which function, by Go version."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Line = tuple[int, int]
"""A Go line: ``(1, 24)``."""

Point = Literal["pp", "ret", "entry", "branch"]
"""Where in a function: the ``push %rbp`` after the stack check, each RET, the first instruction, or, for each RET, a
conditional jump that is passed exactly as often and has the result already (``disasm.find_results``)."""

Wanted = Literal["pp", "ret", "entry", "result"]
"""Which point a hook asks for; ``result``: the branch where the function has one, else each RET, which costs several
times as much."""

KernelEvent = Literal["futex", "sched_switch", "syscall_enter"]
"""Programs on kernel events, the same for every binary: futex calls, threads that leave a CPU, system calls."""

Feature = Literal["locks", "runs", "channels"]
"""What programs do besides counting: tell the lock of each wait (needs the hooks on semaphores), record each stretch
that a goroutine runs, look at lock and queue of the channel that a goroutine parks on."""

EVERY_WAIT = "*"
"""In :attr:`ProbeSet.recorded`: waits for any reason."""


@dataclass(frozen=True, slots=True)
class Name:
    """A function's name, from Go line ``since`` to Go line ``until``, both included."""

    symbol: str
    since: Line = (1, 0)
    until: Line = (999, 0)


@dataclass(frozen=True, slots=True)
class Hook:
    """One program at one point of one function.

    :param names: the function's names over time; at most one is meant by any version. A version of which none is meant
        has no such function, and the hook does not exist there.
    :param required: whether a binary without the function is refused. The linker drops what a program cannot reach: an
        optional one that is absent cannot be called, so that its count is known to be zero.
    :param runtime: whether the function is part of Go itself, so that its absence in an unknown version may mean that
        it has another name there.
    """

    id: str
    program: str
    names: tuple[Name, ...]
    point: Wanted = "pp"
    required: bool = True
    runtime: bool = True

    def name(self, line: Line) -> str | None:
        """Return the name in Go ``line``, or None where that version has no such function."""
        return next((n.symbol for n in self.names if n.since <= line <= n.until), None)


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """Hooks that belong together.

    :param reasons: wait reasons that its programs compare with: short name → the runtime's words.
    :param recorded: the runtime's words of wait reasons of which each wait becomes an event with its stack; a
        version that lacks one has no such wait. :data:`EVERY_WAIT` for all.
    :param offsets: struct fields that its programs read (``bpf.dwarf.FIELDS``).
    :param ranges: functions whose bounds its programs compare addresses with: short name → symbol.
    :param kernel: kernel events that it watches beside.
    :param features: what its programs do besides counting.
    """

    name: str
    hooks: tuple[Hook, ...]
    reasons: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))
    recorded: tuple[str, ...] = ()
    offsets: tuple[str, ...] = ()
    ranges: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))
    kernel: tuple[KernelEvent, ...] = ()
    features: tuple[Feature, ...] = ()
