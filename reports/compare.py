"""From runs to a comparison of kernels: of a matrix, or of any set of records.

``reports.gather`` says which runs count, ``reports.effects`` and ``reports.corrections`` what their values show;
``reports.compared`` brings the two together for a metric. What is left for here is the whole: labs, claims, the
control, what runs have in common. A run is one boot and gives one value of each metric; kernels are compared within
blocks only (one repeat on one host).
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from go_labs.matrix import ALPHA, DELTA, MatrixPlan, PlannedLab
from reports import compared, corrections, gather, latencies, power, record, samples, statistics
from reports.charts import Ecdf, EcdfSeries
from reports.compared import Explored, Measured, Runs, away
from reports.comparison import (
    COMPARISON_SCHEMA,
    ClaimRow,
    Comparison,
    Control,
    Evidence,
    Kernel,
    LabComparison,
)
from reports.effects import Effect
from reports.gather import Gathered
from reports.ledger import line_key
from reports.samples import Sample
from reports.schema import Clock, Outcome
from reports.text import percent
from vm.errors import RecordError, UsageError


def compare(folder: Path, *, baseline: str = "", clock: str = "") -> Comparison:
    """Compare the kernels of the matrix in ``folder``.

    Runs of another clock, or under other conditions, than most of the matrix are excluded, and listed.

    :param baseline: line or release of one of its kernels; the plan's where empty.
    :param clock: ``kvm``, ``emulated`` or ``virtual``; that of most runs where empty.
    :raises RecordError: it is no matrix, or broken. :raises UsageError: it has no such kernel or clock.
    """
    found = gather.of_matrix(folder)
    plan = found.plans[0]
    used = gather.one_clock(found, clock)
    gather.one_group(found)
    lines = {cell.kernel_line: cell.kernel_release for cell in plan.cells}
    planned = plan.cell(plan.baseline).kernel_line
    chosen = _baseline(baseline, lines) or planned
    if chosen != planned:
        found.notes.append(f"The baseline {chosen} was chosen afterwards; the plan says {planned}.")
    return _make(found, plan.id, used, lines, chosen, planned, plan.labs, plan.delta, plan.alpha)


def compare_records(
    paths: Iterable[Path],
    *,
    baseline: str = "",
    delta: float | None = None,
    alpha: float | None = None,
    clock: str = "",
    base: Path | None = None,
) -> Comparison:
    """Compare the kernels of any set of records: records, matrices, or folders that hold some of these.

    Of each lab only runs under one set of conditions (Go version, build, options, lab, lock, size of the machine) are
    compared: that of the run that ended last; the others are excluded, and listed.

    :param baseline: line or release; that of the matrices among them, else the oldest kernel.
    :param delta: and ``alpha``: those of the matrices where these agree, else :data:`DELTA` and 5%.
    :param base: folder that paths in the comparison are relative to (:func:`common_base`, where None).
    :raises UsageError: nothing to compare, several clocks and none chosen, or a value out of its range.
    :raises RecordError: a matrix is broken.
    """
    listed = list(paths)
    found = gather.of_records(listed, common_base(listed) if base is None else base)
    if not found.samples:
        raise UsageError("none of these records can be compared", _why_none(found))
    used = gather.one_clock(found, clock)
    gather.one_group(found)
    lines = {sample.line: sample.brief.provenance.kernel_release for sample in found.samples}
    delta = _agreed([plan.delta for plan in found.plans], DELTA) if delta is None else delta
    alpha = _agreed([plan.alpha for plan in found.plans], ALPHA) if alpha is None else alpha
    if not 0 < delta < 10:
        raise UsageError(f"--delta {delta:g} is no margin", "a relative difference above 0: 0.03 is ±3%")
    if not 0 < alpha < 1:
        raise UsageError(f"--alpha {alpha:g} is no level", "between 0 and 1: 0.05 is usual")
    planned = {plan.cell(plan.baseline).kernel_line for plan in found.plans} & set(lines)
    first = min(lines, key=line_key)
    chosen = _baseline(baseline, lines) or (planned.pop() if len(planned) == 1 else first)
    count = len(found.samples) + len(found.excluded)
    return _make(found, f"{count} record{'s' if count != 1 else ''}", used, lines, chosen, chosen, [], delta, alpha)


def common_base(paths: Sequence[Path]) -> Path:
    """Return the deepest folder that holds all ``paths``; one path that is a folder of records is that folder."""
    absolute = [path.absolute() for path in paths]
    if not absolute:
        raise UsageError("there is nothing to compare", "name a matrix, or records")
    if len(absolute) == 1:
        return absolute[0].parent if (absolute[0] / record.RUN).is_file() else absolute[0]
    return Path(os.path.commonpath([path.parent if (path / record.RUN).is_file() else path for path in absolute]))


def _agreed(values: Sequence[float], default: float) -> float:
    return values[0] if len(set(values)) == 1 else default


def _why_none(found: Gathered) -> str:
    first = found.excluded[0] if found.excluded else None
    return "" if first is None else f"the first of {len(found.excluded)}: {first.record}: {first.words}"


def _baseline(name: str, lines: Mapping[str, str]) -> str:
    """Return the line that ``name`` means, empty where it is.

    :raises UsageError: no kernel is called so.
    """
    if not name or name in lines:
        return name
    for line, release in lines.items():
        if release == name:
            return line
    raise UsageError(f"no run is of kernel {name}", f"there are {', '.join(sorted(lines, key=line_key))}")


def encode(comparison: Comparison) -> bytes:
    """Return ``compare.json``."""
    return msgspec.json.format(msgspec.json.encode(comparison), indent=1) + b"\n"


def decode(data: bytes, name: str = "compare.json") -> Comparison:
    """Return the comparison that ``data`` holds; ``name`` is for messages.

    :raises RecordError: it is none, or of another schema.
    """
    try:
        found = msgspec.json.decode(data, type=Comparison)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{name} is no comparison: {error}", "make it again with `invoke compare`") from error
    if found.schema != COMPARISON_SCHEMA:
        raise RecordError(
            f"{name} has schema {found.schema}; this program reads {COMPARISON_SCHEMA}",
            "make it again with `invoke compare`",
        )
    return found


# ---- the whole ----


def _make(
    found: Gathered,
    name: str,
    clock: Clock,
    lines: Mapping[str, str],
    baseline: str,
    control_line: str,
    labs: Sequence[PlannedLab],
    delta: float,
    alpha: float,
) -> Comparison:
    ordered = sorted(lines, key=line_key)
    _drop_other_controls(found, control_line)
    judged = list(found.samples)
    kept = gather.paired(found, baseline)
    names = [lab.name for lab in labs] or sorted({sample.lab for sample in judged}, key=lambda lab: _place(lab, judged))
    runs = [_runs(lab, labs, kept, ordered, baseline, control_line) for lab in names]
    primaries = [compared.primary(each, delta) for each in runs]
    explored = [compared.explore(each, delta) for each in runs]
    every = [
        m for first, more in zip(primaries, explored, strict=True) for m in (first, *more.metrics) if m is not None
    ]
    total = compared.correct_all(every)
    paths = {id(sample): found.relative(sample.path) for sample in judged}
    made = []
    for each, first, more in zip(runs, primaries, explored, strict=True):
        mine = [sample for sample in judged if sample.lab == each.lab]
        made.append(_lab(found, each, first, more, mine, labs, ordered, delta, alpha, total, paths))
    family = max((len(first.tested) for first in primaries if first is not None), default=0)
    common, differs = _provenance(kept or judged)
    _note_neighbours(found, kept)
    _note_floor(found, every, total, alpha)
    plan = found.plans[0] if found.whole else None
    return Comparison(
        schema=COMPARISON_SCHEMA,
        name=name,
        clock=clock,
        chosen=found.whole,
        delta=delta,
        alpha=alpha,
        seed=None if plan is None else plan.seed,
        baseline=baseline,
        kernels=[
            Kernel(
                line=line,
                release=lines[line],
                runs=sum(sample.line == line and not sample.control for sample in kept),
                cell=_cell(plan, line),
            )
            for line in ordered
        ],
        labs=made,
        control=_control(every, control_line, alpha),
        excluded=sorted(found.excluded, key=lambda e: (e.lab, line_key(e.kernel), e.block, e.attempt)),
        planned=found.planned,
        finished=found.finished,
        passed=found.tally["passed"],
        tally=dict(sorted(found.tally.items())),
        blocks=max((_blocks(each) for each in runs), default=0),
        blocks_needed=power.blocks_needed(max(1, family), alpha),
        started=min(found.times, default=""),
        finished_at=max(found.times, default=""),
        provenance=common,
        differs=differs,
        notes=found.notes,
    )


def _place(lab: str, judged: Sequence[Sample]) -> tuple[list[int], str]:
    section = next(sample.brief.lab.section for sample in judged if sample.lab == lab)
    return [int(part) if part.isdecimal() else 2**31 for part in section.split(".")], lab


def _drop_other_controls(found: Gathered, line: str) -> None:
    """Exclude second runs of kernels that are not the baseline that ran twice: of a set of several matrices."""
    kept = []
    for sample in found.samples:
        if sample.control and sample.line != line:
            found.exclude(sample, "other_control", f"a second run of {sample.line} as a control of another baseline")
        else:
            kept.append(sample)
    found.samples = kept


def _cell(plan: MatrixPlan | None, line: str) -> str:
    if plan is None:
        return ""
    return next((cell.id for cell in plan.cells if cell.kernel_line == line and not cell.control), "")


def _runs(
    lab: str, labs: Sequence[PlannedLab], kept: Sequence[Sample], lines: Sequence[str], baseline: str, control: str
) -> Runs:
    mine = [sample for sample in kept if sample.lab == lab]
    letters = samples.hosts(mine)
    by_line: dict[str, dict[str, Sample]] = defaultdict(dict)
    second: dict[str, Sample] = {}
    for sample in sorted(mine, key=lambda s: (s.number, s.repeat, s.host)):
        block = f"{sample.repeat}-{letters[sample.host]}"
        (second if sample.control else by_line[sample.line])[block] = sample
    planned = next((each.primary for each in labs if each.name == lab), "")
    latest = max(mine, key=lambda s: s.brief.provenance.finished, default=None)
    return Runs(
        lab=lab,
        primary=planned or ("" if latest is None else latest.brief.lab.primary),
        lines=lines,
        baseline=baseline,
        by_line=by_line,
        control=second,
        control_line=control if second else "",
    )


def _blocks(runs: Runs) -> int:
    base = runs.by_line.get(runs.baseline, {})
    return max((sum(block in base for block in runs.by_line[line]) for line in runs.others), default=0)


def _lab(
    found: Gathered,
    runs: Runs,
    first: Measured | None,
    more: Explored,
    mine: Sequence[Sample],
    labs: Sequence[PlannedLab],
    lines: Sequence[str],
    delta: float,
    alpha: float,
    total: int,
    paths: Mapping[int, str],
) -> LabComparison:
    planned = next((each for each in labs if each.name == runs.lab), None)
    latest = max(mine, key=lambda s: s.brief.provenance.finished, default=None)
    told = planned if latest is None or planned is not None else latest.brief.lab
    by_kernel = {line: list(runs.by_line[line].values()) for line in lines if runs.by_line.get(line)}
    merged = latencies.merged(runs.lab, by_kernel)
    found.notes += merged.notes
    return LabComparison(
        lab=runs.lab,
        title=runs.lab if told is None else told.title,
        section="" if told is None else told.section,
        primary=None if first is None else compared.to_compared(first, delta, alpha, total, paths),
        exploratory=[compared.to_compared(each, delta, alpha, total, paths) for each in more.metrics],
        claims=_claims(mine, lines, runs.baseline, paths),
        distributions=[*_distributions(first), *merged.distributions],
        latencies=merged.maps,
        unfit=_unfit(found, runs.lab),
        same=more.same,
        partial=more.partial,
    )


def _unfit(found: Gathered, lab: str) -> dict[str, str]:
    return {
        plan.cell(each.cell).kernel_line: each.why for plan in found.plans for each in plan.unfit if each.lab == lab
    }


def _distributions(first: Measured | None) -> list[Ecdf]:
    """Return the distribution of the primary metric's values, one for each run; none where there are none."""
    if first is None:
        return []
    runs, metric = first.runs, first.metric
    groups = {line: runs.by_line[line] for line in runs.lines if runs.by_line.get(line)}
    if runs.control:
        groups[f"{runs.control_line} again"] = runs.control
    series = []
    for name, of in groups.items():
        values = [v for sample in of.values() if (m := sample.metrics.get(metric.name)) and (v := m.value) is not None]
        if values:
            x, p = statistics.ecdf(values)
            series.append(EcdfSeries(name=name, n=len(values), x=x, p=p))
    if not series:
        return []
    return [
        Ecdf(
            id="primary",
            title=metric.title,
            caption="Share of runs whose value is at most that on the axis; a step for each run.",
            phase=metric.phase,
            timing=metric.timing or metric.kind in {"time", "rate"},
            what="runs",
            x_title=metric.title,
            x_unit=metric.unit,
            series=series,
        )
    ]


