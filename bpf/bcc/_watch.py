"""What the BCC tools share. Runs in the machine, with its own python3 and bcc; needs nothing else of this repository.

A tool says READY on stderr when it is attached, counts until SIGINT, and leaves one JSON document on stdout:
``hits`` (in processes of the given name), ``total`` (in the whole machine), ``addresses`` (hits by what the call was
about), ``processes`` (hits by process id), ``losses``, and figures of its own. Where the kernel lets nothing be
attached the document has ``error`` with its words, and no figures: zero would look like an observation.
"""

from __future__ import annotations

import json
import signal
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

Compiled = Any
"""bcc.BPF, which has no types."""

COMM_LENGTH = 16
"""Bytes of a thread's name with its final zero, TASK_COMM_LEN."""

COMMON = r"""
#include <uapi/linux/ptrace.h>

enum { TOTAL, HITS, LOST_ADDRESS, LOST_PROCESS, LOST_OTHER, COUNTS };

BPF_PERCPU_ARRAY(counts, u64, COUNTS);
BPF_HASH(addresses, u64, u64, 8192);
BPF_HASH(processes, u32, u64, 1024);

static inline void add(int what)
{
    u64 *count = counts.lookup(&what);
    if (count)
        __sync_fetch_and_add(count, 1);
}

static inline int is_wanted(const u64 *name)
{
    return name[0] == WANTED_LOW && name[1] == WANTED_HIGH;
}

/* The name is set before the program's first instruction (execve), and its threads inherit it. */
static inline int is_target(void)
{
    u64 name[2] = {};
    bpf_get_current_comm(name, sizeof(name));
    return is_wanted(name);
}

/* Counts a hit of the target under what it was about. */
static inline void hit(u64 address)
{
    u64 zero = 0, *count;
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    add(HITS);
    count = addresses.lookup_or_try_init(&address, &zero);
    if (count)
        __sync_fetch_and_add(count, 1);
    else
        add(LOST_ADDRESS);
    count = processes.lookup_or_try_init(&tgid, &zero);
    if (count)
        __sync_fetch_and_add(count, 1);
    else
        add(LOST_PROCESS);
}
"""

TOTAL, HITS, LOST_ADDRESS, LOST_PROCESS, LOST_OTHER = range(5)


def watch(
    tool: str, program: str, attach: Callable[[Compiled], None], figures: Callable[[Compiled], dict[str, Any]]
) -> int:
    """Compile ``program``, attach it, count until SIGINT, print the document; return the exit status.

    :param program: C text after :data:`COMMON`. :param attach: attaches what does not attach itself.
    :param figures: reads the tool's own figures.
    """
    if len(sys.argv) != 2 or not 0 < len(sys.argv[1].encode()) < COMM_LENGTH:
        print(f"usage: {tool}.py NAME (of the processes to watch, at most 15 bytes)", file=sys.stderr)
        return 2
    low, high = struct.unpack("<QQ", sys.argv[1].encode().ljust(COMM_LENGTH, b"\0"))
    # From here on a SIGINT ends the counting and not this program, whenever it comes.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    document: dict[str, Any] = {"schema": 1, "tool": f"bcc/{tool}", "target": sys.argv[1]}
    try:
        from bcc import BPF  # type: ignore[import-not-found]

        text = COMMON.replace("WANTED_LOW", f"{low}ULL").replace("WANTED_HIGH", f"{high}ULL") + program
        bpf = BPF(text=text)
        attach(bpf)
    except Exception as error:  # bcc raises Exception itself
        document["error"] = str(error)
        print(json.dumps(document))
        return 1
    print("READY", file=sys.stderr, flush=True)
    began = time.monotonic()
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    document["seconds"] = time.monotonic() - began
    document |= _counts(bpf) | figures(bpf)
    print(json.dumps(document))
    return 0


def _counts(bpf: Compiled) -> dict[str, Any]:
    def count(what: int) -> int:
        return int(bpf["counts"].sum(what).value)

    return {
        "total": count(TOTAL),
        "hits": count(HITS),
        "addresses": {hex(key.value): value.value for key, value in bpf["addresses"].items()},
        "processes": {str(key.value): value.value for key, value in bpf["processes"].items()},
        "losses": {
            "address": count(LOST_ADDRESS),
            "process": count(LOST_PROCESS),
            "other": count(LOST_OTHER),
        },
    }
