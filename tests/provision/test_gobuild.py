from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import pytest

from bpf.elf import Elf
from go_labs.spec import LABS
from provision import gobuild, toolchains
from provision.gobuild import PLAIN, Variant
from provision.toolchains import Toolchain
from vm.errors import BuildError
from vm.paths import Layout

MAIN = """\
package main

import "fmt"

func main() { fmt.Println("hello") }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "module" / "hello"
    found.mkdir(parents=True)
    (found.parent / "go.mod").write_text("module example\n\ngo 1.21\n")
    (found / "main.go").write_text(MAIN)
    return found


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Builds of their own; toolchains and the compiler's cache are shared, since they are keyed by content."""
    cache = tmp_path / "cache"
    cache.mkdir()
    shared = Layout.from_environment().toolchains
    shared.mkdir(parents=True, exist_ok=True)
    (cache / "toolchains").symlink_to(shared)
    return Layout(cache=cache, state=tmp_path / "state", runs=tmp_path / "runs")


def toolchain() -> Toolchain:
    return toolchains.go_for(None, Layout.from_environment())


def hash_of(folder: Path, go: Toolchain | None = None, variant: Variant = PLAIN) -> str:
    return gobuild.inputs_hash(folder, gobuild.find_module(folder), go or toolchain(), variant)


# --- what shapes a build ------------------------------------------------------------------------------------------


