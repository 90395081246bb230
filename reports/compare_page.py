"""``compare.html``: a comparison as one page without script, made from :class:`reports.comparison.Comparison` alone.

Nothing is computed here but geometry and links; what a figure is, ``reports.compare`` has said.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

import jinja2
import msgspec

from go_labs.matrix import COMPARISON
from reports import compare_plots, compare_words, html, record, text
from reports.charts import Ecdf
from reports.compare_plots import Forest, KernelHeat
from reports.comparison import Compared, Comparison, Effect, Evidence, LabComparison
from reports.html import CLOCK_TAGS, MAXIMUM_ROWS
from reports.plots import LinePlot
from reports.schema import OUTCOMES, Outcome

DOCUMENT = "compare.json"
"""Name of the data beside the page."""

STEPS = (2.0, 5.0)
"""Multiples of delta at which an effect's colour grows stronger; the figure says the same."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A lab on a kernel in the overview.

    :param state: a verdict, ``baseline``, ``unfit`` or ``none``. :param strength: 1 to 3, of a change; else 0.
    :param sign: icon beside the word. :param words: why there is no effect, or the whole verdict.
    :param href: where its evidence is. :param title: what stands in place of a verdict.
    """

    line: str
    state: str
    strength: int
    sign: str
    figure: str
    interval: str
    words: str
    href: str
    title: str = "no result"


@dataclass(frozen=True, slots=True)
class ClaimCell:
    """Verdicts of one outcome on a claim on a kernel: block, link to the run and its sentence for each."""

    outcome: Outcome
    runs: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A distribution and how it is drawn."""

    chart: Ecdf
    plot: LinePlot


@dataclass(frozen=True, slots=True)
class LabView:
    """A lab as the page shows it.

    :param number: from 1; ids begin with ``lab-NUMBER``.
    :param values: block → kernel → value and link of each run, columns as ``columns``.
    """

    number: int
    lab: LabComparison
    cells: tuple[Cell, ...]
    forest: Forest | None
    change: str
    drawn: tuple[Drawn, ...]
    heats: tuple[KernelHeat, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[str, tuple[tuple[float, str] | None, ...]], ...]
    explored: tuple[Compared, ...]

    @property
    def anchor(self) -> str:
        """Id of its section."""
        return f"lab-{self.number}"


@cache
def _environment() -> jinja2.Environment:
    """Return the page's environment with what its parts need: macros see globals only."""
    made = html.environment().overlay()
    made.globals = {
        **made.globals,
        "relative": text.relative,
        "relative_interval": text.relative_interval,
        "sign_of": sign,
        "place_of": _position,
        "why_nothing": compare_words.why_nothing,
    }
    made.filters = {**made.filters, "p_value": p_value}
    return made


def p_value(value: float) -> str:
    """Return a probability for a reader; none is rounded to nothing."""
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


class _Links:
    """Links from the page to files of the matrix; empty where there is no such file."""

    def __init__(self, base: Path, folder: Path) -> None:
        self._base = base.absolute()
        self._folder = folder.absolute()
        self.record = cache(self._record)
        self.file = cache(self._file)

    def _file(self, path: str) -> str:
        target = self._base / path
        return quote(Path(os.path.relpath(target, self._folder)).as_posix()) if path and target.is_file() else ""

    def _record(self, path: str) -> str:
        """Return the link to a record's page, else to the record itself."""
        return self._file(f"{path}/{record.REPORT}") or self._file(f"{path}/{record.RUN}") if path else ""


def page(comparison: Comparison, base: Path, folder: Path) -> str:
    """Return the page of ``comparison``.

    :param base: folder that its paths are relative to. :param folder: where the page will lie.
    """
    links = _Links(base, folder)
    labs = [_lab(comparison, lab, number, links) for number, lab in enumerate(comparison.labs, 1)]
    return (
        _environment()
        .get_template("compare.html.j2")
        .render(
            comparison=comparison,
            title=title(comparison),
            summary=compare_words.summary(comparison),
            tally=compare_words.tally(comparison),
            labs=labs,
            lines=[kernel.line for kernel in comparison.kernels],
            tag=CLOCK_TAGS[comparison.clock],
            clock_name=compare_words.CLOCK_NAMES[comparison.clock],
            clock_words=compare_words.CLOCK_SENTENCES[comparison.clock],
            afterwards=compare_words.AFTERWARDS,
            excluded=compare_words.excluded_words(compare_words.excluded_kinds(comparison)),
            kind_words=compare_words.KIND_WORDS,
            detectable=compare_words.detectable,
            control_of=compare_words.control,
            effects_of=compare_words.effects,
            claim_cells=lambda row, line: _claim_cells(row.verdicts.get(line, []), links),
            links=links,
            blocks=_blocks,
            heads=MAXIMUM_ROWS,
        )
    )


def write_page(comparison: Comparison, base: Path, out: Path | None = None) -> Path:
    """Write the page of ``comparison`` to ``out``, by default ``compare.html`` in ``base``, and return its path.

    :param base: folder that its paths are relative to: that of the matrix, or ``compare.common_base`` of records.
    :raises RecordError: it cannot be written. :raises DiskFullError: no space is left.
    """
    target = (base / COMPARISON if out is None else out).absolute()
    html.write(target, page(comparison, base, target.parent))
    return target


