"""What differs between Go versions and cannot be read from a stripped binary: struct offsets and wait reasons.

Offsets were read from the DWARF of binaries that Go 1.21.13, 1.22.10, 1.23.9, 1.24.11, 1.25.5, 1.26.6 and 1.27.3 built
for linux/amd64; wait reasons are those of ``runtime/runtime2.go`` of the same releases, in the order of their
constants.
``tests/bpf/test_tables.py`` checks each entry against those toolchains.
"""

from __future__ import annotations

OFFSETS: dict[str, dict[str, int]] = {
    "1.21": {
        "goid": 152,
        "parent_goid": 272,
        "wait_reason": 176,
        "g_m": 48,
        "m_p": 208,
        "hchan_lock": 88,
        "hchan_recvq": 56,
        "hchan_sendq": 72,
        "start_pc": 296,
        "go_pc": 280,
        "ctx_done": 24,
        "ctx_children": 40,
        "ctx_mu": 16,
        "ctx_err": 48,
    },
    "1.22": {
        "goid": 152,
        "parent_goid": 272,
        "wait_reason": 176,
        "g_m": 48,
        "m_p": 208,
        "hchan_lock": 88,
        "hchan_recvq": 56,
        "hchan_sendq": 72,
        "start_pc": 296,
        "go_pc": 280,
        "ctx_done": 24,
        "ctx_children": 40,
        "ctx_mu": 16,
        "ctx_err": 48,
    },
    "1.23": {
        "goid": 160,
        "parent_goid": 280,
        "wait_reason": 184,
        "g_m": 48,
        "m_p": 208,
        "hchan_lock": 96,
        "hchan_recvq": 64,
        "hchan_sendq": 80,
        "start_pc": 304,
        "go_pc": 288,
        "ctx_done": 24,
        "ctx_children": 40,
        "ctx_mu": 16,
        "ctx_err": 48,
    },
    "1.24": {
        "goid": 160,
        "parent_goid": 280,
        "wait_reason": 184,
        "g_m": 48,
        "m_p": 208,
        "hchan_lock": 96,
        "hchan_recvq": 64,
        "hchan_sendq": 80,
        "start_pc": 304,
        "go_pc": 288,
        "ctx_done": 24,
        "ctx_children": 40,
        "ctx_mu": 16,
        "ctx_err": 48,
    },
    "1.25": {
        "goid": 152,
        "parent_goid": 272,
        "wait_reason": 176,
        "g_m": 48,
        "m_p": 200,
        "hchan_lock": 104,
        "hchan_recvq": 64,
        "hchan_sendq": 80,
        "start_pc": 296,
        "go_pc": 280,
        "ctx_done": 24,
        "ctx_children": 40,
        "ctx_mu": 16,
        "ctx_err": 48,
    },
    "1.26": {
        "goid": 152,
        "parent_goid": 280,
        "wait_reason": 176,
        "g_m": 48,
        "m_p": 208,
        "hchan_lock": 104,
        "hchan_recvq": 64,
        "hchan_sendq": 80,
        "start_pc": 304,
        "go_pc": 288,
        "ctx_done": 24,
        "ctx_children": 40,
        "ctx_mu": 16,
        "ctx_err": 48,
    },
    "1.27": {
        "goid": 152,
        "parent_goid": 280,
        "wait_reason": 176,
        "g_m": 48,
        "m_p": 208,
        "hchan_lock": 104,
        "hchan_recvq": 64,
        "hchan_sendq": 80,
        "start_pc": 304,
        "go_pc": 288,
        "ctx_done": 24,
        "ctx_children": 40,
        "ctx_mu": 16,
        "ctx_err": 48,
    },
}
"""Bytes from the start of the struct, by Go line; the names are those of ``bpf.dwarf.FIELDS``."""

