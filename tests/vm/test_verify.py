"""Building again: who builds, how a difference is told, what an error in the other process becomes."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from vm import tree, verify
from vm.artefacts import MANIFEST, Artefact, Plan, Seal, Store, make_seal
from vm.errors import BuildError, DiskFullError, ReproducibilityError
from vm.progress import Silent
from vm.tree import Manifest
from vm.verify import Account, Verification, Verified

PLAN = Plan("base", "base", "a" * 64)


def built(folder: Path, files: dict[str, bytes]) -> Artefact:
    """An artefact of a tree with these files."""

    def build(target: Path) -> Manifest:
        (target / "base.ext4").write_bytes(b"".join(files.values()))
        return Manifest.of(tree.canonical(tree.file(path, data) for path, data in files.items()))

    return Store(folder, Silent()).obtain(PLAN, build)


def compared(tmp_path: Path, first: dict[str, bytes], second: dict[str, bytes]) -> Verified:
    ours, theirs = built(tmp_path / "first", first), built(tmp_path / "second", second)
    return verify._compare("base", ours, theirs.seal, theirs.path)


def me() -> Account:
    entry = pwd.getpwuid(os.getuid())
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def test_same_bytes_are_the_same(tmp_path: Path) -> None:
    result = compared(tmp_path, {"etc/a": b"1"}, {"etc/a": b"1"})

    assert result.same
    assert result.parts == result.paths == []
    Verification([result], me(), []).require_same()


def test_a_difference_is_told_by_part_and_path(tmp_path: Path) -> None:
    result = compared(tmp_path, {"etc/a": b"1", "usr/bin/b": b"2"}, {"etc/a": b"1", "usr/bin/b": b"3", "etc/c": b""})

    assert not result.same
    assert result.parts == ["tree:etc", "tree:usr/bin", "base.ext4", MANIFEST]
    assert [line.split(":")[0] for line in result.paths] == ["etc/c", "usr/bin/b"]
    assert "absent | f 0644 0 0 " in result.paths[0]
    with pytest.raises(ReproducibilityError, match=r"other bytes came out: base \(tree:etc, tree:usr/bin"):
        Verification([result], me(), []).require_same()


def test_the_other_process_has_other_conditions_and_this_one_keeps_its_own(tmp_path: Path) -> None:
    before = Path.cwd(), os.environ.get("TZ")

    def work() -> dict[str, Seal]:
        (tmp_path / "conditions").write_text(f"{Path.cwd()} {os.environ['TZ']} {os.environ['LC_ALL']}")
        (tmp_path / "file").touch()
        manifest = Manifest({})
        return {"base": make_seal(PLAN, tmp_path, manifest, 1.0)}

    seals = verify._in_child(work, me(), tmp_path)

    assert seals["base"].name == PLAN.name
    assert (tmp_path / "conditions").read_text() == f"{tmp_path} {verify.ZONE} {verify.LOCALE}"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert (Path.cwd(), os.environ.get("TZ")) == before


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (BuildError("mke2fs failed with status 1", "its words"), "failed: mke2fs failed with status 1"),
        (DiskFullError("no space is left"), "failed: no space is left"),
        (ZeroDivisionError("oops"), "failed: ZeroDivisionError: oops"),
    ],
)
def test_an_error_of_the_other_process_is_told_here(tmp_path: Path, failure: Exception, words: str) -> None:
    def work() -> dict[str, Seal]:
        raise failure

    with pytest.raises(BuildError, match=words):
        verify._in_child(work, me(), tmp_path)


def test_another_process_that_dies_is_noticed(tmp_path: Path) -> None:
    def work() -> dict[str, Seal]:
        os.kill(os.getpid(), 9)
        return {}

    with pytest.raises(BuildError, match="ended without a result"):
        verify._in_child(work, me(), tmp_path)


def test_a_user_builds_again_as_itself_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: pwd.getpwnam("nobody").pw_uid)

    account = verify.other_account()

    assert account.name == "nobody"
    assert "only root can build as another" in account.note


def test_root_takes_an_account_with_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(verify, "_names", lambda _: {"root", "daemon", "nobody"})
    monkeypatch.setenv("SUDO_USER", "nobody")

    assert verify.other_account().name == "nobody"

    monkeypatch.setattr(verify, "_names", lambda _: {"root"})
    weak = verify.other_account()
    assert weak.uid == 0
    assert "no other account has ranges" in weak.note


def test_ranges_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    path.write_text("root:100000:65536\nlearner:165536:65536\n\n# nothing\n")

    assert verify._names(path) == {"root", "learner"}
    assert verify._names(tmp_path / "absent") == set()
