"""JUnit XML, for CI servers: a suite per lab, a case per run, per claim and kernel, and per comparison of the primary.

Where expectations were given, claims and comparisons fail that are not as expected, and no others. Without them a
refuted claim and a slower kernel are failures; what the data do not allow to say is skipped with the reason, never
passed.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from go_labs import matrix
from go_labs.matrix import OUTCOME_WORDS, Ended, MatrixPlan
from reports import expectations
from reports.comparison import Comparison, Effect, Evidence, Excluded, LabComparison
from reports.expectations import Surprise
from reports.exports._source import Format, Source, metrics, write
from reports.text import OUTCOME_WORDS as VERDICT_WORDS
from reports.text import neutral

if TYPE_CHECKING:
    from junitparser import TestCase, TestSuite

NAME = "junit.xml"

_INVALID = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot have, not even escaped (section 2.2, Char)."""


@dataclass(frozen=True, slots=True)
class Case:
    """A case: passed where neither ``failure`` nor ``skipped`` is there.

    :param failure: class and words. :param told: for system-out. :param seconds: None where nobody measured.
    """

    group: str
    name: str
    failure: tuple[str, str] | None = None
    details: str = ""
    skipped: str = ""
    told: str = ""
    seconds: float | None = None


def text(source: Source) -> bytes:
    """Return the whole file."""
    from junitparser import JUnitXml

    document = JUnitXml(valid(source.comparison.name))
    for lab in source.comparison.labs:
        document.add_testsuite(_suite(source, lab))
    if rest := [each for each in source.surprises or () if each.what == "matrix"]:
        document.add_testsuite(_named("matrix", [_failed("matrix", "all runs were made", rest)]))
    document.update_statistics()  # type: ignore[no-untyped-call]
    file = io.BytesIO()
    document.write(file)
    return file.getvalue()


def valid(text: str) -> str:
    """Return ``text`` without what XML, or who reads a log, cannot bear: such characters stand as their escapes."""
    shown = neutral(text, limit=100_000, keep="\n\t")
    return _INVALID.sub(lambda found: f"\\u{ord(found[0]):04x}", shown)


def _suite(source: Source, lab: LabComparison) -> TestSuite:
    comparison = source.comparison
    suite = _named(lab.lab, cases(source, lab))
    told = {
        "comparison": comparison.name, "clock": comparison.clock, "baseline": comparison.baseline,
        "control": comparison.control.words if comparison.control else "",
    }  # fmt: skip
    for name, value in told.items():
        suite.add_property(name, valid(value))
    if comparison.started:
        suite.timestamp = comparison.started
    return suite


def _named(name: str, found: Iterable[Case]) -> TestSuite:
    from junitparser import TestSuite

    suite = TestSuite(valid(name))
    for case in found:
        suite.add_testcase(_element(name, case))
    return suite


def _element(suite: str, case: Case) -> TestCase:
    from junitparser import Failure, Skipped, TestCase

    made = TestCase(valid(case.name), classname=valid(f"{suite}.{case.group}"), time=case.seconds)
    if case.failure is not None:
        kind, words = case.failure
        failure = Failure(valid(words), valid(kind))
        failure.text = valid(case.details or words)
        made.result = [failure]
    elif case.skipped:
        made.result = [Skipped(valid(case.skipped))]
    if case.told:
        made.system_out = valid(case.told)
    return made


def cases(source: Source, lab: LabComparison) -> Iterator[Case]:
    """Give every case of ``lab``."""
    for line, why in lab.unfit.items():
        yield _against(source, lab.lab, Case("run", f"{line}", skipped=f"cannot run here: {why}"), "run", line)
    if source.plan is not None:
        yield from _planned(source, source.plan, lab)
    else:
        yield from _found(source, lab)
    if source.surprises is not None:
        yield from _pass_surprises(source.surprises, lab)
    for claim in lab.claims:
        for kernel in source.comparison.kernels:
            if kernel.line not in lab.unfit:
                case = _claim(f"{claim.claim} on {kernel.line}", claim.text, claim.verdicts.get(kernel.line, []))
                yield _against(source, lab.lab, case, "verdict", kernel.line, claim.claim)
    for compared in metrics(lab):
        for effect in compared.effects:
            surprised = _surprises(source, lab.lab, "change", effect.kernel, compared.metric)
            if not effect.control and (compared.primary or surprised):
                case = _effect(f"{compared.metric} on {effect.kernel}", effect)
                yield _against(source, lab.lab, case, "change", effect.kernel, compared.metric)


# ---- runs ----


def _planned(source: Source, plan: MatrixPlan, lab: LabComparison) -> Iterator[Case]:
    """Give a case for each run of the plan."""
    attempts = matrix.ended(source.journal)
    for run in plan.runs:
        if run.lab != lab.lab:
            continue
        cell = plan.cell(run.cell)
        again = " (control)" if cell.control else ""
        name = f"{cell.kernel_line}{again}, block {run.block}"
        tried = attempts.get(run.number, [])
        last = matrix.counted(tried)
        left_out = _left_out(source.comparison, lab.lab, last)
        if last is None:
            yield Case("run", name, skipped="not made: the matrix did not get to it")
            continue
        failed = [each for each in tried if each.outcome != "passed"]
        told = "\n".join(_attempt(each) for each in failed)
        seconds = sum(each.seconds for each in tried)
        if last.outcome == "passed":
            flaky = f"flaky: passed at attempt {last.attempt}, after\n{told}" if failed else ""
            said = "\n".join(word for word in (flaky, left_out) if word)
            yield Case("run", name, told=said, seconds=seconds)
        else:
            failure = (last.outcome, last.words or OUTCOME_WORDS[last.outcome])
            case = Case("run", name, failure=failure, details=told, seconds=seconds)
            yield _expected(source, lab.lab, cell.kernel_line, case)


