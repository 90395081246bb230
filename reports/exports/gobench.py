"""Go's benchmark format: a line per run and metric, for ``benchstat``.

Format: golang.org/design/14313-benchmark-format; how it is read: golang.org/x/perf/benchfmt. ``benchstat`` makes a
table for each set of configuration keys, and the boot is one of them, so it has to be told that boots are what it
counts: ``benchstat -col kernel -ignore boot FILE``. Its first column is what it compares with, so the baseline comes
first. It knows nothing of blocks and compares unpaired, so that it finds less than the comparison does; on a clear
effect both agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from reports.comparison import Compared, LabComparison
from reports.exports._source import Format, Source, columns, metrics, write
from reports.text import neutral

NAME = "benchmarks.txt"

CONTROL = "+control"
"""What stands behind a kernel's line in ``kernel:`` for the second time of the one that ran twice."""

BETTER = {"time": "lower", "rate": "higher"}
"""Kind of figure → which way is better; of all others nobody said."""


def text(source: Source) -> str:
    """Return the whole file."""
    comparison = source.comparison
    lines = [
        f"# {_value(comparison.name)}, read it with: benchstat -col kernel -ignore boot {NAME}",
        *_units(comparison.labs),
        f"clock: {comparison.clock}",
    ]
    if go := _go(source):
        lines.append(f"go: {_value(go)}")
    for lab in comparison.labs:
        lines += _lab(source, lab)
    return "\n".join(lines) + "\n"


def _go(source: Source) -> str:
    """Return Go's version, empty where runs do not share one: benchstat would then set columns apart by it."""
    return source.comparison.provenance.get("Go", "")


def _units(labs: list[LabComparison]) -> Iterator[str]:
    """Give a line of metadata for each unit whose figures all have the same better side.

    Metadata belong to a unit, not to a metric: one that a time and a count share says nothing.
    """
    sides: dict[str, set[str]] = {}
    for lab in labs:
        for compared in metrics(lab):
            sides.setdefault(unit(compared), set()).add(BETTER.get(compared.kind, ""))
    for name, found in sorted(sides.items()):
        if len(found) == 1 and (side := next(iter(found))):
            yield f"Unit {name} better={side}"


def _lab(source: Source, lab: LabComparison) -> Iterator[str]:
    """Give the lines of a lab: by kernel and boot, so that a key changes as rarely as can be."""
    boots: dict[tuple[str, str], list[str]] = {}
    for compared in metrics(lab):
        name = benchmark(lab.lab, compared.metric)
        for line, control, values in columns(source, compared):
            kernel = f"{line}{CONTROL}" if control else line
            for value in values:
                found = boots.setdefault((kernel, value.block), [])
                found.append(f"{name} 1 {value.value!r} {unit(compared)}")
    order: dict[str, None] = dict.fromkeys(kernel for kernel, _ in boots)
    baseline = source.comparison.baseline
    ranked = sorted(order, key=lambda kernel: (kernel != baseline, not kernel.endswith(CONTROL)))
    yield f"lab: {_value(lab.lab)}"
    for kernel in ranked:
        yield f"kernel: {_value(kernel)}"
        for (mine, boot), lines in boots.items():
            if mine == kernel:
                yield f"boot: {_value(boot)}"
                yield from lines


def benchmark(lab: str, metric: str) -> str:
    """Return a benchmark's name, ``BenchmarkMutex/contended.mutex_ns``.

    ``/`` and ``=`` would split it, and ``-4`` at its end would be GOMAXPROCS.
    """
    return f"Benchmark{_word(lab[:1].upper() + lab[1:])}/{_word(metric)}"


def _word(text: str) -> str:
    return re.sub(r"[^\w.]", "_", text, flags=re.ASCII) or "_"


def unit(compared: Compared) -> str:
    """Return a metric's unit as one word; figures without one have their kind (``count``, ``share``).

    It is the record's own: ``ns/op`` is said by metrics that are per operation, and ``ns`` stays a time.
    """
    return re.sub(r"\s+", "_", neutral(compared.unit).strip()) or compared.kind


def _value(text: str) -> str:
    """Return ``text`` as the value of a key: one line, and never empty, which would delete the key."""
    return neutral(text).strip() or "unknown"


def _write(source: Source, out: Path) -> list[Path]:
    return [write(out / NAME, text(source).encode())]


FORMAT = Format("gobench", "a line per run and metric in Go's benchmark format, for benchstat", _write)
