"""What a comparison should come to, and what is not as expected. For other people's CI. Pure.

An unexpected pass is as much of a surprise as an unexpected fail: both say that somebody's idea of a kernel is wrong.
Of several entries for the same thing the last one counts. :mod:`reports.expected` reads the file.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from go_labs.matrix import OUTCOME_WORDS
from reports.comparison import Comparison, Effect, Evidence, LabComparison
from reports.expected import ALL, ANY, EXPECTATIONS_SCHEMA, UNFIT, Entry, Expectations, What, listed, parse, read
from reports.text import neutral, number
from vm.errors import ConfigError, ExpectationError

__all__ = ["Expectations", "Surprise", "check", "document", "draft", "parse", "read", "require", "words"]

_PASSES = frozenset({"passed", "confirmed", "equivalent", "faster"})
"""What reads as a pass, so that a surprise can be told as an unexpected one."""

LEFT_OUT = frozenset({"other_host", "other_clock", "other_group", "other_control", "incomplete_block"})
"""Why a run that passed does not count in a comparison (:class:`reports.comparison.Excluded`)."""


class Surprise(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as expected.

    :param what: kind of the thing, ``matrix`` for runs that were never made; ``thing``: the claim or metric; empty for
        runs.
    :param sense: whether the pass, or the fail, is what nobody expected.
    :param entry: number of the ``[[expect]]`` that says otherwise, from 1; 0 for ``[default]`` and ``strict``.
    :param evidence: records and logs to look at.
    """

    what: What | Literal["matrix"]
    lab: str
    kernel: str
    thing: str
    expected: str
    got: str
    sense: Literal["pass", "fail"]
    entry: int
    why: str = ""
    evidence: list[str] = []


# ---- what is there ----


@dataclass(frozen=True, slots=True)
class _Thing:
    """Something that can be expected.

    :param got: what it came to, each with how often; empty where there is nothing to look at.
    :param named: a primary metric's change answers to no name, too; every other only to its own.
    """

    what: What
    lab: str
    kernel: str
    release: str
    name: str
    got: Counter[str]
    evidence: list[str]
    evidence_of: dict[str, list[str]]
    named: frozenset[str]
    ratio: float | None = None


def things(comparison: Comparison) -> Iterator[_Thing]:
    """Give every thing of ``comparison`` that can be expected: runs, verdicts, changes."""
    releases = {kernel.line: kernel.release for kernel in comparison.kernels}
    for lab in comparison.labs:
        for line, release in releases.items():
            yield _runs(comparison, lab, line, release)
        for claim in lab.claims:
            for line, release in releases.items():
                found = claim.verdicts.get(line, [])
                if line not in lab.unfit:
                    names = frozenset({claim.claim, ALL})
                    yield _verdicts(lab.lab, line, release, claim.claim, found, names)
        for compared in [*([lab.primary] if lab.primary else []), *lab.exploratory]:
            for effect in compared.effects:
                if not effect.control:
                    own = {compared.metric, *([""] if compared.primary else [])}
                    values = [value.record for value in compared.values.get(effect.kernel, [])]
                    release = releases.get(effect.kernel, "")
                    yield _change(lab.lab, release, compared.metric, effect, values, frozenset(own))
            shown = {effect.kernel for effect in compared.effects if not effect.control} | {comparison.baseline}
            for line in (line for line in releases if line not in shown and line not in lab.unfit):
                # No run of it counts: that is no change as expected, whatever was.
                named = frozenset({compared.metric, *([""] if compared.primary else [])})
                yield _Thing("change", lab.lab, line, releases[line], compared.metric, Counter(), [], {}, named)


def _verdicts(
    lab: str, line: str, release: str, claim: str, found: Sequence[Evidence], named: frozenset[str]
) -> _Thing:
    places: dict[str, list[str]] = {}
    for each in found:
        places.setdefault(each.outcome, []).append(each.record)
    counts = Counter(str(each.outcome) for each in found)
    return _Thing("verdict", lab, line, release, claim, counts, [e.record for e in found], places, named)


def _change(lab: str, release: str, metric: str, effect: Effect, records: list[str], named: frozenset[str]) -> _Thing:
    got = Counter([str(effect.change)])
    return _Thing("change", lab, effect.kernel, release, metric, got, records, {}, named, effect.ratio)


