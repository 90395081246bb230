"""A comparison in words: what the page and the terminal say alike. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from go_labs import matrix
from reports.compared import away
from reports.comparison import Change, Comparison, Effect, LabComparison
from reports.schema import Clock
from reports.text import percent, relative

CHANGES: tuple[Change, ...] = ("slower", "faster", "higher", "lower", "equivalent", "undecided")
"""All verdicts, in the order in which they are told."""

KIND_WORDS: Mapping[str, str] = {
    **{str(outcome): words for outcome, words in matrix.OUTCOME_WORDS.items()},
    "cut_off": "cut off",
    "voided": "record broke later",
    "unreadable": "cannot be read",
    "mismatch": "not the run it should be",
    "duplicate": "there twice",
    "other_control": "control of another baseline",
    "other_clock": "other clock",
    "other_group": "other conditions",
    "other_host": "other host",
    "incomplete_block": "block without baseline",
}
"""How the kinds of :class:`reports.comparison.Excluded` are told."""

CLOCK_NAMES: Mapping[Clock, str] = {
    "kvm": "the host’s, with KVM",
    "emulated": "the host’s, emulated machine",
    "virtual": "virtual, counts instructions",
}

CLOCK_SENTENCES: Mapping[Clock, str] = {
    "kvm": (
        "The machines ran with KVM, on the host’s own processor. Times are of virtual machines: they hold the cost of "
        "leaving and entering the guest."
    ),
    "emulated": (
        "The machines were emulated: times and rates are what the emulator needed, and no performance data of real "
        "hardware. A difference of such times says that a kernel made the emulator do more or less; counts, shares of "
        "counts and verdicts on them do not depend on it."
    ),
    "virtual": (
        "The machines’ clock counted instructions: a time is how many instructions were executed, not how long they "
        "took. Caches, memory and branch prediction cost nothing in it; how busy the host was does not matter, while "
        "what is random in the work itself, such as the scheduler’s choices, still does."
    ),
}
"""What times of a clock mean, in two sentences."""


AFTERWARDS = (
    "No plan stands behind these records: which kernels, how many runs and which metrics were not chosen before "
    "anything ran, so that the tests promise less than they do for a matrix."
)
"""What a comparison that was not chosen beforehand says of itself."""


def tally(comparison: Comparison) -> dict[Change, int]:
    """Return how many verdicts on primary metrics there are of each kind, the control left out."""
    found = Counter(effect.change for lab in comparison.labs for effect in effects(lab))
    return {change: found[change] for change in CHANGES}


def effects(lab: LabComparison) -> list[Effect]:
    """Return the effects of a lab's primary metric, without the control."""
    return [] if lab.primary is None else [effect for effect in lab.primary.effects if not effect.control]


def control(lab: LabComparison) -> Effect | None:
    """Return what the baseline against itself showed for a lab's primary metric."""
    return None if lab.primary is None else next((effect for effect in lab.primary.effects if effect.control), None)


def detectable(lab: LabComparison) -> float | None:
    """Return the smallest difference that every kernel of a lab would have shown; None where one cannot show any."""
    found = [effect.detectable for effect in effects(lab)]
    known = [each for each in found if each is not None]
    return max(known) if known and len(known) == len(found) else None


def summary(comparison: Comparison) -> tuple[str, str]:
    """Return two sentences: what was found, and what could have been."""
    counts = tally(comparison)
    total = sum(counts.values())
    if not total:
        return (
            f"No run of another kernel pairs with one of {comparison.baseline}, so that nothing is compared.",
            f"Of {_counted(comparison.planned, 'run')} {comparison.passed} passed.",
        )
    differ = [f"{counts[change]} {change}" for change in CHANGES[:4] if counts[change]]
    some = (
        f"{_shows(sum(counts[c] for c in CHANGES[:4]))} a difference ({', '.join(differ)})"
        if differ
        else "none differs"
    )
    first = (
        f"Of {_counted(total, 'primary comparison')} with {comparison.baseline}, {some}, {counts['equivalent']} "
        f"{_be(counts['equivalent'])} equivalent within ±{comparison.delta * 100:.3g}%, and {counts['undecided']} "
        f"{_be(counts['undecided'])} undecided, which is no sign of sameness."
    )
    return first, _could(comparison)


