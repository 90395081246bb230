"""A lab's options, as a person gives them, checked against what ``lab.toml`` allows. Pure."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping

import msgspec

from go_labs.spec import Lab, Option, Phase
from vm.errors import UsageError

DURATION = "duration"
"""Option of labs whose length a person chooses: ``invoke lab NAME --duration 3h``."""

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|ns)")
"""A part of a duration as Go writes them (``time.ParseDuration``), without a sign."""


def seconds(text: str) -> float:
    """Return the seconds that ``text`` means: a number, or a duration like ``90s``, ``20m``, ``3h``, ``1h30m``.

    :raises ValueError: it is neither.
    """
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    return float(text)


def resolve(lab: Lab, given: Mapping[str, str], *, full: bool = False) -> dict[str, str]:
    """Return every option of ``lab`` with its value: what was given, else the default (or the full sweep's value).

    :param given: option → text, as typed.
    :param full: take each option's ``full`` value where it has one.
    :raises UsageError: unknown option (near names are suggested), not a number, out of range.
    """
    for name in given:
        if name not in lab.options:
            near = difflib.get_close_matches(name, lab.options, n=3)
            known = ", ".join(sorted(lab.options)) or "none"
            hint = f"did you mean {', '.join(near)}?" if near else f"its options: {known}"
            raise UsageError(f"lab {lab.name} has no option {name!r}", hint)
    values = {
        name: (option.full if full and option.full is not None else option.default)
        for name, option in lab.options.items()
    }
    values.update(given)
    for name, value in values.items():
        check(name, lab.options[name], value)
    return {name: _plain(lab.options[name], value) for name, value in values.items()}


def _plain(option: Option, value: str) -> str:
    """Return a duration as its number of seconds: runs of ``3h`` and of ``10800`` are the same, and compared."""
    if option.kind != "seconds" or value.replace(".", "", 1).isdigit():
        return value
    return format(seconds(value), ".15g")


def check(name: str, option: Option, value: str) -> None:
    """Raise :class:`~vm.errors.UsageError` unless ``value`` fits ``option``."""
    if option.kind == "choice":
        if value not in option.choices:
            raise UsageError(f"{name}={value!r} is not one of {', '.join(option.choices)}", option.help)
        return
    texts = value.split(",") if option.kind == "ints" else [value]
    for text in texts:
        number = _number(name, option, text)
        low, high = option.minimum, option.maximum
        if (low is not None and number < low) or (high is not None and number > high):
            raise UsageError(f"{name}={text} is out of range {_range(low, high)}", option.help)


def _number(name: str, option: Option, text: str) -> float:
    try:
        number = seconds(text) if option.kind == "seconds" else float(int(text))
    except (ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):  # also the word "nan", which compares as within any range
        kind = "a number of seconds or a duration" if option.kind == "seconds" else "a whole number"
        raise UsageError(f"{name}={text!r} is not {kind}", option.help)
    return number


def _range(low: float | None, high: float | None) -> str:
    lower = "" if low is None else f"{low:g}"
    upper = "" if high is None else f"{high:g}"
    return f"{lower} to {upper}" if lower and upper else f"from {lower}" if lower else f"up to {upper}"


def parse_assignments(texts: list[str]) -> dict[str, str]:
    """Turn ``["readers=0,50", …]`` into a mapping.

    :raises UsageError: a text without ``=``.
    """
    result = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise UsageError(f"{text!r} is not of the form option=value", "for example --set readers=0,50,100")
        result[name.strip()] = value.strip()
    return result


def with_duration(lab: Lab, given: Mapping[str, str], duration: str) -> dict[str, str]:
    """Return ``given`` with the option ``duration`` of ``lab`` set; an empty ``duration`` changes nothing.

    :raises UsageError: the lab has no such option, or it was given otherwise, too.
    """
    if not duration:
        return dict(given)
    if DURATION not in lab.options:
        raise UsageError(
            f"lab {lab.name} has no duration that could be chosen", "its options are in its lab.toml; --set NAME=VALUE"
        )
    if DURATION in given:
        raise UsageError(f"duration was given twice: {duration} and {given[DURATION]}", "leave one of them away")
    return {**given, DURATION: duration}


def stretched(lab: Lab, values: Mapping[str, str]) -> Lab:
    """Return ``lab`` with time-out and length of each phase as the options make them (``Phase.follows``)."""
    return msgspec.structs.replace(lab, phases=[_fitted(phase, values) for phase in lab.phases])


def _fitted(phase: Phase, values: Mapping[str, str]) -> Phase:
    chosen = {**values, **phase.options}
    added = sum(seconds(chosen[name]) for name in phase.follows)
    length = phase.seconds + added if phase.seconds else 0.0
    return msgspec.structs.replace(phase, timeout=phase.timeout + added, seconds=length)