def _runs(comparison: Comparison, lab: LabComparison, line: str, release: str) -> _Thing:
    """Return what came of the runs of a lab on a kernel, each by the attempt that decides it.

    Runs that passed are those that left a value or a verdict, and those that passed and yet do not count.
    """
    good: dict[str, None] = {}
    for compared in [*([lab.primary] if lab.primary else []), *lab.exploratory]:
        again = next((effect.kernel for effect in compared.effects if effect.control), comparison.baseline)
        control = compared.control if line == again else []
        good |= dict.fromkeys(value.record for value in [*compared.values.get(line, []), *control])
    for claim in lab.claims:
        good |= dict.fromkeys(each.record for each in claim.verdicts.get(line, []))
    excluded = [each for each in comparison.excluded if each.lab == lab.lab and each.kernel == line]
    good |= dict.fromkeys(each.record for each in excluded if each.kind in LEFT_OUT)
    failed = [each for each in excluded if each.kind in OUTCOME_WORDS and not each.retried]
    last = {block: max(e.attempt for e in failed if e.block == block) for block in {e.block for e in failed}}
    failed = [each for each in failed if each.attempt == last[each.block]]
    got: Counter[str] = Counter({"passed": len(good)} if good else {})
    places: dict[str, list[str]] = {"passed": list(good)}
    for each in failed:
        got[each.kind] += 1
        places.setdefault(each.kind, []).append(each.record or each.log)
    if line in lab.unfit:
        got[UNFIT] += 1
    evidence = [place for found in places.values() for place in found]
    return _Thing("run", lab.lab, line, release, "", got, evidence, places, frozenset({"", ALL}))


# ---- what is expected of it ----


def check(comparison: Comparison, expectations: Expectations) -> list[Surprise]:
    """Return what is not as expected, in the order of labs, kernels and claims.

    :raises ConfigError: an entry names nothing that the comparison has; near names are suggested.
    """
    found = list(things(comparison))
    lost: list[Surprise] = []
    for number_, entry in enumerate(expectations.expect, 1):
        if not any(_matches(entry, thing) for thing in found):
            mine = _lost(comparison, entry, number_, found)
            if not mine:
                raise _nothing(entry, number_, found)
            lost += mine
    surprises = [each for thing in found if (each := _surprise(thing, expectations)) is not None]
    surprises += lost
    if comparison.finished < comparison.planned and ANY not in listed(expectations.default.run):
        surprises.append(
            Surprise(
                what="matrix", lab="", kernel="", thing="", sense="fail", entry=0,
                expected=f"{comparison.planned} runs", got=f"{comparison.finished} that came to an end",
            )
        )  # fmt: skip
    return surprises


def _matches(entry: Entry, thing: _Thing) -> bool:
    return (
        entry.what == thing.what
        and bool({ALL, thing.lab} & set(listed(entry.lab)))
        and bool({ALL, thing.kernel, thing.release} & set(listed(entry.kernel)))
        and (entry.what != "verdict" or bool(thing.named & set(listed(entry.claim))))
        and (entry.what != "change" or bool(thing.named & set(listed(entry.metric))))
    )


def _lost(comparison: Comparison, entry: Entry, number_: int, found: Sequence[_Thing]) -> list[Surprise]:
    """Return what an entry expects of labs that left nothing at all where they were to run: the comparison then does
    not have the names of their claims and metrics, and the file is not at fault. Who names the lab means it; of all
    labs the others tell."""
    if entry.what == "run" or ANY in entry.expected:
        return []
    silent = {lab.lab for lab in comparison.labs if lab.primary is None and not lab.claims}
    thing = entry.claim if entry.what == "verdict" else entry.metric
    return [
        Surprise(
            what=entry.what, lab=each.lab, kernel=each.kernel, thing=_or(listed(thing)) or "primary metric",
            expected=_expected(entry), got="nothing", sense="fail", entry=number_, why=entry.why,
            evidence=_places(each.evidence),
        )
        for each in found
        if each.what == "run" and each.lab in silent and not each.got.keys() & {"passed", UNFIT}
        and (each.got or comparison.finished < comparison.planned)
        and each.lab in listed(entry.lab)
        and bool({ALL, each.kernel, each.release} & set(listed(entry.kernel)))
        and not (entry.what == "change" and each.kernel == comparison.baseline)
    ]  # fmt: skip