def _could(comparison: Comparison) -> str:
    known = sorted(value for lab in comparison.labs if (value := detectable(lab)) is not None)
    if not known:
        words = (
            f"With {_counted(comparison.blocks, 'block')} no difference could have been established "
            f"({comparison.blocks_needed} are needed)"
        )
    else:
        low, high = (relative(1 + value, sign=False) for value in (known[0], known[-1]))
        sizes = low if low == high else f"{low} to {high}, depending on the lab,"
        words = f"Differences from {sizes} would have been found four times out of five"
        # A lab that has no figure is no part of the range: without its word the range would speak for it, too.
        blind = sum(bool(effects(lab)) and detectable(lab) is None for lab in comparison.labs)
        if blind:
            words += f", but none, however large, on some kernel of {_counted(blind, 'lab')}"
    shown = comparison.control
    if shown is None:
        return f"{words}; no second run of the baseline counts, so that nothing shows how often this run cries wolf."
    if not shown.metrics:
        return f"{words}; the baseline against itself had too few blocks to say how often this run cries wolf."
    return (
        f"{words}; the baseline against itself was called different in {shown.false} of "
        f"{_counted(shown.metrics, 'metric')} ({percent(shown.false / shown.metrics)}, uncorrected)."
    )


def _shows(count: int) -> str:
    return f"{count} shows" if count == 1 else f"{count} show"


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def why_nothing(comparison: Comparison, lab: LabComparison, line: str) -> str:
    """Return why a lab has no effect on a kernel: it cannot run there, or what became of its runs."""
    if line in lab.unfit:
        return f"cannot run there: {lab.unfit[line]}"
    if comparison.baseline in lab.unfit:
        return f"cannot run on {comparison.baseline}, so that there is nothing to compare with"
    kinds = Counter(each.kind for each in comparison.excluded if (each.lab, each.kernel) == (lab.lab, line))
    return f"no run counts: {excluded_words(kinds)}" if kinds else "it was not run"


def excluded_words(kinds: Mapping[str, int]) -> str:
    """Return ``gate failed 2, timed out 1``."""
    return ", ".join(f"{KIND_WORDS.get(kind, kind)} {count}" for kind, count in sorted(kinds.items()))


def excluded_kinds(comparison: Comparison) -> dict[str, int]:
    """Return how many attempts and records do not count, by kind."""
    return dict(sorted(Counter(each.kind for each in comparison.excluded).items()))


def first_change(comparison: Comparison, line: str, decided: Iterable[Effect]) -> str:
    """Return in a sentence where a metric first differs, which kernels before that are open, and which after it do not.

    :param line: the kernel, empty where none differs.
    """
    lines = [kernel.line for kernel in comparison.kernels]
    by_kernel = {effect.kernel: effect for effect in decided if not effect.control}
    walked = away(lines, comparison.baseline)
    before = walked[: walked.index(line)] if line in walked else walked
    open_ones = [
        each for each in before if each != comparison.baseline and (each not in by_kernel or _is_open(by_kernel[each]))
    ]
    rest = f" Undecided or not measured{' before it' if line else ''}: {', '.join(open_ones)}." if open_ones else ""
    if not line:
        return f"No kernel was found to differ from {comparison.baseline}.{rest}"
    effect = by_kernel[line]
    after = [each for each in walked[len(before) + 1 :] if each in by_kernel and by_kernel[each].change == "equivalent"]
    again = f" After it, {', '.join(after)} {'is' if len(after) == 1 else 'are'} equivalent again." if after else ""
    return f"First kernel that differs from {comparison.baseline}: {line}, {effect.change}.{again}{rest}"


def _is_open(effect: Effect) -> bool:
    return effect.change == "undecided"
