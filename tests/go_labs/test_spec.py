"""lab.toml of a person's own folder: what does not hold together is told in one line, with what was probably meant."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from go_labs import fields, spec
from provision import skeleton
from vm.errors import ConfigError, UsageError


class Leaf(msgspec.Struct):
    size: int = 0


class Tree(msgspec.Struct):
    leaves: list[Leaf] = []
    by_name: dict[str, Leaf] = {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return skeleton.create(str(tmp_path / "my_lab"))


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "lab.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def refused(folder: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        spec.find(str(folder))
    assert "\n" not in caught.value.message
    assert str(folder) in caught.value.message
    return caught.value


def test_a_folder_without_lab_toml_is_told_how_one_is_made(tmp_path: Path) -> None:
    error = refused(tmp_path)

    assert "has no lab.toml" in error.message
    assert "invoke labs.new" in error.hint


@pytest.mark.parametrize(
    ("old", "new", "said", "hint"),
    [
        ("question =", "qestion =", "the file has no field 'qestion'", "did you mean question"),
        ("schema = 1", "schema = 1\nxyz = 3", "the file has no field 'xyz'", "it may have: schema, name, title"),
        ("refute =", "refuse =", "claims[0].criteria[0] has no field 'refuse'", "did you mean refute?"),
        ("[options.length]", "[options.length]\nmin = 1", "options.length has no field 'min'", "minimum"),
        ('probes = ["mutex"]', 'probe = ["mutex"]', "phases[1] has no field 'probe'", "did you mean probes?"),
        ("[[gates]]", "[[gate]]", "the file has no field 'gate'", "did you mean gates"),
        ("schema = 1", "schema = 2", "schema", "docs/labs.md"),
        ('name = "timed"', 'name = "warm"', "phases[0].name", "docs/labs.md"),
        ('name = "timed"', 'name = "traced"', "phase traced is there twice", "docs/labs.md"),
        ('sections = ["free"]', "sections = []", "phase timed has no sections", "docs/labs.md"),
        ("timeout = 60", "timeout = 60\noptions = { lenght = '1' }", "phase timed sets 'lenght'", "docs/labs.md"),
        ("seconds = 10", 'seconds = "ten"', "seconds", "docs/labs.md"),
        ("schema = 1", "schema = = 1", "is not TOML", "docs/labs.md"),
        ('name = "my_lab"', 'name = "My Lab"', "name 'My Lab' is no plain name", "docs/labs.md"),
        ('name = "my_lab"', 'name = "tools"', "name 'tools' is taken", "docs/labs.md"),
        ('name = "my_lab"', 'name = "other"', "names the lab 'other', its folder is 'my_lab'", "name = 'my_lab'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_a_way_out(folder: Path, old: str, new: str, said: str, hint: str) -> None:
    change(folder, old, new)

    error = refused(folder)

    assert said in error.message
    assert hint in error.hint


def test_a_claim_that_is_there_twice_is_refused_before_any_run(folder: Path) -> None:
    text = (folder / "lab.toml").read_text()
    claim = text[text.index("[[claims]]") : text.index("# ---- gates")]
    (folder / "lab.toml").write_text(text + claim)

    assert "claim own-a is there twice" in refused(folder).message


def test_text_that_is_no_utf_8_is_refused(folder: Path) -> None:
    (folder / "lab.toml").write_bytes(b'name = "\xff"\n')

    assert "is not TOML" in refused(folder).message


def test_a_lab_cannot_pass_for_one_of_the_repository(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(spec.LABS / "mutex", tmp_path / "mutex"))

    assert "'mutex' is a lab of the repository" in refused(copy).message


def test_a_folder_named_without_a_slash_is_told_to_have_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)

    with pytest.raises(UsageError) as caught:
        spec.find("my_lab")

    assert "./my_lab" in caught.value.hint


def test_every_lab_of_the_repository_can_be_found() -> None:
    assert [spec.find(name).lab.name for name in spec.names()] == spec.names()


def test_fields_within_lists_and_tables_are_named_by_their_path() -> None:
    data = {"leaves": [{"size": 1}, {"sise": 1}], "by_name": {"a": {"x": 1}}, "leafs": 3}

    found = [(each.where, each.key) for each in fields.unknown(data, Tree)]

    assert found == [("leaves[1]", "sise"), ("by_name.a", "x"), ("the file", "leafs")]


def test_values_of_another_type_are_left_to_the_conversion() -> None:
    assert list(fields.unknown({"options": 3, "phases": ["timed"], "claims": {}}, spec.Lab)) == []