def _surprise(thing: _Thing, expectations: Expectations) -> Surprise | None:
    entries = [(n, entry) for n, entry in enumerate(expectations.expect, 1) if _matches(entry, thing)]
    if not entries:
        return _unnamed(thing, expectations)
    number_, entry = entries[-1]
    wanted = set(entry.expected)
    # Of runs, "*" means all labs that run there; who names a lab means that it does.
    lax = thing.what == "run" and thing.lab not in listed(entry.lab)
    wrong = [] if ANY in wanted else [word for word in thing.got if word not in wanted and not (lax and word == UNFIT)]
    missing = not thing.got and ANY not in wanted and not lax
    outside = _outside(entry, thing)
    if not wrong and not missing and not outside:
        return None
    evidence = [place for word in wrong for place in thing.evidence_of.get(word, [])] or thing.evidence
    passes = bool(wrong) and set(wrong) <= _PASSES and not outside
    return Surprise(
        what=thing.what, lab=thing.lab, kernel=thing.kernel, thing=thing.name, expected=_expected(entry),
        got=_got(thing), sense="pass" if passes else "fail", entry=number_, why=entry.why, evidence=_places(evidence),
    )  # fmt: skip


def _unnamed(thing: _Thing, expectations: Expectations) -> Surprise | None:
    """Return the surprise of a thing that no entry names: by default, or because nothing was said of it."""
    wanted = listed(getattr(expectations.default, thing.what))
    primary = thing.what != "change" or "" in thing.named
    silent = expectations.strict and thing.what != "run" and bool(thing.got) and primary
    # That a lab does not fit is known before anything runs; who minds it names it.
    wrong = [word for word in thing.got if word not in wanted and word != UNFIT] if primary else []
    if ANY in wanted or not wrong:
        wrong = []
    if not wrong and not silent:
        return None
    evidence = [place for word in wrong for place in thing.evidence_of.get(word, [])] or thing.evidence
    return Surprise(
        what=thing.what, lab=thing.lab, kernel=thing.kernel, thing=thing.name,
        expected=_or(wanted) if wrong else "to be named by an entry (strict)", got=_got(thing),
        sense="pass" if set(wrong or thing.got) <= _PASSES else "fail", entry=0, evidence=_places(evidence),
    )  # fmt: skip


def _outside(entry: Entry, thing: _Thing) -> bool:
    if entry.at_least is None and entry.at_most is None:
        return False
    if thing.ratio is None:
        return True
    return (entry.at_least is not None and thing.ratio < entry.at_least) or (
        entry.at_most is not None and thing.ratio > entry.at_most
    )


def _places(evidence: Collection[str]) -> list[str]:
    return [place for place in dict.fromkeys(evidence) if place]


def _or(words: Collection[str]) -> str:
    return " or ".join(word.replace("_", " ") for word in words)


def _expected(entry: Entry) -> str:
    bounds = [(entry.at_least, "at least"), (entry.at_most, "at most")]
    said = [f"{words} {number(bound)}" for bound, words in bounds if bound is not None]
    if said and not entry.change:
        return f"ratio {' and '.join(said)}"
    return _or(entry.expected) + (f", ratio {' and '.join(said)}" if said else "")


def _got(thing: _Thing) -> str:
    if not thing.got:
        return "nothing"
    if thing.what == "change":
        shown = next(iter(thing.got))
        return f"{shown}, ratio {number(thing.ratio)}" if thing.ratio is not None else f"{shown}, no ratio"
    if set(thing.got) == {UNFIT}:
        return UNFIT
    counts = [f"{word.replace('_', ' ')} in {count}" for word, count in thing.got.items() if word != UNFIT]
    return f"{', '.join(counts)} {'run' if sum(thing.got.values()) == 1 else 'runs'}"


