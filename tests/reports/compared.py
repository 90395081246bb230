"""Made-up comparisons, small enough to be read: as ``reports.compare`` would have made them of two labs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from go_labs import matrix
from go_labs.matrix import Begun, Cell, Ended, Entry, MatrixPlan, Opened, PlannedLab, PlannedRun
from reports.comparison import (
    ClaimRow,
    Compared,
    Comparison,
    Control,
    Effect,
    Evidence,
    Excluded,
    Kernel,
    LabComparison,
    Value,
)
from reports.schema import Interval

LINES = ("5.10", "6.1", "7.3")

HOSTILE = 'a,b;"c"\n\'; DROP TABLE effects; --\x1b[31m\x00\u202e\uffff<b>&amp;]]>☃'
"""What a table, a terminal, XML or a database could take for its own."""


def values(random: np.random.Generator, line: str, base: float, ratio: float, blocks: int) -> list[Value]:
    noise = random.lognormal(0, 0.01, blocks)
    return [
        Value(block=str(block + 1), value=float(base * ratio * noise[block]), record=f"runs/{line}-{block + 1}")
        for block in range(blocks)
    ]


def median(found: list[Value]) -> float:
    return float(np.median([each.value for each in found]))


def effect(kernel: str, change: Any, ratio: float | None, n: int = 10, **more: Any) -> Effect:
    interval = None
    if ratio is not None:
        interval = Interval(low=ratio * 0.99, high=ratio * 1.01, level=0.95, method="signed rank")
    return Effect(kernel=kernel, change=change, ratio=ratio, interval=interval, n=n, **more)


def primary(metric: str = "contended.mutex_ns", unit: str = "ns/op", kind: Any = "time", blocks: int = 10) -> Compared:
    """A metric that is 10% higher on 6.1 and the same on 7.3."""
    random = np.random.default_rng(4)
    ratios = {"5.10": 1.0, "6.1": 1.1, "7.3": 1.0}
    by_line = {line: values(random, line, 95.0, ratio, blocks) for line, ratio in ratios.items()}
    again = values(random, "5.10-again", 95.0, 1.0, blocks)
    return Compared(
        metric=metric, title="a contended lock", unit=unit, kind=kind, timing=kind in ("time", "rate"), phase="timed",
        meaning="wall time of an acquisition", primary=True,
        values=by_line, control=again, medians={line: median(mine) for line, mine in by_line.items()},
        control_median=median(again),
        effects=[
            effect("6.1", "slower", 1.1, p=0.00195, p_adjusted=0.0039, p_equivalent=1.0, q=0.004, spread=0.012,
                   detectable=0.013, words="10% slower"),
            effect("7.3", "equivalent", 1.0005, p=0.9, p_adjusted=0.9, p_equivalent=0.001, spread=0.012,
                   detectable=0.013, words="the same within 3%"),
            effect("5.10", "undecided", 0.999, control=True, p=0.7, spread=0.012),
        ],
        first_change="6.1",
    )  # fmt: skip


def count(metric: str = "parks.mutex", *, is_primary: bool = False) -> Compared:
    """A count that has a value on the baseline only."""
    found = [
        Value(block="1", value=271.0, record="runs/5.10-1"),
        Value(block="2", value=0.1 + 0.2, record="runs/5.10-2"),
    ]
    return Compared(
        metric=metric, title="parks", unit="", kind="count", timing=False, phase="traced", meaning="", control=[],
        primary=is_primary, values={"5.10": found, "6.1": [], "7.3": []},
        medians={"5.10": median(found)}, control_median=None,
        effects=[effect("6.1", "undecided", None, n=0, absent="no value on 6.1"),
                 effect("7.3", "higher", 1.0 / 3, n=2)],
    )  # fmt: skip


def evidence(line: str, *outcomes: Any) -> list[Evidence]:
    return [
        Evidence(block=str(n), outcome=each, sentence=f"because of {each}", record=f"runs/{line}-{n}")
        for n, each in enumerate(outcomes, 1)
    ]


def claim(name: str = "2.4-a", **by_line: Any) -> ClaimRow:
    """A claim that is confirmed everywhere, but for what is named: ``v6_1=("refuted",)``."""
    told = {line: evidence(line, *by_line.get(f"v{line.replace('.', '_')}", ("confirmed",))) for line in LINES}
    return ClaimRow(claim=name, text=f"the text of {name}", verdicts=told)


def lab(name: str = "mutex", **changes: Any) -> LabComparison:
    made = LabComparison(
        lab=name, title=f"the lab {name}", section="2.4", primary=primary(), exploratory=[count()],
        claims=[claim(), claim("2.4-b", v6_1=("refuted",), v7_3=("not_testable",))], distributions=[], latencies=[],
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def comparison(*labs: LabComparison, **changes: Any) -> Comparison:
    found = list(labs) or [lab(), lab("gmp", primary=None, exploratory=[], claims=[], unfit={"5.10": "too old"})]
    made = Comparison(
        schema=1, name="m-2026", clock="emulated", chosen=True, delta=0.03, alpha=0.05, seed=7, baseline="5.10",
        kernels=[Kernel(line=line, release=f"{line}.0-56-cloud-amd64", runs=20) for line in LINES], labs=found,
        control=Control(metrics=4, false=0, interval=None, resolved={"mutex": 0.01}, words="nothing was found"),
        excluded=[], planned=40, finished=40, passed=40, tally={"passed": 40}, blocks=10, blocks_needed=6,
        started="2026-11-23T12:00:00+00:00", finished_at="2026-11-23T14:00:00+00:00",
        provenance={"Go": "go1.27.3"}, differs={},
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def excluded(kernel: str = "6.1", kind: str = "kernel_splat", **changes: Any) -> Excluded:
    made = Excluded(lab="mutex", kernel=kernel, block=1, attempt=1, kind=kind, words="BUG: sleeping function")
    return msgspec.structs.replace(made, **changes)


# ---- a matrix on disk, as far as exports look at it ----


def plan(*runs: PlannedRun, **changes: Any) -> MatrixPlan:
    made = MatrixPlan(
        schema=1, id="m-2026", created="2026-11-23T12:00:00+00:00", product_version="0.1.0", seed=7,
        labs=[PlannedLab(name="mutex", title="the lab mutex", primary="contended.mutex_ns", options={"sizes": "4"})],
        cells=[Cell(id=f"k{n}", kernel_line=line, kernel_release=f"{line}.0-56-cloud-amd64", control=n == 4)
               for n, line in enumerate((*LINES, "5.10"), 1)],
        baseline="k1", repeats=10, judged=1, delta=0.03, alpha=0.05, clock="host", accel="auto", go_version="1.27.3",
        build="plain", share=False, allowed=[], lock_digest="5e" * 32, runs=list(runs),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def run(number: int, cell: str, block: int = 1) -> PlannedRun:
    return PlannedRun(number=number, block=block, lab="mutex", cell=cell, seed=1)


def opened(minute: int) -> Opened:
    return Opened(at=at(minute), pid=1, jobs=2, host={"cpu": "a made-up CPU"}, load={})


def begun(number: int, minute: int, attempt: int = 1) -> Begun:
    return Begun(at=at(minute), run=number, attempt=attempt)


def ended(number: int, minute: int, outcome: Any = "passed", attempt: int = 1, **more: Any) -> Ended:
    return Ended(at=at(minute), run=number, attempt=attempt, outcome=outcome, seconds=60.0, **more)


def at(minute: int) -> str:
    return f"2026-11-23T{12 + minute // 60:02}:{minute % 60:02}:00+00:00"


def write(folder: Path, planned: MatrixPlan, *journal: Entry) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / matrix.PLAN).write_bytes(msgspec.json.encode(planned))
    (folder / matrix.JOURNAL).write_bytes(b"".join(msgspec.json.encode(entry) + b"\n" for entry in journal))
    return folder
