"""Reading options: what a person may write, and what they are told when it cannot be meant."""

from __future__ import annotations

import json

import pytest

from provision import cli
from vm.errors import UsageError


@pytest.mark.parametrize("given", ["0", "11", "-1", "1.0", "1e1", "1_0", "²", "٣", "", " 1"])
def test_a_number_is_decimal_digits_in_range(given: str) -> None:
    with pytest.raises(UsageError, match="--seed") as refused:
        cli.whole("--seed", given, 1, 10)

    assert "from 1 to 10" in refused.value.hint


def test_both_ends_of_a_range_belong_to_it() -> None:
    assert [cli.whole("--seed", text, 1, 10) for text in ("1", "10", "007")] == [1, 10, 7]


def test_a_list_has_no_empty_element() -> None:
    assert cli.words("--kernel", "6.1, 7.3") == ["6.1", "7.3"]
    with pytest.raises(UsageError, match="empty element"):
        cli.words("--kernel", "6.1,,7.3")


def test_a_near_name_is_suggested_and_else_all_are_shown() -> None:
    with pytest.raises(UsageError) as near:
        cli.accelerator("kvmm")
    with pytest.raises(UsageError) as far:
        cli.accelerator("xyz")

    assert near.value.hint == "did you mean kvm?"
    assert far.value.hint == "there is: auto, kvm, tcg"


def test_a_clock_is_the_hosts_or_virtual() -> None:
    assert [cli.clock(word) for word in ("host", "virtual")] == ["host", "virtual"]
    with pytest.raises(UsageError, match="--clock 'virtul' is not known") as near:
        cli.clock("virtul")
    assert near.value.hint == "did you mean virtual?"


def test_json_is_one_document_with_sorted_names(capsys: pytest.CaptureFixture[str]) -> None:
    cli.print_json({"b": [1.5, None], "a": "ü"})

    out = capsys.readouterr().out
    assert json.loads(out) == {"a": "ü", "b": [1.5, None]}
    assert out.index('"a"') < out.index('"b"')


def test_a_table_takes_texts_literally_and_is_plain_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    cli.print_table(("kernel", "state"), [("6.1", "[red]warm[/red]")])

    out = capsys.readouterr().out
    assert "[red]warm[/red]" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (150 << 20, "150 MiB"), (3 << 30, "3.0 GiB")])
def test_sizes_are_told_in_binary_units(size: int, text: str) -> None:
    assert cli.human_size(size) == text


def test_a_provider_is_one_that_there_is_or_left_to_the_machine() -> None:
    assert [cli.provider(text) for text in ("", "qemu", "vagrant")] == [None, "qemu", "vagrant"]
    with pytest.raises(UsageError, match="'vagrnt' is not known") as refused:
        cli.provider("vagrnt")

    assert refused.value.hint == "did you mean vagrant?"


def test_options_that_qemu_alone_has_are_refused_with_vagrant_and_with_the_reason() -> None:
    assert cli.provider("qemu", cold=True, system_qemu=True, clock=True) == "qemu"
    assert cli.provider("vagrant", cold=False, system_qemu=False) == "vagrant"
    with pytest.raises(UsageError, match=r"--system-qemu means nothing .* libvirt always uses the host's QEMU"):
        cli.provider("vagrant", system_qemu=True)