def title(comparison: Comparison) -> str:
    """Return what is compared with what."""
    count, kernels = len(comparison.labs), len(comparison.kernels)
    what = comparison.labs[0].title if count == 1 else f"{count} labs"
    return f"{what} on {kernels} kernel{'s' if kernels != 1 else ''}, against {comparison.baseline}"


def _lab(comparison: Comparison, lab: LabComparison, number: int, links: _Links) -> LabView:
    anchor = f"lab-{number}"
    lines = [kernel.line for kernel in comparison.kernels]
    primary = lab.primary
    shown = [] if primary is None else primary.effects
    drawn = [
        msgspec.structs.replace(part, id=f"{anchor}-{part.id}")
        for chart in lab.distributions
        for part in compare_plots.parts(chart, comparison.baseline)
    ]
    columns, values = _values(primary, lines, links)
    return LabView(
        number=number,
        lab=lab,
        cells=tuple(_cell(comparison, lab, line, anchor) for line in lines),
        forest=compare_plots.forest(shown, comparison.delta) if any(e.ratio is not None for e in shown) else None,
        change=compare_words.first_change(comparison, "" if primary is None else primary.first_change, shown),
        drawn=tuple(Drawn(chart, compare_plots.distribution(chart)) for chart in drawn),
        heats=tuple(
            compare_plots.kernel_heat(msgspec.structs.replace(chart, id=f"{anchor}-{chart.id}"))
            for chart in lab.latencies
        ),
        columns=columns,
        values=values,
        explored=tuple(sorted(lab.exploratory, key=_least_q)),
    )


def _least_q(compared: Compared) -> tuple[float, str]:
    known = [effect.q for effect in compared.effects if effect.q is not None]
    return (min(known, default=2.0), compared.metric)


def _cell(comparison: Comparison, lab: LabComparison, line: str, anchor: str) -> Cell:
    effect = next((each for each in compare_words.effects(lab) if each.kernel == line), None)
    if line in lab.unfit or (effect is None and comparison.baseline in lab.unfit):
        words = lab.unfit.get(line) or f"no {comparison.baseline} to compare with: {lab.unfit[comparison.baseline]}"
        return Cell(
            line,
            "unfit",
            0,
            "unfit",
            "",
            "",
            words,
            f"#{anchor}",
            "cannot run" if line in lab.unfit else "not compared",
        )
    if line == comparison.baseline:
        runs = 0 if lab.primary is None else len(lab.primary.values.get(line, []))
        if runs:
            return Cell(line, "baseline", 0, "baseline", "", "", f"{runs} run{'s' if runs != 1 else ''}", f"#{anchor}")
    if effect is None or (effect.n == 0 and effect.ratio is None and not effect.identical):
        words = compare_words.why_nothing(comparison, lab, line) if effect is None else effect.absent
        return Cell(line, "none", 0, "none", "", "", words, f"#{anchor}")
    return Cell(
        line=line,
        state=effect.change,
        strength=strength(effect, comparison.delta),
        sign=sign(effect),
        figure="" if effect.ratio is None else text.relative(effect.ratio),
        interval=text.relative_interval(effect.interval),
        words=effect.absent if effect.ratio is None else effect.words,
        href=f"#{anchor}-k-{_position(comparison, line)}",
    )


def _position(comparison: Comparison, line: str) -> int:
    return [kernel.line for kernel in comparison.kernels].index(line) + 1


def sign(effect: Effect) -> str:
    """Return the name of the icon of a verdict: an arrow says whether the value rose or fell."""
    if effect.change in {"equivalent", "undecided"}:
        return effect.change
    return "up" if effect.ratio is None or effect.ratio > 1 else "down"


def strength(effect: Effect, delta: float) -> int:
    """Return how strongly a change is coloured, 1 to 3; 0 where it is none."""
    if effect.ratio is None or effect.change in {"equivalent", "undecided"}:
        return 0
    size = abs(math.log(effect.ratio)) / math.log1p(delta)
    return 1 + sum(size > step for step in STEPS)


def _claim_cells(verdicts: Sequence[Evidence], links: _Links) -> list[ClaimCell]:
    found = []
    for outcome in OUTCOMES:
        mine = [each for each in verdicts if each.outcome == outcome]
        if mine:
            runs = tuple((each.block, links.record(each.record), each.sentence) for each in mine)
            found.append(ClaimCell(outcome, runs))
    return found


def _values(
    primary: Compared | None, lines: Sequence[str], links: _Links
) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[tuple[float, str] | None, ...]], ...]]:
    """Return the table of the primary metric's values: its columns, and block → value and link of each run."""
    if primary is None:
        return (), ()
    groups = {line: primary.values[line] for line in lines if primary.values.get(line)}
    if primary.control:
        groups["control"] = primary.control
    by_block: dict[str, dict[str, tuple[float, str]]] = {}
    for name, values in groups.items():
        for value in values:
            by_block.setdefault(value.block, {})[name] = (value.value, links.record(value.record))
    rows = tuple((block, tuple(cells.get(name) for name in groups)) for block, cells in by_block.items())
    return tuple(groups), rows


def _blocks(effects: Sequence[Effect]) -> str:
    """Return ``8 to 10``: paired blocks of the kernels."""
    counts = [effect.n for effect in effects]
    if not counts:
        return "0"
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
