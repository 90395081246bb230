"""The defer lab on real kernels: the oldest with the oldest Go, and the newest."""

from __future__ import annotations

import pytest

from tests.go_labs.real import real_run

pytestmark = [pytest.mark.vm, pytest.mark.build]

SHORT = ("slices=12", "sizes=1,10,100", "rounds=6")


@pytest.mark.parametrize(("kernel", "go"), [("5.10", "1.21"), ("7.3", "1.27")])
def test_counts_are_equal_and_each_claim_is_judged(kernel: str, go: str) -> None:
    found = real_run("defer", kernel, go, SHORT)

    assert found.different == []
    assert found.checked >= 3 * 7 * 6
    assert found.lost == 0
    assert found.outcomes == {"4.4-a": "refuted", "4.4-b": "refuted", "4.4-c": "confirmed", "4.4-d": "refuted"}
