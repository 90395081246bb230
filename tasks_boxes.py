"""Tasks of the boxes for Vagrant: ``tasks.py`` takes them into the command line, and the same rules hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context

from provision import cli
from provision.commands import JSON, KERNELS, command

if TYPE_CHECKING:
    from vm.boxes.plans import ProviderName

PROVIDER = "whom the boxes are for: libvirt, virtualbox, or both with a comma (libvirt)"


def _providers(text: str) -> list[ProviderName]:
    from vm.boxes.plans import FORMS

    chosen = cli.words("--provider", text) if text else ["libvirt"]
    for each in chosen:
        cli.one_of("--provider", each, tuple(FORMS))
    return [provider for provider in FORMS if provider in chosen]


@command(
    {
        "kernel": f"{KERNELS}; all default ones without",
        "provider": PROVIDER,
        "record": "write the hashes of what comes out into the lock: after a recipe was changed on purpose",
        "json": JSON,
    },
    name="build",
)
def build(_c: Context, kernel: str = "", provider: str = "", record: bool = False, json: bool = False) -> None:
    """Build boxes for Vagrant from the lock, as far as they are not there."""
    from provision import boxes
    from provision.house import House

    house = House.open()
    wanted = house.kernels(kernel) if kernel else house.default_kernels()
    rows = boxes.build(house, wanted, _providers(provider), record=record)
    if json:
        cli.print_json(rows)
    else:
        boxes.show(rows)


@command({"kernel": f"{KERNELS}; all default ones without", "provider": PROVIDER, "json": JSON}, name="verify")
def verify(_c: Context, kernel: str = "", provider: str = "", json: bool = False) -> None:
    """Build boxes again elsewhere (other umask and time zone) and compare bytes."""
    from provision import boxes, listings
    from provision.house import House

    house = House.open()
    done = boxes.verify(house, house.kernels(kernel) if kernel else house.default_kernels(), _providers(provider))
    if json:
        cli.print_json(done)
    else:
        listings.verified(done)
    done.require_same()


@command({"kernel": f"{KERNELS}; all default ones without", "provider": PROVIDER, "json": JSON}, name="add")
def add(_c: Context, kernel: str = "", provider: str = "", json: bool = False) -> None:
    """Give boxes to Vagrant, built if they are not there; one that it has in other bytes is replaced."""
    from provision import boxes
    from provision.house import House

    house = House.open()
    wanted = house.kernels(kernel) if kernel else house.default_kernels()
    rows = boxes.add(house, wanted, _providers(provider))
    if json:
        cli.print_json(rows)
    else:
        boxes.show(rows)
