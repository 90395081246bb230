"""The command line: ``invoke --list`` shows it. Each task parses, calls and prints; nothing is decided here.

Every option is a string that ``provision.cli`` checks, because Invoke would turn ``6.10`` into ``6.1``. Modules are
imported where they are used, so that ``invoke --list`` stays quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import Task

from provision import cli
from provision.frame import StatusOf, framed, ssh_status

if TYPE_CHECKING:
    from vm.errors import LabError

KERNEL = "kernel line (6.1), release, or path of your own; `invoke kernels` lists them"
KERNELS = f"{KERNEL}; several with commas"
JSON = "print one JSON document on stdout instead of text"
ACCEL = "auto (a trial decides), kvm, or tcg for emulation"
NAME = "machine's name, where there are several of one kernel"


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


def finish(status: int) -> None:
    """End with ``status`` unless it is success."""
    if status:
        raise SystemExit(status)


# The main job, and what surrounds it.


@command(
    {
        "name": "name of a lab (`invoke labs`), or the folder of your own",
        "kernel": KERNELS,
        "go": "Go version of the workload, 1.21 to 1.27",
        "set": "an option of the lab, as name=value; may be given several times",
        "full": "sweep all that the lab can vary",
        "seed": "a number, to make an earlier run again; without it one is drawn and recorded",
        "accel": ACCEL,
        "cold": "boot instead of restoring a saved state",
        "machine": "run on a machine of yours (`invoke vm.up`) instead of a fresh one",
        "runs": "folder for the record (runs/)",
        "system-qemu": "use the host's QEMU instead of the locked one",
        "json": "print verdicts as one JSON document on stdout",
    },
    repeated=("set_",),
)
def lab(
    _c: Context,
    name: str,
    kernel: str = "",
    go: str = "",
    set_: list[str] | None = None,
    full: bool = False,
    seed: str = "",
    accel: str = "auto",
    cold: bool = False,
    machine: str = "",
    runs: str = "",
    system_qemu: bool = False,
    json: bool = False,
) -> None:
    """Run a lab on a kernel, judge its claims, and write a report."""
    from go_labs import spec
    from provision import jobs, options, toolchains
    from provision.house import House
    from reports import html, record, rehearsal
    from vm.errors import Interrupted

    folder = spec.find(name)
    house = House.open(runs=runs, system_qemu=system_qemu)
    values = options.resolve(folder.lab, options.parse_assignments(set_ or []), full=full)
    version = toolchains.resolve(go or None)
    number = cli.whole("--seed", seed, 0, jobs.SEED_LIMIT) if seed else jobs.new_seed()
    accelerator = cli.accelerator(accel)
    kernels = house.kernels(kernel, machine)
    jobs.check(folder, kernels)
    rehearsal.check(folder)
    failed: LabError | None = None
    documents = []
    for order, found in enumerate(kernels):
        job = jobs.Job(folder, found, values, version, number, accelerator, cold, machine, order)
        with jobs.performed(job, house) as outcome:
            path = record.seal(outcome.staging, folder, house.layout.runs)
        failed = failed or outcome.error
        page = html.render(path)
        documents.append(verdicts(path, page))
        if not json:
            show(path, page)
        if isinstance(outcome.error, Interrupted):
            break
    if json:
        cli.print_json({"runs": documents})
    if failed is not None:
        raise failed


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
    if json:
        print(plans.to_json(made).decode())
        return
    rows: list[tuple[str, ...]] = [(p.id, p.symbol, p.point, f"{p.address:#x}", f"{p.offset:#x}") for p in made.probes]
    rows += [(m.id, m.symbol, "missing", m.why, "") for m in made.missing]
    cli.print_table(
        ("probe", "symbol", "point", "address", "file offset"), rows, f"{made.binary.name}: Go {made.binary.go_version}"
    )
    print("offsets: " + ", ".join(f"{name} {o.value} ({o.source})" for name, o in sorted(made.offsets.items())))


# Kernels and images.


@command({"json": JSON}, name="list", default=True)
def kernels_list(_c: Context, json: bool = False) -> None:
    """List the pinned kernels: release, suite, support, what is built and warm."""
    from provision.house import House

    rows = House.open().kernel_rows()
    if json:
        cli.print_json(rows)
        return
    yes = {True: "yes", False: "-"}
    cells = [(r.line, r.release, r.version, r.suite, r.support, yes[r.built], yes[r.warm]) for r in rows]
    cli.print_table(("line", "release", "version", "suite", "support", "built", "warm"), cells)


@command(
    {"line": "only these lines, tools or base, with commas", "dry-run": "show the difference, write nothing"},
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
    from provision.house import House

    house = House.open()
    built = house.build(house.kernels(kernel) if kernel else house.default_kernels(), record=record)
    rows = [
        {"name": b.name, "sha256": b.artefact.hash.sha256, "path": str(b.artefact.path), "fresh": b.fresh}
        for b in built
    ]
    if json:
        cli.print_json(rows)
        return
    cells = [
        (b.name, b.artefact.hash.sha256[:16], "built" if b.fresh else "there", b.artefact.path.name) for b in built
    ]
    cli.print_table(("artefact", "sha256", "state", "folder"), cells)


@command({"kernel": f"{KERNELS}; all default ones without", "json": JSON}, name="verify")
def images_verify(_c: Context, kernel: str = "", json: bool = False) -> None:
    """Build again elsewhere (other time, umask, locale, user) and compare bytes."""
    from provision.house import House
    from vm import verify

    house = House.open()
    done = verify.verify(house.builder(), house.kernels(kernel) if kernel else house.default_kernels())
    if json:
        cli.print_json(done)
    else:
        rows = [
            (v.name, v.first[:16], "same bytes" if v.same else "DIFFERS", ", ".join(v.parts)) for v in done.artefacts
        ]
        cli.print_table(("artefact", "sha256", "second build", "differing parts"), rows)
        print("second build: " + ", ".join(done.conditions))
        for path in (path for each in done.artefacts for path in each.paths):
            print(f"  {path}")
    done.require_same()


@command({"json": JSON}, name="list")
def images_list(_c: Context, json: bool = False) -> None:
    """List what is built and saved, with its size on disk."""
    from provision.house import House

    rows = House.open().stored()
    if json:
        cli.print_json(rows)
        return
    used = {True: "yes", False: "no", None: "-"}
    cells = [(r.kind, r.name, cli.human_size(r.size), used[r.in_lock], r.state) for r in rows]
    cli.print_table(("what", "name", "on disk", "in lock", "state"), cells)


@command({"all": "also what the lock names, with its downloads and saved states", "json": JSON}, name="clean")
def images_clean(_c: Context, all: bool = False, json: bool = False) -> None:  # noqa: A002  (the option's name)
    """Remove artefacts and downloads that the lock no longer names."""
    from provision.house import House

    removed = House.open().clean(everything=all)
    if json:
        cli.print_json(removed)
        return
    cli.print_table(("what", "name", "freed"), [(r.kind, r.name, cli.human_size(r.size)) for r in removed])
    print(f"freed {cli.human_size(sum(r.size for r in removed))}")


# Machines.


@command(
    {"kernel": KERNEL, "name": "what to call it (the kernel's line)", "accel": ACCEL, "cold": "boot, do not restore"}
)
def up(_c: Context, kernel: str, name: str = "", accel: str = "auto", cold: bool = False) -> None:
    """Start a machine that stays until vm.down."""
    from provision.house import House

    house = House.open()
    machine = house.start_person(kernel, name, cli.accelerator(accel), cold=cold)
    print(f"{machine.name}: {machine.facts().kernel.release}; log in: invoke ssh --name {machine.name}")


@command({"json": JSON})
def status(_c: Context, json: bool = False) -> None:
    """List the machines that run."""
    from provision.house import House

    rows = House.open().machines()
    if json:
        cli.print_json(rows)
        return
    cli.print_table(
        ("name", "owner", "state", "kernel", "accelerator", "port"),
        [(r.name, r.owner, r.state, r.release, r.accelerator, str(r.port or "-")) for r in rows],
    )


@command({"kernel": KERNEL, "name": NAME})
def reset(_c: Context, kernel: str = "", name: str = "") -> None:
    """Throw away what happened in a machine and start it afresh."""
    from provision.house import House

    machine = House.open().reset(kernel, name)
    print(f"{machine.name}: as new")


@command({"kernel": KERNEL, "name": NAME, "all": "every machine of yours"})
def down(_c: Context, kernel: str = "", name: str = "", all: bool = False) -> None:  # noqa: A002  (the option's name)
    """End a machine."""
    from provision.house import House

    for ended in House.open().end(kernel, name, everything=all):
        print(f"{ended}: ended")


@command(
    {"kernel": KERNEL, "name": NAME, "command": "run this instead of a login, and end with its status", "accel": ACCEL},
    name="ssh",
    status=ssh_status,
)
def ssh_task(_c: Context, kernel: str = "", name: str = "", command: str = "", accel: str = "auto") -> None:
    """Log in to your machine of a kernel, or to one that lives as long as the session."""
    from provision.house import House

    finish(House.open().login(kernel, name, command, cli.accelerator(accel)))


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
        "only": "what to measure, with commas: warm, cold, size, probes, lab; images only when asked for",
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
    from reports import html

    chosen = cli.words("--only", only) if only else []
    made = benches.measure(chosen, kernel, cli.whole("--rounds", rounds, 1, 100), html.render, vng_kernel)
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
    lab,
    report,
    claims,
    plan,
    ssh_task,
    doctor,
    bench,
    run_tests,
    labs=Collection(labs_list, labs_new),
    kernels=Collection(kernels_list, kernels_lock),
    images=Collection(images_build, images_verify, images_list, images_clean),
    vm=Collection(up, status, reset, down),
)