def test_equal_inputs_have_equal_hashes_wherever_they_lie(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "hello"
    other.mkdir(parents=True)
    (other.parent / "go.mod").write_text((folder.parent / "go.mod").read_text())
    (other / "main.go").write_text(MAIN)

    assert hash_of(folder) == hash_of(other)


def test_each_input_changes_the_hash(folder: Path) -> None:
    go = toolchain()
    hashes = {hash_of(folder)}

    hashes.add(hash_of(folder, Toolchain("1.26.6", go.go, go.goroot)))
    hashes.update(hash_of(folder, variant=v) for v in (Variant(pie=True), Variant(stripped=True), Variant(tags=("x",))))
    (folder / "main.go").write_text(MAIN.replace("hello", "other"))
    hashes.add(hash_of(folder))
    (folder / "embedded.txt").write_text("any file can be embedded")
    hashes.add(hash_of(folder))
    (folder.parent / "go.sum").write_text("")
    hashes.add(hash_of(folder))

    assert len(hashes) == 8


def test_tests_and_hidden_files_do_not(folder: Path) -> None:
    before = hash_of(folder)

    (folder / "main_test.go").write_text("package main\n")
    (folder / ".swp").write_text("x")

    assert hash_of(folder) == before


def test_a_folder_that_replaces_a_module_is_an_input(folder: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "library.go").write_text("package library\n")
    with (folder.parent / "go.mod").open("a") as file:
        file.write("\nreplace example.org/library => ../library // local\n")
    before = hash_of(folder)

    (library / "library.go").write_text("package library\n\nconst One = 1\n")

    assert hash_of(folder) != before


def test_a_folder_without_go_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no Go source"):
        gobuild.find_module(tmp_path)


def test_a_folder_in_no_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main.go").write_text(MAIN)

    with pytest.raises(BuildError, match="in no Go module") as caught:
        gobuild.find_module(tmp_path)
    assert "go mod init" in caught.value.hint


def test_a_program_whose_module_does_not_lead_to_labkit_is_refused(folder: Path) -> None:
    gobuild.check_labkit(folder)  # it imports none
    (folder / "main.go").write_text('package main\n\nimport _ "kmlab/labkit"\n\nfunc main() {}\n')

    with pytest.raises(BuildError, match="leads to no kmlab") as caught:
        gobuild.check_labkit(folder)
    assert f"-replace kmlab={LABS}" in caught.value.hint

    with (folder.parent / "go.mod").open("a") as file:
        file.write(f"replace kmlab => {LABS}\n")
    gobuild.check_labkit(folder)
    gobuild.check_labkit(LABS / "mutex")


# --- building -----------------------------------------------------------------------------------------------------


@pytest.mark.build
def test_a_program_is_built_once(folder: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    first = gobuild.build(folder, toolchain(), layout)
    monkeypatch.setattr(gobuild, "_compile", lambda *_: pytest.fail("it was built again"))

    second = gobuild.build(folder, toolchain(), layout)

    assert first == second
    assert first.name == "hello"
    assert subprocess.run([first], capture_output=True, check=True).stdout == b"hello\n"


@pytest.mark.build
def test_a_damaged_program_is_built_again(folder: Path, layout: Layout) -> None:
    program = gobuild.build(folder, toolchain(), layout)
    whole = program.read_bytes()
    program.write_bytes(whole[:-1])

    again = gobuild.build(folder, toolchain(), layout)

    assert again == program
    assert again.read_bytes() == whole


@pytest.mark.build
def test_the_same_source_elsewhere_gives_the_same_bytes(folder: Path, layout: Layout, tmp_path: Path) -> None:
    program = gobuild.build(folder, toolchain(), layout)
    moved = tmp_path / "moved"
    folder.parent.rename(moved)
    other = Layout(cache=tmp_path / "other", state=layout.state, runs=layout.runs)
    other.cache.mkdir()
    (other.cache / "toolchains").symlink_to(layout.toolchains)

    assert gobuild.build(moved / "hello", toolchain(), other).read_bytes() == program.read_bytes()


@pytest.mark.build
@pytest.mark.parametrize("variant", [Variant(), Variant(pie=True), Variant(stripped=True), Variant(True, True)])
def test_variants_are_what_they_say(folder: Path, layout: Layout, variant: Variant) -> None:
    elf = Elf.open(gobuild.build(folder, toolchain(), layout, variant))

    assert (elf.pie, elf.stripped) == (variant.pie, variant.stripped)
    assert (elf.section(".interp") is None) == (not variant.pie)


@pytest.mark.build
def test_settings_of_the_host_do_not_shape_a_program(
    folder: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = gobuild.build(folder, toolchain(), layout)
    whole = program.read_bytes()
    settings = {"GOFLAGS": "-race", "GOARCH": "arm64", "CGO_ENABLED": "1", "GOAMD64": "v3", "GOEXPERIMENT": "arenas"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GOENV", str(tmp_path / "env"))
    (tmp_path / "env").write_text("GOAMD64=v4\n")
    program.unlink()

    assert gobuild.build(folder, toolchain(), layout).read_bytes() == whole


@pytest.mark.build
def test_the_words_of_the_compiler_are_shown(folder: Path, layout: Layout) -> None:
    (folder / "main.go").write_text(MAIN.replace("Println", "Printline"))

    with pytest.raises(BuildError, match=r"hello does not build with Go 1\.27\.3") as caught:
        gobuild.build(folder, toolchain(), layout)

    assert "undefined: fmt.Printline" in caught.value.hint
    assert sorted(p.name for p in layout.builds.iterdir()) == [".hello.lock"]


@pytest.mark.build
def test_a_module_for_a_newer_go_is_told(folder: Path, layout: Layout) -> None:
    (folder.parent / "go.mod").write_text("module example\n\ngo 1.99\n")

    with pytest.raises(BuildError, match="does not build") as caught:
        gobuild.build(folder, toolchain(), layout)
    assert "requires go >= 1.99" in caught.value.hint


@pytest.mark.build
def test_a_library_is_no_program(folder: Path, layout: Layout) -> None:
    (folder / "main.go").write_text("package hello\n")

    with pytest.raises(BuildError, match="does not build") as caught:
        gobuild.build(folder, toolchain(), layout)
    assert "requires exactly one main package" in caught.value.hint


@pytest.mark.build
def test_a_file_can_be_embedded(folder: Path, layout: Layout) -> None:
    source = """\
        package main

        import _ "embed"
        import "fmt"

        //go:embed words.txt
        var words string

        func main() { fmt.Print(words) }
        """
    (folder / "main.go").write_text(textwrap.dedent(source))
    (folder / "words.txt").write_text("one")
    first = gobuild.build(folder, toolchain(), layout)
    (folder / "words.txt").write_text("two")
    second = gobuild.build(folder, toolchain(), layout)

    said = [subprocess.run([program], capture_output=True, check=True).stdout for program in (first, second)]
    assert said == [b"one", b"two"]


@pytest.mark.parametrize(
    ("text", "variant", "name"),
    [
        ("plain", PLAIN, "plain"),
        ("stripped", Variant(stripped=True), "stripped"),
        ("pie, stripped", Variant(pie=True, stripped=True), "stripped,pie"),
        ("stripped+pie", Variant(pie=True, stripped=True), "stripped,pie"),
    ],
)
def test_a_build_is_named_by_its_words(text: str, variant: Variant, name: str) -> None:
    assert gobuild.variant(text) == variant
    assert variant.name == name
