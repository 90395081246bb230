"""The command line's tasks for machines that stay: ``invoke vm.up`` and its like, and ``invoke ssh``."""

from __future__ import annotations

from invoke.context import Context

from provision import cli
from provision.commands import ACCEL, JSON, KERNEL, NAME, PROVIDER, PROVIDER_OF, UP, command, finish
from provision.frame import ssh_status


@command(UP)
def up(
    _c: Context,
    kernel: str,
    name: str = "",
    provider: str = "",
    accel: str = "auto",
    clock: str = "host",
    cold: bool = False,
) -> None:
    """Start a machine that stays until vm.down."""
    from provision.house import House

    accelerator, counted = cli.accelerator(accel), cli.clock(clock)
    house = House.open(provider=cli.provider(provider, cold=cold, clock=counted == "virtual"))
    machine = house.start_person(kernel, name, accelerator, counted, cold=cold)
    print(f"{machine.name}: {machine.facts().kernel.release}; log in: invoke ssh --name {machine.name}")


@command({"provider": PROVIDER_OF, "json": JSON})
def status(_c: Context, provider: str = "", json: bool = False) -> None:
    """List the machines that are there, those of plain vagrant up among them."""
    from provision import listings
    from provision.house import House

    rows = House.open(provider=cli.provider(provider)).machines()
    if json:
        cli.print_json(rows)
    else:
        listings.machines(rows)


@command({"kernel": KERNEL, "name": NAME, "provider": PROVIDER_OF})
def reset(_c: Context, kernel: str = "", name: str = "", provider: str = "") -> None:
    """Throw away what happened in a machine and start it afresh."""
    from provision.house import House

    machine, how = House.open(provider=cli.provider(provider)).reset(kernel, name)
    print(f"{machine.name}: as new" + (f" ({how})" if how else ""))


@command({"kernel": KERNEL, "name": NAME, "provider": PROVIDER_OF, "all": "every machine of yours"})
def down(
    _c: Context,
    kernel: str = "",
    name: str = "",
    provider: str = "",
    all: bool = False,  # noqa: A002  (the option's name)
) -> None:
    """End a machine."""
    from provision.house import House

    for ended in House.open(provider=cli.provider(provider)).end(kernel, name, everything=all):
        print(f"{ended}: ended")


@command(
    {
        "kernel": KERNEL,
        "name": NAME,
        "command": "run this instead of a login, and end with its status",
        "provider": PROVIDER,
        "accel": ACCEL,
    },
    name="ssh",
    status=ssh_status,
)
def ssh_task(
    _c: Context, kernel: str = "", name: str = "", command: str = "", provider: str = "", accel: str = "auto"
) -> None:
    """Log in to your machine of a kernel, or to one that lives as long as the session."""
    from provision.house import House

    house = House.open(provider=cli.provider(provider))
    finish(house.login(kernel, name, command, cli.accelerator(accel)))
