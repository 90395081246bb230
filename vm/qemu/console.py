"""What a console log says: panic, oops, warnings, sanitizer reports. Pure.

The patterns are the kernel's own words: kernel/panic.c ("Kernel panic - not syncing: "), arch/x86/mm/fault.c and
lib/bug.c ("BUG: …", "kernel BUG at"), kernel/panic.c __warn ("WARNING: CPU: …", later "WARNING: file:line at …"),
mm/kasan/report.c, kernel/watchdog.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

_TIME = r"^(?:\[\s*\d+\.\d+\](?:\[\s*[TC]\d+\])? )?"
"""``[   12.345678] ``, with the caller that CONFIG_PRINTK_CALLER adds."""


_INIT = "kmlab init: "
"""How ``vm/guest/init.c`` starts what it says."""


class Kind(StrEnum):
    """Kinds of events, worst first."""

    PANIC = "panic"
    OOPS = "oops"
    SANITIZER = "sanitizer"
    LOCKUP = "lockup"
    WARNING = "warning"


_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    (Kind.PANIC, re.compile(_TIME + r"Kernel panic - not syncing: (?P<words>.*)")),
    (Kind.SANITIZER, re.compile(_TIME + r"(?P<words>BUG: (?:KASAN|KCSAN|KMSAN|KFENCE): .*|UBSAN: .*)")),
    (
        Kind.LOCKUP,
        re.compile(_TIME + r"(?:watchdog: )?(?P<words>BUG: soft lockup.*|.*detected stall.*|.*hard LOCKUP.*)"),
    ),
    (Kind.LOCKUP, re.compile(_TIME + r"INFO: (?P<words>task .* blocked for more than .*)")),
    (Kind.OOPS, re.compile(_TIME + r"(?P<words>BUG: .*|kernel BUG at .*|Oops: .*|general protection fault.*)")),
    (Kind.WARNING, re.compile(_TIME + r"(?P<words>WARNING: .*)")),
)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that went wrong.

    :param line: number in the log, from 1. :param words: the kernel's own.
    """

    kind: Kind
    line: int
    words: str


def classify(log: str) -> list[Event]:
    """Return what went wrong in the order in which the log tells it."""
    events = []
    for number, line in enumerate(log.replace("\r", "").split("\n"), start=1):
        for kind, pattern in _PATTERNS:
            found = pattern.match(line)
            if found:
                events.append(Event(kind, number, found["words"].strip()))
                break
    return events


def panic(log: str) -> Event | None:
    """Return the first panic, or ``None``; what the guest's init said before it gave up is added."""
    event = next((event for event in classify(log) if event.kind is Kind.PANIC), None)
    if event is None:
        return None
    before = log.replace("\r", "").split("\n")[: event.line - 1]
    said = [line for line in before if line.startswith(_INIT)]
    return replace(event, words=f"{event.words} ({said[-1]})") if said and "init" in event.words else event


STUCK_SECONDS = 60
"""A CPU that a busy host keeps waiting is back before this; the kernel says so from 22 s on."""

_LOCKUP = re.compile(r"watchdog: BUG: soft lockup - CPU#\d+ stuck for (\d+)s!.*")


def lockup(log: str) -> str:
    """Return what the kernel (kernel/watchdog.c) says of a CPU stuck for :data:`STUCK_SECONDS`; empty: none is."""
    found = [each for each in _LOCKUP.finditer(log) if int(each[1]) >= STUCK_SECONDS]
    return found[-1][0].strip() if found else ""


def last_words(log: str, count: int = 3) -> str:
    """Return the last lines that hold anything, joined, without control characters: for messages."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", " | ".join(lines[-count:]))
