"""Trees: the same entries give the same bytes, whoever writes them, and no archive leaves its tree."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from tests.vm.archive import deb
from vm import tree
from vm.errors import BuildError, IntegrityError
from vm.tree import Entry, Kind, Manifest

EPOCH = 1_700_000_000


def packed(entries: list[Entry]) -> bytes:
    stream = io.BytesIO()
    tree.write_tar(entries, stream, EPOCH)
    return stream.getvalue()


def sample() -> list[Entry]:
    return [
        tree.file("usr/bin/tool", b"program", 0o755),
        tree.symlink("bin", "usr/bin"),
        tree.file("etc/tool.conf", b"a = 1\n"),
        Entry("dev/null", Kind.CHARACTER, 0o666, device=(1, 3)),
    ]


def test_order_of_entries_leaves_no_trace() -> None:
    forwards = packed(tree.canonical(sample()))
    backwards = packed(tree.canonical(reversed(sample())))

    assert forwards == backwards


def test_missing_folders_are_added_and_a_later_entry_wins() -> None:
    entries = tree.canonical([*sample(), tree.file("etc/tool.conf", b"a = 2\n")])

    assert [entry.path for entry in entries] == [
        "bin", "dev", "dev/null", "etc", "etc/tool.conf", "usr", "usr/bin", "usr/bin/tool",
    ]  # fmt: skip
    assert entries[4].data() == b"a = 2\n"


def test_link_of_a_merged_usr_is_not_replaced_by_a_folder() -> None:
    entries = tree.canonical([tree.symlink("lib", "usr/lib"), tree.folder("lib")])

    assert [(entry.path, entry.kind) for entry in entries] == [("lib", Kind.SYMLINK)]


def test_a_hard_link_that_sorts_first_carries_the_content() -> None:
    original = tree.file("usr/bin/perl5.40.1", b"perl", 0o755)
    link = Entry("usr/bin/perl", Kind.HARDLINK, 0o755, link="usr/bin/perl5.40.1")

    entries = {entry.path: entry for entry in tree.canonical([original, link])}

    assert entries["usr/bin/perl"].data() == b"perl"
    assert entries["usr/bin/perl5.40.1"].kind is Kind.HARDLINK
    assert entries["usr/bin/perl5.40.1"].link == "usr/bin/perl"


def test_a_hard_link_to_nothing_is_refused() -> None:
    with pytest.raises(IntegrityError, match="links to usr/bin/gone"):
        tree.canonical([Entry("usr/bin/perl", Kind.HARDLINK, 0o755, link="usr/bin/gone")])


def test_a_written_tar_is_read_back_as_it_was() -> None:
    entries = tree.canonical(sample())

    with tarfile.open(fileobj=io.BytesIO(packed(entries))) as archive:
        again = list(tree.from_tar(archive))

    assert Manifest.of(again) == Manifest.of(entries)


def test_contents_may_stay_in_the_tar_on_disk(tmp_path: Path) -> None:
    source = tmp_path / "root.tar"
    source.write_bytes(packed(tree.canonical(sample())))

    with tarfile.open(source) as archive:
        entries = list(tree.from_tar(archive, source))

    tool = next(entry for entry in entries if entry.path == "usr/bin/tool")
    assert isinstance(tool.content, tree.Slice)
    assert tool.data() == b"program"


def test_times_are_clamped_but_older_ones_are_kept() -> None:
    old, new = EPOCH - 100, EPOCH + 100
    entries = [Entry("a", Kind.FILE, 0o644, mtime=old), Entry("b", Kind.FILE, 0o644, mtime=new), tree.file("c", b"")]

    with tarfile.open(fileobj=io.BytesIO(packed(entries))) as archive:
        times = [info.mtime for info in archive]

    assert times == [old, EPOCH, EPOCH]


@pytest.mark.parametrize("path", ["../etc/passwd", "usr/../../etc/passwd", "a/.."])
def test_a_path_outside_the_tree_is_refused(path: str) -> None:
    with pytest.raises(IntegrityError, match="outside its tree"):
        tree.normal(path)


def test_a_sparse_tar_entry_is_refused() -> None:
    info = tarfile.TarInfo("hole")
    info.type = tarfile.CONTTYPE
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(info)
    stream.seek(0)

    with tarfile.open(fileobj=stream) as archive, pytest.raises(BuildError, match="not supported"):
        list(tree.from_tar(archive))


def test_files_of_a_package_are_read(tmp_path: Path) -> None:
    path = tmp_path / "tool.deb"
    path.write_bytes(deb("tool", "1.0", "amd64", {"usr/bin/tool": b"program"}))

    entries = {entry.path: entry for entry in tree.from_deb(path)}

    assert entries["usr/bin/tool"].data() == b"program"


@pytest.mark.parametrize("content", [b"", b"no archive", b"!<arch>\n"])
def test_what_is_no_package_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tool.deb"
    path.write_bytes(content)

    with pytest.raises(IntegrityError, match=r"tool\.deb is not a package"):
        list(tree.from_deb(path))


def test_umask_leaves_no_trace_in_a_folder(tmp_path: Path) -> None:
    entries = tree.plain(tree.canonical(sample()))
    manifests = []
    for umask in (0o022, 0o077):
        root = tmp_path / f"{umask:o}"
        root.mkdir()
        before = os.umask(umask)
        try:
            tree.write_folder(entries, root, EPOCH)
        finally:
            os.umask(before)
        manifests.append(Manifest.of(tree.from_folder(root)))
        assert (root / "usr/bin/tool").stat().st_mode & 0o777 == 0o755
        assert (root / "etc/tool.conf").stat().st_mtime == EPOCH

    assert manifests[0] == manifests[1] == Manifest.of(entries)


def test_a_plain_tree_has_neither_devices_nor_rights_nor_hard_links() -> None:
    entries = [
        *sample(),
        tree.file("usr/bin/sudo", b"sudo", 0o4755),
        Entry("usr/bin/sudoedit", Kind.HARDLINK, 0o4755, link="usr/bin/sudo"),
    ]

    plain = {entry.path: entry for entry in tree.plain(tree.canonical(entries))}

    assert "dev/null" not in plain
    assert plain["usr/bin/sudo"].mode == 0o755
    assert plain["usr/bin/sudoedit"].data() == b"sudo"


def test_a_manifest_says_which_part_and_which_path_differ() -> None:
    first = Manifest.of(tree.canonical(sample()))
    second = Manifest.of(tree.canonical([*sample(), tree.file("usr/bin/tool", b"other", 0o755)]))

    differing = {part for part in first.parts if first.parts[part] != second.parts[part]}

    assert differing == {"usr/bin"}
    assert first.differences(second) == ["usr/bin/tool"]


def test_owner_and_mode_count() -> None:
    first = Manifest.of([tree.file("etc/shadow", b"", 0o640, gid=42)])

    assert first.differences(Manifest.of([tree.file("etc/shadow", b"", 0o640)])) == ["etc/shadow"]
    assert first.differences(Manifest.of([tree.file("etc/shadow", b"", 0o644, gid=42)])) == ["etc/shadow"]


def test_a_manifest_is_read_back_whatever_names_it_holds() -> None:
    manifest = Manifest.of([tree.file("a\nb\tc", b"x"), tree.file("größe", b"y"), tree.symlink("l", "a b")])

    assert Manifest.parse(manifest.text()) == manifest
    assert len(manifest.text().splitlines()) == 3


@pytest.mark.parametrize(
    ("path", "part"), [("init", "/"), ("etc/passwd", "etc"), ("usr/bin/env", "usr/bin"), ("usr/lib/a/b", "usr/lib")]
)
def test_part_of_a_path(path: str, part: str) -> None:
    assert tree.part_of(path) == part
