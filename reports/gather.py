"""Which runs a comparison is made of, and why others are not: from a matrix's journal, or from any set of records.

Every attempt and every record that does not count comes out with its reason; none is dropped in silence.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from go_labs import matrix
from go_labs.matrix import Begun, Ended, Entry, MatrixPlan, PlannedRun, Voided
from reports import record, samples
from reports.comparison import Excluded
from reports.samples import Sample
from reports.schema import Clock
from reports.text import neutral
from vm.errors import RecordError, UsageError

ORDER = (
    "Runs that no matrix planned were paired afterwards: by the seed that one command gives all its kernels, else in "
    "the order in which they ran on their host."
)


@dataclass(slots=True)
class Gathered:
    """Runs that passed, and everything else.

    :param base: folder that paths in a comparison are relative to.
    :param plans: of the matrices, where there are any; ``whole``: it is one matrix and nothing else.
    :param samples: that count, so far; ``excluded``: what does not.
    :param planned: runs that were to be, ``finished`` of them, ``tally``: outcome → attempts.
    """

    base: Path
    plans: list[MatrixPlan] = field(default_factory=list)
    whole: bool = False
    samples: list[Sample] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)
    planned: int = 0
    finished: int = 0
    tally: Counter[str] = field(default_factory=Counter)
    times: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def relative(self, path: Path) -> str:
        """Return ``path`` as it stands in the comparison."""
        return Path(os.path.relpath(path, self.base)).as_posix()

    def exclude(self, sample: Sample, kind: str, words: str) -> None:
        """List a run that was read and does not count."""
        place = sample.brief.provenance.place
        self.excluded.append(
            Excluded(
                lab=sample.lab,
                kernel=sample.line,
                block=sample.number,
                attempt=1 if place is None else place.attempt,
                kind=kind,
                words=_told(words, control=sample.control),
                record=self.relative(sample.path),
            )
        )


def _told(words: str, *, control: bool) -> str:
    """Return ``words``, and that it was the control: its kernel is in the same block a second time."""
    return f"{words} (the baseline’s second time)".lstrip() if control else words


def of_matrix(folder: Path, base: Path | None = None) -> Gathered:
    """Return the runs of the matrix in ``folder``.

    :raises RecordError: it is no matrix, or its journal is broken.
    """
    found = Gathered(base=folder if base is None else base, whole=True)
    _add_matrix(found, folder)
    return found


def _add_matrix(found: Gathered, folder: Path) -> None:
    plan = matrix.read_plan(folder)
    entries = matrix.read_journal(folder)
    attempts = matrix.ended(entries)
    found.plans.append(plan)
    found.planned += len(plan.runs)
    found.finished += sum(matrix.is_done(attempts.get(run.number, [])) for run in plan.runs)
    found.tally.update(each.outcome for tried in attempts.values() for each in tried)
    found.times += [entry.at for entry in entries] or [plan.created]
    for run in plan.runs:
        tried = attempts.get(run.number, [])
        chosen = matrix.counted(tried)
        passed = chosen is not None and chosen.outcome == "passed"
        for each in tried:
            if each.outcome != "passed":
                found.excluded.append(_failed(found, folder, plan, run, each, retried=passed))
        if chosen is not None and passed:
            _add_run(found, folder, plan, run, chosen)
    found.excluded += _unended(found, folder, plan, entries)


def _failed(
    found: Gathered, folder: Path, plan: MatrixPlan, run: PlannedRun, each: Ended, *, retried: bool
) -> Excluded:
    words = each.words
    if each.gates:
        words = f"{words}; gates: {', '.join(each.gates)}" if words else f"gates: {', '.join(each.gates)}"
    return Excluded(
        lab=run.lab,
        kernel=plan.cell(run.cell).kernel_line,
        block=run.block,
        attempt=each.attempt,
        kind=each.outcome,
        words=_told(words, control=plan.cell(run.cell).control),
        record=found.relative(folder / matrix.RUNS / each.record) if each.record else "",
        log=found.relative(folder / matrix.LOGS / each.log) if each.log else "",
        retried=retried,
    )


def _unended(found: Gathered, folder: Path, plan: MatrixPlan, entries: Sequence[Entry]) -> list[Excluded]:
    """Return attempts that were cut off, and those whose record broke later."""
    runs = {run.number: run for run in plan.runs}
    over = {(e.run, e.attempt): e for e in entries if isinstance(e, Ended)}
    passed = {run for run, tried in matrix.ended(entries).items() if any(e.outcome == "passed" for e in tried)}
    # A number may be given twice: the attempt that was cut off, and the one that took its place.
    begun = Counter((e.run, e.attempt) for e in entries if isinstance(e, Begun))
    ended = Counter((e.run, e.attempt) for e in entries if isinstance(e, Ended))
    lost = [
        (*key, "cut_off", "it began and never ended: the matrix was stopped in the middle of it")
        for key in begun
        for _ in range(begun[key] - ended[key])
    ]
    lost += [(e.run, e.attempt, "voided", e.words) for e in entries if isinstance(e, Voided)]
    listed = []
    for number, attempt, kind, words in lost:
        run = runs.get(number)
        if run is None:
            raise RecordError(f"the journal of matrix {plan.id} names run {number}", "its plan has no such run")
        was = over.get((number, attempt))
        listed.append(
            Excluded(
                lab=run.lab,
                kernel=plan.cell(run.cell).kernel_line,
                block=run.block,
                attempt=attempt,
                kind=kind,
                words=_told(words, control=plan.cell(run.cell).control),
                log="" if was is None or not was.log else found.relative(folder / matrix.LOGS / was.log),
                retried=number in passed,
            )
        )
    return listed


def _add_run(found: Gathered, folder: Path, plan: MatrixPlan, run: PlannedRun, passed: Ended) -> None:
    cell = plan.cell(run.cell)
    where = folder / matrix.RUNS / passed.record
    why = ("unreadable", "its name leads out of the matrix")
    # A record's name is one part; the journal is a file that anybody can edit.
    if passed.record and Path(passed.record).name == passed.record:
        try:
            sample = samples.read(
                where,
                repeat=f"{run.block}" if found.whole else f"{plan.id}-{run.block}",
                number=run.block,
                cell=run.cell,
                control=cell.control,
                judged=run.judged,
            )
        except RecordError as error:
            why = "unreadable", error.message
        else:
            place = sample.brief.provenance.place
            told = (sample.lab, sample.line, sample.brief.provenance.kernel_release)
            named = None if place is None else (place.matrix, place.run, place.cell)
            if named == (plan.id, run.number, run.cell) and told == (run.lab, cell.kernel_line, cell.kernel_release):
                found.samples.append(sample)
                return
            why = "mismatch", f"the record is of {' on '.join(map(neutral, told[:2]))}, or of another run"
    found.excluded.append(
        Excluded(
            lab=run.lab,
            kernel=cell.kernel_line,
            block=run.block,
            attempt=passed.attempt,
            kind=why[0],
            words=_told(why[1], control=cell.control),
            record=found.relative(where),
            log=found.relative(folder / matrix.LOGS / passed.log) if passed.log else "",
        )
    )


# ---- any set of records ----


@dataclass(slots=True)
class _Seen:
    """Ids of the records that a set has already, and matrices that records of it lie in."""

    ids: set[str] = field(default_factory=set)
    homes: dict[Path, Gathered] = field(default_factory=dict)


def of_records(paths: Iterable[Path], base: Path) -> Gathered:
    """Return the runs of ``paths``: records, matrices, or folders that hold some of these.

    :raises UsageError: one holds neither. :raises RecordError: a matrix is broken.
    """
    found = Gathered(base=base)
    seen = _Seen()
    for path in dict.fromkeys(path.absolute() for path in paths):
        _add_path(found, path, seen)
    for sample in found.samples:
        found.times += [sample.brief.provenance.started, sample.brief.provenance.finished]
    if any(not sample.repeat for sample in found.samples):
        found.samples = _paired_afterwards(found.samples)
        found.notes.append(ORDER)
    return found


def _add_path(found: Gathered, path: Path, seen: _Seen) -> None:
    if (path / record.RUN).is_file():
        _add_record(found, path, seen)
        return
    if path.name == matrix.RUNS and _is_matrix(path.parent):
        path = path.parent
    if _is_matrix(path):
        _add_whole_matrix(found, path, seen)
        return
    inner = [each for each in sorted(path.glob("*")) if each.is_dir() and not each.name.startswith(".")]
    if not any((each / record.RUN).is_file() or _is_matrix(each) for each in inner):
        raise UsageError(
            f"{path} holds no run records", "name a matrix, records, or a folder of these; `invoke lab` makes records"
        )
    for each in inner:
        if _is_matrix(each):
            _add_whole_matrix(found, each, seen)
        elif record.is_left_of_one(each):
            _add_record(found, each, seen)


def _is_matrix(path: Path) -> bool:
    # A record has a plan.json, too: that of its probes.
    return (path / matrix.PLAN).is_file() and not (path / record.RUN).is_file()


def _add_whole_matrix(found: Gathered, path: Path, seen: _Seen) -> None:
    before = len(found.samples)
    _add_matrix(found, path)
    new, found.samples[before:] = found.samples[before:], []
    for sample in new:
        _add_once(found, sample, seen)


def _add_record(found: Gathered, path: Path, seen: _Seen) -> None:
    home = path.parent.parent
    if path.parent.name == matrix.RUNS and _is_matrix(home):
        _add_of_matrix(found, path, home, seen)
        return
    found.planned += 1
    try:
        sample = samples.read(path)
    except RecordError as error:
        words = neutral(error.message)
        found.excluded.append(
            Excluded(lab="", kernel="", block=0, attempt=1, kind="unreadable", words=words, record=found.relative(path))
        )
        found.tally["unreadable"] += 1
        return
    found.finished += 1
    place = sample.brief.provenance.place
    if place is not None:
        sample = replace(sample, repeat=f"{place.matrix}-{place.block}", number=place.block, cell=place.cell)
    # The timed phase alone leaves gates of other phases without a figure; its matrix has judged the run.
    failed = [g.name for g in sample.brief.gates if g.passed is False or (g.passed is None and place is None)]
    if failed:
        found.exclude(sample, "gate_failed", f"gates: {', '.join(failed)}")
        found.tally["gate_failed"] += 1
        return
    found.tally["passed"] += 1
    _add_once(found, sample, seen)


def _add_of_matrix(found: Gathered, path: Path, home: Path, seen: _Seen) -> None:
    """Add one record of a matrix as its journal has it: it knows what passed, and which cell is the control."""
    if home not in seen.homes:
        seen.homes[home] = Gathered(base=found.base)
        _add_matrix(seen.homes[home], home)
        found.plans += seen.homes[home].plans
    name = found.relative(path)
    samples_of, excluded = seen.homes[home].samples, seen.homes[home].excluded
    found.planned += 1
    for sample in (each for each in samples_of if each.path == path):
        found.finished += 1
        found.tally["passed"] += 1
        _add_once(found, sample, seen)
        return
    for each in (each for each in excluded if each.record == name):
        found.tally[each.kind] += 1
        found.excluded.append(each)
        return
    found.excluded.append(
        Excluded(
            lab="", kernel="", block=0, attempt=1, kind="mismatch", words="its matrix does not know it", record=name
        )
    )
    found.tally["mismatch"] += 1


def _add_once(found: Gathered, sample: Sample, seen: _Seen) -> None:
    if sample.brief.id in seen.ids:
        found.exclude(sample, "duplicate", f"record {sample.brief.id} is there already")
        return
    seen.ids.add(sample.brief.id)
    found.samples.append(sample)


def _paired_afterwards(found: Sequence[Sample]) -> list[Sample]:
    """Give every run without a repeat one: see :data:`ORDER`."""
    named = [sample for sample in found if sample.repeat]
    rest: dict[Hashable, list[Sample]] = defaultdict(list)
    for sample in sorted(found, key=lambda s: (s.brief.provenance.started, s.brief.id)):
        if not sample.repeat:
            rest[sample.lab, sample.host].append(sample)
    for group in rest.values():
        by_seed: dict[int, list[Sample]] = defaultdict(list)
        for sample in group:
            by_seed[sample.brief.provenance.seed].append(sample)
        left: list[Sample] = []
        for seed, mine in by_seed.items():
            if len({sample.line for sample in mine}) > 1:
                named += _counted_off(mine, f"seed-{seed}")
            else:
                left += mine
        named += _counted_off(left, "run")
    return named


def _counted_off(group: Iterable[Sample], prefix: str) -> list[Sample]:
    """Number the runs of each kernel; those with the same number are a block."""
    count: Counter[str] = Counter()
    made = []
    for sample in sorted(group, key=lambda s: (s.brief.provenance.started, s.brief.id)):
        count[sample.line] += 1
        number = count[sample.line]
        made.append(replace(sample, repeat=f"{prefix}-{number}", number=number))
    return made


# ---- what must not be mixed ----


def one_clock(found: Gathered, wanted: str) -> Clock:
    """Keep the runs of one clock, list the others, and return it.

    Of a matrix: the clock of most of its runs. Of a set of records: the only one that they have.

    :param wanted: chosen by a person, empty where nobody did.
    :raises UsageError: a set has several clocks and none was chosen, or no run has the one that was.
    """
    clocks = Counter(sample.brief.provenance.clock for sample in found.samples)
    if wanted and found.samples and wanted not in clocks:
        raise UsageError(f"no run has the clock {wanted}", f"they have {_listed(clocks)}")
    if not clocks:
        virtual = any(plan.clock == "virtual" for plan in found.plans)
        return "virtual" if virtual else "emulated"
    if len(clocks) > 1 and not wanted and not found.whole:
        raise UsageError(
            f"these runs have several clocks: {_listed(clocks)}",
            "times of different clocks are never compared; choose one with --clock",
        )
    chosen: Clock = max(clocks, key=lambda clock: (clock == wanted, clocks[clock], clock))
    _keep(found, lambda s: s.brief.provenance.clock == chosen, "other_clock", lambda s: (
        f"its clock is {s.brief.provenance.clock}, that of the comparison {chosen}"
    ))  # fmt: skip
    return chosen


def _listed(counts: Counter[Clock]) -> str:
    return ", ".join(f"{clock} ({count})" for clock, count in sorted(counts.items()))


def _keep(found: Gathered, counts: Callable[[Sample], bool], kind: str, words: Callable[[Sample], str]) -> None:
    kept = []
    for sample in found.samples:
        if counts(sample):
            kept.append(sample)
        else:
            found.exclude(sample, kind, words(sample))
    found.samples = kept


def conditions(sample: Sample) -> dict[str, str]:
    """Return what runs of a lab must share to be compared, label → value."""
    p = sample.brief.provenance
    return {
        "Go": p.go_version,
        "build": p.build,
        "options": ", ".join(f"{name}={value}" for name, value in sorted(p.options.items())) or "none",
        "lab": p.lab_sha256,
        "lock": p.lock_digest,
        "machine": f"{p.cpus} CPUs, {p.memory_mib} MiB",
    }


def one_group(found: Gathered) -> None:
    """Keep for each lab the runs under one set of :func:`conditions`, and list the others with what is other there.

    The set of most runs in a matrix, where only one was planned; of records, the set of the run that ended last.
    """
    by_lab: dict[str, list[Sample]] = defaultdict(list)
    for sample in found.samples:
        by_lab[sample.lab].append(sample)
    chosen: dict[str, dict[str, str]] = {}
    for lab, group in by_lab.items():
        sets: dict[tuple[str, ...], list[Sample]] = defaultdict(list)
        for sample in group:
            sets[tuple(conditions(sample).values())].append(sample)

        def rank(mine: list[Sample]) -> tuple[int, str]:
            return (len(mine) if found.whole else 0, max(s.brief.provenance.finished for s in mine))

        chosen[lab] = conditions(max(sets.values(), key=rank)[0])

    def words(sample: Sample) -> str:
        wanted = chosen[sample.lab]
        other = [
            f"{label} {_short(value)}, not {_short(wanted[label])}"
            for label, value in conditions(sample).items()
            if value != wanted[label]
        ]
        return f"run under other conditions: {'; '.join(other)}"

    _keep(found, lambda s: conditions(s) == chosen[s.lab], "other_group", words)
    # A kernel of one's own keeps its name when it is built again.
    latest: dict[str, tuple[str, str]] = {}
    for sample in found.samples:
        p = sample.brief.provenance
        latest[sample.line] = max(latest.get(sample.line, ("", "")), (p.finished, p.kernel_release))
    _keep(
        found,
        lambda s: s.brief.provenance.kernel_release == latest[s.line][1],
        "other_group",
        lambda s: f"its kernel is {s.brief.provenance.kernel_release}, not {latest[s.line][1]}",
    )


def _short(value: str) -> str:
    return value[:12] if len(value) == 64 and value.isalnum() else value


def paired(found: Gathered, baseline: str) -> list[Sample]:
    """Return the runs that pair with one of ``baseline`` in their block, and these; list the others.

    A block is a repeat and a host.
    """
    there: dict[tuple[str, str], set[Hashable]] = defaultdict(set)
    for sample in found.samples:
        if sample.line == baseline and not sample.control:
            there[sample.lab, sample.repeat].add(sample.host)
    kept: list[Sample] = []
    taken: set[Hashable] = set()
    for sample in found.samples:
        mine = there[sample.lab, sample.repeat]
        place = (sample.lab, sample.repeat, sample.host, sample.line, sample.control)
        if not mine:
            found.exclude(sample, "incomplete_block", f"block {sample.repeat} has no run of {baseline} that counts")
        elif sample.host not in mine:
            found.exclude(sample, "other_host", f"it ran on another host than {baseline} in block {sample.repeat}")
        elif place in taken:
            found.exclude(sample, "duplicate", f"block {sample.repeat} has a run of this kernel already")
        else:
            taken.add(place)
            kept.append(sample)
    return kept
