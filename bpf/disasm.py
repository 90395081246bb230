"""Finding probe points in the machine code of one function.

The *pp point* is the ``push %rbp`` that follows Go's stack check. A probe at the entry fires twice when the stack
grows, because ``morestack`` jumps back to the entry; at the pp point it fires once, arguments and R14 are still what
the caller passed, and the kernel emulates the instruction instead of stepping over it.

Go's assembler writes the check in three forms, by frame size (``stacksplit`` in ``cmd/internal/obj/x86/obj6.go``)::

    small     cmp  0x10(%r14), %rsp;  jbe
    large     lea  -N(%rsp), %r12;  cmp 0x10(%r14), %r12;  jbe
    huge      mov  %rsp, %r12;  sub $N, %r12;  jb;  cmp 0x10(%r14), %r12;  jbe
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import capstone  # type: ignore[import-untyped]

PUSH_RBP = ("push", "rbp")

_STACK_CHECK = re.compile(
    r"^(?:lea (?P<lea>r1[23]), \[rsp - [^;]+;|mov (?P<mov>r1[23]), rsp;sub (?P=mov), [^;]+;jb [^;]+;)?"
    r"cmp (?P<cmp>rsp|r1[23]), qword ptr \[r14 \+ 0x(?:10|18)\];jbe [^;]+;"
)
"""The three forms; 0x10 is ``g.stackguard0``, 0x18 ``g.stackguard1`` (functions that run on g0)."""

_PROLOGUE = 6
_PADDING = "int3"
_JUMP_TABLE = re.compile(r"^qword ptr \[\w+ \+ \w+\*8\]$")


class UndecodableError(ValueError):
    """The code is not what a Go compiler writes, so that no point in it is sure."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, in capstone's Intel notation."""

    address: int
    size: int
    mnemonic: str
    operands: str


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where a function is entered exactly once per call.

    :param address: of the instruction.
    :param pushed: whether it is the ``push %rbp``; otherwise the function has no frame and it is the entry.
    """

    address: int
    pushed: bool


def decode(code: bytes, address: int) -> list[Instruction]:
    """Decode a whole function that starts at ``address``; padding behind it is left out.

    :raises UndecodableError: a byte is no instruction.
    """
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    found = [Instruction(*parts) for parts in engine.disasm_lite(code, address)]
    end = found[-1].address + found[-1].size if found else address
    if end != address + len(code):
        raise UndecodableError(f"no instruction at +{end - address:#x} of {len(code):#x} bytes")
    while found and found[-1].mnemonic == _PADDING:
        found.pop()
    if not found:
        raise UndecodableError("the function is empty")
    return found


def find_entrance(function: Sequence[Instruction]) -> Entrance:
    """Return the pp point of a decoded function, or its entry where it has no frame.

    :raises UndecodableError: a stack check without ``push %rbp`` behind it, a frame that is made later, or a jump
        inside the function to the point itself, which would make it fire more than once per call.
    """
    first = function[0]
    prologue = function[:_PROLOGUE]
    if (first.mnemonic, first.operands) == PUSH_RBP:
        point = Entrance(first.address, pushed=True)
    elif match := _STACK_CHECK.match("".join(f"{i.mnemonic} {i.operands};" for i in prologue)):
        _same_register(match)
        at = match.group().count(";")
        if at >= len(function) or (function[at].mnemonic, function[at].operands) != PUSH_RBP:
            raise UndecodableError("no push %rbp after the stack check")
        point = Entrance(function[at].address, pushed=True)
    elif any((i.mnemonic, i.operands) == PUSH_RBP or "[r14 + 0x10]" in i.operands for i in function):
        raise UndecodableError("a stack check or frame that does not come first")
    else:
        point = Entrance(first.address, pushed=False)
    if point.address in _jump_targets(function):
        raise UndecodableError(f"a jump inside the function leads to {point.address:#x}")
    return point


def find_returns(function: Sequence[Instruction]) -> list[int]:
    """Return the address of each RET of a decoded function, ascending.

    :raises UndecodableError: the function can also leave by a jump, or never returns.
    """
    start, end = function[0].address, function[-1].address + function[-1].size
    for instruction in function:
        target = _target(instruction)
        leaves = target is not None and not start <= target < end
        indirect = instruction.mnemonic == "jmp" and target is None and not _JUMP_TABLE.match(instruction.operands)
        if leaves or indirect:
            raise UndecodableError(f"the function can leave by the jump at {instruction.address:#x}")
    returns = [i.address for i in function if i.mnemonic == "ret"]
    if not returns:
        raise UndecodableError("the function has no RET")
    return returns


def find_results(function: Sequence[Instruction]) -> list[int] | None:
    """Return, for each RET of a decoded function, a conditional jump that is passed exactly as often.

    The result is in RAX at the jump already. The kernel emulates it and must single-step a RET
    (``branch_setup_xol_ops`` in arch/x86/kernel/uprobes.c), so that a probe there costs what one at a
    pp point does. Go's ``releasem`` leaves one at the end of many functions of the runtime::

            mov  0x40(%rsp), %rax        the result
            jne  1f                      <- here
            cmpb $0, 0xb1(%r14);  je 1f
            movq $-1314, 0x10(%r14)
        1:  add  $0x50, %rsp;  pop %rbp;  ret

    None where a RET has no such jump that is surely passed exactly when the RET is.

    :raises UndecodableError: as :func:`find_returns`.
    """
    found = []
    returns = find_returns(function)
    if any(each.mnemonic == "jmp" and _target(each) is None for each in function):
        return None  # a jump table: where it leads is not known
    for address in returns:
        end = next(i for i, each in enumerate(function) if each.address == address)
        jump = _settled(function, end)
        if jump is None:
            return None
        found.append(jump)
    return found


def _settled(function: Sequence[Instruction], end: int) -> int | None:
    """Return the first conditional jump of a closed stretch that ends with instruction ``end``, a RET.

    Closed: it is entered at that jump only, is left by the RET only, and does not touch RAX.
    """
    first, jump = end, None
    while first > 0 and (_is_conditional(function[first - 1]) or _leaves_result(function[first - 1])):
        first -= 1
        if _is_conditional(function[first]):
            inside = range(function[first].address + 1, function[end].address + 1)
            targets = [_target(each) for each in function[first:end] if _is_conditional(each)]
            others = {_target(each) for i, each in enumerate(function) if not first <= i < end}
            if all(target in inside for target in targets) and not any(target in inside for target in others):
                jump = function[first].address
    return jump


def _is_conditional(instruction: Instruction) -> bool:
    return instruction.mnemonic.startswith("j") and instruction.mnemonic not in ("jmp", "jrcxz", "jecxz")


def _leaves_result(instruction: Instruction) -> bool:
    """Tell whether an instruction surely leads to the next and leaves RAX alone; those that Go puts before a RET."""
    destination = instruction.operands.partition(",")[0]
    return (
        instruction.mnemonic in ("cmp", "test", "nop")
        or (instruction.mnemonic == "mov" and destination.endswith("]"))
        or (instruction.mnemonic, destination) in {("add", "rsp"), ("pop", "rbp")}
    )


def _same_register(match: re.Match[str]) -> None:
    computed = match["lea"] or match["mov"] or "rsp"
    if computed != match["cmp"]:
        raise UndecodableError("a stack check that compares another register than it computed")


def _jump_targets(function: Sequence[Instruction]) -> set[int]:
    return {t for t in map(_target, function) if t is not None}


def _target(instruction: Instruction) -> int | None:
    if not instruction.mnemonic.startswith("j") or not instruction.operands.startswith("0x"):
        return None
    return int(instruction.operands, 16)
