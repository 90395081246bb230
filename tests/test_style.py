"""Every linter as a test, and the rules of the house: sizes, rooms, words that must not be written down."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vm.paths import REPOSITORY

BIN = Path(sys.executable).parent

ROOMS: dict[str, set[str]] = {
    "vm": {"vm"},
    "go_labs": {"vm", "go_labs"},
    "bpf": {"vm", "go_labs", "bpf"},
    "provision": {"vm", "go_labs", "bpf", "provision"},
    "reports": {"vm", "go_labs", "bpf", "reports"},
}
"""Room → rooms that it may import from (docs/architecture.md)."""

LONGEST = 500
"""Lines of a module."""

GENERATED = {"requirements.txt", "vm/lab.lock.json", "LICENSE", "bpf/LICENSE.GPL-2.0"}

HOSTS = re.compile(
    r"(?<![\w.-])(?:(?:deb|security|ftp\.\w+|snapshot|archive|ports)\.(?:debian\.org|ubuntu\.com)"
    r"|pypi\.org|files\.pythonhosted\.org|proxy\.golang\.org|sum\.golang\.org|registry\.npmjs\.org)"
)
"""Hosts of package archives and mirrors: where packages come from is the host's own setting."""

PLACES = re.compile(r"(?<![\w/.-])/(?:work|tmp/kml|root/\.pyenv)/")
"""Paths of a machine that somebody worked on."""


def tracked() -> list[str]:
    """Names of the files under version control; of all files that it would take, where this is no clone."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY, capture_output=True, check=True,
    )  # fmt: skip
    return sorted(name for name in listed.stdout.decode().split("\0") if name and (REPOSITORY / name).is_file())


TRACKED = tracked()


def texts(*suffixes: str) -> Iterator[tuple[str, str]]:
    """Name and text of each tracked file that is text (with one of ``suffixes``, if any are given)."""
    for name in TRACKED:
        if suffixes and not name.endswith(suffixes):
            continue
        data = (REPOSITORY / name).read_bytes()
        if b"\0" not in data[:8192]:
            yield name, data.decode("utf-8", "replace")


def run(*command: str | Path, cwd: Path = REPOSITORY) -> str:
    """Run a linter; return all that it said. The test fails with its words if it found something."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def files(*suffixes: str) -> list[str]:
    return [name for name in TRACKED if name.endswith(suffixes)]


def test_ruff_finds_nothing() -> None:
    run(BIN / "ruff", "check", "--no-cache", ".")


def test_ruff_would_change_no_formatting() -> None:
    run(BIN / "ruff", "format", "--no-cache", "--check", ".")


def test_types_hold_strictly() -> None:
    run(BIN / "mypy")
    run(BIN / "mypy", "tasks.py")


def test_shell_scripts_are_clean() -> None:
    scripts = [name for name, text in texts() if re.match(r"#!\s*/\S*(?:/env )?(?:ba|da)?sh\b", text)]

    assert "setup.sh" in scripts
    run(BIN / "shellcheck", *scripts)


def test_c_is_formatted() -> None:
    sources = files(".c", ".h")

    assert sources
    run(BIN / "clang-format", "--dry-run", "--Werror", *sources)


def test_bpf_programs_say_under_which_licences_they_are() -> None:
    lines = {name: text.splitlines()[0] for name, text in texts(".bpf.c")}

    assert lines
    assert set(lines.values()) == {"// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)"}


def modules() -> list[str]:
    """Folders of Go modules, fixtures aside that are built as they are."""
    return [str(Path(name).parent) for name in TRACKED if Path(name).name == "go.mod" and "fixtures" not in name]


def test_go_is_formatted() -> None:
    sources = files(".go")

    assert sources
    toolchain = subprocess.run([BIN / "go", "env", "GOROOT"], capture_output=True, text=True, check=True).stdout.strip()
    assert run(Path(toolchain) / "bin" / "gofmt", "-l", *sources) == ""


@pytest.mark.build
@pytest.mark.parametrize("module", [name for name in modules() if name != "tests/gotools"])
def test_go_vet_finds_nothing(module: str) -> None:
    run(BIN / "go", "vet", "./...", cwd=REPOSITORY / module)


