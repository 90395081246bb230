"""Tables on stdout of what the tasks list: kernels, artefacts, machines, a probe plan."""

from __future__ import annotations

from collections.abc import Sequence

from provision import cli
from provision.house import MachineRow, Stored
from vm.images import Built, Removed
from vm.kernels import Listed
from vm.verify import Verification


def kernels(rows: Sequence[Listed]) -> None:
    """Print the pinned kernels."""
    yes = {True: "yes", False: "-"}
    cells = [(r.line, r.release, r.version, r.suite, r.support, yes[r.built], yes[r.warm]) for r in rows]
    cli.print_table(("line", "release", "version", "suite", "support", "built", "warm"), cells)


def stored(rows: Sequence[Stored]) -> None:
    """Print what lies in the cache."""
    used = {True: "yes", False: "no", None: "-"}
    cells = [(r.kind, r.name, cli.human_size(r.size), used[r.in_lock], r.state) for r in rows]
    cli.print_table(("what", "name", "on disk", "in lock", "state"), cells)


def removed(rows: Sequence[Removed]) -> None:
    """Print what was removed, and how much that freed."""
    cli.print_table(("what", "name", "freed"), [(r.kind, r.name, cli.human_size(r.size)) for r in rows])
    print(f"freed {cli.human_size(sum(r.size for r in rows))}")


def built(rows: Sequence[Built]) -> None:
    """Print artefacts, and whether they had to be built."""
    cells = [(b.name, b.artefact.hash.sha256[:16], "built" if b.fresh else "there", b.artefact.path.name) for b in rows]
    cli.print_table(("artefact", "sha256", "state", "folder"), cells)


def built_rows(rows: Sequence[Built]) -> list[dict[str, object]]:
    """Return the same for ``--json``."""
    return [
        {"name": b.name, "sha256": b.artefact.hash.sha256, "path": str(b.artefact.path), "fresh": b.fresh} for b in rows
    ]


def verified(done: Verification) -> None:
    """Print which second builds gave the same bytes, and what differs."""
    rows = [(v.name, v.first[:16], "same bytes" if v.same else "DIFFERS", ", ".join(v.parts)) for v in done.artefacts]
    cli.print_table(("artefact", "sha256", "second build", "differing parts"), rows)
    print("second build: " + ", ".join(done.conditions))
    for path in (path for each in done.artefacts for path in each.paths):
        print(f"  {path}")


def machines(rows: Sequence[MachineRow]) -> None:
    """Print the machines that are there."""
    cells = [
        (r.name, r.provider, r.owner, r.state, r.release, r.accelerator or "-", r.clock or "-", _address(r))
        for r in rows
    ]
    cli.print_table(("name", "provider", "owner", "state", "kernel", "accelerator", "clock", "port"), cells)
    plain = [r.name for r in rows if not r.registered]
    if plain:
        print(f"made by plain vagrant up, used with --provider vagrant: {', '.join(plain)}")


def _address(row: MachineRow) -> str:
    """Return the port of this host that leads to a machine, or its own address."""
    if not row.port:
        return "-"
    return str(row.port) if row.host == "127.0.0.1" else f"{row.host}:{row.port}"
