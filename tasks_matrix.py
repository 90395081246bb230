"""Tasks of the matrix: ``tasks.py`` takes them into the command line, and the same rules hold. Parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from provision import cli
from provision.commands import ACCEL, CLOCK, JSON, KERNELS, command

if TYPE_CHECKING:
    from go_labs.matrix import Judged


class Reporters:
    """What ``reports`` does with the runs of a matrix (``provision.matrix.runner.Reporters``)."""

    def seal(self, staging: Path, folder: object, runs: Path) -> Path:
        """Make a record."""
        from reports import record

        return record.seal(staging, folder, runs)  # type: ignore[arg-type]

    def verify(self, record: Path) -> None:
        """Read a record whole."""
        from reports import record as records

        records.read(record)

    def judge(self, record: Path, allowed: list[str]) -> Judged:
        """Say whether it counts."""
        from reports import conditions

        return conditions.judge(record, allowed)

    def render(self, record: Path) -> object:
        """Write its page."""
        from reports import html

        return html.render(record)


@command(
    {
        "labs": "labs, with commas; all that are here without",
        "kernels": f"{KERNELS}; all default ones without",
        "repeats": "blocks: how often each lab runs on each kernel (10)",
        "judged": "of these, how many run all phases; the others run the timed phase alone (all)",
        "baseline": "kernel that the others are compared with (the oldest)",
        "seed": "a number, for the order and the workloads; without it one is drawn and recorded",
        "go": "Go version of the workloads, 1.21 to 1.27",
        "build": "how workloads are linked: plain, stripped, pie, or stripped,pie",
        "set": "an option of a lab, as LAB.NAME=VALUE; may be given several times",
        "delta": "difference within which kernels count as equivalent (3%)",
        "accel": ACCEL,
        "clock": CLOCK,
        "jobs": "machines at once (as CPUs and free memory allow)",
        "share-cores": "let timed phases share CPUs with other runs; the record says so",
        "allow": "TOML file with complaints of kernels that are known",
        "plan": "show jobs, expected time, disk and what the repeats can detect, and start nothing",
        "resume": "go on with a matrix: its folder, or the latest that has runs left",
        "out": "folder for the matrix (matrices/TIME-ID)",
        "json": JSON,
    },
    repeated=("set_",),
    optional=("resume",),
)
def matrix(
    _c: Context,
    labs: str = "",
    kernels: str = "",
    repeats: str = "",
    judged: str = "",
    baseline: str = "",
    seed: str = "",
    go: str = "",
    build: str = "plain",
    set_: list[str] | None = None,
    delta: str = "",
    accel: str = "auto",
    clock: str = "host",
    jobs: str = "",
    share_cores: bool = False,
    allow: str = "",
    plan: bool = False,
    resume: str = "",
    out: str = "",
    json: bool = False,
) -> None:
    """Run labs × kernels × repeats, interleaved, and compare the kernels; --resume goes on after whatever ended it."""
    from provision.house import House
    from provision.matrix import estimate, planning, view, work
    from reports import conditions

    house = House.open()
    known = estimate.earlier(house.layout.runs, house.layout.matrices)
    if resume:
        folder = work.unfinished(house.layout.matrices) if resume is True else Path(resume).expanduser().absolute()
    else:
        wish = planning.Wish(
            labs, kernels, repeats, judged, baseline, seed, go, build, set_ or [], delta,
            cli.accelerator(accel), cli.clock(clock), share_cores,
            conditions.read_allowed(Path(allow).expanduser()) if allow else [],
        )  # fmt: skip
        made = planning.plan(wish, house)
        folder = Path(out).expanduser().absolute() if out else house.layout.matrices / made.id
        work.create(work.with_kit(made, house), folder)
    wanted = cli.whole("--jobs", jobs, 1, 64) if jobs else 0
    done = work.perform(folder, house, Reporters(), view.shown, wanted_jobs=wanted, known=known)
    print(done)
