"""Probe points in the code of real functions.

``fixtures/functions.json`` holds bytes of functions of Go 1.21.13 and 1.27.3; addresses of ``push %rbp`` and ``ret`` in
it were held against ``objdump -d`` of binutils, another decoder.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from bpf import disasm
from bpf.disasm import Entrance, Instruction, UndecodableError
from tests.bpf.programs import FIXTURES

FUNCTIONS: list[dict[str, Any]] = json.loads((FIXTURES / "functions.json").read_text())
BY_NAME = {function["name"]: function for function in FUNCTIONS}


def decode(name: str) -> list[Instruction]:
    function = BY_NAME[name]
    return disasm.decode(bytes.fromhex(function["code"]), function["address"])


@pytest.mark.parametrize("name", [f["name"] for f in FUNCTIONS if f["entrance"] is not None])
def test_the_entrance_of_a_real_function(name: str) -> None:
    expected = Entrance(BY_NAME[name]["entrance"], BY_NAME[name]["pushed"])

    assert disasm.find_entrance(decode(name)) == expected


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("internal/poll.runtime_pollServerInit", ["cmp", "jbe", "push"]),
        ("runtime.(*mLockProfile).captureStack.func1", ["lea", "cmp", "jbe", "push"]),
        ("runtime.getCPUCount", ["mov", "sub", "jb", "cmp", "jbe", "push"]),
        ("runtime.badctxt", ["push"]),
    ],
)
def test_each_form_of_stack_check_has_a_recorded_function(name: str, form: list[str]) -> None:
    code = decode(name)

    assert [i.mnemonic for i in code[: len(form)]] == form
    assert disasm.find_entrance(code).address == code[len(form) - 1].address


def test_a_function_without_frame_is_probed_at_its_entry() -> None:
    entrance = disasm.find_entrance(decode("_rt0_amd64"))

    assert entrance == Entrance(BY_NAME["_rt0_amd64"]["address"], pushed=False)


def test_a_loop_to_the_entry_is_refused() -> None:
    # A probe there would fire once per turn of the loop.
    with pytest.raises(UndecodableError, match="a jump inside the function leads to"):
        disasm.find_entrance(decode("runtime.(*gcControllerState).memoryLimitHeapGoal"))


@pytest.mark.parametrize("name", ["runtime.call16", "runtime.traceRelease"])
def test_a_frame_that_does_not_come_first_is_refused(name: str) -> None:
    with pytest.raises(UndecodableError, match="does not come first"):
        disasm.find_entrance(decode(name))


def test_a_stack_check_without_frame_is_refused() -> None:
    code = bytes.fromhex("493b6610 7601 90 c3".replace(" ", ""))  # cmp 0x10(%r14),%rsp; jbe +1; nop; ret

    with pytest.raises(UndecodableError, match="no push %rbp after the stack check"):
        disasm.find_entrance(disasm.decode(code, 0x1000))


def test_a_check_of_another_register_is_refused() -> None:
    # lea -0x30(%rsp),%r12; cmp 0x10(%r14),%r13; jbe; push %rbp
    code = bytes.fromhex("4c8d6424d04d3b6e10760155c3")

    with pytest.raises(UndecodableError, match="another register"):
        disasm.find_entrance(disasm.decode(code, 0x1000))


@pytest.mark.parametrize("name", [f["name"] for f in FUNCTIONS if f["returns"]])
def test_the_returns_of_a_real_function(name: str) -> None:
    assert disasm.find_returns(decode(name)) == BY_NAME[name]["returns"]


@pytest.mark.parametrize("name", ["_rt0_amd64", "runtime.memequal"])
def test_a_function_that_can_leave_by_a_jump_has_no_sure_returns(name: str) -> None:
    with pytest.raises(UndecodableError, match="can leave by the jump"):
        disasm.find_returns(decode(name))


def test_a_function_that_never_returns_is_refused() -> None:
    with pytest.raises(UndecodableError, match="no RET"):
        disasm.find_returns(decode("runtime.badctxt"))


def test_a_jump_table_stays_inside() -> None:
    code = bytes.fromhex("ff24c8c3")  # jmp *(%rax,%rcx,8); ret

    assert disasm.find_returns(disasm.decode(code, 0x1000)) == [0x1003]


def test_a_jump_through_a_register_may_leave() -> None:
    code = bytes.fromhex("ffe0c3")  # jmp *%rax; ret

    with pytest.raises(UndecodableError, match="can leave by the jump at 0x1000"):
        disasm.find_returns(disasm.decode(code, 0x1000))


def test_padding_is_left_out_but_not_a_last_byte_that_looks_like_it() -> None:
    code = bytes.fromhex("55ebcccccc")  # push %rbp; jmp -52; int3; int3

    assert [i.mnemonic for i in disasm.decode(code, 0x1000)] == ["push", "jmp"]


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_function_that_is_cut_off_is_refused(cut: int) -> None:
    # The last instruction is a jump of five bytes behind a call of five: no cut of up to eight bytes leaves whole ones,
    # but for the one between the two.
    code = bytes.fromhex("55e800000000e9f5ffffff")
    body = code[: len(code) - cut]

    if cut == 5:
        assert [i.mnemonic for i in disasm.decode(body, 0x1000)] == ["push", "call"]
    else:
        with pytest.raises(UndecodableError, match="no instruction at"):
            disasm.decode(body, 0x1000)


@pytest.mark.parametrize("code", [b"", b"\xcc\xcc"])
def test_an_empty_function_is_refused(code: bytes) -> None:
    with pytest.raises(UndecodableError, match="empty"):
        disasm.decode(code, 0x1000)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_every_truncation_of_a_real_function_is_decoded_or_refused(name: str) -> None:
    code = bytes.fromhex(BY_NAME[name]["code"])

    for size in range(len(code)):
        try:
            instructions = disasm.decode(code[:size], BY_NAME[name]["address"])
            entrance = disasm.find_entrance(instructions)
        except UndecodableError:
            continue
        assert entrance.address in {i.address for i in instructions}


def test_the_end_of_newproc1_has_a_jump_that_needs_no_single_step() -> None:
    # 0x43c338: jne in Go 1.21.13, after mov 0x30(%rsp),%rax; objdump shows the same.
    assert disasm.find_results(decode("runtime.newproc1")) == [0x43C338]


# mov 0x8(%rsp),%rax; cmp %rbx,%rcx; jne L; movq $1,0x10(%r14); L: add $0x28,%rsp; pop %rbp; ret
CLOSED = "488b442408 4839d9 7508 49c7461001000000 4883c428 5d c3"


def results(code: str) -> list[int] | None:
    return disasm.find_results(disasm.decode(bytes.fromhex(code), 0x1000))


def test_a_jump_with_the_result_in_place_stands_for_the_return() -> None:
    assert results(CLOSED) == [0x1008]


@pytest.mark.parametrize(
    ("why", "code"),
    [
        ("the result comes after the jump", CLOSED.replace("49c7461001000000", "b8010000000f1f00")),  # mov $1,%eax
        ("the pop takes the result", CLOSED.replace("5d", "58")),  # pop %rax
        ("another way leads behind the jump", "750a" + CLOSED),  # jne to the movq
        ("the jump leads out", CLOSED.replace("7508", "75f6")),
        ("a call comes between", CLOSED.replace("49c7461001000000", "e800000000666690")),
        ("nothing is there but the return", "5dc3"),
        ("a jump table may lead anywhere", CLOSED + "ff24c8"),
    ],
)
def test_a_return_without_such_a_jump_keeps_its_place(why: str, code: str) -> None:
    assert results(code) is None, why
