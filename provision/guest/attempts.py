"""Try in the machine what a lab asks for, and say what came of it in the words of whoever refused.

    attempts.py WORKLOAD < requests.json > results.json

Requests are a list of ``{"id", "kind", "parts", "offset"}``, results a list of ``{"id", "done", "words", "facts",
"untried"}`` (``go_labs.evidence.AttemptResult``). Runs as root. Nothing stays: each probe is taken away again, and a
tracepoint that somebody else has enabled is left alone. An attempt that could not be made is told from one that was
refused.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

TRACING = Path("/sys/kernel/tracing")
KALLSYMS = Path("/proc/kallsyms")

GROUP = f"kmlab_{os.getpid()}"
"""Group of the probes in tracefs: this process's own."""

LONGEST = 1000
"""Characters of words that are kept."""

BPFTOOL_SECONDS = 10
"""Seconds that bpftool gets; it takes 0.02 s in an emulated machine."""

BREAKPOINT = 0xCC
"""int3, which the kernel puts where a uprobe is."""

SYS_BPF, BPF_PROG_LOAD, BPF_PROG_TYPE_KPROBE = 321, 5, 2
"""Of x86-64 and ``linux/bpf.h``; uprobes take programs of type kprobe."""

RETURN_0 = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
"""The BPF program ``r0 = 0; exit``."""

NO_ANSWER = frozenset({errno.EEXIST, errno.ENOMEM, errno.EINTR, errno.EAGAIN, errno.EACCES, errno.EPERM, errno.EROFS})
"""Errors that say nothing of what was asked for: the attempt was not made."""

Facts = dict[str, int | str | list[str]]


class Untried(Exception):
    """An attempt could not be made."""


class Result(NamedTuple):
    """What came of an attempt; facts are numbers, words or lists of words."""

    done: bool
    words: str
    facts: Facts


def write(path: Path, text: str) -> None:
    """Append ``text`` to a file of tracefs in one write, as the kernel wants it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def logged(log: str, command: str) -> str:
    """Return what ``error_log`` (Linux 5.2) says last of ``command``, without its time; "" where it says nothing.

    An entry is ``[   17.067956] trace_kprobe: error: WORDS``, then ``  Command: COMMAND``, then a caret.
    """
    lines = log.splitlines()
    for line, after in reversed(list(pairwise(lines))):
        if after.strip() == f"Command: {command}":
            return re.sub(r"^\[[\s\d.]*\]\s*", "", line)
    return ""


def refused(error: OSError, command: str = "") -> Result:
    """Return the result of a write that the kernel refused, with its own words where it has more than a number.

    :raises Untried: the error says nothing of what was asked for.
    """
    if error.errno in NO_ANSWER:
        raise Untried(str(error)) from error
    number = error.errno or 0
    words = ""
    if command:
        with suppress(OSError):
            words = logged((TRACING / "error_log").read_text("utf-8", "replace"), command)
    said = os.strerror(number)
    return Result(False, f"{said}; {words}" if words else said, {"errno": errno.errorcode.get(number, str(number))})


@contextmanager
def probe(events: str, name: str, definition: str) -> Iterator[Path]:
    """Define a probe in the file ``events`` of tracefs and give its folder; it is disabled and removed afterwards."""
    path = TRACING / events
    write(path, definition)
    folder = TRACING / "events" / GROUP / name
    try:
        yield folder
    finally:
        with suppress(OSError):
            write(folder / "enable", "0")
        try:
            write(path, f"-:{GROUP}/{name}")
        except OSError as error:
            raise Untried(f"the probe could not be taken away again: {error}") from error


def needs(path: Path) -> None:
    """Refuse to judge by a file of tracefs that is not there."""
    if not path.exists():
        raise Untried(f"{path} is not there")


def kprobe(name: str, symbol: str) -> Result:
    """Attach a kprobe to ``symbol``."""
    needs(TRACING / "kprobe_events")
    command = f"p:{GROUP}/{name} {symbol}"
    try:
        with probe("kprobe_events", name, command) as folder:
            write(folder / "enable", "1")
    except OSError as error:
        return refused(error, command)
    return Result(True, "", {})


def uprobe(name: str, workload: Path, offset: int) -> Result:
    """Attach a uprobe at ``offset`` of the workload, and look for the breakpoint in a mapping of it."""
    needs(TRACING / "uprobe_events")
    command = f"p:{GROUP}/{name} {workload}:{offset:#x}"
    # Where nobody has mapped the file, the kernel takes any offset; the mapping makes it look at the instruction.
    with (
        workload.open("rb") as file,
        mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC) as code,
    ):
        facts: Facts = {"offset": f"{offset:#x}"}
        if code[offset] == BREAKPOINT:
            raise Untried("there is a breakpoint already")
        try:
            with probe("uprobe_events", name, command) as folder:
                write(folder / "enable", "1")
                placed = code[offset] == BREAKPOINT
        except OSError as error:
            answer = refused(error, command)
            return answer._replace(facts=facts | answer.facts)
        return Result(placed, "" if placed else "the kernel took it and placed no breakpoint", facts)


def tracepoint(category: str, name: str) -> Result:
    """Enable a tracepoint and disable it again."""
    needs(TRACING / "events")
    folder = TRACING / "events" / category
    switch = folder / name / "enable"
    with suppress(OSError):
        if switch.read_text().strip() != "0":
            return Result(True, "it was enabled already", {})
    try:
        write(switch, "1")
        write(switch, "0")
    except OSError as error:
        answer = refused(error)
        there = sum(each.is_dir() for each in folder.iterdir()) if folder.is_dir() else 0
        return Result(False, f"{answer.words}: {switch}", answer.facts | {"tracepoints_in_category": there})
    return Result(True, "", {})


def fields_of(text: str) -> list[str]:
    """Return the names of the fields in a tracepoint's ``format``: ``field:char prev_comm[16];``."""
    return re.findall(r"^\s*field:[^;]*?(\w+)(?:\[[^\]]*\])*;", text, re.MULTILINE)


