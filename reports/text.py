"""Words that came out of a machine, made safe to show, and figures in words.

Workload output, tool output, stacks and logs are untrusted. HTML escaping is Jinja's work; what is neutralised here are
characters that a terminal or a browser acts upon: escape sequences, other control characters, and those that turn
the direction of text round.
"""

from __future__ import annotations

import math
import unicodedata

from reports.schema import Interval, Outcome

LIMIT = 2000
"""Characters of one untrusted string that are shown."""

OUTCOME_WORDS: dict[Outcome, str] = {
    "confirmed": "confirmed",
    "refuted": "refuted",
    "undecided": "undecided",
    "not_testable": "not testable here",
}
"""How a verdict reads."""

NARROW = "\u202f"
"""Narrow no-break space, between groups of three digits."""

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def neutral(text: str, limit: int = LIMIT, *, keep: str = "") -> str:
    """Return ``text`` with every character that is not plain print written as its escape, ``ESC`` as ``\\x1b``.

    :param limit: characters after which the rest is cut and its length stated.
    :param keep: characters that are left as they are, a newline for log excerpts.
    """
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    rest = len(text) - limit
    shown = "".join(_visible(char) if char not in keep else char for char in text[:limit])
    return f"{shown}… ({rest} more characters)" if rest > 0 else shown


def _visible(char: str) -> str:
    if unicodedata.category(char) not in _HIDDEN:
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def number(value: float | None) -> str:
    """Return ``value`` for a reader: whole numbers in groups of three, others with three significant digits or more."""
    if value is None:
        return "not measured"
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f")  # narrow no-break space
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f")
    if size >= 100:
        return f"{value:.1f}"
    if size < 1e-4:
        return f"{value:.2e}"
    return f"{value:.3g}"


def duration(ns: float) -> str:
    """Return nanoseconds in the unit that fits: ``1.5 µs``, ``20 ms``."""
    for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if abs(ns) >= size:
            return f"{number(float(f'{ns / size:.3g}'))}\u00a0{unit}"
    return f"{number(float(f'{ns:.3g}'))}\u00a0ns"


def quantity(value: float | None, unit: str, kind: str = "") -> str:
    """Return a figure with its unit; nanoseconds are scaled, a share is a percentage, 0 to 1 in the record."""
    if value is None:
        return "not measured"
    if unit == "ns":
        return duration(value)
    if kind == "share" and not unit:
        return percent(value)
    if unit == "×":
        return f"{number(value)}×"
    return f"{number(value)}\u00a0{unit}" if unit else number(value)


def percent(value: float) -> str:
    """Return a share of 0 to 1 as a percentage, small ones never rounded to nothing."""
    scaled = value * 100
    if scaled == 0 or abs(scaled) >= 99.95:
        return f"{scaled:.0f}%" if scaled in (0, 100) else f"{scaled:.2f}%"
    return f"{scaled:.3g}%" if abs(scaled) >= 1 else f"{scaled:.2g}%"


def interval(bounds: Interval | None, unit: str, kind: str = "") -> str:
    """Return ``[low, high]`` in the value's unit with its level, or nothing where there is no interval."""
    if bounds is None:
        return ""
    shown = unit if unit == "ns" else ""  # a unit that does not scale stands beside the value already
    low, high = quantity(bounds.low, shown, kind), quantity(bounds.high, shown, kind)
    return f"[{low}, {high}] at {bounds.level:.0%}"


def relative(ratio: float, *, sign: bool = True) -> str:
    """Return a ratio as a change in percent, 1.041 as ``+4.1%``, to a hundredth of a percent; less is ``<0.01%``."""
    change = (ratio - 1) * 100
    size = abs(change)
    if size < 1e-9:
        return "0%"
    if size < 0.005:
        return f"{('+' if change > 0 else '−') if sign else ''}<0.01%"
    digits = f"{size:,.0f}" if size >= 99.5 else f"{size:.1f}" if size >= 0.0995 else f"{size:.2f}"
    return f"{('+' if change > 0 else '−') if sign else ''}{digits.replace(',', NARROW)}%"


def relative_interval(bounds: Interval | None, *, level: bool = False) -> str:
    """Return an interval of a ratio as ``[+1.2%, +6.8%]``, with its level where asked for or where it is not 95%."""
    if bounds is None:
        return ""
    told = f" at {bounds.level * 100:.4g}%" if level or abs(bounds.level - 0.95) > 1e-9 else ""
    return f"[{relative(bounds.low)}, {relative(bounds.high)}]{told}"
