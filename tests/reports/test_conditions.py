"""Whether a run counts: each condition fails and passes, and what is not known fails nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reports import conditions
from vm.errors import ConfigError, RecordError

QUIET = [
    "[    0.000000] Linux version 6.1.0-56-cloud-amd64",
    "[    1.204000] virtio_net virtio0: renamed from eth0",
]


def record(
    folder: Path, metrics: dict[str, float | None] | None = None, gates: list[dict[str, Any]] | None = None,
    log: list[str] | None = None, clock: str = "emulated", source: str = "tsc",
) -> Path:  # fmt: skip
    """What conditions read of a record."""
    lines = QUIET if log is None else log
    (folder / "kernel.log").write_text("\n".join(lines))
    run = {
        "provenance": {"clock": clock, "clocksource": source, "kernel_line": "6.1"},
        "metrics": [{"name": name, "value": value, "unit": ""} for name, value in (metrics or {}).items()],
        "gates": gates or [],
        "artefacts": [{"path": "kernel.log", "role": "kernel_log"}, {"path": "console.log", "role": "console"}],
    }
    (folder / "run.json").write_text(json.dumps(run))
    return folder


WHOLE = {"host.wait_share": 0.05, "guest.stolen_share": 0.0, "losses.counts": 0.0}


def test_a_quiet_run_counts(tmp_path: Path) -> None:
    gates = [{"name": "forced counts", "reason": "1 of 1", "passed": True}]

    judged = conditions.judge(record(tmp_path, WHOLE, gates))
    assert (judged.splats, judged.gates, judged.words) == ([], [], "")


def test_what_is_not_known_fails_nothing(tmp_path: Path) -> None:
    unknown = dict.fromkeys(WHOLE)

    assert conditions.judge(record(tmp_path, unknown, source="")).gates == []
    assert conditions.judge(record(tmp_path, {})).gates == []


FAILS: list[tuple[dict[str, Any], str, str]] = [
    ({"metrics": {"host.wait_share": 0.101}}, "host pressure", "waited 10% of its time for a CPU of the host"),
    ({"metrics": {"guest.stolen_share": 0.2}, "clock": "kvm"}, "stolen time", "20% of the guest's CPU time was stolen"),
    ({"metrics": {"losses.counts": 3.0}}, "lost counts", "3 counts were lost while tracing"),
    ({"source": "hpet"}, "clock source", "the guest's clock source was hpet"),
    ({"source": "kvm-clock"}, "clock source", "kvm-clock"),  # an emulated machine has none
    ({"source": "\x1b[31mx"}, "clock source", "was \\x1b[31mx"),
    ({"gates": [{"name": "calm", "reason": "busy", "passed": False}]}, "calm", "calm: busy"),
    ({"gates": [{"name": "calm", "reason": "no figure", "passed": None}]}, "calm", "calm: no figure"),
]


@pytest.mark.parametrize(("given", "name", "words"), FAILS, ids=[f"{row[1]} {row[0]}" for row in FAILS])
def test_each_condition_fails(given: dict[str, Any], name: str, words: str, tmp_path: Path) -> None:
    judged = conditions.judge(record(tmp_path, **{"metrics": WHOLE, **given}))

    assert judged.gates == [name]
    assert words in judged.words


PASSES: list[dict[str, Any]] = [
    {"metrics": {"host.wait_share": 0.1}},
    {"metrics": {"guest.stolen_share": 0.05}},
    {"clock": "kvm", "source": "kvm-clock"},
    {"clock": "kvm", "source": "tsc"},
    {"clock": "virtual", "source": "tsc"},
]


@pytest.mark.parametrize("given", PASSES, ids=str)
def test_at_its_bound_each_condition_still_holds(given: dict[str, Any], tmp_path: Path) -> None:
    assert conditions.judge(record(tmp_path, **given)).gates == []


def test_the_virtual_clock_knows_no_pressure_but_losses_count(tmp_path: Path) -> None:
    busy = {"host.wait_share": 0.9, "guest.stolen_share": 0.5, "losses.counts": 2.0}

    assert conditions.judge(record(tmp_path, busy, clock="virtual")).gates == ["lost counts"]
    assert conditions.judge(record(tmp_path, busy)).gates == ["host pressure", "stolen time", "lost counts"]


SPLATS = [
    "[   12.5] WARNING: CPU: 1 PID: 99 at kernel/rcu/tree.c:2981 rcu_do_batch+0x1/0x2",
    "[   13.0] BUG: KASAN: slab-out-of-bounds in bpf_prog_\x1b[31mtest",
    "[   14.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "[   15.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!",
]


def test_complaints_of_the_kernel_are_found_and_made_safe_to_show(tmp_path: Path) -> None:
    judged = conditions.judge(record(tmp_path, WHOLE, log=[*QUIET, *SPLATS]))

    assert len(judged.splats) == 4
    assert judged.splats[0] == SPLATS[0]
    assert "\\x1b[31m" in judged.splats[1]
    assert judged.gates == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("WARNING: CPU: 1 PID: 99 at kernel/rcu/tree.c:2981 rcu_do_batch+0x1/0x2", True),  # up to 6.18
        ("WARNING: kernel/rcu/tree.c:2981 at rcu_do_batch+0x1/0x2, CPU#1: rcuog/0/99", True),  # from 6.19 on
        ("WARNING: at rcu_do_batch+0x1/0x2, CPU#1: rcuog/0/99", True),
        ("Spectre V2 : WARNING: Spectre v2 mitigation leaves CPU vulnerable to RETBleed attacks", False),
        ("RETBleed: WARNING: CPU does not support IBPB.", False),  # of the processor, not of the kernel
    ],
)
def test_a_warning_is_found_as_each_kernel_writes_it_and_one_of_the_processor_is_none(line: str, found: bool) -> None:
    assert bool(conditions.splats([f"[   12.5] {line}"], "7.3", [])) is found


def test_a_flood_of_complaints_is_cut(tmp_path: Path) -> None:
    judged = conditions.judge(record(tmp_path, WHOLE, log=[f"BUG: {'x' * 5000} {n}" for n in range(500)]))

    assert len(judged.splats) == 20
    assert all(len(line) < 400 for line in judged.splats)


def test_what_is_on_the_allow_list_is_known_and_the_rest_is_not(tmp_path: Path) -> None:
    allow = tmp_path / "known.toml"
    allow.write_text(
        '[[allow]]\npattern = "WARNING: .* rcu_do_batch"\nwhy = "known, harmless"\n'
        "[[allow]]\npattern = 'soft lockup'\nwhy = 'the host was busy'\n"
    )
    known = conditions.known(allow)

    assert [each.pattern for each in known[-2:]] == ["WARNING: .* rcu_do_batch", "soft lockup"]
    judged = conditions.judge(record(tmp_path, WHOLE, log=SPLATS), known)
    assert [line.split("]")[0] for line in judged.splats] == ["[   13.0", "[   14.0"]


def test_a_complaint_that_is_known_of_one_kernel_is_none_of_another() -> None:
    """That of 5.10 comes with every tracing program (``reports/known_complaints.toml``)."""
    line = "[    9.1] WARNING: CPU: 0 PID: 7 at kernel/bpf/verifier.c:10180 bpf_check+0x1/0x2"

    assert conditions.splats([line], "5.10", conditions.known()) == []
    assert conditions.splats([line], "6.1", conditions.known()) == [line]


BROKEN = {
    "no TOML": b"[[allow",
    "no list": b"allow = 1",
    "empty": b"",
    "no reason": b'[[allow]]\npattern = "x"',
    "another word": b'[[allow]]\npattern = "x"\nwhy = "y"\nkernel = "6.1"',
    "no expression": b'[[allow]]\npattern = "("\nwhy = "y"',
    "a number": b'[[allow]]\npattern = 6\nwhy = "y"',
    "no UTF-8": b'[[allow]]\npattern = "\xff"\nwhy = "y"',
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_allow_list_is_an_error_with_its_form(case: str, tmp_path: Path) -> None:
    file = tmp_path / "known.toml"
    file.write_bytes(BROKEN[case])

    with pytest.raises(ConfigError, match=r"known\.toml is no allow list") as refused:
        conditions.known(file)
    assert "[[allow]]" in refused.value.hint


def test_an_allow_list_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        conditions.known(tmp_path / "known.toml")


@pytest.mark.parametrize("data", [None, b"{", b"[]", b'{"provenance": {}}'], ids=str)
def test_a_record_that_cannot_be_read_is_an_error(data: bytes | None, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / "run.json").write_bytes(data)

    with pytest.raises(RecordError, match="is no run record"):
        conditions.judge(tmp_path)


def test_a_record_whose_log_is_gone_is_an_error_and_no_quiet_kernel(tmp_path: Path) -> None:
    record(tmp_path, WHOLE)
    (tmp_path / "kernel.log").unlink()

    with pytest.raises(RecordError, match=r"kernel\.log"):
        conditions.judge(tmp_path)
