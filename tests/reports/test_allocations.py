"""Stacks of allocations, so that those of the probes and of Go's profile are the same where the program is."""

from __future__ import annotations

import pytest

from reports.allocations import Allocated, at, by_function, program_frames


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        (
            ("runtime.goexit", "runtime.main", "main.main", "main.f", "runtime.makeslice", "runtime.mallocgc"),
            ("main.main", "main.f"),
        ),
        (("runtime.goexit", "main.worker", "runtime.mallocgcSmallNoScanSC3"), ("main.worker",)),
        (("runtime.goexit", "main.f", "internal/runtime/maps.newGroups", "runtime.newarray"), ("main.f",)),
        # The runtime's own keeps what it allocates for, and not through which door.
        (
            ("runtime.systemstack", "runtime.newproc1", "runtime.malg", "runtime.newobject", "runtime.mallocgc"),
            ("runtime.systemstack", "runtime.newproc1", "runtime.malg"),
        ),
        (("runtime.mallocgc",), ("runtime.mallocgc",)),
        ((), ()),
    ],
)
def test_frames_of_the_runtime_are_left_out_at_both_ends(stack: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert program_frames(stack) == expected


def test_a_function_has_what_it_allocated_itself() -> None:
    stacks = {
        ("main.main", "main.f"): Allocated(3, 30),
        ("main.g", "main.f"): Allocated(1, 100),
        ("main.f", "main.g"): Allocated(5, 5),
        (): Allocated(1, 1),
    }

    assert at(stacks, "main.f") == Allocated(4, 130)
    assert by_function(stacks) == [("main.f", Allocated(4, 130)), ("main.g", Allocated(5, 5)), ("?", Allocated(1, 1))]
