from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.archive import Server, mirror_of, package, serving
from vm import download
from vm.errors import DiskFullError, IntegrityError, MirrorError, SetupError
from vm.mirror import Mirror
from vm.paths import REPOSITORY, Layout
from vm.progress import Silent

CONTENT = bytes(range(256)) * 4096
PACKAGE = package(CONTENT)
URL = f"/debian/{PACKAGE.path}"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.files[URL] = CONTENT
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up on a source at once."""
    monkeypatch.setattr(download, "ATTEMPTS", 1)


def no_mirror() -> Mirror:
    raise AssertionError("the mirror was asked for")


def test_a_package_is_stored_by_its_hash(server: Server, layout: Layout) -> None:
    found = download.fetch([PACKAGE], layout, mirror=server.mirror)

    assert found == {PACKAGE.sha256: layout.downloads / PACKAGE.sha256}
    assert found[PACKAGE.sha256].read_bytes() == CONTENT
    assert [path.name for path in layout.downloads.iterdir()] == [PACKAGE.sha256]


def test_a_full_store_needs_no_mirror(server: Server, layout: Layout) -> None:
    download.fetch([PACKAGE], layout, mirror=server.mirror)

    again = download.fetch([PACKAGE], layout, mirror=no_mirror)

    assert again[PACKAGE.sha256].read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_corrupt_file_of_the_store_is_fetched_again_and_said(server: Server, layout: Layout) -> None:
    stored = download.fetch([PACKAGE], layout, mirror=server.mirror)[PACKAGE.sha256]
    stored.write_bytes(CONTENT[:-1] + b"!")  # same size: only the hash tells
    says = Silent()

    download.fetch([PACKAGE], layout, says, mirror=server.mirror)

    assert stored.read_bytes() == CONTENT
    assert says.notes == ["tool 1.0: the stored file is corrupt, fetching it again"]


def test_a_cut_download_goes_on_where_it_ended(server: Server, layout: Layout) -> None:
    server.cut[URL] = 300_000

    download.fetch([PACKAGE], layout, mirror=server.mirror)

    assert (layout.downloads / PACKAGE.sha256).read_bytes() == CONTENT
    assert [range_ for _, range_ in server.requests] == ["", "bytes=300000-"]


def test_a_partial_file_of_an_earlier_run_is_resumed(server: Server, layout: Layout) -> None:
    layout.downloads.mkdir(parents=True)
    (layout.downloads / f"{PACKAGE.sha256}.part").write_bytes(CONTENT[:1000])

    download.fetch([PACKAGE], layout, mirror=server.mirror)

    assert server.requests == [(URL, "bytes=1000-")]
    assert (layout.downloads / PACKAGE.sha256).read_bytes() == CONTENT


def test_a_corrupt_partial_file_is_thrown_away(server: Server, layout: Layout) -> None:
    layout.downloads.mkdir(parents=True)
    (layout.downloads / f"{PACKAGE.sha256}.part").write_bytes(b"rot" * 100)
    says = Silent()

    download.fetch([PACKAGE], layout, says, mirror=server.mirror)

    assert [range_ for _, range_ in server.requests] == ["bytes=300-", ""]
    assert says.notes == ["tool 1.0: the resumed file is corrupt, fetching it again"]


def test_a_server_that_fails_for_a_moment_is_asked_again(server: Server, layout: Layout) -> None:
    server.fail[URL] = 1

    download.fetch([PACKAGE], layout, mirror=server.mirror)

    assert len(server.requests) == 2


def test_wrong_bytes_are_refused(server: Server, layout: Layout) -> None:
    server.files[URL] = CONTENT[::-1]

    with pytest.raises(IntegrityError, match="not the locked file"):
        download.fetch([PACKAGE], layout, mirror=server.mirror)

    assert not (layout.downloads / PACKAGE.sha256).exists()


def test_a_missing_package_names_itself_and_the_ways_out(server: Server, layout: Layout) -> None:
    del server.files[URL]

    with pytest.raises(MirrorError) as caught:
        download.fetch([PACKAGE], layout, mirror=server.mirror)

    assert caught.value.message.startswith("tool 1.0 is gone from the mirror")
    assert all(way in caught.value.hint for way in ("KMLAB_ARCHIVE", "offline bundle", "invoke kernels.lock"))
    assert list(layout.downloads.iterdir()) == []


@pytest.mark.parametrize("place", ["debian/" + PACKAGE.path, PACKAGE.path, "tool_1.0_amd64.deb", PACKAGE.sha256])
def test_a_package_that_the_mirror_dropped_is_found_in_the_users_archive(
    server: Server, layout: Layout, tmp_path: Path, place: str
) -> None:
    del server.files[URL]
    kept = tmp_path / "kept" / place
    kept.parent.mkdir(parents=True)
    kept.write_bytes(CONTENT)

    download.fetch([PACKAGE], layout, mirror=lambda: server.mirror((f"file://{tmp_path}/kept",)))

    assert (layout.downloads / PACKAGE.sha256).read_bytes() == CONTENT


def test_a_store_that_cannot_be_written_is_a_matter_of_the_host(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    layout = Layout(cache=tmp_path / "file" / "cache", state=tmp_path, runs=tmp_path)

    with pytest.raises(SetupError, match="cannot be written") as caught:
        download.fetch([PACKAGE], layout, mirror=server.mirror)

    assert "KMLAB_CACHE" in caught.value.hint


@pytest.mark.usefixtures("quick")
def test_a_setting_that_is_no_address_is_told_as_unreachable(layout: Layout) -> None:
    with pytest.raises(MirrorError, match="cannot be fetched"):
        download.fetch([PACKAGE], layout, mirror=Server(url="http://[bad").mirror)


@pytest.mark.usefixtures("quick")
def test_an_unreachable_mirror_is_another_error_than_a_missing_package(layout: Layout) -> None:
    with serving() as gone:
        nowhere = gone.mirror()

    with pytest.raises(MirrorError, match=r"cannot be fetched: http://127\.0\.0\.1"):
        download.fetch([PACKAGE], layout, mirror=lambda: nowhere)


def test_names_with_plus_and_tilde_are_found_in_a_file_mirror(layout: Layout, tmp_path: Path) -> None:
    wanted = package(b"x", path="pool/main/l/linux/linux-base-7.3.4+deb13_7.3.4-1~bpo13+1_amd64.deb")
    place = tmp_path / "debian" / wanted.path
    place.parent.mkdir(parents=True)
    place.write_bytes(b"x")

    assert download.fetch([wanted], layout, mirror=lambda: mirror_of(tmp_path))[wanted.sha256].read_bytes() == b"x"


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    server: Server, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))

    with pytest.raises(DiskFullError, match="1 MB must be fetched"):
        download.fetch([PACKAGE], layout, mirror=server.mirror)

    assert server.requests == []


def test_a_disk_that_fills_up_keeps_the_partial_file(
    server: Server, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(DiskFullError, match="no space is left"):
        download.fetch([PACKAGE], layout, mirror=server.mirror)

    assert [path.name for path in layout.downloads.iterdir()] == [f"{PACKAGE.sha256}.part"]


def test_two_processes_that_want_one_package_do_not_mix_their_bytes(server: Server, layout: Layout) -> None:
    failures: list[Exception] = []

    def work() -> None:
        try:
            download.fetch([PACKAGE], layout, mirror=server.mirror)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert [path.name for path in layout.downloads.iterdir()] == [PACKAGE.sha256]
    assert (layout.downloads / PACKAGE.sha256).read_bytes() == CONTENT


def test_ctrl_c_leaves_only_what_can_be_resumed(server: Server, layout: Layout) -> None:
    server.stall[URL] = threading.Event()
    program = f"""
        from pathlib import Path
        from tests.vm.archive import Server
        from tests.vm.test_download import PACKAGE
        from vm import download
        from vm.paths import Layout
        layout = Layout(cache=Path({str(layout.cache)!r}), state=Path("/nowhere"), runs=Path("/nowhere"))
        download.fetch([PACKAGE], layout, mirror=Server(url={server.url!r}).mirror)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    part = layout.downloads / f"{PACKAGE.sha256}.part"
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) as child:
        while child.poll() is None and not (part.exists() and part.stat().st_size):
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        time.sleep(2)
        server.stall[URL].set()
        _, words = child.communicate(timeout=60)

    assert b"KeyboardInterrupt" in words
    assert [path.name for path in layout.downloads.iterdir()] == [part.name]
    assert CONTENT.startswith(part.read_bytes())
    assert 0 < part.stat().st_size < len(CONTENT)
