"""Memory of the loader and the traced program over time, of any traced phase. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from bpf.trace import MemorySample
from reports import charts
from reports.analysis import PhaseData

Who = Literal["tracer", "target"]

SETTLING_SECONDS = 60.0
"""Growth is counted from here on; from a third of the time where that is sooner."""

WINDOWS = 10
"""Memory before and after is the median of a tenth of the time that is looked at."""

FEWEST = 10
"""Samples that are too few to tell growth from a page more or less."""


def kib(sample: MemorySample, who: Who) -> int:
    """Return the resident set of ``who``, KiB."""
    return sample.tracer_kib if who == "tracer" else sample.target_kib


def growth(samples: Sequence[MemorySample], who: Who) -> float | None:
    """Return by how many KiB the resident set of ``who`` grew once it had settled; None for too few samples.

    Medians of the first and the last tenth after :data:`SETTLING_SECONDS`: negative where it shrank.
    """
    if len(samples) < FEWEST:
        return None
    begin, end = samples[0].seconds, samples[-1].seconds
    settled = begin + min(SETTLING_SECONDS, (end - begin) / 3)
    window = (end - settled) / WINDOWS
    values = [(s.seconds, kib(s, who)) for s in samples]
    first = [value for at, value in values if settled <= at <= settled + window]
    last = [value for at, value in values if at >= end - window]
    return float(np.median(last) - np.median(first)) if first and last else None


def chart(phase: PhaseData, caption: str) -> charts.Lines | None:
    """Return the resident sets over time; None where there are fewer than two samples."""
    samples = [] if phase.trace is None else phase.trace.memory
    if len(samples) < 2:
        return None
    sides: tuple[tuple[str, Who], ...] = (("loader", "tracer"), ("traced program", "target"))
    lines = [
        charts.Line(name=name, points=[charts.LinePoint(x=s.seconds, y=kib(s, who) / 1024) for s in samples])
        for name, who in sides
    ]
    return charts.Lines(
        id="memory", title="Memory on both sides", caption=caption, place="time", phase=phase.name,
        x_title="Time since the program's start (s)", y_title="Resident set", y_unit="MiB", lines=lines,
    )  # fmt: skip
