"""A matrix while it runs: a table on a terminal, plain lines elsewhere, both on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from go_labs.matrix import OUTCOME_WORDS, Ended, PlannedRun
from provision.cli import printable
from provision.frame import use_colour
from provision.matrix.state import Line, Standing, State
from vm.progress import span

NEWS = 6
"""Lines of what happened last, below the table."""


@contextlib.contextmanager
def shown(state: State) -> Iterator[Callable[[], None]]:
    """Show ``state`` while the block runs; see :data:`provision.matrix.runner.Shown`."""
    if sys.stderr.isatty():
        with _table(state) as refresh:
            yield refresh
    else:
        yield lambda: _lines(state)


@contextlib.contextmanager
def _table(state: State) -> Iterator[Callable[[], None]]:
    console = Console(stderr=True, no_color=not use_colour(terminal=True), highlight=False)
    news: list[Text] = []

    def drawn() -> Group:
        while state.news:
            run, ended = state.news.popleft()
            news.append(told(state, run, ended))
        del news[:-NEWS]
        standing = state.standing()
        return Group(table(standing), Text(below(standing)), *news)

    with Live(get_renderable=drawn, console=console, auto_refresh=False, transient=False) as live:
        yield live.refresh


def table(standing: Standing) -> Table:
    """Return the table: a row per kernel, with what waits, runs, passed, failed."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("kernel", "waits", "passed", "failed", "runs now"):
        made.add_column(name, justify="right" if name in ("waits", "passed", "failed") else "left", no_wrap=True)
    # Where there is no room for all, Rich takes it from columns that may wrap: from this one, whose text is then cut.
    made.columns[-1].no_wrap = False
    for line in standing.lines:
        made.add_row(
            Text(line.kernel),
            str(line.waiting),
            Text(str(line.passed), style="green" if line.passed else "dim"),
            Text(str(line.failed), style="bold red" if line.failed else "dim"),
            Text(_running(line), no_wrap=True, overflow="ellipsis"),
        )
    return made


def _running(line: Line) -> str:
    return ", ".join(f"{lab} {seconds:.0f} s ({printable(doing)})" for lab, doing, seconds in line.running)


def below(standing: Standing) -> str:
    """Return the line below the table: how far it is, and when it should be over."""
    words = f"{standing.done} of {standing.total} runs done"
    if standing.failed:
        words += f", {standing.failed} failed"
    if standing.left is not None and standing.done < standing.total:
        at = time.strftime("%H:%M", time.localtime(time.time() + standing.left))
        words += f"; about {span(standing.left)} left, until {at}"
    return words


def told(state: State, run: PlannedRun, ended: Ended) -> Text:
    """Return a line on an attempt that ended."""
    line = state.plan.cell(run.cell).kernel_line
    text = Text(f"{run.lab} on {line}, repeat {run.block}: ")
    style = "green" if ended.outcome == "passed" else "bold red"
    text.append(OUTCOME_WORDS[ended.outcome], style=style)
    text.append(f" ({ended.seconds:.0f} s{'' if ended.attempt == 1 else f', attempt {ended.attempt}'})")
    if ended.words:
        text.append(f": {printable(ended.words[:200])}", style="dim")
    return text


def _lines(state: State) -> None:
    while state.news:
        run, ended = state.news.popleft()
        print(f"{told(state, run, ended).plain}; {below(state.standing())}", file=sys.stderr, flush=True)