def _attempt(each: Ended) -> str:
    gates = f"; gates {', '.join(each.gates)}" if each.gates else ""
    words = f": {each.words}" if each.words else ""
    log = f"; log {matrix.LOGS}/{each.log}" if each.log else ""
    return f"attempt {each.attempt}: {OUTCOME_WORDS[each.outcome]}{words}{gates}{log}"


def _left_out(comparison: Comparison, lab: str, last: Ended | None) -> str:
    """Return why a run that passed does not count in the comparison; empty where it does."""
    for each in comparison.excluded:
        if last and each.lab == lab and last.record and each.record.rpartition("/")[2] == last.record:
            return f"not part of the comparison: {each.kind.replace('_', ' ')}: {each.words}"
    return ""


def _found(source: Source, lab: LabComparison) -> Iterator[Case]:
    """Give a case for each run that left something, where no plan says which were to be made."""
    comparison = source.comparison
    for kernel in comparison.kernels:
        records: dict[str, str] = {}
        for compared in metrics(lab):
            records |= {value.record: value.block for value in compared.values.get(kernel.line, [])}
        for claim in lab.claims:
            records |= {each.record: each.block for each in claim.verdicts.get(kernel.line, [])}
        for name, block in records.items():
            yield Case("run", f"{kernel.line}, block {block}", told=f"record {name}")
    for each in comparison.excluded:
        if each.lab == lab.lab and not each.retried:
            yield _excluded(source, each)


def _excluded(source: Source, each: Excluded) -> Case:
    name = f"{each.kernel}, block {each.block}, attempt {each.attempt}"
    words = f"{each.kind.replace('_', ' ')}: {each.words}"
    if each.kind not in OUTCOME_WORDS:
        return Case("run", name, skipped=words)
    details = f"{words}\n{each.log}".strip()
    case = Case("run", name, failure=(each.kind, each.words or each.kind), details=details)
    return _expected(source, each.lab, each.kernel, case)


def _expected(source: Source, lab: str, kernel: str, case: Case) -> Case:
    """Return the case of a run that failed: still a failure, unless fails of that kernel are what was expected."""
    found = _surprises(source, lab, "run", kernel, "")
    if source.surprises is None or any(each.sense == "fail" for each in found):
        return case
    return Case(case.group, case.name, told=f"failed, as expected: {case.details}", seconds=case.seconds)


def _pass_surprises(surprises: Iterable[Surprise], lab: LabComparison) -> Iterator[Case]:
    """Give a case for each kernel whose runs passed, and should not have: no single run is at fault."""
    for each in surprises:
        mine = each.what == "run" and each.lab == lab.lab and each.kernel not in lab.unfit
        if mine and each.sense == "pass":
            yield _failed("run", f"runs on {each.kernel} as expected", [each])


# ---- claims and comparisons ----


def _claim(name: str, claim: str, found: list[Evidence]) -> Case:
    counts = Counter(each.outcome for each in found)
    told = "\n".join([claim, *(f"block {e.block}: {VERDICT_WORDS[e.outcome]}: {e.sentence}" for e in found)])
    words = ", ".join(f"{VERDICT_WORDS[outcome]} in {count}" for outcome, count in counts.items())
    if counts["refuted"]:
        return Case("claim", name, failure=("refuted", words), details=told)
    if not found:
        return Case("claim", name, skipped="not judged")
    if set(counts) != {"confirmed"}:
        return Case("claim", name, skipped=words, told=told)
    return Case("claim", name, told=told)


def _effect(name: str, effect: Effect) -> Case:
    if effect.change == "slower":
        return Case("effect", name, failure=("slower", effect.words or "slower"))
    if effect.change == "undecided":
        return Case("effect", name, skipped=effect.absent or effect.words or "undecided")
    return Case("effect", name, told=effect.words)


def _against(source: Source, lab: str, case: Case, what: str, kernel: str, thing: str = "") -> Case:
    """Return ``case`` as expectations have it, where there are any."""
    if source.surprises is None:
        return case
    if found := _surprises(source, lab, what, kernel, thing):
        return _failed(case.group, case.name, found)
    if case.failure is not None:
        return Case(case.group, case.name, told=f"as expected, or not asked for: {case.details or case.failure[1]}")
    return case


def _surprises(source: Source, lab: str, what: str, kernel: str, thing: str) -> list[Surprise]:
    wanted = (what, lab, kernel, thing)
    return [each for each in source.surprises or () if (each.what, each.lab, each.kernel, each.thing) == wanted]


def _failed(group: str, name: str, found: list[Surprise]) -> Case:
    words = "\n".join(expectations.words(each) for each in found)
    return Case(group, name, failure=(f"unexpected_{found[0].sense}", words.partition("\n")[0]), details=words)


def _write(source: Source, out: Path) -> list[Path]:
    return [write(out / NAME, text(source))]


FORMAT = Format("junit", "runs, claims and comparisons as test cases, for CI servers", _write)
