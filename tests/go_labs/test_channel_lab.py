"""The channel lab on real kernels: the oldest with the oldest Go, and the newest."""

from __future__ import annotations

import pytest

from tests.go_labs.real import real_run

pytestmark = [pytest.mark.vm, pytest.mark.build]

SHORT = ("sizes=1,4,16", "arrivals=60", "items=200", "buffers=0,16", "goroutines=1,4", "rep=0.003")


@pytest.mark.parametrize(("kernel", "go"), [("5.10", "1.21"), ("7.3", "1.27")])
def test_counts_are_equal_and_each_claim_is_judged(kernel: str, go: str) -> None:
    found = real_run("channel", kernel, go, SHORT)

    assert found.different == []
    assert found.checked >= 3 * 14 * 23
    assert found.lost == 0
    assert found.value("forever.missing") == 0
    assert found.value("argument.ax_share") == 1
    assert found.outcomes == {"2.2-a": "refuted", "2.2-b": "refuted", "2.2-c": "refuted", "2.2-e": "confirmed"}
