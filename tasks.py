"""The command line: ``invoke --list`` shows it. Each task parses, calls and prints; nothing is decided here.

Every option is a string that ``provision.cli`` checks, because Invoke would turn ``6.10`` into ``6.1``. Modules are
imported where they are used, so that ``invoke --list`` stays quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.collection import Collection
from invoke.context import Context

import tasks_boxes
from provision import cli
from provision.commands import ACCEL, JSON, KERNEL, KERNELS, RUN, command, finish
from tasks_matrix import compare, history, matrix
from tasks_vm import down, reset, ssh_task, status, up

if TYPE_CHECKING:
    from provision.house import House
    from provision.jobs import Job

# The main job, and what surrounds it.


@command(
    {
        "name": "name of a lab (`invoke labs`), or the folder of your own",
        "kernel": KERNELS,
        "go": "Go version of the workload, 1.21 to 1.27",
        "build": "how the workload is linked: plain, stripped, pie, or stripped,pie",
        "set": "an option of the lab, as name=value; may be given several times",
        "duration": "how long the lab's long part runs, where it has one: 90s, 20m, 3h",
        "full": "sweep all that the lab can vary",
        "seed": "a number, to make an earlier run again; without it one is drawn and recorded",
        **RUN,
        "json": "print verdicts as one JSON document on stdout",
    },
    repeated=("set_",),
)
def lab(
    _c: Context,
    name: str,
    kernel: str = "",
    go: str = "",
    build: str = "plain",
    set_: list[str] | None = None,
    duration: str = "",
    full: bool = False,
    seed: str = "",
    provider: str = "",
    accel: str = "auto",
    clock: str = "host",
    cold: bool = False,
    machine: str = "",
    runs: str = "",
    system_qemu: bool = False,
    json: bool = False,
) -> None:
    """Run a lab on a kernel, judge its claims, and write a report."""
    from go_labs import spec
    from provision import gobuild, jobs, options, toolchains
    from provision.house import House
    from reports import rehearsal

    folder = spec.find(name)
    accelerator, counted = cli.accelerator(accel), cli.clock(clock)
    kind = cli.provider(provider, cold=cold, system_qemu=system_qemu, clock=counted == "virtual")
    house = House.open(runs=runs, system_qemu=system_qemu, provider=kind)
    given = options.with_duration(folder.lab, options.parse_assignments(set_ or []), duration)
    values = options.resolve(folder.lab, given, full=full)
    version = toolchains.resolve(go or None)
    variant = gobuild.variant(build)
    number = cli.whole("--seed", seed, 0, jobs.SEED_LIMIT) if seed else jobs.new_seed()
    kernels = house.kernels(kernel, machine)
    house.check_kernels(kernels)
    jobs.check(folder, kernels)
    rehearsal.check(folder)
    work = [
        jobs.Job(folder, found, values, version, number, accelerator, cold, machine, order, variant, clock=counted)
        for order, found in enumerate(kernels)
    ]
    run_and_show(work, house, json=json)


@command(
    {
        "binary": "path of a Go program, as it is; arguments for it after --",
        "kernel": KERNELS,
        "probes": "probe sets, with commas; without it every set that fits the program",
        "timeout": "seconds that it gets, once alone and once traced (60)",
        **RUN,
        "json": "print what --json of a lab prints, without claims",
    }
)
def trace(
    c: Context,
    binary: str,
    kernel: str = "",
    probes: str = "",
    timeout: str = "60",
    provider: str = "",
    accel: str = "auto",
    clock: str = "host",
    cold: bool = False,
    machine: str = "",
    runs: str = "",
    system_qemu: bool = False,
    json: bool = False,
) -> None:
    """Run any Go program in a machine, alone and under probes, and write a report without claims."""
    from provision import jobs, programs
    from provision.house import House

    accelerator, counted = cli.accelerator(accel), cli.clock(clock)
    kind = cli.provider(provider, cold=cold, system_qemu=system_qemu, clock=counted == "virtual")
    house = House.open(runs=runs, system_qemu=system_qemu, provider=kind)
    words = programs.arguments(c.remainder, sys.argv)
    folder = programs.program(binary, probes, cli.seconds("--timeout", timeout, 0.1, 86400), house.say)
    kernels = house.kernels(kernel, machine)
    house.check_kernels(kernels)
    work = [
        jobs.Job(folder, found, {}, "", 0, accelerator, cold, machine, order, arguments=words, clock=counted)
        for order, found in enumerate(kernels)
    ]
    run_and_show(work, house, json=json)


def run_and_show(work: Sequence[Job], house: House, *, json: bool) -> None:
    """Run ``work``, make a record and a report of each run, and print verdicts; the first lab's error comes last."""
    from provision import jobs
    from reports import html, record

    documents = []

    def keep(job: Job, staging: Path) -> None:
        path = record.seal(staging, job.folder, house.layout.runs)
        page = html.render(path)
        documents.append(verdicts(path, page))
        if not json:
            show(path, page)

    failed = jobs.run_each(work, house, keep)
    if json:
        cli.print_json({"runs": documents})
    if failed is not None:
        raise failed


