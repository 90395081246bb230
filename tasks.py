"""The command line: ``invoke --list`` shows it. Each task parses, calls and prints; nothing is decided here.

Every option is a string that ``provision.cli`` checks, because Invoke would turn ``6.10`` into ``6.1``. Modules are
imported where they are used, so that ``invoke --list`` stays quick.
"""

from __future__ import annotations

from collections.abc import Callable

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import Task

from provision import cli
from provision.frame import StatusOf, framed

KERNEL_HELP = "kernel line (6.1), release, or a folder of your own; `invoke kernels` lists them"
JSON_HELP = "print one JSON document on stdout instead of text"


def command(
    options: dict[str, str],
    *,
    name: str | None = None,
    default: bool = False,
    repeated: tuple[str, ...] = (),
    status: StatusOf = lambda code: code,
) -> Callable[[Callable[..., None]], Task[Callable[..., None]]]:
    """Make a task of a function: in the error frame, with the help of each option, without guessed short flags."""

    def wrap(function: Callable[..., None]) -> Task[Callable[..., None]]:
        body = framed(function, status=status)
        return Task(body, name=name, help=options, default=default, iterable=list(repeated), auto_shortflags=False)

    return wrap


def _finish(status: int) -> None:
    if status:
        raise SystemExit(status)


@command({"json": JSON_HELP})
def labs(_c: Context, json: bool = False) -> None:
    """List the labs that are here."""
    from go_labs import spec

    found = [spec.load(spec.LABS / name) for name in spec.names()]
    if json:
        cli.print_json([folder.lab for folder in found])
        return
    rows = [(f.lab.name, f.lab.section, f"{f.lab.seconds:.0f} s", f.lab.title) for f in found]
    cli.print_table(("lab", "article", "length", "what it looks at"), rows)


@command(
    {
        "binary": "path of a Go program",
        "sets": "probe sets, separated by commas (all)",
        "json": "print the plan as the loader reads it",
    }
)
def plan(_c: Context, binary: str, sets: str = "", json: bool = False) -> None:
    """Show where probes would go in a Go program, and why."""
    from pathlib import Path

    from bpf.probes import SETS

    from bpf import plan as plans
    from bpf import planner

    chosen = [cli.one_of("--sets", name, sorted(SETS)) for name in cli.words("--sets", sets)] if sets else sorted(SETS)
    made = planner.plan_for(Path(binary), chosen)
    if json:
        print(plans.to_json(made).decode(), end="")
        return
    rows = [(p.id, p.program, p.symbol, p.point, f"{p.address:#x}", f"{p.offset:#x}") for p in made.probes]
    rows += [(m.id, "—", m.symbol, "missing", "", m.why) for m in made.missing]
    title = f"{made.binary.name}: Go {made.binary.go_version}"
    cli.print_table(("probe", "program", "symbol", "point", "address", "file offset"), rows, title)


@command(
    {
        "unit": "only what needs no machine and builds nothing large",
        "vm": "only what boots machines",
        "k": "only tests whose name matches, as pytest's -k",
    },
    name="test",
)
def run_tests(_c: Context, unit: bool = False, vm: bool = False, k: str = "") -> None:
    """Run the tests: unit, build and machine."""
    from provision import suite

    _finish(suite.run([*suite.markers(unit, vm), *(["-k", k] if k else [])]))


namespace = Collection(labs, plan, run_tests)
