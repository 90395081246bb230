"""Probe sets: which programs go at which functions of a Go program, for every Go version that the tables know.

A set says what to observe (``mutex``: who waits for which lock). Each of its hooks names a program of the CO-RE
object, a function, and a point in it; names that changed between Go versions are listed by version. Every set has the
common hooks, so that the self-test of goroutine ids works whatever is observed.

Wait reasons and arguments are those of Go's source, ``runtime/runtime2.go`` and the functions named.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from bpf.hooks import EVERY_WAIT, Hook, Name, ProbeSet
from vm.errors import UsageError

_MARK = Hook("mark", "go_mark", (Name("kmlab/labkit.mark"),), required=False, runtime=False)
"""``labkit.Mark``'s body: tells the programs which segment runs. Absent in programs that are no lab."""

_COMMON = (
    Hook("park", "go_park", (Name("runtime.gopark"),)),
    Hook("execute", "go_execute", (Name("runtime.execute"),)),
    _MARK,
)
"""In every set: who parks, who runs, in which segment."""

_CREATED = Hook("created", "go_created", (Name("runtime.newproc1"),), point="result")
_ENDED = Hook("ended", "go_ended", (Name("runtime.goexit0", until=(1, 21)), Name("runtime.gdestroy", since=(1, 22))))
_PANIC = Hook("panic", "go_panic", (Name("runtime.gopanic"),))
_CLOSE = Hook("close", "go_close", (Name("runtime.closechan"),), required=False)

_MUTEX = "sync.Mutex.Lock"
_CHANNEL = (
    "chan receive",
    "chan send",
    "select",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "select (no cases)",
)

_REASONS = MappingProxyType(
    {
        "mutex": _MUTEX,
        "rwmutex_read": "sync.RWMutex.RLock",
        "rwmutex_write": "sync.RWMutex.Lock",
        "semacquire": "semacquire",
        "chan_receive": "chan receive",
        "chan_send": "chan send",
    }
)
"""Reasons that the common programs compare with, in every plan."""

_OFFSETS = ("goid", "parent_goid", "wait_reason", "g_m", "m_p", "hchan_lock")

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
        *_COMMON,
    ),
    reasons=_REASONS,
    recorded=(_MUTEX, "sync.RWMutex.RLock", "sync.RWMutex.Lock"),
    offsets=_OFFSETS,
    kernel=("futex", "sched_switch"),
    features=("locks",),
)
"""Who waits for which lock, and what the kernel sees of it."""

SCHED = ProbeSet(
    name="sched",
    hooks=(
        *_COMMON,
        Hook("ready", "go_ready", (Name("runtime.ready"),)),
        # The one way back to the global queue, with a flag that tells why, from Go 1.22 on.
        Hook("gosched", "go_gosched", (Name("runtime.goschedImpl", since=(1, 22)),)),
        Hook("preempt", "go_preempt", (Name("runtime.gopreempt_m", until=(1, 21)),)),
        Hook("yield", "go_yield", (Name("runtime.gosched_m", until=(1, 21)),), required=False),
        Hook("goyield", "go_goyield", (Name("runtime.goyield_m"),), required=False),
        Hook("stolen", "go_stolen", (Name("runtime.runqsteal"),), point="ret"),
        # One goroutine is taken by globrunqget in every 61st round; it is inlined from Go 1.25 on, and not seen there.
        Hook(
            "global",
            "go_global_got",
            (Name("runtime.globrunqget", until=(1, 24)), Name("runtime.globrunqgetbatch", since=(1, 25))),
            point="ret",
        ),
        Hook("handoff_p", "go_handoff_p", (Name("runtime.handoffp"),)),
        # runqget is inlined in every version: what is taken from a local queue is derived, what is put there is seen.
        Hook("local_put", "go_local_put", (Name("runtime.runqput"),)),
        Hook("local_overflow", "go_local_overflow", (Name("runtime.runqputslow"),)),
        Hook("enter_syscall", "go_enter_syscall", (Name("runtime.entersyscall"),)),
        Hook("exit_syscall", "go_exit_syscall", (Name("runtime.exitsyscall"),), point="ret"),
        _CREATED,
        _ENDED,
    ),
    reasons=_REASONS,
    recorded=(_MUTEX,),
    offsets=(*_OFFSETS, "start_pc", "go_pc"),
    kernel=("futex", "sched_switch", "syscall_enter"),
    features=("runs",),
)
"""Which goroutine runs when on which P and thread, and why it stops."""

