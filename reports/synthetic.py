"""A made-up matrix folder: from a seed and a table of true ratios, with all that a real one has, and nothing measured.

For checks of what reads a matrix: a comparison must find the ratios that were planted here, and no others. ``invoke
bench`` times it on thousands of such records. Each record says in its title, its notes and its provenance that it is
synthetic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np

from go_labs import matrix
from go_labs.evidence import (
    EVIDENCE_SCHEMA,
    Evidence,
    GoroutineIdentity,
    Histogram,
    HostShare,
    PhaseEvidence,
    Place,
    Provenance,
    Segment,
    WorkloadOutput,
)
from reports import record, schema
from reports.schema import (
    Artefact,
    Clock,
    CriterionResult,
    Figure,
    GateResult,
    Kind,
    LabNote,
    Metric,
    Outcome,
    PhaseNote,
    Point,
    Record,
    Verdict,
)
from vm.version import VERSION

KERNELS = ("5.10", "6.1", "6.12", "6.18", "7.3")

PROVIDER = "synthetic"
"""What stands as provider in the provenance of each record from here."""

WORDS = "Synthetic: made up from a seed to check the program; nothing was measured."

TROUBLE = ("gate_failed", "machine_lost", "lab_failed", "kernel_splat", "timed_out")
"""Outcomes of first attempts that failed, in turn; the second attempts of the first and third fail, too."""

STAYS = frozenset({"gate_failed", "lab_failed"})

_HASH = "5e" * 32
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_BITS = 5


@dataclass(frozen=True, slots=True)
class _Primary:
    name: str
    title: str
    unit: str
    kind: Kind
    base: float


PRIMARIES = (
    _Primary("cost.op_ns", "time of an operation", "ns", "time", 180.0),
    _Primary("flow.per_second", "operations in a second", "/s", "rate", 52_000.0),
    _Primary("memory.objects", "objects allocated", "", "count", 640_000.0),
    _Primary("wait.share", "share of time waited", "", "share", 0.21),
)
"""Primary metrics of the labs, in turn."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What to make up.

    :param labs: how many; they are called as :func:`lab_name` says.
    :param baseline: a kernel line; the first one where empty.
    :param ratios: (lab, kernel line) → true ratio of the primary metric to the baseline's; 1 where not named.
    :param drift: standard deviation of the logarithm of what all runs of a block share; ``noise``: of each run's own.
    :param control: whether the baseline runs a second time.
    :param judged: blocks whose runs judge claims.
    :param troubles: attempts that failed, first ones, spread over the matrix (:data:`TROUBLE`).
    :param cut: whether the last run was cut off.
    :param unfit: (lab, kernel line) → why it cannot run there.
    :param extra: metrics of each lab beside its own few, without any effect; ``points``: of each one's series, which
        make a record as large as a real one (45 metrics with 20 points each: 230 kB).
    :param stray: (lab, block, kernel line) of runs that took place on another host.
    """

    labs: int = 2
    kernels: tuple[str, ...] = KERNELS
    blocks: int = 10
    seed: int = 1
    baseline: str = ""
    ratios: Mapping[tuple[str, str], float] = field(default_factory=lambda: MappingProxyType({}))
    drift: float = 0.04
    noise: float = 0.01
    control: bool = True
    judged: int = 1
    troubles: int = 0
    cut: bool = False
    unfit: Mapping[tuple[str, str], str] = field(default_factory=lambda: MappingProxyType({}))
    extra: int = 4
    points: int = 2
    delta: float = 0.03
    alpha: float = 0.05
    clock: Clock = "emulated"
    stray: frozenset[tuple[str, int, str]] = frozenset()


def lab_name(number: int) -> str:
    """Return the name of the lab with this ``number``, from 0: ``synthetic-a``; every second one has latencies."""
    return f"synthetic-{chr(ord('a') + number)}"


def bulk(folder: Path, runs: int) -> None:
    """Write at least ``runs`` runs of eight labs on five kernels, each record as large as a real one, for timing."""
    cells = len(KERNELS) + 1
    write(folder, Shape(labs=8, blocks=-(-runs // (8 * cells)), extra=45, points=20, judged=5, troubles=20))


def write(folder: Path, shape: Shape) -> matrix.MatrixPlan:
    """Write the matrix ``shape`` into ``folder``, which must be empty or missing, and return its plan.

    :raises FileExistsError: a record is there already.
    """
    random = np.random.default_rng(shape.seed)
    plan = make_plan(shape, random)
    for name in (matrix.RUNS, matrix.LOGS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / matrix.PLAN).write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=1))
    drifts = {
        (lab.name, block): float(random.normal(0, shape.drift)) for lab in plan.labs for block in range(shape.blocks)
    }
    troubled = _troubled(plan, shape)
    at = _Clock()
    lines: list[matrix.Entry] = [
        matrix.Opened(at=at.tick(), pid=1, jobs=1, host=_host(0), load={"load1": 0.0}),
    ]
    for run in plan.runs:
        if shape.cut and run is plan.runs[-1]:
            lines.append(matrix.Begun(at=at.tick(), run=run.number, attempt=1))
            break
        outcome = troubled.get(run.number)
        tries: list[matrix.Outcome] = ["passed"] if outcome is None else [outcome]
        if outcome is not None:
            tries.append(outcome if outcome in STAYS else "passed")
        for attempt, each in enumerate(tries, 1):
            lines.append(matrix.Begun(at=at.tick(), run=run.number, attempt=attempt))
            name = ""
            if each in {"passed", "gate_failed", "kernel_splat"}:
                drift = drifts[run.lab, run.block - 1]
                name = write_run(folder / matrix.RUNS, shape, plan, run, attempt, random, drift, each)
            log = f"{run.number:04}-{attempt}.log"
            (folder / matrix.LOGS / log).write_text(f"{WORDS}\nrun {run.number}, attempt {attempt}: {each}\n")
            lines.append(
                matrix.Ended(
                    at=at.tick(),
                    run=run.number,
                    attempt=attempt,
                    outcome=each,
                    seconds=30.0,
                    record=name,
                    words="" if each == "passed" else f"made up as {matrix.OUTCOME_WORDS[each]}",
                    log=log,
                    gates=["no count lost"] if each == "gate_failed" else [],
                )
            )
    (folder / matrix.JOURNAL).write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return plan


class _Clock:
    """Times of the journal, half a minute apart."""

    def __init__(self) -> None:
        self._now = _BEGAN

    def tick(self) -> str:
        self._now += timedelta(seconds=30)
        return self._now.isoformat(timespec="seconds")


def make_plan(shape: Shape, random: np.random.Generator) -> matrix.MatrixPlan:
    """Return the plan of ``shape``: blocks in order, labs within them, cells of each lab in random order."""
    baseline = shape.baseline or shape.kernels[0]
    columns = [(line, False) for line in shape.kernels] + ([(baseline, True)] if shape.control else [])
    names = [f"k{number + 1}" for number in random.permutation(len(columns))]
    cells = [
        matrix.Cell(id=name, kernel_line=line, kernel_release=release(line), control=control)
        for name, (line, control) in sorted(zip(names, columns, strict=True))
    ]
    labs = [_planned_lab(number) for number in range(shape.labs)]
    unfit = [
        matrix.Unfit(lab=lab, cell=cell.id, why=why)
        for (lab, line), why in shape.unfit.items()
        for cell in cells
        if cell.kernel_line == line
    ]
    out = {(each.lab, each.cell) for each in unfit}
    runs: list[matrix.PlannedRun] = []
    for block in range(1, shape.blocks + 1):
        for lab in labs:
            seed = int(random.integers(2**31))
            for place in random.permutation(len(cells)):
                cell = cells[place]
                if (lab.name, cell.id) not in out:
                    runs.append(
                        matrix.PlannedRun(
                            number=len(runs) + 1,
                            block=block,
                            lab=lab.name,
                            cell=cell.id,
                            seed=seed,
                            judged=block <= shape.judged,
                        )
                    )
    return matrix.MatrixPlan(
        schema=matrix.MATRIX_SCHEMA,
        id=f"synthetic-{shape.seed}",
        created=_BEGAN.isoformat(),
        product_version=VERSION,
        seed=shape.seed,
        labs=labs,
        cells=cells,
        baseline=next(cell.id for cell in cells if cell.kernel_line == baseline and not cell.control),
        repeats=shape.blocks,
        judged=shape.judged,
        delta=shape.delta,
        alpha=shape.alpha,
        clock="virtual" if shape.clock == "virtual" else "host",
        accel="auto",
        go_version="go1.27.3",
        build="plain",
        share=False,
        allowed=[],
        lock_digest=_HASH,
        runs=runs,
        unfit=unfit,
    )


def _planned_lab(number: int) -> matrix.PlannedLab:
    return matrix.PlannedLab(
        name=lab_name(number),
        title=f"Synthetic lab {chr(ord('A') + number)}, nothing was measured",
        section=f"0.{number + 1}",
        primary=_primary(number).name,
        options={"rounds": "10"},
    )


def _primary(number: int) -> _Primary:
    return PRIMARIES[number % len(PRIMARIES)]


def release(line: str) -> str:
    """Return the made-up release of a kernel line."""
    return f"{line}.0-0-synthetic"


def _troubled(plan: matrix.MatrixPlan, shape: Shape) -> dict[int, matrix.Outcome]:
    """Return which runs fail at first and how: spread evenly, never the last one, and of no block the baseline."""
    able = [run.number for run in plan.runs[:-1] if run.cell != plan.baseline]
    if not shape.troubles:
        return {}
    places = np.linspace(0, len(able) - 1, shape.troubles + 2).round().astype(int)[1:-1]
    return {able[place]: TROUBLE[index % len(TROUBLE)] for index, place in enumerate(places)}  # type: ignore[misc]


# ---- a record ----


def write_run(
    runs: Path,
    shape: Shape,
    plan: matrix.MatrixPlan,
    run: matrix.PlannedRun,
    attempt: int,
    random: np.random.Generator,
    drift: float,
    outcome: matrix.Outcome = "passed",
) -> str:
    """Write one record below ``runs`` and return its name.

    :param drift: logarithm of what this block's runs share.
    :raises FileExistsError: it is there already.
    """
    cell = plan.cell(run.cell)
    number = next(index for index, lab in enumerate(plan.labs) if lab.name == run.lab)
    ratio = 1.0 if cell.control else shape.ratios.get((run.lab, cell.kernel_line), 1.0)
    place = Place(matrix=plan.id, run=run.number, block=run.block, cell=run.cell, attempt=attempt)
    began = _BEGAN + timedelta(minutes=run.number, seconds=20 * (attempt - 1))
    stray = (run.lab, run.block, cell.kernel_line) in shape.stray and not cell.control
    provenance = _provenance(shape, plan, run, cell, began, place, host=1 if stray else 0)
    short = hashlib.sha256(f"{plan.id} {run.number} {attempt}".encode()).hexdigest()[:8]
    name = f"{began:%Y%m%dT%H%M%SZ}-{run.lab}-{cell.kernel_line}-{short}"
    folder = runs / name
    (folder / "timed").mkdir(parents=True)
    level = float(np.exp(drift + random.normal(0, shape.noise))) * ratio
    slow = ratio if _primary(number).kind == "time" else 1.0
    files = {
        "timed/workload.json": msgspec.json.encode(_workload(run, number, slow * float(np.exp(drift)), random)),
        "evidence.json": msgspec.json.encode(_evidence(run, provenance)),
    }
    for path, data in files.items():
        (folder / path).write_bytes(data)
    made = Record(
        schema=schema.SCHEMA,
        id=name,
        product_version=VERSION,
        lab=_note(plan.lab(run.lab)),
        provenance=provenance,
        phases=[_phase("timed", ""), _phase("traced", "" if run.judged else "the phase was not asked for")],
        metrics=_metrics(shape, number, level, drift, ratio, judged=run.judged, random=random),
        losses=[],
        equality=[],
        gates=[_gate(passed=outcome != "gate_failed")],
        verdicts=_verdicts(run, ratio),
        charts=[],
        notes=[WORDS],
        timings={"restore_seconds": 0.8},
        artefacts=[
            Artefact(path=path, role="", size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in sorted(files.items())
        ],
    )
    (folder / record.RUN).write_bytes(schema.encode(made))
    return name


def _note(lab: matrix.PlannedLab) -> LabNote:
    return LabNote(
        name=lab.name, title=lab.title, section=lab.section, question=WORDS, primary=lab.primary, oracle=WORDS
    )


def _phase(name: str, error: str) -> PhaseNote:
    return PhaseNote(
        name=name, exit_status=None if error else 0, wall_seconds=9.0, workload_seconds=8.0, error=error, segments=2
    )


def _gate(*, passed: bool) -> GateResult:
    value = 0.0 if passed else 3.0
    return GateResult(
        name="no count lost", metric="losses.total", require="== 0", passed=passed, value=value,
        reason=f"{value:g} counts, == 0 is required", claims=[], meaning=WORDS,
    )  # fmt: skip


def _host(number: int) -> dict[str, str]:
    return {"cpu": f"synthetic host {number + 1}", "cpus": "2", "memory_mib": "0", "kernel": "none", "system": "none"}


def _provenance(
    shape: Shape,
    plan: matrix.MatrixPlan,
    run: matrix.PlannedRun,
    cell: matrix.Cell,
    began: datetime,
    place: Place,
    *,
    host: int,
) -> Provenance:
    return Provenance(
        started=began.isoformat(), finished=(began + timedelta(seconds=20)).isoformat(),
        kernel_line=cell.kernel_line, kernel_release=cell.kernel_release, kernel_version="synthetic",
        cmdline="synthetic", lock_digest=plan.lock_digest, base_sha256=_HASH, bundle_sha256=_HASH, tools_sha256=_HASH,
        provider=PROVIDER, qemu_version="none", accelerator="none", cpu_model="none", machine_type="none", cpus=2,
        memory_mib=1024, clock=shape.clock, clocksource="none", start="warm", go_version=plan.go_version,
        lab_sha256=_HASH, binary_sha256=_HASH, loader_sha256=_HASH, objects_sha256=_HASH,
        options=plan.lab(run.lab).options, host=_host(host), seed=run.seed, order=run.number,
        product_version=VERSION, build=plan.build, place=place,
    )  # fmt: skip


def _evidence(run: matrix.PlannedRun, provenance: Provenance) -> Evidence:
    share = HostShare(cores=[0, 1], neighbours=0, cpu_seconds=8.0, wait_seconds=0.1)
    timed = PhaseEvidence(
        name="timed", exit_status=0, wall_seconds=9.0, workload_seconds=8.0, files={"workload": "timed/workload.json"},
        host=share,
    )  # fmt: skip
    return Evidence(
        schema=EVIDENCE_SCHEMA, lab=run.lab, provenance=provenance, phases=[timed], files={}, timings={},
        facts={"synthetic": True},
    )  # fmt: skip


def _metrics(
    shape: Shape,
    number: int,
    level: float,
    drift: float,
    ratio: float,
    *,
    judged: bool,
    random: np.random.Generator,
) -> list[Metric]:
    own = _primary(number)

    def noise() -> float:
        return float(np.exp(random.normal(0, shape.noise)))

    def metric(name: str, title: str, unit: str, kind: Kind, value: float | None, absent: str = "") -> Metric:
        series = [
            Point(parameters={"point": str(index), "of": name}, value=value * noise())
            for index in range(shape.points)
            if value is not None
        ]
        return Metric(
            name=name, title=title, unit=unit, kind=kind, value=value, absent=absent, n=20, phase="timed",
            clock=shape.clock, series=series, meaning=WORDS,
        )  # fmt: skip

    found = [
        metric(own.name, own.title, own.unit, own.kind, own.base * level),
        metric(
            "follow.wake_ns", "time from wake to run", "ns", "time", 9_000.0 * float(np.exp(drift)) * ratio * noise()
        ),
        metric("always.zero", "wake-ups lost", "", "count", 0.0),
        metric("always.same", "goroutines started", "", "count", 64.0),
        metric("seldom.zero", "steals", "", "count", float(random.integers(0, 3))),
        metric("sampled.share", "samples in the scheduler", "", "estimate", 0.12 * noise()),
        metric("probe.pp_ns", "a probe's hit", "ns", "time", 2500.0 * noise()),
        metric("losses.total", "records lost", "", "count", 0.0),
    ]
    absent = "" if judged else "phase traced: the phase was not asked for"
    found.append(metric("traced.parks", "parks", "", "count", 271.0 * noise() if judged else None, absent))
    for index in range(shape.extra):
        kind: Kind = ("time", "count", "rate", "ratio")[index % 4]
        unit = {"time": "ns", "rate": "/s"}.get(kind, "")
        found.append(metric(f"extra.m{index}", f"made-up figure {index}", unit, kind, 100.0 * (index + 1) * noise()))
    return found


def _verdicts(run: matrix.PlannedRun, ratio: float) -> list[Verdict]:
    if not run.judged:
        untold = "phase traced was not asked for"
        return [_verdict(run, 1, "not_testable", untold), _verdict(run, 2, "not_testable", untold)]
    second: Outcome = "refuted" if abs(np.log(ratio)) > 0.02 else "confirmed"
    return [
        _verdict(run, 1, "confirmed", "made up as confirmed on every kernel"),
        _verdict(run, 2, second, f"made up from the true ratio, {ratio:.3g}"),
    ]


def _verdict(run: matrix.PlannedRun, number: int, outcome: Outcome, sentence: str) -> Verdict:
    figure = Figure(metric="always.same", title="goroutines started", unit="", kind="count", value=64.0)
    criterion = CriterionResult(
        metric="always.same", confirm="== 64", refute="!= 64", meaning=WORDS, emulation="", outcome=outcome,
        reason=sentence, figure=figure,
    )  # fmt: skip
    return Verdict(
        claim=f"{run.lab.rpartition('-')[2]}-{number}", text=f"A made-up claim, number {number}", says="", why=WORDS,
        outcome=outcome, sentence=sentence, criteria=[criterion],
    )  # fmt: skip


def _workload(run: matrix.PlannedRun, number: int, level: float, random: np.random.Generator) -> WorkloadOutput:
    histograms = {}
    if number % 2 == 0:
        histograms["latency_ns"] = _histogram(np.exp(random.normal(np.log(40_000 * level), 0.8, 400)))
    segment = Segment(
        id=1, section="load", parameters={"rate": "1000"}, start_ns=1, end_ns=2_000_000_000, histograms=histograms
    )
    return WorkloadOutput(
        schema=1, lab=run.lab, go="go1.27.3", gomaxprocs=2, self_test=GoroutineIdentity(goids=[]), segments=[segment]
    )


def _histogram(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Histogram:
    """Return counts by bucket, as ``labkit.Histogram`` makes them."""
    counts: dict[int, int] = {}
    for value in values.astype(np.int64).tolist():
        power = max(0, value.bit_length() - 1 - _BITS)
        bucket = (power << _BITS) + (value >> power)
        counts[bucket] = counts.get(bucket, 0) + 1
    return Histogram(bits=_BITS, counts=counts)
