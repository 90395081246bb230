"""A lab's options, as a person gives them, checked against what ``lab.toml`` allows. Pure."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping

from go_labs.spec import Lab, Option
from vm.errors import UsageError


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
    return values


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
        number = float(text) if option.kind == "seconds" else float(int(text))
    except (ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):  # also the word "nan", which compares as within any range
        kind = "a number of seconds" if option.kind == "seconds" else "a whole number"
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
