"""What ``tasks.py`` needs to read options and to print: every option arrives as a string and is checked here.

Invoke would turn ``6.10`` into ``6.1`` for an option with a float default, and print a traceback for ``abc`` where it
expects an integer; it has no choices and no suggestions. So no option has a type there.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from provision.frame import use_colour
from vm.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from vm.machine import AcceleratorChoice, ClockChoice, ProviderName

ACCELERATORS: tuple[AcceleratorChoice, ...] = ("auto", "kvm", "tcg")
"""What ``--accel`` knows."""

CLOCKS: tuple[ClockChoice, ...] = ("host", "virtual")
"""What ``--clock`` knows."""

PROVIDERS: tuple[ProviderName, ...] = ("qemu", "vagrant")
"""What ``--provider`` knows."""


def accelerator(value: str) -> AcceleratorChoice:
    """Return what ``--accel`` means.

    :raises UsageError: it means nothing.
    """
    for known in ACCELERATORS:
        if value == known:
            return known
    raise UsageError(f"--accel {value!r} is not known", suggestion(value, ACCELERATORS))


def clock(value: str) -> ClockChoice:
    """Return what ``--clock`` means.

    :raises UsageError: it means nothing.
    """
    for known in CLOCKS:
        if value == known:
            return known
    raise UsageError(f"--clock {value!r} is not known", suggestion(value, CLOCKS))


def provider(value: str, **only_qemu: bool) -> ProviderName | None:
    """Return what ``--provider`` means; None where it was left away: QEMU, or the machine that is there.

    :param only_qemu: options that QEMU alone has → whether they were given.
    :raises UsageError: it means nothing, or an option does not go with it.
    """
    if not value:
        return None
    for known in PROVIDERS:
        if value == known:
            for option in sorted(name for name, given in only_qemu.items() if given and known != "qemu"):
                dashed = option.replace("_", "-")
                raise UsageError(
                    f"--{dashed} means nothing with --provider {known}: {_QEMU_ONLY[option]}", "leave it away"
                )
            return known
    raise UsageError(f"--provider {value!r} is not known", suggestion(value, PROVIDERS))


_QEMU_ONLY = {
    "cold": "such a machine always boots",
    "system_qemu": "libvirt always uses the host's QEMU",
    "clock": "libvirt counts no instructions, so that there is the host's clock only",
}
"""Option → why a machine of another provider does not have it."""


def one_of(option: str, value: str, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``choices``.

    :raises UsageError: it is not; near ones are suggested.
    """
    if value in choices:
        return value
    raise UsageError(f"{option} {value!r} is not known", suggestion(value, choices))


def suggestion(value: str, choices: Iterable[str]) -> str:
    """Return a hint: the nearest of ``choices``, or all of them where none is near."""
    known = list(choices)
    near = difflib.get_close_matches(value, known, n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else f"there is: {', '.join(known)}"


def whole(option: str, value: str, low: int, high: int) -> int:
    """Return ``value`` as a whole number from ``low`` to ``high``.

    :raises UsageError: it is not one, or is out of range.
    """
    # str.isdecimal also takes other scripts' digits, and int() takes "1_000": neither is meant.
    if not (value.isascii() and value.isdecimal()):
        raise UsageError(f"{option} {value!r} is not a whole number", f"give a number from {low} to {high}")
    number = int(value)
    if not low <= number <= high:
        raise UsageError(f"{option} {value} is out of range", f"give a number from {low} to {high}")
    return number


def seconds(option: str, value: str, low: float, high: float) -> float:
    """Return ``value`` as a number of seconds from ``low`` to ``high``.

    :raises UsageError: it is not one, or is out of range.
    """
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not low <= number <= high:  # also the word "nan"
        raise UsageError(f"{option} {value!r} is no number of seconds", f"give a number from {low:g} to {high:g}")
    return number


def needs(option: str, value: str, other: str, given: bool) -> None:
    """Refuse an option that means nothing without another one.

    :raises UsageError: ``option`` has a value and ``other`` was not given.
    """
    if value and not given:
        raise UsageError(f"{option} means nothing without {other}", f"add {other}, or leave {option} away")


def words(option: str, value: str) -> list[str]:
    """Split a comma-separated list.

    :raises UsageError: an element is empty.
    """
    parts = [part.strip() for part in value.split(",")]
    if not all(parts):
        raise UsageError(f"{option} {value!r} has an empty element", "separate names by one comma each: 6.1,6.12")
    return parts


def printable(text: str) -> str:
    """Return ``text``, which came out of a machine, without what a terminal would obey."""
    return "".join(c if c.isprintable() else "�" for c in text)


def print_json(value: object) -> None:
    """Print one JSON document on stdout, and nothing else."""
    text = msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2)
    print(text.decode())


def stdout_console() -> Console:
    """Return the console for tables: stdout, plain where it is no terminal or NO_COLOR is set."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    width = None if terminal else 200
    return Console(no_color=not use_colour(terminal), highlight=False, width=width, soft_wrap=not terminal)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table on stdout; texts are taken literally, never as markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    stdout_console().print(table)


def listed(names: Iterable[str]) -> str:
    """Return names with commas between them, a dash where there is none."""
    return ", ".join(names) or "-"


def human_size(size: float) -> str:
    """Return bytes as ``123 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
