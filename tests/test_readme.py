"""Commands in documents: each one parses, the cheap ones are run, and what they name is there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.exceptions import ParseError
from invoke.parser import Parser

import tasks
from go_labs import spec
from provision import cli, options, toolchains
from vm import kernels
from vm import lock as locks
from vm.paths import REPOSITORY

DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

FIRST_SCREEN = [
    "./setup.sh && .venv/bin/invoke lab mutex --kernel 6.1",
    "./setup.sh && .venv/bin/invoke test",
]


@dataclass(frozen=True)
class Example:
    """One command line of a document."""

    document: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}:{self.text}"

    @property
    def words(self) -> list[str]:
        """Words after ``invoke``."""
        return shlex.split(self.text)[1:]


def blocks(path: Path) -> list[tuple[int, str]]:
    """Lines of indented and fenced code, with their numbers."""
    found = []
    fenced = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            found.append((number, line.strip()))
    return found


def examples() -> list[Example]:
    """Every call of invoke in a code block; a chain of commands counts each."""
    found = []
    for path in DOCUMENTS:
        for number, line in blocks(path):
            for part in line.split(" && "):
                text = part.removeprefix(".venv/bin/")
                if text.startswith("invoke "):
                    found.append(Example(path.name, number, text))
    return found


EXAMPLES = examples()

RUN = [
    "invoke --list",
    "invoke labs",
    "invoke claims",
    "invoke claims --html",
    "invoke kernels",
    "invoke vm.status",
    "invoke images.list",
]
"""Examples that need no machine and take a moment: these are really run."""


def parse(words: list[str]) -> tuple[str, dict[str, object]]:
    """Return the task that Invoke makes of ``words``, and its options."""
    collection: Collection = tasks.namespace
    found = Parser(contexts=collection.to_contexts()).parse_argv(words)
    context = found[0]
    assert context.name is not None
    return context.name, {name: argument.value for name, argument in context.args.items()}


def test_the_first_screen_of_readme_has_exactly_the_two_commands() -> None:
    top = (REPOSITORY / "README.md").read_text().split("\n## ")[0]

    assert [line.strip() for line in top.splitlines() if line.startswith("    ")] == FIRST_SCREEN


def test_continuous_integration_runs_the_second_command() -> None:
    text = (REPOSITORY / ".ci" / "run").read_text()

    assert "./setup.sh --with-vagrant\n" in text  # so that the tests of the second provider run, too
    assert ".venv/bin/invoke test" in text


def test_documents_have_examples_to_test() -> None:
    assert len(EXAMPLES) > 30
    assert {example.document for example in EXAMPLES} >= {
        "README.md",
        "machines.md",
        "maintaining.md",
        "instructors.md",
    }


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.words != ["--list"]], ids=str)
def test_every_example_means_something(example: Example) -> None:
    try:
        name, given = parse(example.words)
    except ParseError as error:
        pytest.fail(f"{example}: {error}")

    check_values(name, given)


def check_values(task: str, given: dict[str, object]) -> None:
    """Check what Invoke leaves to the task: names of labs, kernels, Go versions and options of a lab."""
    if task == "lab":
        folder = spec.find(str(given["name"])) if not str(given["name"]).startswith(".") else None
        texts = given["set_"] if "set_" in given else given.get("set")
        assert isinstance(texts, list)
        assignments = options.parse_assignments(texts)
        if folder is not None:
            options.resolve(folder.lab, assignments)
        toolchains.resolve(str(given["go"]) if given["go"] else None)
        cli.accelerator(str(given["accel"]))
    for kernel in str(given.get("kernel") or "").split(","):
        if kernel and "/" not in kernel:
            kernels.resolve(kernel, locks.read())


@pytest.mark.parametrize("text", RUN)
def test_cheap_examples_do_what_the_document_says(text: str, tmp_path: Path) -> None:
    assert any(example.text == text for example in EXAMPLES), "no document shows this any more"
    settings = {**os.environ, **{f"KMLAB_{name}": str(tmp_path / name.lower()) for name in ("CACHE", "STATE", "RUNS")}}

    done = subprocess.run(
        [Path(sys.executable).parent / "invoke", *shlex.split(text)[1:]],
        cwd=REPOSITORY, env=settings, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def written_lab(root: Path) -> Path:
    """Write the lab that README shows below ``root``, beside the Go module that it names, and return its folder."""
    text = (REPOSITORY / "README.md").read_text()
    files = re.findall(r"`my_lab/([\w.]+)`[^`]*:\n\n```\w*\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in files] == ["go.mod", "main.go", "lab.toml"]
    folder = root / "my_lab"
    folder.mkdir()
    (root / "go_labs").symlink_to(spec.LABS)
    for name, content in files:
        (folder / name).write_text(content)
    return folder


def test_the_lab_that_readme_shows_holds_together(tmp_path: Path) -> None:
    from reports import rehearsal

    rehearsal.check(spec.find(str(written_lab(tmp_path))))


@pytest.mark.vm
def test_the_lab_that_readme_shows_runs_and_judges_its_claim(tmp_path: Path) -> None:
    written_lab(tmp_path)
    words = ["lab", "./my_lab", "--kernel", "6.1", "--runs", str(tmp_path / "runs"), "--json"]

    done = subprocess.run(
        [Path(sys.executable).parent / "invoke", "-r", REPOSITORY, *words],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads(done.stdout)["runs"]
    assert [(v["claim"], v["verdict"]) for v in outcome["verdicts"]] == [("own-a", "confirmed")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())

    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


def test_documents_name_the_kernels_that_are_locked() -> None:
    locked = locks.read().kernels
    text = (REPOSITORY / "README.md").read_text()

    said = re.search(r"^([\d., and]+) are the default lines; ([\d., and]+) can be chosen", text, re.MULTILINE)
    assert said is not None
    numbers = [re.findall(r"\d+\.\d+", part) for part in said.groups()]
    assert numbers[0] == kernels.defaults(locked)
    assert sorted(numbers[0] + numbers[1]) == sorted(locked)


def test_documents_name_settings_that_exist() -> None:
    sources = [*REPOSITORY.glob("vm/**/*.py"), *REPOSITORY.glob("provision/**/*.py")]
    known = {name for path in sources for name in re.findall(r"KMLAB_[A-Z]+", path.read_text())}
    named = {name for path in DOCUMENTS for name in re.findall(r"KMLAB_[A-Z]+", path.read_text())}

    assert named <= known
    assert {"KMLAB_CACHE", "KMLAB_STATE", "KMLAB_RUNS", "KMLAB_MIRROR", "KMLAB_ARCHIVE"} <= named