_REASONS_1_21 = (
    "-; GC assist marking; IO wait; chan receive (nil chan); chan send (nil chan); dumping heap; "
    "garbage collection; garbage collection scan; panicwait; select; select (no cases); GC assist wait; "
    "GC sweep wait; GC scavenge wait; chan receive; chan send; finalizer wait; force gc (idle); "
    "semacquire; sleep; sync.Cond.Wait; sync.Mutex.Lock; sync.RWMutex.RLock; sync.RWMutex.Lock; "
    "trace reader (blocked); wait for GC cycle; GC worker (idle); GC worker (active); preempted; "
    "debug call; GC mark termination; stopping the world"
)
_REASONS_1_22 = (
    "-; GC assist marking; IO wait; chan receive (nil chan); chan send (nil chan); dumping heap; "
    "garbage collection; garbage collection scan; panicwait; select; select (no cases); GC assist wait; "
    "GC sweep wait; GC scavenge wait; chan receive; chan send; finalizer wait; force gc (idle); "
    "semacquire; sleep; sync.Cond.Wait; sync.Mutex.Lock; sync.RWMutex.RLock; sync.RWMutex.Lock; "
    "trace reader (blocked); wait for GC cycle; GC worker (idle); GC worker (active); preempted; "
    "debug call; GC mark termination; stopping the world; flushing proc caches; trace goroutine status; "
    "trace proc status; page trace flush; coroutine"
)
_REASONS_1_23 = (
    "-; GC assist marking; IO wait; chan receive (nil chan); chan send (nil chan); dumping heap; "
    "garbage collection; garbage collection scan; panicwait; select; select (no cases); GC assist wait; "
    "GC sweep wait; GC scavenge wait; chan receive; chan send; finalizer wait; force gc (idle); "
    "semacquire; sleep; sync.Cond.Wait; sync.Mutex.Lock; sync.RWMutex.RLock; sync.RWMutex.Lock; "
    "trace reader (blocked); wait for GC cycle; GC worker (idle); GC worker (active); preempted; "
    "debug call; GC mark termination; stopping the world; flushing proc caches; trace goroutine status; "
    "trace proc status; page trace flush; coroutine; GC weak to strong wait"
)
_REASONS_1_24 = (
    "-; GC assist marking; IO wait; chan receive (nil chan); chan send (nil chan); dumping heap; "
    "garbage collection; garbage collection scan; panicwait; select; select (no cases); GC assist wait; "
    "GC sweep wait; GC scavenge wait; chan receive; chan send; finalizer wait; force gc (idle); "
    "semacquire; sleep; sync.Cond.Wait; sync.Mutex.Lock; sync.RWMutex.RLock; sync.RWMutex.Lock; "
    "sync.WaitGroup.Wait; trace reader (blocked); wait for GC cycle; GC worker (idle); "
    "GC worker (active); preempted; debug call; GC mark termination; stopping the world; "
    "flushing proc caches; trace goroutine status; trace proc status; page trace flush; coroutine; "
    "GC weak to strong wait; synctest.Run; synctest.Wait; chan receive (synctest); chan send (synctest); "
    "select (synctest)"
)
_REASONS_1_25 = (
    "-; GC assist marking; IO wait; chan receive (nil chan); chan send (nil chan); dumping heap; "
    "garbage collection; garbage collection scan; panicwait; select; select (no cases); GC assist wait; "
    "GC sweep wait; GC scavenge wait; chan receive; chan send; finalizer wait; force gc (idle); "
    "GOMAXPROCS updater (idle); semacquire; sleep; sync.Cond.Wait; sync.Mutex.Lock; sync.RWMutex.RLock; "
    "sync.RWMutex.Lock; sync.WaitGroup.Wait; trace reader (blocked); wait for GC cycle; GC worker (idle); "
    "GC worker (active); preempted; debug call; GC mark termination; stopping the world; "
    "flushing proc caches; trace goroutine status; trace proc status; page trace flush; coroutine; "
    "GC weak to strong wait; synctest.Run; synctest.Wait; chan receive (durable); chan send (durable); "
    "select (durable); sync.WaitGroup.Wait (durable); cleanup wait"
)
_REASONS_1_26 = (
    "-; GC assist marking; IO wait; dumping heap; garbage collection; garbage collection scan; panicwait; "
    "GC assist wait; GC sweep wait; GC scavenge wait; finalizer wait; force gc (idle); "
    "GOMAXPROCS updater (idle); semacquire; sleep; chan receive (nil chan); chan send (nil chan); "
    "select (no cases); select; chan receive; chan send; sync.Cond.Wait; sync.Mutex.Lock; "
    "sync.RWMutex.RLock; sync.RWMutex.Lock; sync.WaitGroup.Wait; trace reader (blocked); "
    "wait for GC cycle; GC worker (idle); GC worker (active); preempted; debug call; GC mark termination; "
    "stopping the world; flushing proc caches; trace goroutine status; trace proc status; "
    "page trace flush; coroutine; GC weak to strong wait; synctest.Run; synctest.Wait; "
    "chan receive (durable); chan send (durable); select (durable); sync.WaitGroup.Wait (durable); "
    "cleanup wait"
)

_JOINED = {
    "1.21": _REASONS_1_21,
    "1.22": _REASONS_1_22,
    "1.23": _REASONS_1_23,
    "1.24": _REASONS_1_24,
    "1.25": _REASONS_1_25,
    "1.26": _REASONS_1_26,
    "1.27": _REASONS_1_26,
}

WAIT_REASONS: dict[str, tuple[str, ...]] = {
    line: tuple("" if reason == "-" else reason for reason in joined.split("; ")) for line, joined in _JOINED.items()
}
"""Words of each wait reason by Go line; a reason's number is its index."""

KNOWN = tuple(OFFSETS)
"""Go lines that the tables speak for, oldest first."""
