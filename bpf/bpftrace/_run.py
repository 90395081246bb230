"""Run one of the bpftrace scripts beside this file until SIGINT, and print what its maps hold as one JSON document.

    python3 _run.py SCRIPT.bt NAME

bpftrace's own JSON is a line per map; and what it says before attaching is no sign that it has attached. So the scripts
print ``ready`` at their first hit, this program makes such hits (a write to a pipe takes the kernel's mutex, a futex
call is one, a getpriority), and says READY on stderr when it has seen the word.

Runs in the machine, with its own python3. The document has the same keys as that of the BCC tools: ``hits``, ``total``,
``addresses``, ``processes``; ``error`` with bpftrace's words where nothing could be attached.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

TOP = 20
"""Stacks that are printed, most frequent first."""


SYS_FUTEX = 202
FUTEX_WAKE = 1
NUDGE_SECONDS = 0.05
LOOK_SECONDS = 0.05
KINDS = {0: "wait", 9: "wait", 1: "wake", 10: "wake"}
"""Futex commands (FUTEX_WAIT, WAIT_BITSET, WAKE, WAKE_BITSET) that the document names."""

NOTHING_THERE = -2
"""-ENOENT, include/uapi/asm-generic/errno-base.h."""

Table = dict[str, int]
Bucket = dict[str, int]


def loses(error: dict[str, Any]) -> bool:
    """Return whether a failed helper lost something: a thread that is not waiting has no entry to find or delete."""
    absent = error["helper"] == "map_delete_elem" and error.get("retcode") == NOTHING_THERE
    return error["helper"] != "map_lookup_elem" and not absent


def nudge(stop: threading.Event) -> None:
    """Cause hits until the script has seen one."""
    libc = ctypes.CDLL(None, use_errno=True)
    word = ctypes.c_uint32(0)
    reader, writer = os.pipe()
    while not stop.wait(NUDGE_SECONDS):
        os.write(writer, b".")
        os.read(reader, 1)
        libc.syscall(SYS_FUTEX, ctypes.byref(word), FUTEX_WAKE, 1, None, None, 0)
        os.getpriority(os.PRIO_PROCESS, 0)
    os.close(reader)
    os.close(writer)


def added_up(maps: dict[str, Any]) -> dict[str, Any]:
    """Return the maps with the CPU taken off their keys: counts of one key on several CPUs are added.

    The scripts put the CPU first in the key of every count. bpftrace looks a key up and adds it if it is not there, but
    only if it is still not there (BPF_NOEXIST): of two CPUs that meet a new key at once, one is refused, and its count
    is lost. Histograms are lists of buckets, and stay a list; :func:`heat` adds equal buckets.
    """
    result: dict[str, Any] = {}
    for name, table in maps.items():
        if not isinstance(table, dict):
            result[name] = table
            continue
        sums: dict[str, Any] = {}
        for key, value in table.items():
            rest = key.partition(",")[2]
            sums[rest] = sums[rest] + value if rest in sums else value
        result[name] = sums
    return result


def document(tool: str, target: str, maps: dict[str, Any], failed: int) -> dict[str, Any]:
    """Return what the maps of a script say, in the shape that the BCC tools have.

    :param maps: by name with its ``@``, their keys without a CPU; bpftrace leaves out a map that was never written to.
    :param failed: calls of helpers, such as updates of a map, that bpftrace reported as failed.
    """
    result: dict[str, Any] = {
        "schema": 1,
        "tool": f"bpftrace/{tool}",
        "target": target,
        "total": maps.get("@total", 0),
        "hits": maps.get("@hits", 0),
        # bpftrace prints 64-bit keys as signed numbers.
        "addresses": {hex(int(key) & (2**64 - 1)): count for key, count in maps.get("@addresses", {}).items()},
        "processes": maps.get("@processes", {}),
        "losses": {"helper": failed},
    }
    if tool == "sched_switch":
        result |= switches(maps)
    elif tool == "threads":
        result |= {name: maps.get(f"@{name}", {}) for name in ("states", "seen")} | {"made": maps.get("@made", 0)}
    elif tool == "futex":
        result |= {"operations": operations(maps.get("@operations", {})), "heat": heat(maps.get("@heat", {}))}
    else:
        result["stacks"] = stacks(maps.get("@stacks", {}))
    return result


def operations(table: Table) -> Table:
    """Return calls by kind."""
    named = dict.fromkeys(("wait", "wake", "other"), 0)
    for command, count in table.items():
        named[KINDS.get(int(command), "other")] += count
    return named


def heat(table: dict[str, list[Bucket]]) -> list[list[int]]:
    """Return the waits as rows of 100 ms since the first, power of two of nanoseconds, number."""
    first = min(map(int, table), default=0)
    cells: dict[tuple[int, int], int] = {}
    for slot, buckets in table.items():
        for bucket in buckets:
            cell = (int(slot) - first, max(bucket["min"], 1).bit_length() - 1)
            cells[cell] = cells.get(cell, 0) + bucket["count"]
    return [[*cell, count] for cell, count in sorted(cells.items()) if count]


def switches(maps: dict[str, Any]) -> dict[str, Any]:
    """Return who left a CPU as rows of segment, prev_state, system call (-1: in none), number; the rest by segment."""
    rows = [[*map(int, key.split(",")), count] for key, count in maps.get("@left", {}).items()]
    names = ("idle", "ran", "again", "to_idle")
    return {
        "left": sorted([segment, state, call - 1, count] for segment, state, call, count in rows),
        **{name: maps.get(f"@{name}", {}) for name in names},
    }


def stacks(table: Table) -> list[dict[str, Any]]:
    """Return the most frequent stacks: kernel frames, then the user's, one a line in bpftrace's own key."""
    top = sorted(table.items(), key=lambda item: -item[1])[:TOP]
    return [
        {
            "count": count,
            "frames": [line.strip(" ,") for line in key.replace("\\n", "\n").split("\n") if line.strip(" ,")],
        }
        for key, count in top
    ]


def lines(child: subprocess.Popen[bytes], written: TextIO) -> Iterator[str]:
    """Yield each line that bpftrace writes to a file, as it comes, until it has ended."""
    rest = ""
    while True:
        ended = child.poll() is not None
        *whole, rest = (rest + written.read()).split("\n")
        yield from whole
        if ended:
            return
        time.sleep(LOOK_SECONDS)


def read(said: Iterator[str], stop: threading.Event) -> tuple[dict[str, Any], int]:
    """Collect the maps and the failures of helpers that bpftrace prints; say READY at the script's word."""
    maps: dict[str, Any] = {}
    failed = 0
    for line in said:
        if not line.strip():
            continue  # one is printed at the end
        word = json.loads(line)
        if word["type"] == "printf" and word["data"].strip() == "ready" and not stop.is_set():
            stop.set()
            print("READY", file=sys.stderr, flush=True)
        elif word["type"] in ("map", "hist"):
            maps |= word["data"]
        elif word["type"] == "helper_error" and loses(word):
            failed += 1
            print(line.strip(), file=sys.stderr)
    return added_up(maps), failed