def _claims(mine: Sequence[Sample], lines: Sequence[str], baseline: str, paths: Mapping[int, str]) -> list[ClaimRow]:
    """Return every verdict of runs that were judged: a verdict is of its run alone, and needs no pair."""
    letters = samples.hosts(mine)
    texts: dict[str, str] = {}
    verdicts: dict[str, dict[str, list[Evidence]]] = defaultdict(lambda: defaultdict(list))
    for sample in sorted(mine, key=lambda s: (s.number, s.repeat, s.control, s.brief.id)):
        if not sample.judged:
            continue
        folder = paths[id(sample)]
        page = f"{folder}/{record.REPORT}" if (sample.path / record.REPORT).is_file() else ""
        block = f"{sample.repeat}-{letters[sample.host]}"
        for verdict in sample.brief.verdicts:
            texts[verdict.claim] = verdict.text
            verdicts[verdict.claim][sample.line].append(
                Evidence(
                    block=f"{block} again" if sample.control else block,
                    outcome=verdict.outcome,
                    sentence=verdict.sentence,
                    record=folder,
                    report=page,
                )
            )
    return [
        ClaimRow(
            claim=claim,
            text=text,
            verdicts={line: verdicts[claim][line] for line in lines if line in verdicts[claim]},
            first_change=_first_change(verdicts[claim], lines, baseline),
        )
        for claim, text in sorted(texts.items())
    ]


