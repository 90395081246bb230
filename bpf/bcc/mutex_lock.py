"""``kprobe:mutex_lock`` in processes of one name: the article's way to see contention of sync.Mutex (claim 2.4-c).

    python3 mutex_lock.py NAME

Prints, beside what all tools print: ``user_addresses``, hits whose lock lies in user space (a sync.Mutex would), and
``stacks``, the most frequent stacks of the hits (user frames as addresses, kernel frames as names).
"""

from __future__ import annotations

import sys
from typing import Any

from _watch import watch  # type: ignore[import-not-found]

Compiled = Any
"""bcc.BPF, which has no types."""

TOP = 20
"""Stacks that are printed, most frequent first."""

PROGRAM = r"""
struct stack {
    s32 user;
    s32 kernel;
};

BPF_STACK_TRACE(frames, 4096);
BPF_HASH(stacks, struct stack, u64, 4096);
BPF_PERCPU_ARRAY(user_addresses, u64, 1);

int on_mutex_lock(struct pt_regs *ctx)
{
    u64 lock = PT_REGS_PARM1(ctx), zero = 0, *count;
    struct stack stack = {};
    int first = 0;

    add(TOTAL);
    if (!is_target())
        return 0;
    hit(lock);
    /* The upper half of the address space is the kernel's (Documentation/arch/x86/x86_64/mm.rst). */
    if (!(lock >> 63)) {
        count = user_addresses.lookup(&first);
        if (count)
            __sync_fetch_and_add(count, 1);
    }
    stack.user = frames.get_stackid(ctx, BPF_F_USER_STACK);
    stack.kernel = frames.get_stackid(ctx, 0);
    /* A thread that is ending has no user stack any more (-EFAULT): nothing is lost by that. */
    if ((stack.user < 0 && stack.user != -14) || stack.kernel < 0)
        add(LOST_OTHER);
    count = stacks.lookup_or_try_init(&stack, &zero);
    if (count)
        __sync_fetch_and_add(count, 1);
    else
        add(LOST_OTHER);
    return 0;
}
"""


def attach(bpf: Compiled) -> None:
    """Attach to the kernel's own mutex_lock."""
    bpf.attach_kprobe(event="mutex_lock", fn_name="on_mutex_lock")


def figures(bpf: Compiled) -> dict[str, Any]:
    """Read where the hits came from."""
    frames = bpf["frames"]

    def walk(number: int) -> list[int]:
        return list(frames.walk(number)) if number >= 0 else []

    counted = sorted(bpf["stacks"].items(), key=lambda item: -item[1].value)
    return {
        "user_addresses": int(bpf["user_addresses"].sum(0).value),
        "stacks": [
            {
                "count": count.value,
                "user": [hex(address) for address in walk(stack.user)],
                "kernel": [bpf.ksym(address).decode("utf-8", "replace") for address in walk(stack.kernel)],
            }
            for stack, count in counted[:TOP]
        ],
    }


if __name__ == "__main__":
    sys.exit(watch("mutex_lock", PROGRAM, attach, figures))
