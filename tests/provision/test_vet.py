"""What ``go vet`` says of packages, with the oldest Go and the newest."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision import toolchains, vet
from vm.errors import BuildError
from vm.paths import Layout

LOST = """package example

import "context"

// Lost drops the function that ends the context.
func Lost() context.Context {
\tctx, _ := context.WithCancel(context.Background())
\treturn ctx
}
"""

pytestmark = pytest.mark.build


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "go.mod").write_text("module example\n\ngo 1.21\n")
    (tmp_path / "testdata" / "bad").mkdir(parents=True)
    (tmp_path / "testdata" / "good").mkdir()
    (tmp_path / "testdata" / "bad" / "lost.go").write_text(LOST)
    (tmp_path / "testdata" / "good" / "good.go").write_text("package good\n")
    return tmp_path


@pytest.mark.parametrize("version", ["1.21", None])
def test_findings_are_lines_with_their_analyzer(folder: Path, version: str | None) -> None:
    layout = Layout.from_environment()
    toolchain = toolchains.go_for(version, layout)

    said = vet.words(folder, toolchain, layout, ["testdata/bad", "testdata/good"]).decode()

    assert said.startswith("lost.go:7:7: lostcancel: the cancel function returned by context.WithCancel")
    assert said.count("\n") == 1


def test_nothing_found_is_nothing_said(folder: Path) -> None:
    layout = Layout.from_environment()

    assert vet.words(folder, toolchains.go_for(None, layout), layout, ["testdata/good"]) == b""


def test_a_package_that_does_not_compile_is_told(folder: Path) -> None:
    layout = Layout.from_environment()
    (folder / "testdata" / "bad" / "lost.go").write_text(LOST.replace("return ctx", "return nothing"))

    with pytest.raises(BuildError, match=r"go vet of Go 1\.27\.3 cannot read") as caught:
        vet.words(folder, toolchains.go_for(None, layout), layout, ["testdata/bad"])

    assert "undefined: nothing" in caught.value.hint
