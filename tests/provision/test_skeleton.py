"""A lab of one's own: made in one command, it builds, its test passes, and a run of it judges its claim."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest

from go_labs import spec
from provision import gobuild, options, skeleton, toolchains
from reports import rehearsal
from vm.errors import UsageError
from vm.paths import REPOSITORY, Layout

BIN = Path(sys.executable).parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return skeleton.create(str(tmp_path / "my_lab"))


def run(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_lab_has_all_its_files_and_can_be_found(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == set(skeleton.FILES)
    found = spec.find(str(folder))
    assert found.lab.name == "my_lab"
    assert [claim.id for claim in found.lab.claims] == ["own-a"]
    options.resolve(found.lab, {}, full=True)
    rehearsal.check(found)


def test_a_bare_name_is_a_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert skeleton.create("queue") == tmp_path / "queue"
    assert spec.find("./queue").lab.name == "queue"


@pytest.mark.parametrize("there", ["file", "folder", "link to nowhere"])
def test_nothing_is_overwritten(there: str, tmp_path: Path) -> None:
    place = tmp_path / "my_lab"
    if there == "file":
        place.write_text("mine")
    elif there == "folder":
        place.mkdir()
    else:
        place.symlink_to(tmp_path / "nowhere")

    with pytest.raises(UsageError, match="is there already"):
        skeleton.create(str(place))

    assert list(tmp_path.iterdir()) == [place]
    assert not place.is_dir() or list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("My-Lab", "my_lab"), ("2nd", "nd"), ("x" * 40, "x" * 31), ("..", "my_lab"), ("tools", "my_tools"),
        ("lab;rm", "lab_rm"), ("mutex", "my_mutex"), ("é", "my_lab"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_a_labs_is_refused_with_one_that_can(name: str, near: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        skeleton.create(f"{tmp_path}/{name}")

    assert near in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_folder_it_lies_in_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be made: No such file") as caught:
        skeleton.create(str(tmp_path / "nowhere" / "my_lab"))
    assert "must be there" in caught.value.hint


def test_a_template_that_cannot_be_filled_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    templates = Path(shutil.copytree(skeleton.TEMPLATES, tmp_path / "templates"))
    (templates / "analysis.py.j2").write_text("{{ nothing_of_that_name }}")
    monkeypatch.setattr(skeleton, "TEMPLATES", templates)

    with pytest.raises(jinja2.UndefinedError):
        skeleton.create(str(tmp_path / "my_lab"))

    assert not (tmp_path / "my_lab").exists()


def test_its_python_is_as_strict_as_the_projects(folder: Path) -> None:
    settings = REPOSITORY / "pyproject.toml"
    run(BIN / "ruff", "check", "--no-cache", "--config", settings, "analysis.py", cwd=folder)
    run(BIN / "ruff", "format", "--no-cache", "--config", settings, "--check", "analysis.py", cwd=folder)
    run(BIN / "mypy", "--config-file", settings, "--cache-dir", os.devnull, folder / "analysis.py", cwd=REPOSITORY)


def test_its_go_is_formatted(folder: Path) -> None:
    goroot = run(BIN / "go", "env", "GOROOT", cwd=folder).strip()

    assert run(Path(goroot) / "bin" / "gofmt", "-l", ".", cwd=folder) == ""


@pytest.mark.build
def test_its_own_test_passes_and_vet_finds_nothing(folder: Path) -> None:
    assert run(BIN / "go", "test", "-count=1", cwd=folder).startswith("PASS\nok")
    run(BIN / "go", "vet", cwd=folder)


@pytest.mark.build
def test_its_own_test_finds_an_option_that_lab_toml_lacks(folder: Path) -> None:
    text = (folder / "lab.toml").read_text()
    (folder / "lab.toml").write_text(text.replace('default = "4,16"', 'default = "4,32"'))

    done = subprocess.run([BIN / "go", "test", "-count=1"], cwd=folder, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "lab.toml has not" in done.stdout


@pytest.mark.build
@pytest.mark.parametrize("version", ["1.21", "1.22", "1.23", "1.24", "1.25", "1.26", "1.27"])
def test_it_builds_with_every_go(version: str, folder: Path) -> None:
    layout = Layout.from_environment()

    program = gobuild.build(folder, toolchains.go_for(version, layout), layout)

    said = json.loads(run(program, "--sections=forced", "--sizes=3", "--phase=traced", cwd=folder))
    assert said["go"].startswith(f"go{version}")
    assert said["segments"][1]["expected"] == {"slow": 3, "sem": 3, "park_mutex": 3, "resumed": 3}


@pytest.mark.build
def test_it_builds_where_the_checkout_has_a_space_in_its_path(tmp_path: Path) -> None:
    labs = tmp_path / "check out" / "go_labs"
    shutil.copytree(spec.LABS, labs, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    folder = skeleton.create(str(tmp_path / "my_lab"), labs)
    go = toolchains.go_for(None, Layout.from_environment())

    run(BIN / "go", "build", "-o", os.devnull, ".", cwd=folder)

    before = gobuild.inputs_hash(folder, folder, go, gobuild.PLAIN)
    (labs / "labkit" / "mark.go").open("a").write("// changed\n")
    assert gobuild.inputs_hash(folder, folder, go, gobuild.PLAIN) != before


@pytest.mark.vm
def test_a_run_of_it_judges_its_claim(folder: Path, tmp_path: Path) -> None:
    words = ["lab", "./my_lab", "--kernel", "6.1", "--set", "sizes=2,9", "--runs", str(tmp_path / "runs"), "--json"]

    done = subprocess.run(
        [BIN / "invoke", "-r", REPOSITORY, *words], cwd=folder.parent, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads(done.stdout)["runs"]
    assert outcome["lab"] == "my_lab"
    assert outcome["losses"] == 0
    assert outcome["failed_phases"] == {}
    assert all(gate["passed"] for gate in outcome["gates"])
    (verdict,) = outcome["verdicts"]
    assert verdict["claim"] == "own-a"
    assert verdict["verdict"] in {"confirmed", "refuted"}
    assert 0 <= verdict["criteria"][0]["value"] <= 1