def main() -> int:
    """Run the script; return the exit status."""
    if len(sys.argv) != 3:
        print("usage: _run.py SCRIPT.bt NAME", file=sys.stderr)
        return 2
    script, target = Path(sys.argv[1]), sys.argv[2]
    stop = threading.Event()
    # Not into a pipe: a SIGINT that finds bpftrace waiting for a full one fails its write (EINTR), its std::cout goes
    # bad, and the maps are never printed, with status 0 (seen with 0.23). A write to a file waits for no reader.
    with tempfile.TemporaryFile("w+") as words, tempfile.NamedTemporaryFile() as out, Path(out.name).open() as written:
        command = ["bpftrace", "-q", "-k", "-f", "json", "-B", "line", str(script), target]
        # A session of its own: SIGINT reaches it once, from here.
        child = subprocess.Popen(command, stdout=out, stderr=words, start_new_session=True)

        def end(*_: object) -> None:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGINT)

        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGTERM, end)
        threading.Thread(target=nudge, args=(stop,), daemon=True).start()
        maps, failures = read(lines(child, written), stop)
        status = child.wait()
        ready = stop.is_set()
        stop.set()
        words.seek(0)
        said = words.read()
    # Every script counts @total before it says that it is ready: without it, the maps were not printed.
    if not ready or "@total" not in maps:
        failed = {"schema": 1, "tool": f"bpftrace/{script.stem}", "target": target}
        print(json.dumps(failed | {"error": said.strip() or f"bpftrace ended with status {status}"}))
        return 1
    sys.stderr.write(said)
    print(json.dumps(document(script.stem, target, maps, failures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
