"""What a run of the defer lab means: the metrics that ``lab.toml`` names, and the charts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reports import charts
from reports.analysis import Analysis, PhaseData, RunData
from reports.schema import Metric
from reports.shorthand import metric, ratio, table
from reports.statistics import ecdf, median, quantiles

OPEN = ("open-1", "open-8")
"""Kinds whose defers the compiler writes out."""

RUNTIME = ("deferproc", "deferproc_stack", "defer_at")
"""Counters of the functions that make a record."""

COUNTERS = (*RUNTIME, "defer_return", "defer_alloc", "panics")

TITLES: Mapping[str, str] = {
    "direct": "no defer",
    "open-1": "open-coded, 1",
    "open-8": "open-coded, 8",
    "stack-9": "on the stack, 9",
    "returns": "on the stack, 4 × 4 returns",
    "loop": "in a loop",
    "range": "in a range over a function",
    "panic": "panic and recover",
    "loop-closure": "closures in a loop",
}

COMPILED: Mapping[str, tuple[str, int]] = {
    "open.go": ("open-coded defer", 9),
    "stack.go": ("stack-allocated defer", 9),
    "returns.go": ("stack-allocated defer", 4),
    "loop.go": ("heap-allocated defer", 1),
    "panicking.go": ("open-coded defer", 1),
    "rangefunc.go": ("heap-allocated defer", 1),
}
"""What the compiler has to say of each file: the words, and of how many statements."""


def analyse(run: RunData) -> Analysis:
    """Return the lab's metrics and charts; what could not be measured is absent with its reason."""
    drawn = [_reached(run), _boxes(run), _distribution(run), _compiler_table(run), _allocations(run)]
    return Analysis(
        metrics=[*_runtime(run), *_compiler(run), *_costs(run), *_allocated(run)],
        charts=[chart for chart in drawn if chart is not None],
        notes=_notes(run),
    )


def _title(kind: str) -> str:
    return TITLES.get(kind, kind)


def _kinds(phase: PhaseData, section: str) -> list[str]:
    return list(dict.fromkeys(segment.parameters["kind"] for segment in phase.segments(section)))


# ---- metrics ----


def _runtime(run: RunData) -> Iterable[Metric]:
    traced = run.phase("traced")
    segments = traced.segments("forced")
    lacking = "no kind of defer was traced"
    for name, title, kinds, counters, meaning in (
        ("open.runtime_calls", "Calls of the runtime from open-coded defers", OPEN, (*RUNTIME, "defer_return"),
         "deferproc, deferprocStack, deferprocat and deferreturn in functions with one and with eight defers"),
        ("control.runtime_calls", "Calls of the runtime from defers that need it", ("stack-9", "loop"), RUNTIME,
         "the same probes, in functions whose defers the compiler cannot write out"),
    ):  # fmt: skip
        counted = [
            sum(traced.counters(segment).get(counter, 0) for counter in counters)
            for segment in segments
            if segment.parameters["kind"] in kinds
        ]
        found = float(sum(counted)) if counted and traced.trace is not None else None
        yield metric(name, title, "count", traced, found, lacking, meaning, exact=True)
    executed = sum(s.counts.get("executed", 0) for s in segments if s.parameters["kind"] in OPEN)
    yield metric(
        "open.executed", "Open-coded defers that ran", "count", traced, float(executed) if executed else None, lacking,
        "counted by the workload", exact=True,
    )  # fmt: skip


def _mismatches(run: RunData) -> list[str]:
    """Return files of which the compiler says something else than planned; one that was not compiled is left out."""
    wrong = []
    for file, (words, count) in COMPILED.items():
        said = [note.words for note in run.compiler if note.file == file and note.words.endswith(" defer")]
        if said and said != [words] * count:
            wrong.append(file)
    return wrong


def _compiler(run: RunData) -> Iterable[Metric]:
    traced = run.phase("traced")
    files = {note.file for note in run.compiler} & set(COMPILED)
    found = float(len(_mismatches(run))) if len(files) >= len(COMPILED) - 1 else None
    yield metric(
        "compiler.mismatches", "Files whose defers the compiler made otherwise", "count", traced, found,
        "the compiler said nothing of the workload's defers",
        "kind and number of the defers of each file, in the compiler's own list (-d=defer)", exact=True,
    )  # fmt: skip


def _costs(run: RunData) -> Iterable[Metric]:
    timed = run.phase("timed")
    lacking = "the section cost did not run"
    for kind in ("direct", "open-1", "open-8", "stack-9", "loop", "range", "panic"):
        values = timed.samples("ns_per_defer", "cost", kind=kind)
        absent = lacking
        if kind == "range" and timed.segments("cost"):
            absent = f"{run.provenance.go_version} has no range over functions; Go 1.23 brought it"
        yield metric(
            f"cost.{kind.replace('-', '_')}_ns", f"Cost, {_title(kind)}", "time", timed,
            median(values) if values else None, absent, "for each deferred call, median over slices of calls",
            unit="ns",
        )  # fmt: skip
    direct = timed.samples("ns_per_call", "cost", kind="direct")
    for kind, title in (("open-1", "Open-coded defer"), ("loop", "Defer in a loop")):
        values = timed.samples("ns_per_defer", "cost", kind=kind)
        yield metric(
            f"cost.{kind.replace('-', '_')}_ratio", f"{title} against a direct call", "ratio", timed,
            ratio(values, direct), lacking, "neighbours in time as pairs", unit="×", timing=True,
        )  # fmt: skip


