"""The lifecycle lab on real kernels: the oldest with the oldest Go, and the newest."""

from __future__ import annotations

import pytest

from tests.go_labs.real import real_run

pytestmark = [pytest.mark.vm, pytest.mark.build]

SHORT = ("sizes=10,300,1500", "load=1.5", "churn=100", "repetitions=6")


@pytest.mark.parametrize(("kernel", "go"), [("5.10", "1.21"), ("7.3", "1.27")])
def test_two_sources_agree_on_every_goroutine_and_each_claim_is_judged(kernel: str, go: str) -> None:
    found = real_run("lifecycle", kernel, go, SHORT, "--duration", "3s")

    assert found.different == []
    assert found.checked == 3 * 6 * 4 + 2 + 1
    assert found.lost == 0
    for metric in (
        "table.deviation", "table.panics_difference", "table.events_lost", "forced.oracle_mismatches", "dumps.wrong",
        "soak.difference",
    ):  # fmt: skip
        assert found.value(metric) == 0, metric
    assert found.outcomes == {"3.3-a": "refuted", "3.3-b": "refuted"}