def _first_change(verdicts: Mapping[str, Sequence[Evidence]], lines: Sequence[str], baseline: str) -> str:
    """Return the first kernel with one verdict that is not the one of the baseline.

    Mixed verdicts are no verdict, and what a run could not tell (undecided, not testable) is no change of a kernel.
    """

    def agreed(line: str) -> Outcome | None:
        outcomes = {each.outcome for each in verdicts.get(line, ())}
        return outcomes.pop() if len(outcomes) == 1 and outcomes <= {"confirmed", "refuted"} else None

    base = agreed(baseline)
    if base is None:
        return ""
    return next((line for line in away(lines, baseline) if agreed(line) not in {None, base}), "")


def _control(measured: Sequence[Measured], line: str, alpha: float) -> Control | None:
    """Return what the baseline against itself showed; None where no second run of it counts."""
    tested: list[tuple[Measured, Effect]] = [
        (each, each.control.effect) for each in measured if each.control is not None and each.control.effect is not None
    ]
    if not tested:
        return None
    shown = corrections.shown_by_control([effect for _, effect in tested], alpha)
    resolved = {
        each.runs.lab: width
        for (each, _), width in zip(tested, shown.resolved, strict=True)
        if each.primary and width is not None
    }
    interval = None if shown.rate is None else shown.rate.interval
    if shown.rate is None:
        words = f"{line} against itself: no metric had enough blocks to differ, so that this says nothing."
    else:
        bounds = "" if interval is None else f" [{percent(interval.low)}, {percent(interval.high)}]"
        words = (
            f"{line} against itself: {shown.called} of {shown.able} metrics that could have differed did, uncorrected "
            f"at {alpha:.3g}: {percent(shown.rate.value)}{bounds}; {percent(alpha)} is expected where nothing differs. "
            "Metrics of one lab hang together, so that the interval is too narrow rather than too wide."
        )
    return Control(
        metrics=shown.able,
        false=shown.called,
        interval=interval,
        resolved=resolved,
        words=words,
        identical=shown.identical,
        too_few=shown.too_few,
    )