def _nothing(entry: Entry, number_: int, found: Sequence[_Thing]) -> ConfigError:
    """Return the error of an entry that names nothing, with what it may have meant."""
    same = [thing for thing in found if thing.what == entry.what]
    sought: list[tuple[str, tuple[str, ...], set[str]]] = [
        ("lab", listed(entry.lab), {thing.lab for thing in found}),
        ("kernel", listed(entry.kernel), {word for thing in found for word in (thing.kernel, thing.release)}),
    ]
    if entry.what == "verdict":
        sought.append(("claim", listed(entry.claim), {thing.name for thing in same}))
    if entry.what == "change" and entry.metric:
        sought.append(("metric", listed(entry.metric), {thing.name for thing in same}))
    for name, words, known in sought:
        if not {*words} & {*known, ALL}:
            near = [near for word in words for near in difflib.get_close_matches(word, known, n=3, cutoff=0.5)]
            raised = f"[[expect]] {number_} names {name} {_or(words)}, which the comparison does not have"
            there = ", ".join(sorted(known - {""})[:12]) or "none"
            return ConfigError(raised, f"did you mean {', '.join(near)}?" if near else f"there are {there}")
    told = ", ".join(f"{name} {_or(words)}" for name, words, _ in sought)
    hint = "each of these is there, but nowhere together"
    if entry.what == "change":
        hint += "; the baseline is compared with nothing"
    return ConfigError(f"[[expect]] {number_} matches nothing of the comparison: {entry.what} of {told}", hint)


# ---- telling ----


def words(surprise: Surprise) -> str:
    """Return a surprise in one line."""
    if surprise.what == "matrix":
        return f"matrix not finished: expected {surprise.expected}, got {surprise.got}"
    thing = {"run": "runs", "verdict": f"claim {surprise.thing}", "change": surprise.thing}[surprise.what]
    told = (
        f"unexpected {surprise.sense}: {surprise.lab} on {surprise.kernel}, {thing}: expected {surprise.expected}, got "
        f"{surprise.got}"
    )
    why = f" ({surprise.why})" if surprise.why else ""
    where = f"; see {', '.join(surprise.evidence[:3])}" if surprise.evidence else ""
    return neutral(told + why + where)


def document(surprises: Sequence[Surprise]) -> dict[str, object]:
    """Return surprises for machines: ``schema`` (1), ``as_expected``, ``surprises``, each as :class:`Surprise`."""
    return {
        "schema": 1,
        "as_expected": not surprises,
        "surprises": [msgspec.structs.asdict(each) for each in surprises],
    }


def require(surprises: Sequence[Surprise]) -> None:
    """Do nothing where there is none.

    :raises ExpectationError: with every surprise, a line each.
    """
    if not surprises:
        return
    passes = sum(each.sense == "pass" for each in surprises)
    told = f"{_number(passes, 'unexpected pass', 'es')} and {_number(len(surprises) - passes, 'unexpected fail', 's')}"
    raise ExpectationError(
        "\n  ".join([f"{told}:", *(words(each) for each in surprises)]),
        "look at the evidence; where it is right, change the expectations file (--expect-draft writes one)",
    )


def _number(count: int, word: str, plural: str) -> str:
    return f"{count or 'no'} {word}{'' if count == 1 else plural}"


# ---- drafting ----


def draft(comparison: Comparison) -> str:
    """Return a file that expects what ``comparison`` shows: what it says is what :func:`check` finds as expected."""
    lines = [
        f"# What {neutral(comparison.name)} showed: clock {comparison.clock}, baseline {neutral(comparison.baseline)}.",
        "# Later entries count before earlier ones; `why` is shown with a surprise.",
    ]
    if comparison.finished < comparison.planned:
        lines.append(f"# Only {comparison.finished} of {comparison.planned} runs had come to an end.")
    lines += [f"schema = {EXPECTATIONS_SCHEMA}", "", "[default]", 'verdict = "any"', 'run = "passed"', 'change = "any"']
    groups: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    for thing in things(comparison):
        own = thing.what != "change" or "" in thing.named
        if thing.got and own and not (thing.what == "run" and set(thing.got) == {"passed"}):
            groups.setdefault((thing.lab, thing.what, thing.name, tuple(sorted(thing.got))), []).append(thing.kernel)
    for (lab, what, name, got), kernels in groups.items():
        lines += ["", "[[expect]]", f"lab = {_toml(lab)}", f"kernel = {_toml(*kernels)}"]
        if what != "run":
            lines.append(f"{'claim' if what == 'verdict' else 'metric'} = {_toml(name)}")
        lines.append(f"{what} = {_toml(*got)}")
    return "\n".join(lines) + "\n"


def _toml(*values: str) -> str:
    """Return strings as TOML: one, or a list. Basic strings are JSON's, but for DEL, which TOML wants escaped."""
    shown = [msgspec.json.encode(value).decode().replace("\x7f", "\\u007f") for value in values]
    return shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]"
