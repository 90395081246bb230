"""The program that travels: smaller, and the same at every probe."""

from __future__ import annotations

import msgspec
import pytest

from bpf.plan import plan_for
from go_labs.spec import LABS
from provision import gobuild, toolchains
from provision.lean import lean
from vm import images, lock, progress
from vm.errors import BuildError
from vm.paths import Layout

pytestmark = pytest.mark.build


def test_a_stripped_workload_keeps_the_plan_of_the_whole_one() -> None:
    layout = Layout.from_environment()
    tools = images.Builder(lock.read(), layout, progress.to_stderr()).tools()
    binary = gobuild.build(LABS / "mutex", toolchains.go_for(None, layout), layout)
    plan = plan_for(binary, ["mutex"])

    small, of_small = lean(binary, plan, layout, tools)

    assert small.stat().st_size < 0.75 * binary.stat().st_size
    assert of_small.probes == plan_for(small, ["mutex"]).probes == plan.probes
    assert of_small.offsets == plan.offsets
    assert of_small.binary.sha256 == plan_for(small, ["mutex"]).binary.sha256


def test_code_that_moved_is_noticed() -> None:
    layout = Layout.from_environment()
    tools = images.Builder(lock.read(), layout, progress.to_stderr()).tools()
    binary = gobuild.build(LABS / "mutex", toolchains.go_for(None, layout), layout)
    plan = plan_for(binary, ["mutex"])
    elsewhere = msgspec.structs.replace(plan.probes[0], offset=binary.stat().st_size - 8)

    with pytest.raises(BuildError, match="stripping mutex moved"):
        lean(binary, msgspec.structs.replace(plan, probes=[elsewhere]), layout, tools)
