"""Go programs that the tests read: one that the toolchain brings along, and the probed program, built on demand."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from bpf.elf import Elf
from provision import gobuild, toolchains
from provision.gobuild import PLAIN, Variant
from vm.paths import Layout

FIXTURES = Path(__file__).parent / "fixtures"
PROBED = FIXTURES / "probed"

VERSIONS = toolchains.versions()
DEFAULT = VERSIONS[-1]


@cache
def probed(version: str = DEFAULT, variant: Variant = PLAIN) -> Path:
    """Return the probed program as Go ``version`` builds it, from the cache if it can."""
    layout = Layout.from_environment()
    return gobuild.build(PROBED, toolchains.go_for(version, layout), layout, variant)


@cache
def gofmt() -> bytes:
    """Return a Go program that needs no build: gofmt of the default toolchain, with symbols and without DWARF."""
    toolchain = toolchains.go_for(DEFAULT, Layout.from_environment())
    return (toolchain.goroot / "bin" / "gofmt").read_bytes()


def gofmt_as(version: str) -> Elf:
    """Return gofmt with another version of the same length written into its build information."""
    assert len(version) == len(DEFAULT)
    return Elf("gofmt", gofmt().replace(b"go" + DEFAULT.encode(), b"go" + version.encode()))


def record_plan() -> None:
    """Write the plan of the probed program to the fixtures."""
    from bpf.plan import plan_for, to_json

    path = FIXTURES / f"plan-{DEFAULT}.json"
    path.write_bytes(to_json(plan_for(probed(), ["mutex", "calibration"])))


if __name__ == "__main__":
    record_plan()
