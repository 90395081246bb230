"""Growth of memory from samples."""

from __future__ import annotations

import pytest

from bpf.trace import MemorySample
from reports import memory


def samples(*kib: int, pause: float = 10.0) -> list[MemorySample]:
    return [MemorySample(seconds=i * pause, tracer_kib=each, target_kib=2 * each) for i, each in enumerate(kib)]


def test_what_grows_in_the_first_minute_only_is_flat() -> None:
    growing_first = samples(100, 150, 180, 190, 195, 199, *[200] * 24)

    assert memory.growth(growing_first, "tracer") == 0


def test_a_steady_leak_is_growth_on_the_side_that_has_it() -> None:
    leaking = samples(*range(1000, 1600, 10))

    # The first tenth after a minute is 60 s to 113 s, the last 537 s to 590 s: 477 s apart, 1 KiB a second.
    assert memory.growth(leaking, "tracer") == pytest.approx(470, abs=20)
    assert memory.growth(leaking, "target") == pytest.approx(940, abs=40)


def test_one_sample_that_stands_out_is_no_growth() -> None:
    assert memory.growth(samples(*[200] * 20, 900, *[200] * 20), "tracer") == 0


def test_what_shrinks_grows_by_less_than_nothing() -> None:
    assert memory.growth(samples(*[300] * 20, *[200] * 20), "tracer") == -100


def test_a_short_soak_settles_within_its_first_third() -> None:
    assert memory.growth(samples(100, 150, 190, 200, *[200] * 8, pause=1.0), "tracer") == 0


def test_few_samples_tell_nothing() -> None:
    assert memory.growth(samples(*range(9)), "tracer") is None
    assert memory.growth([], "tracer") is None
