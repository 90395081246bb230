from __future__ import annotations

import re
from pathlib import Path

import pytest

from bpf import probes
from bpf.hooks import Hook
from bpf.probes import SETS
from vm.errors import UsageError

HOOKS = [hook for probe_set in SETS.values() for hook in probe_set.hooks]
PROGRAMS = Path(probes.__file__).parent / "src" / "go.bpf.c"


@pytest.mark.parametrize("hook", HOOKS, ids=[hook.id for hook in HOOKS])
def test_a_function_has_exactly_one_name_in_each_version(hook: Hook) -> None:
    for minor in range(21, 60):
        names = [name for name in hook.names if name.since <= (1, minor) <= name.until]
        assert [name.symbol for name in names] == [hook.name((1, minor))]


@pytest.mark.parametrize("hook", HOOKS, ids=[hook.id for hook in HOOKS])
def test_each_program_is_in_the_bpf_source(hook: Hook) -> None:
    assert re.search(rf'^SEC\("uprobe/{hook.program}"\)$', PROGRAMS.read_text(), re.MULTILINE)


def test_an_id_means_one_hook() -> None:
    by_id = {hook.id: hook for hook in HOOKS}

    assert all(by_id[hook.id] == hook for hook in HOOKS)


def test_sets_are_found_by_name_each_once() -> None:
    assert probes.find_sets(["mutex", "calibration", "mutex"]) == [probes.MUTEX, probes.CALIBRATION]


@pytest.mark.parametrize("names", [[], ["mutex", "nothing"]])
def test_no_set_or_an_unknown_one_is_refused(names: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        probes.find_sets(names)
    assert caught.value.hint == "probe sets: calibration, mutex"
