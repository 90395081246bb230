"""Tasks of the matrix: ``tasks.py`` takes them into the command line, and the same rules hold. Parse, call, print."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from invoke.context import Context

from provision import cli
from provision.commands import ACCEL, CLOCK, JSON, KERNELS, command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from go_labs.matrix import Allowed, Judged, MatrixPlan
    from go_labs.spec import LabFolder
    from provision.matrix.estimate import Earlier
    from reports.expectations import Expectations


class Reporters:
    """What ``reports`` does with the runs of a matrix (``provision.matrix.runner.Reporters``)."""

    def seal(self, staging: Path, folder: LabFolder, runs: Path) -> Path:
        """Make a record."""
        from reports import record

        return record.seal(staging, folder, runs)

    def verify(self, record: Path) -> None:
        """Read a record whole."""
        from reports import record as records

        records.read(record)

    def judge(self, record: Path, allowed: Sequence[Allowed]) -> Judged:
        """Say whether it counts."""
        from reports import conditions

        return conditions.judge(record, allowed)

    def render(self, record: Path, *, anew: bool = True) -> object:
        """Write its page."""
        from reports import html
        from reports.record import REPORT

        return html.render(record) if anew or not (record / REPORT).exists() else None


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
        "allow": "TOML file with further complaints of kernels that are known",
        "expect": "hold the result against an expectations file: surprises end with status 50",
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
    expect: str = "",
    plan: bool = False,
    resume: str | bool = "",
    out: str = "",
    json: bool = False,
) -> None:
    """Run labs × kernels × repeats, interleaved, and compare the kernels; --resume goes on after whatever ended it."""
    from go_labs.matrix import read_plan
    from provision.house import House
    from provision.matrix import estimate, listing, planning, view, work
    from reports import conditions, expectations

    expected = expectations.read(Path(expect).expanduser()) if expect else None
    wanted = cli.whole("--jobs", jobs, 1, 64) if jobs else 0
    house = House.open()
    matrices = house.layout.matrices
    known = estimate.earlier(house.layout.runs, matrices)
    if resume:
        planned = {
            "--labs": labs, "--kernels": kernels, "--repeats": repeats, "--judged": judged, "--baseline": baseline,
            "--seed": seed, "--go": go, "--build": build != "plain", "--set": set_, "--delta": delta,
            "--accel": accel != "auto", "--clock": clock != "host", "--share-cores": share_cores, "--allow": allow,
            "--plan": plan, "--out": out,
        }  # fmt: skip
        work.refuse_with_resume(planned)
        # Without a value Invoke hands over True.
        folder = listing.given_paths([resume], matrices)[0] if isinstance(resume, str) else work.unfinished(matrices)
        read_plan(folder)
    else:
        wish = planning.Wish(
            labs, kernels, repeats, judged, baseline, seed, go, build, set_ or [], delta,
            cli.accelerator(accel), cli.clock(clock), share_cores,
            conditions.known(Path(allow).expanduser() if allow else None),
        )  # fmt: skip
        made = planning.plan(wish, house)
        folder = Path(out).expanduser().absolute() if out else matrices / made.id
        if plan:
            show_plan(made, known, wanted or work.most_jobs(made), matrices, json=json)
            return
        work.create(work.with_kit(made, house), folder)
    house.say(f"matrix {folder}; invoke matrix --resume {shlex.quote(str(folder))} goes on with it")
    done = work.perform(folder, house, Reporters(), view.shown, wanted_jobs=wanted, known=known)
    compare_and_show(folder, expected, json=json, more=listing.summary_document(done))
    if not json:
        print(listing.summary_words(done))
    if expected is None:
        done.require_passed()


def show_plan(made: MatrixPlan, known: Earlier, jobs: int, matrices: Path, *, json: bool) -> None:
    """Print a plan, and what it can find."""
    from provision import hostfacts
    from provision.matrix import estimate, listing, work
    from reports import outlook
    from reports.matrices import find

    expected = estimate.estimate(made, made.runs, known)
    at_once = work.effective_jobs(made, jobs)
    earlier = find([matrices]).matrices if matrices.is_dir() else []
    seen = outlook.outlook(made, work.clock_of(made), hostfacts.describe(), earlier)
    if json:
        cli.print_json(listing.plan_document(made, expected, at_once, jobs, seen))
    else:
        words = {lab.lab: lab.words for lab in seen.labs}
        listing.show_plan(made, expected, at_once, jobs, work.free_bytes(matrices), words)


def compare_and_show(folder: Path, expected: Expectations | None, *, json: bool, more: dict[str, Any]) -> None:
    """Compare the kernels of a matrix, write the page, print the result; then hold it against expectations."""
    from reports import compare as compares
    from reports import compare_page, compare_views, expectations

    made = compares.compare(folder)
    page = compare_page.write_page(made, folder)
    surprises = None if expected is None else expectations.check(made, expected)
    if json:
        told = {} if surprises is None else {"expectations": expectations.document(surprises)}
        cli.print_json({**more, "page": str(page), "comparison": msgspec.to_builtins(made), **told})
    else:
        compare_views.print_comparison(made, sys.stdout, cli.stdout_console().width)
        print(f"page: {page}")
    expectations.require(surprises or [])


@command(
    {
        "what": "a matrix (its folder or name), or records and folders of records, with commas",
        "baseline": "kernel that the others are compared with (that of the plan, or the oldest)",
        "clock": "kvm, emulated or virtual, where a set of records has several",
        "delta": "of a set of records: difference within which kernels count as equivalent (3%)",
        "out": "file for the page instead of compare.html there",
        "export": "also write these formats, with commas, or all",
        "export-to": "folder for them instead of exports/ there",
        "expect": "hold it against an expectations file: surprises end with status 50",
        "expect-draft": "write an expectations file that expects what is there now",
        "json": JSON,
    }
)
def compare(
    _c: Context,
    what: str,
    baseline: str = "",
    clock: str = "",
    delta: str = "",
    out: str = "",
    export: str = "",
    export_to: str = "",
    expect: str = "",
    expect_draft: str = "",
    json: bool = False,
) -> None:
    """Compare kernels over the runs of a matrix, or over any set of records; no machine is needed."""
    from provision.matrix import listing, planning
    from reports import compare as compares
    from reports import compare_page, compare_views, expectations, exports, html
    from vm.paths import Layout

    cli.needs("--export-to", export_to, "--export", bool(export))
    expected = expectations.read(Path(expect).expanduser()) if expect else None
    paths = listing.given_paths(cli.words("WHAT", what), Layout.from_environment().matrices)
    if len(paths) == 1 and (paths[0] / "plan.json").is_file():
        cli.needs("--delta", delta, "a set of records", given=False)
        base = paths[0]
        made = compares.compare(base, baseline=baseline, clock=clock)
    else:
        base = compares.common_base(paths)
        margin = planning.read_delta(delta) if delta else None
        made = compares.compare_records(paths, baseline=baseline, delta=margin, clock=clock, base=base)
    page = compare_page.write_page(made, base, Path(out).expanduser() if out else None)
    surprises = None if expected is None else expectations.check(made, expected)
    files = []
    if export:
        target = Path(export_to).expanduser() if export_to else base / "exports"
        names = [] if export == "all" else cli.words("--export", export)
        files = exports.write_all(made, base, target, names, surprises)
    if expect_draft:
        html.write(Path(expect_draft).expanduser().absolute(), expectations.draft(made))
    if json:
        told = {} if surprises is None else {"expectations": expectations.document(surprises)}
        cli.print_json(
            {
                "schema": 1,
                "page": str(page),
                "files": [str(file) for file in files],
                "comparison": msgspec.to_builtins(made),
                **told,
            }
        )
    else:
        compare_views.print_comparison(made, sys.stdout, cli.stdout_console().width)
        for path in (page, *files):
            print(f"{'page' if path == page else 'file'}: {path}")
    expectations.require(surprises or [])


@command(
    {
        "lab": "only these labs, with commas",
        "kernel": "only these kernel lines or releases, with commas",
        "where": "matrices, records, or folders of these, with commas (matrices/ and runs/)",
        "json": JSON,
    }
)
def history(_c: Context, lab: str = "", kernel: str = "", where: str = "", json: bool = False) -> None:
    """Show the same lab and kernel over many matrices and runs, by lock and Go version."""
    from provision.matrix import listing
    from reports import history as histories
    from vm.paths import Layout

    layout = Layout.from_environment()
    if where:
        paths = listing.given_paths(cli.words("--where", where), layout.matrices)
    else:
        paths = [path for path in (layout.matrices, layout.runs) if path.is_dir()]
    labs, kernels = (cli.words(name, text) if text else [] for name, text in (("--lab", lab), ("--kernel", kernel)))
    found = histories.collect(paths, labs, kernels)
    if json:
        cli.print_json(histories.document(found))
    else:
        histories.print_history(found, sys.stdout, cli.stdout_console().width)