CHANNEL = ProbeSet(
    name="channel",
    hooks=(
        *_COMMON,
        Hook("watch", "go_watch", (Name("kmlab/labkit.watch"),), required=False, runtime=False),
        Hook("chan.send", "go_chan_send", (Name("runtime.chansend"),)),
        Hook("chan.recv", "go_chan_recv", (Name("runtime.chanrecv"),)),
        Hook("chan.select", "go_select", (Name("runtime.selectgo"),), required=False),
        Hook("chan.handoff_send", "go_handoff_send", (Name("runtime.send"),)),
        Hook("chan.handoff_recv", "go_handoff_recv", (Name("runtime.recv"),)),
        _CLOSE,
        Hook("lock2", "go_lock2", (Name("runtime.lock2"),)),
        Hook("futex_sleep", "go_futex_sleep", (Name("runtime.futexsleep"),)),
    ),
    reasons=_REASONS,
    recorded=(_MUTEX, *_CHANNEL),
    offsets=(*_OFFSETS, "hchan_recvq", "hchan_sendq"),
    ranges=MappingProxyType(
        {
            "chansend": "runtime.chansend",
            "chanrecv": "runtime.chanrecv",
            "closechan": "runtime.closechan",
            "selectgo": "runtime.selectgo",
            "sellock": "runtime.sellock",
            "lock2": "runtime.lock2",
            # From Go 1.24 on; whether it is there tells how a lock's word is read.
            "unlock2Wake": "runtime.unlock2Wake",
        }
    ),
    kernel=("futex",),
    features=("channels",),
)
"""Who parks on which channel, told apart from contention for the channel's own lock."""

GOROUTINE = ProbeSet(
    name="goroutine",
    hooks=(
        *_COMMON,
        _CREATED,
        _ENDED,
        _PANIC,
    ),
    reasons=_REASONS,
    recorded=(EVERY_WAIT,),
    offsets=(*_OFFSETS, "start_pc", "go_pc"),
)
"""The life of each goroutine: created where and by whom, waiting for what, ended."""

CONTEXT = ProbeSet(
    name="context",
    hooks=(
        *_COMMON,
        Hook("cancel", "go_cancel", (Name("context.(*cancelCtx).cancel"),)),
        _CLOSE,
    ),
    reasons=_REASONS,
    recorded=(_MUTEX, *_CHANNEL),
    offsets=(*_OFFSETS, "ctx_done", "ctx_children", "ctx_mu", "ctx_err"),
)
"""Cancellation: which contexts, in which order, and which done channels close."""

DEFER = ProbeSet(
    name="defer",
    hooks=(
        *_COMMON,
        Hook("deferproc", "go_deferproc", (Name("runtime.deferproc"),), required=False),
        Hook("deferproc_stack", "go_deferproc_stack", (Name("runtime.deferprocStack"),), required=False),
        Hook("defer_at", "go_defer_at", (Name("runtime.deferprocat", since=(1, 23)),), required=False),
        Hook("defer_return", "go_defer_return", (Name("runtime.deferreturn"),), required=False),
        Hook("defer_alloc", "go_defer_alloc", (Name("runtime.newdefer"),), required=False),
        _PANIC,
    ),
    reasons=_REASONS,
    recorded=(_MUTEX,),
    offsets=_OFFSETS,
)
"""Which defers reach the runtime at all."""

_SIZE_CLASSES = (
    *(f"mallocgcSmallScanNoHeaderSC{n}" for n in range(1, 8)),
    "mallocgcTinySC2",
    *(f"mallocgcSmallNoScanSC{n}" for n in range(2, 8)),
)
"""Functions of ``runtime/malloc_generated.go`` (Go 1.27) that compiled code calls in the place of ``mallocgc``."""

GC = ProbeSet(
    name="gc",
    hooks=(
        *_COMMON,
        Hook("malloc", "go_malloc", (Name("runtime.mallocgc"),)),
        *(
            Hook(f"malloc.{name}", "go_malloc", (Name(f"runtime.{name}", since=(1, 27)),), required=False)
            for name in _SIZE_CLASSES
        ),
        Hook("collection", "go_collection", (Name("runtime.gcMarkTermination"),)),
        Hook("stw.begin", "go_stw_begin", (Name("runtime.stopTheWorldWithSema"),)),
        Hook("stw.end", "go_stw_end", (Name("runtime.startTheWorldWithSema"),)),
    ),
    reasons=_REASONS,
    recorded=(_MUTEX,),
    offsets=_OFFSETS,
    ranges=MappingProxyType({"mallocgc": "runtime.mallocgc"}),
)
"""Allocations by site, collections, pauses."""

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

SETS = {s.name: s for s in (MUTEX, SCHED, CHANNEL, GOROUTINE, CONTEXT, DEFER, GC, CALIBRATION)}
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
