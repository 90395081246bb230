"""The loader's command line, as far as it needs no kernel to let it trace; machines test the rest."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from bpf import build, plan
from bpf.plan import plan_for
from vm.paths import Layout

pytestmark = pytest.mark.build


@pytest.fixture(scope="module")
def labtrace() -> Path:
    return build.loader(Layout.from_environment())


def refused(labtrace: Path, *words: str | Path) -> tuple[int, dict[str, Any]]:
    """Exit status and the one line on stderr of a command that fails."""
    done = subprocess.run([labtrace, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return done.returncode, json.loads(line)


def test_the_loader_is_static_and_says_its_versions(labtrace: Path) -> None:
    with labtrace.open("rb") as stream:
        kinds = {segment["p_type"] for segment in ELFFile(stream).iter_segments()}
    said = json.loads(subprocess.run([labtrace, "version"], capture_output=True, check=True).stdout)

    assert "PT_INTERP" not in kinds
    assert said == {"version": "1", "go": f"go{build.GO_VERSION}", "plan_schema": 2, "trace_schema": 2}


def test_a_plan_for_the_loader_itself_has_all_points_of_the_calibration(labtrace: Path) -> None:
    probes = plan_for(labtrace, ["calibration"]).probes

    assert {probe.point for probe in probes} == {"pp", "entry", "ret"}
    assert {probe.symbol for probe in probes} == {"main.calibrationTarget"}


@pytest.mark.parametrize(
    ("words", "status", "kind"),
    [
        ((), 2, "usage"),
        (("trace",), 2, "usage"),
        (("run", "--plan", "p"), 2, "usage"),
        (("run", "--plan", "p", "--objects", "o", "--out", "d"), 2, "usage"),
        (("run", "--plan", "p", "--objects", "o", "--out", "d", "--timeout", "NaN", "--", "true"), 2, "usage"),
        (("run", "--plan", "/nowhere", "--objects", "o", "--out", "d", "--", "true"), 9, "bad_plan"),
        (("calibrate", "--plan", "/nowhere", "--objects", "o"), 9, "bad_plan"),
    ],
)
def test_what_cannot_be_meant_is_one_line_with_its_kind(
    labtrace: Path, words: tuple[str, ...], status: int, kind: str
) -> None:
    code, said = refused(labtrace, *words)

    assert (code, said["error"]) == (status, kind)
    assert said["message"]


def test_a_plan_for_other_bytes_attaches_nothing(labtrace: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(plan.to_json(plan_for(labtrace, ["calibration"])))
    out = tmp_path / "out"

    code, said = refused(labtrace, "run", "--plan", path, "--objects", "o", "--out", out, "--", "true")

    assert (code, said["error"]) == (9, "bad_plan")
    assert "is for sha256" in said["message"]
    assert not out.exists()


def test_a_broken_object_is_refused_and_leaves_nothing(labtrace: Path, tmp_path: Path) -> None:
    path, broken, out = tmp_path / "plan.json", tmp_path / "broken.o", tmp_path / "out"
    path.write_bytes(plan.to_json(plan_for(labtrace, ["calibration"])))
    broken.write_bytes(b"\x7fELF")

    code, said = refused(labtrace, "run", "--plan", path, "--objects", broken, "--out", out, "--", labtrace)

    assert (code, said["error"]) == (3, "load_refused")
    assert not out.exists()


def test_the_loaders_own_tests_pass() -> None:
    done = subprocess.run(
        [build.go_command(), "test", "-count=1", "./..."], cwd=build.LOADER, capture_output=True, text=True,
        check=False, env={**os.environ, "CGO_ENABLED": "0"},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok")
