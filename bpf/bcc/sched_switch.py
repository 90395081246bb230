"""``sched:sched_switch`` in threads of one name: the article's way to see goroutines park (claims 2.1-c to e).

    python3 sched_switch.py NAME

Prints, beside what all tools print: ``left``, threads that left a CPU as rows of ``[segment, prev_state, system call
that they were in (-1: none), number]``; and by segment ``idle`` (such a thread was next where prev_pid was 0), ``ran``
(the next that this thread did was to return from its system call), ``again`` (it left the CPU before it did) and
``to_idle`` (it left, and the CPU had nothing else to run). The segment is what the workload says with a getpriority
that asks for nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from _watch import watch  # type: ignore[import-not-found]

Compiled = Any
"""bcc.BPF, which has no types."""

TABLES = ("idle", "ran", "again", "to_idle")

PROGRAM = r"""
#define SAYS_SEGMENT 0x676d70

struct left {
    u64 segment;
    u64 state;
    s64 call;
};

BPF_ARRAY(segment, u64, 1);
BPF_HASH(left, struct left, u64, 8192);
BPF_HASH(call, u32, s64, 4096);
BPF_HASH(woken, u32, u64, 4096);
BPF_HASH(idle, u64, u64, 1024);
BPF_HASH(ran, u64, u64, 1024);
BPF_HASH(again, u64, u64, 1024);
BPF_HASH(to_idle, u64, u64, 1024);

static inline u64 now_in(void)
{
    int zero = 0;
    u64 *id = segment.lookup(&zero);
    return id ? *id : 0;
}

static inline void one_more(u64 *count)
{
    if (count)
        __sync_fetch_and_add(count, 1);
    else
        add(LOST_OTHER);
}

/* A name ends with its first zero; what follows in the tracepoint's field need not be zero. */
static inline int is_named(const char *comm)
{
    u64 name[2] = {};
    bpf_probe_read_kernel_str(name, sizeof(name), comm);
    return is_wanted(name);
}

TRACEPOINT_PROBE(syscalls, sys_enter_getpriority)
{
    int zero = 0;
    u64 id = args->who;
    if (args->which == SAYS_SEGMENT)
        segment.update(&zero, &id);
    return 0;
}

TRACEPOINT_PROBE(raw_syscalls, sys_enter)
{
    u32 tid = bpf_get_current_pid_tgid();
    s64 id = args->id;
    if (is_target() && call.update(&tid, &id))
        add(LOST_OTHER);
    return 0;
}

TRACEPOINT_PROBE(raw_syscalls, sys_exit)
{
    u32 tid = bpf_get_current_pid_tgid();
    u64 id = now_in(), zero = 0;
    if (!is_target())
        return 0;
    if (woken.lookup(&tid)) {
        one_more(ran.lookup_or_try_init(&id, &zero));
        woken.delete(&tid);
    }
    call.delete(&tid);
    return 0;
}

TRACEPOINT_PROBE(sched, sched_switch)
{
    u32 prev = args->prev_pid, next = args->next_pid;
    u64 id = now_in(), zero = 0, one = 1;
    struct left key = {};
    s64 *inside;

    add(TOTAL);
    if (is_named(args->prev_comm)) {
        hit(0);
        inside = call.lookup(&prev);
        key.segment = id;
        key.state = args->prev_state;
        key.call = inside ? *inside : -1;
        one_more(left.lookup_or_try_init(&key, &zero));
        if (woken.lookup(&prev)) {
            one_more(again.lookup_or_try_init(&id, &zero));
            woken.delete(&prev);
        }
        if (!next)
            one_more(to_idle.lookup_or_try_init(&id, &zero));
    }
    if (is_named(args->next_comm) && !prev) {
        one_more(idle.lookup_or_try_init(&id, &zero));
        if (woken.update(&next, &one))
            add(LOST_OTHER);
    }
    return 0;
}
"""


def attach(bpf: Compiled) -> None:
    """Do nothing: bcc attaches tracepoints by their names."""


def figures(bpf: Compiled) -> dict[str, Any]:
    """Read who left a CPU, and who was next where it was idle."""
    rows = [[key.segment, key.state, key.call, count.value] for key, count in bpf["left"].items()]
    by_segment = {name: {str(key.value): count.value for key, count in bpf[name].items()} for name in TABLES}
    return {"left": sorted(rows), **by_segment}


if __name__ == "__main__":
    sys.exit(watch("sched_switch", PROGRAM, attach, figures))
