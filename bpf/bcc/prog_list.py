"""What ``bpftool prog list`` says of programs that ran, never ran, and cannot run (claim 4.1-b).

    python3 prog_list.py NAME

Three programs of the same instructions: ``listed_running`` is attached to the futex system call, ``listed_waiting`` to
one that nothing here calls, ``listed_idle`` to nothing. All three are asked for when the workload has run. Prints
``programs``: each with ``attached``, ``hits`` (its own count), ``listed`` and ``words`` (its entry in the list), and
``counted``, its entry in a second list that is taken while the kernel keeps statistics (``kernel.bpf_stats_enabled``,
off by default).
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from _watch import watch  # type: ignore[import-not-found]

Compiled = Any
"""bcc.BPF, which has no types."""

STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")

CALLS = 10
"""Futex calls that this tool makes while statistics are kept, so that the running program has something to count."""

SYS_FUTEX, FUTEX_WAKE = 202, 1
"""Of x86-64: ``arch/x86/entry/syscalls/syscall_64.tbl``, ``include/uapi/linux/futex.h``."""

CALLED = {"listed_running": "futex", "listed_waiting": "swapoff", "listed_idle": None}
"""Name of each program (at most 15 bytes) and the system call that it is attached to."""

FIRST = 10
"""Number of the first program in the map ``runs``."""

PROGRAM = r"""
/* Numbered from 10 on: other constants of the program are smaller, and a compiler may share those. */
BPF_PERCPU_ARRAY(runs, u64, 13);

static inline int ran(int which)
{
    u64 *count = runs.lookup(&which);
    if (count)
        __sync_fetch_and_add(count, 1);
    add(TOTAL);
    if (is_target())
        hit(0);
    return 0;
}

int listed_running(struct pt_regs *ctx) { return ran(10); }
int listed_waiting(struct pt_regs *ctx) { return ran(11); }
int listed_idle(struct pt_regs *ctx) { return ran(12); }
"""


def attach(bpf: Compiled) -> None:
    """Attach the first two programs, and load the third."""
    for name, call in CALLED.items():
        if call is None:
            bpf.load_func(name, bpf.KPROBE)
        else:
            bpf.attach_kprobe(event=bpf.get_syscall_fnname(call), fn_name=name)


def listed() -> dict[str, dict[str, Any]]:
    """Return the entries of the three programs in ``bpftool prog list``, by name."""
    done = subprocess.run(["bpftool", "--json", "prog", "list"], capture_output=True, check=True, timeout=20)
    return {entry["name"]: entry for entry in json.loads(done.stdout) if entry.get("name") in CALLED}


def figures(bpf: Compiled) -> dict[str, Any]:
    """Ask for the list, once as it is and once while the kernel counts."""
    plain = listed()
    hits = [int(bpf["runs"].sum(which).value) for which in range(FIRST, FIRST + len(CALLED))]
    before = STATISTICS.read_text()
    STATISTICS.write_text("1")
    try:
        word = ctypes.c_int(0)
        for _ in range(CALLS):
            ctypes.CDLL(None).syscall(SYS_FUTEX, ctypes.byref(word), FUTEX_WAKE, 1, None, None, 0)
        counted = listed()
    finally:
        STATISTICS.write_text(before)
    return {
        "statistics": before.strip(),
        "programs": [
            {
                "name": name,
                "attached": call is not None,
                "hits": hits[which],
                "listed": name in plain,
                "words": plain.get(name, {}),
                "counted": counted.get(name, {}),
            }
            for which, (name, call) in enumerate(CALLED.items())
        ],
    }


if __name__ == "__main__":
    sys.exit(watch("prog_list", PROGRAM, attach, figures))
