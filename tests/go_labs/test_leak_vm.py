"""The leak lab on real kernels: the oldest with the oldest Go, and the newest."""

from __future__ import annotations

import pytest

from tests.go_labs.real import real_run

pytestmark = [pytest.mark.vm, pytest.mark.build]

SHORT = ("sizes=1,3,8", "idle=1", "bursts=6", "height=20", "kernel=0.5")


@pytest.mark.parametrize(("kernel", "go"), [("5.10", "1.21"), ("7.3", "1.27")])
def test_exactly_the_planted_leaks_are_found_and_each_claim_is_judged(kernel: str, go: str) -> None:
    found = real_run("leak", kernel, go, SHORT)

    assert found.different == []
    assert found.lost == 0
    assert found.value("leak.planted") == found.value("leak.found") == found.value("leak.explained") == 10 * 3 * 12
    for metric in ("leak.differences", "oracle.trace_differences", "oracle.profile_differences", "lives.differences"):
        assert found.value(metric) == 0, metric
    assert found.outcomes == {
        "1-b": "refuted", "1-c": "confirmed", "2.3-a": "refuted", "2.3-b": "confirmed", "2.3-c": "refuted",
        "2.3-d": "refuted",
    }  # fmt: skip
