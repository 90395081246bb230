"""The archive writer against GNU cpio."""

from pathlib import Path

import pytest

from vm import cpio

FIXTURES = Path(__file__).parent / "fixtures"


def sample() -> bytes:
    return cpio.archive(
        [
            cpio.folder("dev"),
            cpio.character_device("dev/console", 5, 1),
            cpio.regular("init", b"#!/bin/sh\n", 0o755),
            cpio.folder("modules"),
            cpio.regular("modules/order", b"virtio\n"),
        ],
        mtime=1700000000,
    )


def test_gives_the_bytes_that_gnu_cpio_gives() -> None:
    """``cpio -o -H newc --reproducible -R 0:0`` of the same files; it fills up the last block of 512 bytes."""
    recorded = (FIXTURES / "sample.cpio").read_bytes()

    written = sample()

    assert recorded[: len(written)] == written
    assert recorded[len(written) :].strip(b"\0") == b""


def test_a_second_archive_starts_on_a_multiple_of_four_bytes() -> None:
    odd = cpio.archive([cpio.regular("a", b"123")])

    assert len(odd) % 4 == 0
    assert len(sample()) % 4 == 0


def test_members_depend_on_what_is_given_alone() -> None:
    assert sample() == sample()
    assert cpio.archive([], mtime=1) == cpio.archive([], mtime=2)


@pytest.mark.parametrize("name", ["/init", "", "a\0b"])
def test_a_name_that_the_kernel_would_misread_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        cpio.regular(name, b"")
