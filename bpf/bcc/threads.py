"""``sched:sched_switch``, ``task:task_newtask`` in threads of one name: a Go program from the kernel's side (2.3-b).

    python3 threads.py NAME

Prints, beside what all tools print: ``states``, how threads of that name left a CPU, by prev_state (0 and 256: they
could have gone on); ``seen``, the same by thread; ``made``, threads that were created.
"""

from __future__ import annotations

import sys
from typing import Any

from _watch import watch  # type: ignore[import-not-found]

Compiled = Any
"""bcc.BPF, which has no types."""

PROGRAM = r"""
BPF_HASH(states, u64, u64, 256);
BPF_HASH(seen, u32, u64, 8192);
BPF_PERCPU_ARRAY(made, u64, 1);

static inline void one_more(u64 *count)
{
    if (count)
        __sync_fetch_and_add(count, 1);
    else
        add(LOST_OTHER);
}

TRACEPOINT_PROBE(sched, sched_switch)
{
    u64 state = args->prev_state, zero = 0;
    u32 tid = args->prev_pid;

    add(TOTAL);
    /* The thread that leaves is still the current one. */
    if (!is_target())
        return 0;
    hit(0);
    one_more(states.lookup_or_try_init(&state, &zero));
    one_more(seen.lookup_or_try_init(&tid, &zero));
    return 0;
}

TRACEPOINT_PROBE(task, task_newtask)
{
    int first = 0;

    if (is_target())
        one_more(made.lookup(&first));
    return 0;
}
"""


def attach(bpf: Compiled) -> None:
    """Do nothing: bcc attaches tracepoints by their names."""


def figures(bpf: Compiled) -> dict[str, Any]:
    """Read who left a CPU, and how."""
    tables = {name: {str(key.value): count.value for key, count in bpf[name].items()} for name in ("states", "seen")}
    return tables | {"made": int(bpf["made"].sum(0).value)}


if __name__ == "__main__":
    sys.exit(watch("threads", PROGRAM, attach, figures))
