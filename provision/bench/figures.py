"""What a benchmark gives: figures with all their samples, ratios, and what was not measured and why. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was measured, several times.

    :param name: ``warm``, ``cold``, ``virtme-ng`` …
    :param meaning: from what to what, one sentence.
    :param samples: in the order they were taken, in ``unit``.
    :param limit: at most this is the aim; None where there is none.
    """

    name: str
    meaning: str
    unit: str
    samples: list[float]
    limit: float | None = None

    @property
    def median(self) -> float:
        """Median of the samples."""
        return statistics.median(self.samples)

    @property
    def met(self) -> bool | None:
        """Whether the median is within the limit; None where there is none."""
        return None if self.limit is None else self.median <= self.limit


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Ratio of the medians of two figures that were taken in turn."""

    name: str
    meaning: str
    value: float
    limit: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the ratio is within its limit; None where there is none."""
        return None if self.limit is None else self.value <= self.limit


class Unmeasured(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was not measured, with the reason."""

    name: str
    reason: str


class Result(msgspec.Struct, kw_only=True):
    """Everything of one ``invoke bench``.

    :param host: what it ran on, and how busy that was at the start and at the end.
    """

    started: str
    kernel: str
    accelerator: str
    host: dict[str, str]
    load_before: dict[str, float]
    load_after: dict[str, float] = {}
    figures: list[Figure] = []
    ratios: list[Ratio] = []
    unmeasured: list[Unmeasured] = []

    def document(self) -> dict[str, object]:
        """Return all of it for ``--json``, with the medians and what they are held against."""
        plain: dict[str, object] = msgspec.to_builtins(self)
        plain["figures"] = [
            {**msgspec.to_builtins(each), "median": each.median, "met": each.met} for each in self.figures
        ]
        plain["ratios"] = [{**msgspec.to_builtins(each), "met": each.met} for each in self.ratios]
        return plain


def ratio(
    name: str, meaning: str, ours: Figure | None, other: Figure | None, limit: float | None = None
) -> Ratio | None:
    """Return ours divided by the other's median; None where either was not measured or the other's is not positive."""
    if ours is None or other is None or other.median <= 0:
        return None
    return Ratio(name=name, meaning=meaning, value=ours.median / other.median, limit=limit)


def number(value: float) -> str:
    """Return three significant digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def rows(result: Result) -> Sequence[tuple[str, ...]]:
    """Return the lines of the table: name, median, range, number, aim, whether it is met, meaning."""
    mark = {True: "yes", False: "NO", None: "-"}
    lines = [
        (
            figure.name,
            f"{number(figure.median)} {figure.unit}",
            f"{number(min(figure.samples))} to {number(max(figure.samples))}",
            str(len(figure.samples)),
            "-" if figure.limit is None else f"{figure.limit:g}",
            mark[figure.met],
            figure.meaning,
        )
        for figure in result.figures
    ]
    lines += [
        (
            each.name, f"{each.value:.3g} ×", "", "",
            "-" if each.limit is None else f"{each.limit:.3g}", mark[each.met], each.meaning,
        )
        for each in result.ratios
    ]  # fmt: skip
    return lines