@pytest.fixture(scope="session")
def staticcheck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """staticcheck, built as pinned in tests/gotools/go.mod."""
    program = tmp_path_factory.mktemp("staticcheck") / "staticcheck"
    run(BIN / "go", "build", "-o", program, "honnef.co/go/tools/cmd/staticcheck", cwd=REPOSITORY / "tests" / "gotools")
    return program


@pytest.mark.build
@pytest.mark.parametrize("module", [name for name in modules() if name != "tests/gotools"])
def test_staticcheck_finds_nothing(module: str, staticcheck: Path) -> None:
    run(staticcheck, "./...", cwd=REPOSITORY / module)


TICK = """package example

import "time"

// Twice returns, and its ticker could not be stopped.
func Twice() {
\tticks := time.Tick(time.Second)
\t<-ticks
\t<-ticks
}
"""


@pytest.mark.build
def test_staticcheck_calls_no_goroutine_of_the_leak_lab_a_leak_and_knows_a_ticker_that_is_one(
    staticcheck: Path, tmp_path: Path
) -> None:
    """What that lab says of go vet (claim 2.3-a) holds for staticcheck, too."""
    (tmp_path / "go.mod").write_text("module example\n\ngo 1.21\n")
    (tmp_path / "tick.go").write_text(TICK)

    assert run(staticcheck, "./testdata/static", cwd=REPOSITORY / "go_labs" / "leak") == ""
    with pytest.raises(AssertionError, match=r"time\.Tick .*SA1015"):
        run(staticcheck, ".", cwd=tmp_path)


def test_no_module_is_longer_than_a_few_hundred_lines() -> None:
    sources = (".py", ".go", ".c", ".h", ".sh", ".md")
    long = {name: text.count("\n") for name, text in texts(*sources) if text.count("\n") > LONGEST}

    assert not {name: lines for name, lines in long.items() if "fixtures" not in name and name not in GENERATED}


def test_no_host_of_packages_is_written_down() -> None:
    mine = str(Path(__file__).relative_to(REPOSITORY))
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts()
        if name != mine
        for number, line in enumerate(text.splitlines(), 1)
        if HOSTS.search(line)
    ]

    assert not found, "\n".join(found)


def test_no_path_of_a_workplace_is_written_down() -> None:
    found = [f"{name}: {match[0]}" for name, text in texts() if (match := PLACES.search(text))]

    assert not found, "\n".join(found)


def test_requirements_name_no_index_and_pin_every_file() -> None:
    text = (REPOSITORY / "requirements.txt").read_text()
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==\S+.*\\$", text, re.MULTILINE)

    assert pins
    assert not re.search(r"^\s*(-i|--index-url|--extra-index-url|--find-links|https?:)", text, re.MULTILINE)
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
    assert [block.split("==")[0] for block in blocks if "--hash=sha256:" not in block] == []
    wanted = re.findall(r"^([A-Za-z0-9_.-]+)", (REPOSITORY / "requirements.in").read_text(), re.MULTILINE)
    assert {canonical(name) for name in wanted} <= {canonical(name) for name in pins}


def canonical(name: str) -> str:
    """A package's name as the index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imports(source: str) -> Iterator[str]:
    """First part of the name of each module that ``source`` imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_only_the_rooms_before_it(room: str) -> None:
    mine = [(name, text) for name, text in texts(".py") if name.startswith(f"{room}/")]
    # A lab's analysis.py is called by reports and written against its interface; it lies with its lab.
    found = {
        f"{name} imports {other}"
        for name, text in mine
        if not (room == "go_labs" and name.endswith("/analysis.py"))
        for other in imports(text)
        if (other in ROOMS or other == "tasks") and other not in ROOMS[room]
    }

    assert mine
    assert not found


def test_every_public_thing_in_the_error_tree_has_its_own_exit_code() -> None:
    from vm import errors

    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.LabError)]
    codes = [c.exit_code for c in classes]

    assert len(set(codes)) == len(codes)
    assert not {0, 1, 2} & set(codes)