def _objects(timed: PhaseData, kind: str, collected: str) -> list[float]:
    return timed.samples("objects_per_defer", "alloc", kind=kind, collected=collected)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _allocated(run: RunData) -> Iterable[Metric]:
    timed = run.phase("timed")
    lacking = "the section alloc did not run"
    for name, kind, title, meaning in (
        ("alloc.objects_per_defer", "loop", "Objects that a defer in a loop allocates",
         "all that the program allocated, by the runtime's exact count, over deferred calls; the larger half"),
        ("alloc.closure_objects_per_defer", "loop-closure", "The same where a closure is deferred",
         "what a closure over a variable adds; it would without a defer, too"),
    ):  # fmt: skip
        halves = [mean for half in ("false", "true") if (mean := _mean(_objects(timed, kind, half))) is not None]
        found = max(halves) if halves else None
        yield metric(name, title, "ratio", timed, found, lacking, meaning, unit="objects", exact=True)
    executed = sum(s.counts.get("executed", 0) for s in timed.segments("alloc", kind="loop"))
    yield metric(
        "alloc.executed", "Defers in loops whose allocations were counted", "count", timed,
        float(executed) if executed else None, lacking, "counted by the workload", exact=True,
    )  # fmt: skip


# ---- charts ----


def _reached(run: RunData) -> charts.Table | None:
    traced = run.phase("traced")
    rows: list[list[charts.Cell]] = []
    for kind in _kinds(traced, "forced"):
        segments = traced.segments("forced", kind=kind)
        counters = [traced.counters(segment) for segment in segments]
        rows.append(
            [
                _title(kind),
                sum(int(segment.parameters["calls"]) for segment in segments),
                sum(segment.counts.get("executed", 0) for segment in segments),
                *(
                    sum(found.get(counter, 0) for found in counters) if traced.trace is not None else None
                    for counter in COUNTERS
                ),
            ]
        )
    names = ("deferproc", "deferprocStack", "deferprocat", "deferreturn", "newdefer", "gopanic")
    heads = {"Kind": "", "Calls": "", "Defers that ran": ""} | dict.fromkeys(names, "")
    return table(
        "reached", "Which defers reach the runtime",
        "Calls of each of the runtime's functions, traced, beside what ran. Open-coded defers have none.",
        "traced", "happened", heads, rows,
    )  # fmt: skip


def _boxes(run: RunData) -> charts.QuantileBoxes | None:
    timed = run.phase("timed")
    groups = [
        quantiles(_title(kind), timed.samples("ns_per_defer", "cost", kind=kind)) for kind in _kinds(timed, "cost")
    ]
    if not groups:
        return None
    return charts.QuantileBoxes(
        id="cost-by-kind",
        title="Cost of each kind",
        caption="Time for each deferred call, the call itself included, over slices of calls in turn.",
        phase="timed",
        timing=True,
        what="slices of calls",
        unit="ns",
        log=True,
        groups=groups,
    )


def _distribution(run: RunData) -> charts.Ecdf | None:
    timed = run.phase("timed")
    series = []
    for kind in _kinds(timed, "cost"):
        values = [value for value in timed.samples("ns_per_defer", "cost", kind=kind) if value > 0]
        if values:
            x, p = ecdf(values)
            series.append(charts.EcdfSeries(name=_title(kind), n=len(values), x=x, p=p))
    if not series:
        return None
    return charts.Ecdf(
        id="cost-distribution",
        title="How the cost is distributed",
        caption="Share of slices in which a deferred call took at most the time on the axis (logarithmic).",
        place="time",
        phase="timed",
        timing=True,
        x_title="time for each deferred call",
        what="slices of calls",
        series=series,
    )


def _compiler_table(run: RunData) -> charts.Table | None:
    rows: list[list[charts.Cell]] = []
    for file, (words, count) in COMPILED.items():
        said = [note.words for note in run.compiler if note.file == file and note.words.endswith(" defer")]
        if not said:
            rows.append([file, f"{count} × {words}", charts.Absent(why="not compiled in this version of Go"), ""])
            continue
        kinds = ", ".join(f"{said.count(kind)} × {kind}" for kind in dict.fromkeys(said))
        rows.append([file, f"{count} × {words}", kinds, "yes" if said == [words] * count else "NO"])
    if not run.compiler:
        return None
    return table(
        "compiler", "What the compiler decided",
        "The compiler's own list of defers, made when the workload was built, against what each file is meant to hold.",
        "traced", "known", {"File": "", "Meant": "", "The compiler": "", "Agrees": ""}, rows,
    )  # fmt: skip


def _allocations(run: RunData) -> charts.Table | None:
    timed = run.phase("timed")
    rows: list[list[charts.Cell]] = []
    for kind in _kinds(timed, "alloc"):
        cells: list[charts.Cell] = [_title(kind)]
        for half in ("false", "true"):
            cells.append(_mean(_objects(timed, kind, half)))
            cells.append(_mean(timed.samples("bytes_per_defer", "alloc", kind=kind, collected=half)))
        rows.append(cells)
    return table(
        "allocations", "What defers allocate",
        "Objects and bytes for each deferred call by the runtime's exact counts, without a collection and with one "
        "before each round, which empties the pools of records.",
        "timed", "happened",
        {"Kind": "", "Objects": "", "Bytes": "B", "Objects, collected": "", "Bytes, collected": "B"}, rows,
    )  # fmt: skip


def _notes(run: RunData) -> list[str]:
    notes = []
    if run.phase("timed").segments("cost") and not run.phase("timed").segments("cost", kind="range"):
        notes.append(f"{run.provenance.go_version} has no range over functions (Go 1.23), so no defer of that kind.")
    return notes
