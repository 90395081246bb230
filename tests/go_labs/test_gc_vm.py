"""The gc lab on real kernels: the oldest with the oldest Go, and the newest."""

from __future__ import annotations

import pytest

from tests.go_labs.real import real_run

pytestmark = [pytest.mark.vm, pytest.mark.build]

SHORT = ("sizes=1,10,100", "rates=200,5000", "window=0.3")


@pytest.mark.parametrize(("kernel", "go"), [("5.10", "1.21"), ("7.3", "1.27")])
def test_counts_are_equal_and_each_claim_is_judged(kernel: str, go: str) -> None:
    found = real_run("gc", kernel, go, SHORT)

    assert found.different == []
    assert found.checked == 3 * (6 * 4 + 2) + 1
    assert found.value("oracle.mismatches") == 0
    assert found.value("sites.mismatches") == 0
    assert found.value("profile.mismatches") == 0
    assert found.value("losses.counts") == 0
    assert found.outcomes == {"4.1-a": "not_testable", "4.1-b": "refuted"}
