"""The context lab on real kernels: the oldest with the oldest Go, and the newest; its binaries without symbols, too."""

from __future__ import annotations

import pytest

from tests.go_labs.real import real_run

pytestmark = [pytest.mark.vm, pytest.mark.build]

SHORT = ("rounds=10", "sizes=1,3,5")


@pytest.mark.parametrize(
    ("kernel", "go", "words"), [("5.10", "1.21", ()), ("7.3", "1.27", ()), ("6.1", "1.24", ("--build", "stripped"))]
)
def test_counts_are_equal_and_each_claim_is_judged(kernel: str, go: str, words: tuple[str, ...]) -> None:
    found = real_run("context", kernel, go, SHORT, *words)

    assert found.different == []
    assert found.checked >= 3 * 15 * 3
    assert found.lost == 0
    assert found.value("children.kinds") == 6
    assert found.outcomes == {"2.5-a": "refuted", "2.5-b": "refuted", "2.5-c": "confirmed", "2.5-d": "confirmed"}
