"""What a lab may try on a machine before it runs: the ``what`` of ``[[attempts]]`` in ``lab.toml``. Pure.

A refutation of the form "this cannot be done" is shown, not asserted: it is tried, and the answer is recorded in the
words of whoever refused.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Literal, get_args

from vm.errors import ConfigError

Kind = Literal["kprobe", "tracepoint", "field", "kallsyms", "function", "uprobe", "bpftool"]
"""Where it is tried: tracefs (``kprobe``, ``tracepoint``, ``field``, ``uprobe``), ``/proc/kallsyms``, the workload's
own function table, or the machine's bpftool."""

TRIVIAL = "trivial"
"""Name of the BPF program (type kprobe, as uprobes take it) that is loaded while bpftool is tried."""

METRIC = "attempt."
"""Start of the name of each attempt's metric; its id follows."""

_ID = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""Short enough for the name of a probe in tracefs (64 with its group, ``MAX_EVENT_NAME_LEN``)."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
"""A category, tracepoint or field; the first two become parts of a path."""

_LONGEST = 256
"""Characters of a symbol, or of bpftool's words."""

_FORMS: dict[Kind, str] = {
    "kprobe": "kprobe:SYMBOL",
    "tracepoint": "tracepoint:CATEGORY:NAME",
    "field": "field:CATEGORY:NAME:FIELD",
    "kallsyms": "kallsyms:SYMBOL",
    "function": "function:SYMBOL",
    "uprobe": "uprobe:SYMBOL",
    "bpftool": "bpftool:WORDS",
}


@dataclass(frozen=True, slots=True)
class Trial:
    """An attempt's ``what``, taken apart.

    :param parts: the symbol; category, name and field; or bpftool's words.
    """

    kind: Kind
    parts: tuple[str, ...]

    @property
    def title(self) -> str:
        """What is counted, 0 or 1, in words that hold for either."""
        joined = ":".join(self.parts[:2])
        return {
            "kprobe": f"Kprobes attached to {self.parts[0]}",
            "tracepoint": f"Tracepoints {joined} enabled",
            "field": f"Fields {self.parts[-1]} of {joined}",
            "kallsyms": f"Symbols {self.parts[0]} in /proc/kallsyms",
            "function": f"Functions {self.parts[0]} in the workload",
            "uprobe": f"Uprobes attached to {self.parts[0]}",
            "bpftool": f"Successes of bpftool {' '.join(self.parts)}",
        }[self.kind]


def check_id(text: str) -> None:
    """Check an attempt's id.

    :raises ConfigError: it is not snake_case, or too long.
    """
    if not _ID.fullmatch(text):
        raise ConfigError(f"attempt {text!r} has no good id", "lower-case letters, digits and _, at most 40")


def parse(what: str) -> Trial:
    """Take the ``what`` of an attempt apart.

    :raises ConfigError: its kind is unknown, or it is not written as that kind is.
    """
    name, _, rest = what.partition(":")
    kind = next((known for known in get_args(Kind) if known == name), None)
    if kind is None:
        raise ConfigError(f"{what!r} is nothing that can be tried", f"write one of {', '.join(_FORMS.values())}")
    parts = _parts(kind, rest)
    if parts is None:
        raise ConfigError(f"{what!r} is not written as {_FORMS[kind]}", "docs/labs.md describes the kinds")
    if parts[:2] in (("prog", "attach"), ("prog", "detach")) and kind == "bpftool" and TRIVIAL not in parts:
        # Else the refusal would be of a program that is not there, and say nothing of the attach type.
        raise ConfigError(f"{what!r} names no program", f"name the one that is loaded for it: `name {TRIVIAL}`")
    return Trial(kind, parts)


def _parts(kind: Kind, rest: str) -> tuple[str, ...] | None:
    """Return the parts of ``rest``, or None where they do not fit ``kind``."""
    if not rest.isprintable() or len(rest) > _LONGEST:
        return None
    if kind == "bpftool":
        try:
            return tuple(shlex.split(rest)) or None
        except ValueError:
            return None
    if kind in ("tracepoint", "field"):
        names = tuple(rest.split(":"))
        wanted = 2 if kind == "tracepoint" else 3
        return names if len(names) == wanted and all(_NAME.fullmatch(name) for name in names) else None
    return (rest,) if rest and " " not in rest else None
