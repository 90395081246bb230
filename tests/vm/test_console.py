"""Console logs that real kernels left, and the kernel's own formats where provoking them would take a defect."""

from pathlib import Path

import pytest

from vm.qemu.console import Event, Kind, classify, last_words, lockup, panic

LOGS = Path(__file__).parent / "fixtures" / "console"


@pytest.mark.parametrize("line", ["5.10", "6.1", "7.3"])
def test_a_panic_is_found_in_the_log_of_each_kernel(line: str) -> None:
    log = (LOGS / f"panic-{line}.log").read_text()

    event = panic(log)

    assert event is not None
    assert event.words == "sysrq triggered crash"


def test_a_cpu_that_is_stuck_for_long_is_told_and_a_short_wait_is_not() -> None:
    """Recorded on a 6.1 that QEMU 7.2 emulated with two CPUs: it never came back."""
    log = (LOGS / "lockup-6.1.log").read_text()

    assert lockup(log) == "watchdog: BUG: soft lockup - CPU#1 stuck for 313s! [python3:341]"
    assert lockup(log.partition("soft lockup")[0]) == ""
    assert lockup("[   41.0] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [swapper/0:1]") == ""


def test_a_panic_of_the_guests_init_is_told_with_its_reason() -> None:
    log = (LOGS / "panic-init-6.1.log").read_text()

    event = panic(log)

    assert event is not None
    assert event.words == (
        "Attempted to kill init! exitcode=0x00000100 (kmlab init: cannot mount /root/usr/lib/modules: error 2)"
    )


def test_a_whole_boot_without_a_fault_has_no_events() -> None:
    """The same log up to the moment at which init gave up: 350 lines of an ordinary boot."""
    log = (LOGS / "panic-init-6.1.log").read_text().partition("kmlab init")[0]

    assert log.count("\n") > 300
    assert classify(log) == []


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("[    1.5] BUG: kernel NULL pointer dereference, address: 0000000000000000", Kind.OOPS),
        ("[    1.5] kernel BUG at mm/slub.c:448!", Kind.OOPS),
        ("[    1.5] general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP", Kind.OOPS),
        ("[    1.5] BUG: KASAN: slab-out-of-bounds in vfs_write+0x1/0x2", Kind.SANITIZER),
        ("[    1.5] UBSAN: array-index-out-of-bounds in net/core/dev.c:1:2", Kind.SANITIZER),
        ("[    1.5] watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [go:99]", Kind.LOCKUP),
        ("[    1.5] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", Kind.LOCKUP),
        ("[    1.5] INFO: task go:99 blocked for more than 120 seconds.", Kind.LOCKUP),
        ("[    1.5][   T99] WARNING: CPU: 1 PID: 99 at kernel/bpf/verifier.c:1 do_check+0x1/0x2", Kind.WARNING),
        ("[    1.5] WARNING: kernel/bpf/verifier.c:1 at do_check+0x1/0x2, CPU#1: go/99", Kind.WARNING),
    ],
)
def test_other_faults_are_told_apart(line: str, kind: Kind) -> None:
    events = classify(f"[    0.1] all is well\r\n{line}\r\n")

    assert [(event.kind, event.line) for event in events] == [(kind, 2)]
    assert panic(line) is None


def test_what_a_program_prints_is_not_taken_for_the_kernels_words() -> None:
    assert classify("my program says: Kernel panic - not syncing: only joking\n") == []


def test_last_words_hold_no_control_characters() -> None:
    assert last_words("one\n\x1b[31mtwo\x07\n\nthree\n", 2) == "[31mtwo | three"


def test_an_event_is_a_value() -> None:
    assert panic("Kernel panic - not syncing: Fatal exception") == Event(Kind.PANIC, 1, "Fatal exception")