def _provenance(kept: Sequence[Sample]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return what all runs have in common, and what they do not, label → values in the order in which they ran."""
    values: dict[str, dict[str, None]] = defaultdict(dict)
    for sample in sorted(kept, key=lambda s: s.brief.provenance.started):
        for label, value in _facts(sample).items():
            values[label][value] = None
    common = {label: next(iter(found)) for label, found in values.items() if len(found) == 1}
    return common, {label: list(found) for label, found in values.items() if len(found) > 1}


def _facts(sample: Sample) -> dict[str, str]:
    p = sample.brief.provenance
    return {
        "Go": p.go_version,
        "Build": p.build,
        "Accelerator": p.accelerator,
        "Clock source": p.clocksource,
        "Machine": f"{p.machine}, {p.machine_type}, CPU {p.cpu_model}",
        "Size": f"{p.cpus} CPUs, {p.memory_mib} MiB",
        "Start": p.start,
        "Host": ", ".join(f"{name} {value}" for name, value in p.host.items()) or "not described",
        "Lock": p.lock_digest,
        "Base image": p.base_sha256,
        "Program": f"kmlab {p.product_version}",
        f"Options of {sample.lab}": ", ".join(f"{name}={value}" for name, value in p.options.items()) or "none",
        f"Folder of {sample.lab}": p.lab_sha256,
    }


def _note_neighbours(found: Gathered, kept: Sequence[Sample]) -> None:
    shared = [sample for sample in kept if sample.neighbours]
    if shared:
        blocks = ", ".join(dict.fromkeys(f"{s.lab} on {s.line} in block {s.repeat}" for s in shared[:6]))
        more = f" and {len(shared) - 6} more" if len(shared) > 6 else ""
        found.notes.append(
            f"{len(shared)} of {len(kept)} runs shared cores with other machines of the matrix in their timed phase: "
            f"{blocks}{more}. Their times hold what these took."
        )


def _note_floor(found: Gathered, measured: Sequence[Measured], total: int, alpha: float) -> None:
    """Say where so few blocks cannot establish one exploratory difference among so many effects."""
    blocks = max((raw.n for each in measured for raw in each.tested), default=0)
    least = 2.0 ** (1 - blocks)
    needed = math.ceil(least * total / alpha)
    if not total or needed < 2:
        return
    words = f"With {blocks} blocks no p is below {least:.2g}. Over {total} effects"
    if needed > total:
        found.notes.append(f"{words} no exploratory difference can be established; the intervals show what there is.")
        return
    found.notes.append(
        f"{words}, {needed} must come as low before any exploratory one has a q of {alpha:.3g}: a single change is not "
        "established there, only shown by its interval."
    )
