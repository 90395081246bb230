from __future__ import annotations

import re
from pathlib import Path

import pytest

from bpf import probes
from bpf.hooks import Hook
from bpf.probes import SETS
from vm.errors import UsageError

HOOKS = [hook for probe_set in SETS.values() for hook in probe_set.hooks]
SOURCES = sorted((Path(probes.__file__).parent / "src").glob("*.[ch]"))


@pytest.mark.parametrize("hook", HOOKS, ids=[hook.id for hook in HOOKS])
def test_a_function_has_at_most_one_name_in_each_version_and_one_in_some(hook: Hook) -> None:
    for minor in range(21, 60):
        names = [name for name in hook.names if name.since <= (1, minor) <= name.until]
        assert len(names) <= 1
        assert hook.name((1, minor)) == (names[0].symbol if names else None)
    assert any(hook.name((1, minor)) for minor in range(21, 28))


@pytest.mark.parametrize("hook", HOOKS, ids=[hook.id for hook in HOOKS])
def test_each_program_is_in_the_bpf_source(hook: Hook) -> None:
    written = rf'^SEC\("uprobe/{hook.program}"\)$|^COUNTING_PROGRAM\({hook.program},'

    assert any(re.search(written, source.read_text(), re.MULTILINE) for source in SOURCES)


def test_an_id_means_one_hook() -> None:
    by_id = {hook.id: hook for hook in HOOKS}

    assert all(by_id[hook.id] == hook for hook in HOOKS)


def test_sets_are_found_by_name_each_once() -> None:
    assert probes.find_sets(["mutex", "calibration", "mutex"]) == [probes.MUTEX, probes.CALIBRATION]


@pytest.mark.parametrize("names", [[], ["mutex", "nothing"]])
def test_no_set_or_an_unknown_one_is_refused(names: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        probes.find_sets(names)
    assert caught.value.hint == f"probe sets: {', '.join(sorted(SETS))}"