def field(category: str, name: str, wanted: str) -> Result:
    """Look for a field in a tracepoint's format."""
    path = TRACING / "events" / category / name / "format"
    needs(path)
    found = [each for each in fields_of(path.read_text("utf-8", "replace")) if not each.startswith("common_")]
    done = wanted in found
    return Result(done, "" if done else f"its fields are {', '.join(found)}", {"fields": found})


@cache
def symbols() -> bytes:
    """Return the kernel's symbols; reading them takes 0.1 to 0.4 s in an emulated machine."""
    return KALLSYMS.read_bytes()


def kallsyms(symbol: str) -> Result:
    """Look for a symbol among the kernel's."""
    data = symbols()
    count = data.count(b"\n")
    if not count:
        raise Untried(f"{KALLSYMS} has no symbols for us")
    # "ffffffff81000000 T name", and a tab and the module behind it where it is a module's.
    done = any(b" " + symbol.encode() + end in data for end in (b"\n", b"\t"))
    return Result(done, "" if done else f"not among {count} symbols", {"symbols": count})


def load_trivial() -> int:
    """Load a BPF program called ``trivial`` that does nothing, and return its descriptor; it is gone with us."""
    import ctypes  # here and below: an import costs an emulated machine more than most attempts

    libc = ctypes.CDLL(None, use_errno=True)
    code, licence = ctypes.create_string_buffer(RETURN_0), ctypes.create_string_buffer(b"GPL")
    # union bpf_attr: prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags, name.
    packed = struct.pack(
        "<IIQQIIQII16s", BPF_PROG_TYPE_KPROBE, 2, ctypes.addressof(code), ctypes.addressof(licence),
        0, 0, 0, 0, 0, b"trivial",
    )  # fmt: skip
    attributes = ctypes.create_string_buffer(packed, len(packed))
    descriptor: int = libc.syscall(SYS_BPF, BPF_PROG_LOAD, attributes, len(packed))
    if descriptor < 0:
        raise Untried(f"no BPF program could be loaded for it: {os.strerror(ctypes.get_errno())}")
    return descriptor


def bpftool(words: list[str]) -> Result:
    """Run bpftool while program ``trivial`` is loaded."""
    import subprocess

    program = load_trivial()
    try:
        done = subprocess.run(
            ["bpftool", *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=BPFTOOL_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise Untried("the machine has no bpftool") from error
    except subprocess.TimeoutExpired as error:
        raise Untried(f"bpftool was not over within {BPFTOOL_SECONDS} s") from error
    finally:
        os.close(program)
    if done.returncode < 0:
        raise Untried(f"bpftool was ended by signal {-done.returncode}")
    said = (done.stderr if done.returncode else done.stdout).decode("utf-8", "replace")
    return Result(done.returncode == 0, " ".join(said.split()), {"exit_status": done.returncode})


def attempt(request: dict[str, Any], workload: Path) -> Result:
    """Make one attempt."""
    kind, name, parts = request["kind"], request["id"], request["parts"]
    if kind == "kprobe":
        return kprobe(name, parts[0])
    if kind == "uprobe":
        return uprobe(name, workload, request["offset"])
    if kind == "tracepoint":
        return tracepoint(parts[0], parts[1])
    if kind == "field":
        return field(parts[0], parts[1], parts[2])
    if kind == "kallsyms":
        return kallsyms(parts[0])
    if kind == "bpftool":
        return bpftool(parts)
    raise Untried(f"nobody here knows how to try {kind}")


def answer(request: dict[str, Any], workload: Path) -> dict[str, Any]:
    """Make one attempt and return what came of it, in the shape that is printed."""
    try:
        done, words, facts = attempt(request, workload)
    except (Untried, OSError) as error:
        return {"id": request["id"], "done": False, "untried": str(error)[:LONGEST]}
    return {"id": request["id"], "done": done, "words": words[:LONGEST], "facts": facts}


def main() -> None:
    """Read requests, print results."""
    workload = Path(sys.argv[1]).resolve()
    json.dump([answer(request, workload) for request in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
