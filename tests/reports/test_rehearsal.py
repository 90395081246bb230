"""What of a lab is found wrong before a machine is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from go_labs import spec
from provision import skeleton
from reports import record, rehearsal
from vm.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return skeleton.create(str(tmp_path / "my_lab"))


def refused(folder: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        rehearsal.check(spec.load(folder))
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("name", spec.names())
def test_every_lab_of_the_repository_stands_it(name: str) -> None:
    rehearsal.check(spec.find(name))


def test_a_run_that_left_nothing_has_every_metric_and_no_figure() -> None:
    folder = spec.find("mutex")

    given = record.analyse(rehearsal.empty_run(folder.lab), folder)

    own = [metric for metric in given.metrics if metric.name.split(".")[0] in {"cost", "order", "futex", "kernel"}]
    assert len(own) > 10
    assert {metric.value for metric in own} == {None}
    assert all("did not run" in metric.absent or metric.name == "kernel.splats" for metric in own)


@pytest.mark.parametrize(
    ("old", "new", "said", "hint"),
    [
        ('metric = "free.parked_share"', 'metric = "free.park"', "claim own-a names 'free.park'", "free.parked_share"),
        ('metric = "losses.counts"', 'metric = "losses.count"', "gate 'no count lost' names", "losses.counts"),
        ('primary = "free.parked_share"', 'primary = "x"', "primary names 'x', which is no metric", "analysis.py"),
        ('confirm = "< 0.5"', 'confirm = "under 0.5"', "'under 0.5' is no comparison", "an operator and a number"),
        ('require = "== 0"', 'require = ""', "requires nothing", "== 0"),
    ],
)  # fmt: skip
def test_a_criterion_that_cannot_be_judged_is_told(folder: Path, old: str, new: str, said: str, hint: str) -> None:
    text = (folder / "lab.toml").read_text()
    assert old in text
    (folder / "lab.toml").write_text(text.replace(old, new, 1))

    error = refused(folder)

    assert said in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nowhere_at_all\n", "cannot be imported: ModuleNotFoundError"),
        ("def analyse(run:\n", "cannot be imported: SyntaxError"),
        ("raise ValueError('two\\nlines')\n", "cannot be imported: ValueError: two lines"),
        ("import sys\nsys.exit(0)\n", "cannot be imported: SystemExit: 0"),
        ("nothing = 1\n", "has no function analyse"),
        ("def analyse(run):\n    return run.phase('traced').segments()[0]\n", "failed: IndexError"),
        ("def analyse(run):\n    raise SystemExit\n", "failed: SystemExit"),
        ("def analyse(run):\n    return []\n", "gave list, not Analysis"),
    ],
)
def test_an_analysis_that_fails_is_told_before_the_run(folder: Path, code: str, said: str) -> None:
    (folder / "analysis.py").write_text(code)

    error = refused(folder)

    assert said in error.message
    assert str(folder / "analysis.py") in error.message
    assert error.hint


def test_an_analysis_that_prints_leaves_stdout_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (folder / "analysis.py").read_text()
    (folder / "analysis.py").write_text(
        code.replace("    traced =", "    print('analysing')\n    traced =") + "print(1)\n"
    )

    rehearsal.check(spec.load(folder))

    said = capsys.readouterr()
    assert said.out == ""
    assert "analysing" in said.err


def test_a_lab_without_analysis_may_name_what_every_lab_has(folder: Path) -> None:
    (folder / "analysis.py").unlink()
    text = (folder / "lab.toml").read_text()
    (folder / "lab.toml").write_text(text.replace("free.parked_share", "forced.mismatches"))

    rehearsal.check(spec.load(folder))