@command(
    {
        "kernel": f"{KERNELS}; all default ones without",
        "go": "Go versions, with commas (1.21,1.24,1.27)",
        "labs": "labs, with commas; all that are here without",
        "sizes": "sizes of the forced sections, with commas; each lab's default without",
        "build": "how workloads are linked, with commas: plain, stripped, pie, stripped+pie",
        "accel": ACCEL,
        "runs": "folder for the records of what differs (runs/)",
        "json": JSON,
    }
)
def selftest(
    _c: Context,
    kernel: str = "",
    go: str = "1.21,1.24,1.27",
    labs: str = "",
    sizes: str = "",
    build: str = "plain",
    accel: str = "auto",
    runs: str = "",
    json: bool = False,
) -> None:
    """Hold the forced section of every lab against its trace, on each kernel and Go version: counts must be equal."""
    from provision import selftests
    from provision.house import House
    from reports import record, selfcheck

    house = House.open(runs=runs)
    plan = selftests.plan(house, kernels=kernel, versions=go, labs=labs, sizes=sizes, builds=build, accel=accel)
    result = selftests.run(plan, house, selfcheck.check, record.seal)
    if json:
        cli.print_json(result.document())
    else:
        selftests.show(result)
    result.require_exact()


@command({"run": "folder of the record", "out": "file to write instead of report.html there", "json": JSON})
def report(_c: Context, run: str, out: str = "", json: bool = False) -> None:
    """Render the report of an old record again; no machine is needed."""
    from reports import html

    path = Path(run).expanduser()
    page = html.render(path, Path(out).expanduser() if out else None)
    if json:
        cli.print_json(verdicts(path, page))
    else:
        show(path, page)


def verdicts(path: Path, page: Path) -> dict[str, object]:
    """Return what ``--json`` tells of a record: its verdicts, its folder and its report."""
    from reports import record, summary

    return {**summary.document(record.read(path, verify=False)), "path": str(path), "report": str(page)}


def show(path: Path, page: Path) -> None:
    """Print a record's verdicts, and where its report lies."""
    from reports import record, summary

    summary.print_verdicts(record.read(path, verify=False), page, sys.stdout)


@command({"json": JSON}, name="list", default=True)
def labs_list(_c: Context, json: bool = False) -> None:
    """List the labs that are here: section of the article, default length, claims."""
    from go_labs import spec

    found = [spec.find(name).lab for name in spec.names()]
    if json:
        cli.print_json(found)
        return
    rows = [
        (f.name, f.section, f"{f.seconds:.0f} s", f.title, cli.listed(claim.id for claim in f.claims)) for f in found
    ]
    cli.print_table(("lab", "article", "length", "what it looks at", "claims"), rows)


@command({"name": "of the lab, or the path of the folder to make"}, name="new")
def labs_new(_c: Context, name: str) -> None:
    """Make a working lab of your own in a new folder, with a test and a claim, to be changed from there."""
    from provision import skeleton

    skeleton.show(skeleton.create(name))


@command(
    {
        "lab": "only these labs, or folders of your own, with commas",
        "kernel": "only these kernel lines, with commas; the default lines and all that have records without",
        "runs": "folder with the records (runs/)",
        "html": "write the page instead of printing",
        "out": "with --html: file to write instead of claims.html below runs/",
        "json": JSON,
    }
)
def claims(
    _c: Context, lab: str = "", kernel: str = "", runs: str = "", html: bool = False, out: str = "", json: bool = False
) -> None:
    """Show every claim with its latest verdict for each kernel line, and the run behind it."""
    from provision.house import House
    from reports import ledger, ledger_views

    cli.needs("--out", out, "--html", html)
    house = House.open(runs=runs)
    found = ledger.collect(house.layout.runs)
    lines = ledger.choose_lines(cli.words("--kernel", kernel) if kernel else [], found, house.lock)
    made = ledger.make(ledger.choose_labs(cli.words("--lab", lab) if lab else []), lines, found)
    for line in ledger_views.broken_words(made):
        print(line, file=sys.stderr)
    page = ledger_views.write_page(made, house.layout.runs, Path(out).expanduser() if out else None) if html else None
    if json:
        cli.print_json(ledger.document(made) | ({"page": str(page)} if page else {}))
    elif page:
        print(f"page: {page}")
    else:
        ledger_views.print_ledger(made, sys.stdout, cli.stdout_console().width)


@command(
    {
        "binary": "path of a Go program",
        "sets": "probe sets, separated by commas (mutex)",
        "json": "print the plan as the loader reads it",
    }
)
def plan(_c: Context, binary: str, sets: str = "mutex", json: bool = False) -> None:
    """Show where probes would go in a Go program, and why."""
    from bpf import plan as plans

    made = plans.plan_for(Path(binary).expanduser(), cli.words("--sets", sets))
    print(plans.to_json(made).decode() if json else plans.to_text(made), end="")


