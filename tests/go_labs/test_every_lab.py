"""What holds for every lab of this repository, whichever there are: lab.toml against the rules and the workload."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path

import pytest

from go_labs import spec
from provision import gobuild, options, toolchains
from reports import verdicts
from vm.errors import UsageError
from vm.paths import Layout

LABS = spec.names()


@cache
def workload(name: str) -> Path:
    layout = Layout.from_environment()
    return gobuild.build(spec.find(name).path, toolchains.go_for(toolchains.resolve(None), layout), layout)


@pytest.mark.parametrize("name", LABS)
def test_criteria_and_gates_can_be_judged(name: str) -> None:
    verdicts.check(spec.find(name).lab)


@pytest.mark.parametrize("name", LABS)
def test_the_folder_says_what_it_is(name: str) -> None:
    folder = spec.find(name)

    assert folder.lab.name == folder.path.name
    assert folder.analysis is not None
    assert [phase.name for phase in folder.lab.phases if phase.probes] == ["traced"]


@pytest.mark.parametrize("name", LABS)
@pytest.mark.parametrize("full", [False, True])
def test_defaults_lie_within_their_own_ranges(name: str, full: bool) -> None:
    lab = spec.find(name).lab

    assert set(options.resolve(lab, {}, full=full)) == set(lab.options)


@pytest.mark.parametrize("name", LABS)
def test_an_option_below_its_range_is_refused(name: str) -> None:
    lab = spec.find(name).lab
    for option, bounds in lab.options.items():
        if bounds.minimum is not None:
            with pytest.raises(UsageError, match="out of range"):
                options.resolve(lab, {option: f"{bounds.minimum - 1:g}"})


@pytest.mark.build
@pytest.mark.parametrize("name", LABS)
def test_the_workload_has_the_options_of_lab_toml(name: str) -> None:
    said = json.loads(subprocess.run([workload(name), "--describe"], capture_output=True, check=True).stdout)

    described = {option["name"]: option for option in said}
    assert set(described) == set(spec.find(name).lab.options)
    for option_name, option in spec.find(name).lab.options.items():
        theirs = described[option_name]
        ours = {"kind": option.kind, "default": option.default, "minimum": option.minimum, "maximum": option.maximum}
        assert {key: theirs.get(key) for key in ours} == ours


@pytest.mark.build
@pytest.mark.parametrize("name", LABS)
@pytest.mark.parametrize("argument", ["--sizes=0", "--sections=none", "--phase=warm", "--nothing=1"])
def test_the_workload_refuses_what_cannot_be_meant(name: str, argument: str) -> None:
    done = subprocess.run([workload(name), argument], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"{name}: ")
    assert "goroutine " not in done.stderr
