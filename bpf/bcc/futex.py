"""``syscalls:sys_enter_futex`` in processes of one name: the article's heat map of contention (claim 2.4-d).

    python3 futex.py NAME

Prints, beside what all tools print: ``operations`` (calls by kind), and ``heat``, the waits as rows of ``[100 ms since
the first call, power of two of nanoseconds waited, number]``. ``addresses`` are the words that the calls name.
"""

from __future__ import annotations

import sys
from typing import Any

from _watch import watch  # type: ignore[import-not-found]

Compiled = Any
"""bcc.BPF, which has no types."""

KINDS = ("wait", "wake", "other")

PROGRAM = r"""
#define COMMAND 127 /* without FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME */

struct cell {
    u32 slot;
    u32 power;
};

BPF_PERCPU_ARRAY(operations, u64, 3);
BPF_ARRAY(first, u64, 1);
BPF_HASH(started, u32, u64, 4096);
BPF_HASH(heat, struct cell, u64, 16384);

TRACEPOINT_PROBE(syscalls, sys_enter_futex)
{
    u32 command = args->op & COMMAND, tid = bpf_get_current_pid_tgid();
    u64 now = bpf_ktime_get_ns(), *count, *begin;
    int kind = 2, zero = 0;

    add(TOTAL);
    if (!is_target())
        return 0;
    hit((u64)args->uaddr);
    begin = first.lookup(&zero);
    if (begin && !*begin)
        *begin = now;
    if (command == 0 || command == 9) /* FUTEX_WAIT, FUTEX_WAIT_BITSET */
        kind = 0;
    else if (command == 1 || command == 10) /* FUTEX_WAKE, FUTEX_WAKE_BITSET */
        kind = 1;
    count = operations.lookup(&kind);
    if (count)
        __sync_fetch_and_add(count, 1);
    if (kind == 0 && started.update(&tid, &now))
        add(LOST_OTHER);
    return 0;
}

TRACEPOINT_PROBE(syscalls, sys_exit_futex)
{
    u32 tid = bpf_get_current_pid_tgid();
    u64 *start = started.lookup(&tid), now = bpf_ktime_get_ns(), none = 0, *begin, *count;
    struct cell cell = {};
    int zero = 0;

    if (!start)
        return 0;
    begin = first.lookup(&zero);
    if (begin)
        cell.slot = (*start - *begin) / 100000000;
    cell.power = bpf_log2l(now - *start);
    started.delete(&tid);
    count = heat.lookup_or_try_init(&cell, &none);
    if (count)
        __sync_fetch_and_add(count, 1);
    else
        add(LOST_OTHER);
    return 0;
}
"""


def attach(bpf: Compiled) -> None:
    """Do nothing: bcc attaches tracepoints by their names."""


def figures(bpf: Compiled) -> dict[str, Any]:
    """Read kinds of calls and the heat map."""
    cells = sorted((cell.slot, cell.power, count.value) for cell, count in bpf["heat"].items())
    return {
        "operations": {name: int(bpf["operations"].sum(kind).value) for kind, name in enumerate(KINDS)},
        # bcc's log2 of x is one more than the power of two that x reaches.
        "heat": [[slot, max(power - 1, 0), count] for slot, power, count in cells],
    }


if __name__ == "__main__":
    sys.exit(watch("futex", PROGRAM, attach, figures))