# Kernels and images.


@command({"json": JSON}, name="list", default=True)
def kernels_list(_c: Context, json: bool = False) -> None:
    """List the pinned kernels: release, suite, support, what is built and warm."""
    from provision import listings
    from provision.house import House

    rows = House.open().kernel_rows()
    if json:
        cli.print_json(rows)
    else:
        listings.kernels(rows)


@command(
    {"line": "only these lines, tools, base or boxes, with commas", "dry-run": "show the difference, write nothing"},
    name="lock",
)
def kernels_lock(_c: Context, line: str = "", dry_run: bool = False) -> None:
    """Resolve kernels.toml against the archive's signed indexes, show what changes, and write the lock."""
    from provision import relock

    print(relock.resolve(cli.words("--line", line) if line else [], write=not dry_run).text)


@command(
    {
        "kernel": f"{KERNELS}; all default ones without",
        "record": "write the hashes of what comes out into the lock: after a recipe was changed on purpose",
        "json": JSON,
    },
    name="build",
)
def images_build(_c: Context, kernel: str = "", record: bool = False, json: bool = False) -> None:
    """Build tools root, base image and kernel bundles from the lock, as far as they are not there."""
    from provision import listings
    from provision.house import House

    house = House.open()
    built = house.build(house.kernels(kernel) if kernel else house.default_kernels(), record=record)
    if json:
        cli.print_json(listings.built_rows(built))
    else:
        listings.built(built)


@command({"kernel": f"{KERNELS}; all default ones without", "json": JSON}, name="verify")
def images_verify(_c: Context, kernel: str = "", json: bool = False) -> None:
    """Build again elsewhere (other time, umask, locale, user) and compare bytes."""
    from provision import listings
    from provision.house import House
    from vm import verify

    house = House.open()
    done = verify.verify(house.builder(), house.kernels(kernel) if kernel else house.default_kernels())
    if json:
        cli.print_json(done)
    else:
        listings.verified(done)
    done.require_same()


@command({"json": JSON}, name="list")
def images_list(_c: Context, json: bool = False) -> None:
    """List what is built and saved, with its size on disk."""
    from provision import listings
    from provision.house import House

    rows = House.open().stored()
    if json:
        cli.print_json(rows)
    else:
        listings.stored(rows)


@command({"all": "also what the lock names, with its downloads and saved states", "json": JSON}, name="clean")
def images_clean(_c: Context, all: bool = False, json: bool = False) -> None:  # noqa: A002  (the option's name)
    """Remove artefacts and downloads that the lock no longer names."""
    from provision import listings
    from provision.house import House

    removed = House.open().clean(everything=all)
    if json:
        cli.print_json(removed)
    else:
        listings.removed(removed)


# The host.


@command({"json": JSON, "deep": "also hash every artefact and try acceleration again"})
def doctor(_c: Context, json: bool = False, deep: bool = False) -> None:
    """Check this host: what is there, what is missing, and the command that mends it."""
    from provision import doctor as doctors

    findings = doctors.examine(deep=deep)
    if json:
        cli.print_json({"ok": doctors.sound(findings), "findings": findings})
    else:
        doctors.show(findings)
    finish(0 if doctors.sound(findings) else doctors.EXIT_UNSOUND)


@command(
    {
        "only": "parts: warm, cold, size, probes, lives, lab, matrix, compare; if named: images, losses, soak, vagrant",
        "kernel": KERNEL,
        "rounds": "repeats of each figure (5)",
        "vng-kernel": "vmlinuz for virtme-ng, which needs 9p in it",
        "json": JSON,
    }
)
def bench(
    _c: Context, only: str = "", kernel: str = "6.1", rounds: str = "5", vng_kernel: str = "", json: bool = False
) -> None:
    """Measure the lab itself, in turn with virtme-ng and Vagrant where they are installed."""
    from provision import bench as benches
    from reports import html, synthetic

    chosen = cli.words("--only", only) if only else []
    made = benches.measure(
        chosen, kernel, cli.whole("--rounds", rounds, 1, 100), html.render, synthetic.bulk, vng_kernel
    )
    if json:
        cli.print_json(made.document())
    else:
        benches.show(made)


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

    finish(suite.run([*suite.markers(unit, vm), *(["-k", k] if k else [])]))


namespace = Collection(
    *(lab, report, trace, selftest, matrix, compare, history, claims, plan, ssh_task, doctor, bench, run_tests),
    labs=Collection(labs_list, labs_new),
    kernels=Collection(kernels_list, kernels_lock),
    images=Collection(images_build, images_verify, images_list, images_clean),
    vm=Collection(up, status, reset, down),
    boxes=Collection(tasks_boxes.build, tasks_boxes.verify, tasks_boxes.add),
)
