"""The expectations file: what a comparison should come to, as a person writes it (TOML)."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec

from go_labs.matrix import Outcome as RunOutcome
from reports.comparison import Change
from reports.schema import Outcome
from vm.errors import ConfigError

EXPECTATIONS_SCHEMA = 1

ALL = "*"
"""Every lab, kernel or claim."""

ANY = "any"
"""Nothing is expected."""

UNFIT = "unfit"
"""A run that there is none of, because the lab cannot run on the kernel."""

HINT = "docs/reports.md, Expectations, describes the file"

WHERE: dict[str, frozenset[str]] = {
    "verdict": frozenset({"claim"}),
    "change": frozenset({"metric"}),
    "run": frozenset(),
}
"""Fields by the kind of entry that has them, besides ``lab``, ``kernel``, ``why`` and what is expected."""

_WORDS: dict[str, tuple[str, ...]] = {
    "verdict": (*get_args(Outcome), ANY),
    "run": (*get_args(RunOutcome), UNFIT, ANY),
    "change": (*get_args(Change), ANY),
}

What = Literal["verdict", "run", "change"]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An ``[[expect]]``, as it is written; exactly one of ``verdict``, ``run`` and ``change`` (or a bound).

    :param at_least: and ``at_most``: bounds of the effect's ratio, 0.97 is -3%.
    """

    lab: str | list[str] = ALL
    kernel: str | list[str] = ALL
    claim: str | list[str] = ALL
    metric: str | list[str] = ""
    verdict: str | list[str] = ""
    run: str | list[str] = ""
    change: str | list[str] = ""
    at_least: float | None = None
    at_most: float | None = None
    why: str = ""

    @property
    def what(self) -> What:
        """What it is about."""
        return "verdict" if self.verdict else "run" if self.run else "change"

    @property
    def expected(self) -> tuple[str, ...]:
        """What is expected: any of these."""
        return listed(self.verdict or self.run or self.change or ANY)


class Default(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[default]``: what is expected of things that no entry names."""

    verdict: str | list[str] = ANY
    run: str | list[str] = "passed"
    change: str | list[str] = ANY


class Expectations(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file.

    :param strict: whether a verdict, or a change of a primary metric, that no entry names is itself a surprise.
    """

    schema: int
    strict: bool = False
    default: Default = Default()
    expect: list[Entry] = []


def read(path: Path) -> Expectations:
    """Read an expectations file.

    :raises ConfigError: it cannot be read, or does not hold together; every fault of an entry names the entry.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} cannot be read: {words}", HINT) from error
    return parse(text, str(path))


def parse(text: str, name: str = "the expectations") -> Expectations:
    """Return what ``text`` says; ``name`` is for messages.

    :raises ConfigError: see :func:`read`.
    """
    try:
        data = tomllib.loads(text)
        found = msgspec.convert(data, Expectations)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is no TOML: {error}", HINT) from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name} does not hold together: {_counted(str(error))}", HINT) from error
    if found.schema != EXPECTATIONS_SCHEMA:
        raise ConfigError(
            f"{name} has schema {found.schema}; this program reads {EXPECTATIONS_SCHEMA}",
            "use the version of the program that it was written for",
        )
    for what in get_args(What):
        _known(what, listed(getattr(found.default, what)), f"{name}, [default]")
    for number_, entry in enumerate(found.expect, 1):
        _check(entry, f"{name}, [[expect]] {number_}")
    return found


def _counted(words: str) -> str:
    """Put the number that a person counts into msgspec's path: ``$.expect[0]`` is their first entry."""
    head, found, rest = words.partition("$.expect[")
    if not found:
        return words
    index, _, rest = rest.partition("]")
    return f"{head}[[expect]] {int(index) + 1}{rest}" if index.isdecimal() else words


def listed(value: str | list[str]) -> tuple[str, ...]:
    """Return one word, or several, as several."""
    return (value,) if isinstance(value, str) else tuple(value)


def _known(what: What, words: Sequence[str], where: str) -> None:
    if not words:
        raise ConfigError(f"{where}: {what} is an empty list", f'"{ANY}" expects nothing')
    for word in words:
        if word not in _WORDS[what]:
            near = difflib.get_close_matches(word, _WORDS[what], n=3, cutoff=0.5) or _WORDS[what]
            raise ConfigError(f"{where}: {what} {word!r} is not known", f"it may be {', '.join(near)}")


def _check(entry: Entry, where: str) -> None:
    bounded = entry.at_least is not None or entry.at_most is not None
    said = [what for what in get_args(What) if getattr(entry, what)]
    if len(said) > 1 or (not said and not bounded) or (bounded and said not in ([], ["change"])):
        raise ConfigError(
            f"{where} must say one thing: verdict, run or change (or a bound of it)", f"{HINT}; write an entry for each"
        )
    _known(entry.what, entry.expected, where)
    given = {"claim"} if entry.claim != ALL else set()
    given |= {"metric"} if entry.metric != "" else set()
    if wrong := sorted(given - WHERE[entry.what]):
        raise ConfigError(f"{where} is about {entry.what} and has {', '.join(wrong)}", HINT)
    for name in ("lab", "kernel", "claim"):
        if not listed(getattr(entry, name)):
            raise ConfigError(f"{where}: {name} is an empty list", f'"{ALL}" means all')
    low, high = entry.at_least, entry.at_most
    if any(bound is not None and not bound > 0 for bound in (low, high)) or (low and high and low > high):
        raise ConfigError(f"{where}: at_least and at_most are no bounds of a ratio", "1.03 is +3%, 0.97 is -3%")
