"""The gmp lab on real kernels: the oldest with the oldest Go, and the newest."""

from __future__ import annotations

import pytest

from tests.go_labs.real import real_run

pytestmark = [pytest.mark.vm, pytest.mark.build]

SHORT = ("sizes=1,6,20", "rounds=5", "pings=1000", "free=0.05", "kernel=128")

OUTCOMES = {
    "2.1-a": "confirmed", "2.1-b": "confirmed", "2.1-c": "refuted", "2.1-d": "refuted", "2.1-e": "refuted",
}  # fmt: skip


@pytest.mark.parametrize(("kernel", "go"), [("5.10", "1.21"), ("7.3", "1.27")])
def test_counts_are_equal_and_each_claim_is_judged(kernel: str, go: str) -> None:
    found = real_run("gmp", kernel, go, SHORT)

    assert found.different == []
    assert found.checked >= 3 * 15 * 4
    assert found.lost == 0
    assert found.value("oracle.mismatches") == 0
    assert found.value("kernel.lost") == 0
    assert found.outcomes == OUTCOMES
