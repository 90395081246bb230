"""A lab's attempts, made once per run: on the host what the workload's function table tells, the rest in the machine.

An attempt that could not be made is no refusal, and never ends the run: its result says why.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import msgspec

from bpf.buildinfo import read_build_info
from bpf.elf import Elf
from bpf.pclntab import FunctionTable
from go_labs.attempts import Trial, parse
from go_labs.evidence import AttemptResult, Attempts
from go_labs.spec import Attempt, Lab
from provision.ssh import Completed, Shell
from vm.deadline import Deadline
from vm.errors import OutputError, ProbeError
from vm.machine import Clock
from vm.pace import allowance, patience

SECONDS = 60
"""Seconds that all attempts get; a dozen of them take about 1 s in an emulated machine, several on a busy host."""

ANSWER_LIMIT = 1 << 20
"""Bytes of the machine's answer that are read."""


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt as ``guest/attempts.py`` takes it; ``offset`` is a uprobe's place in the workload's file."""

    id: str
    kind: str
    parts: tuple[str, ...]
    offset: int = 0


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What ``guest/attempts.py`` says of one."""

    id: str
    done: bool
    words: str = ""
    facts: dict[str, int | str | list[str]] = {}
    untried: str = ""


class Functions:
    """The functions of a workload, read when the first attempt asks for one."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary

    @cached_property
    def _elf(self) -> Elf:
        return Elf.open(self._binary)

    @cached_property
    def _table(self) -> FunctionTable:
        return FunctionTable(self._elf)

    @cached_property
    def _facts(self) -> dict[str, int | str | list[str]]:
        return {"go": f"go{read_build_info(self._elf).version.text}", "functions": len(self._table)}

    def look(self, attempt: Attempt, symbol: str) -> AttemptResult:
        """Return whether the workload has ``symbol``; where not, whether it was inlined away or is nowhere.

        :raises ProbeError: the workload cannot be read.
        """
        found = len(self._table.find(symbol))
        where = f"{self._facts['go']}, {self._facts['functions']} functions"
        words = ""
        if not found:
            how = (
                "it was inlined wherever it is called" if self._table.mentions(symbol) else "the name is nowhere in it"
            )
            words = f"the workload has no function {symbol} ({where}): {how}"
        return AttemptResult(
            id=attempt.id, what=attempt.what, done=bool(found), words=words, facts=self._facts | {"found": found}
        )

    def offset(self, symbol: str) -> int:
        """Return where in the workload's file the function ``symbol`` starts.

        :raises ProbeError: there is none, or more than one of that name.
        """
        found = self._table.find(symbol)
        if len(found) != 1:
            raise ProbeError(f"the workload has {len(found)} functions {symbol}", "name one that is there once")
        return self._elf.file_offset(found[0].entry)


def run(
    shell: Shell,
    lab: Lab,
    folder: str,
    binary: Path,
    deadline: Deadline,
    alive: Callable[[], None],
    clock: Clock = "emulated",
) -> Attempts:
    """Make the attempts of ``lab`` with the run's files in ``folder`` of the machine; one command does all of them.

    :param binary: the workload on the host; what was pushed has the same code at the same offsets.
    :param clock: of the machine.
    :raises MachineError: the machine was lost meanwhile.
    """
    results, requests = prepare(lab.attempts, Functions(binary))
    if requests:
        done = _ask(shell, requests, f"{folder}/{lab.name}", deadline, alive, clock)
        answers = done if isinstance(done, str) else read(done)
        results |= _answered(lab.attempts, requests, answers)
    return Attempts(schema=1, attempts=[results[attempt.id] for attempt in lab.attempts])


def prepare(attempts: Sequence[Attempt], functions: Functions) -> tuple[dict[str, AttemptResult], list[_Request]]:
    """Return the results that the host can tell, by id, and what is to be asked of the machine."""
    results: dict[str, AttemptResult] = {}
    requests: list[_Request] = []
    for attempt in attempts:
        trial = parse(attempt.what)
        if trial.kind not in ("function", "uprobe"):
            requests.append(_Request(id=attempt.id, kind=trial.kind, parts=trial.parts))
            continue
        try:
            known = functions.look(attempt, trial.parts[0])
            if trial.kind == "uprobe" and known.done:
                requests.append(_uprobe(attempt, trial, functions))
            else:
                results[attempt.id] = known
        except ProbeError as error:
            results[attempt.id] = _untried(attempt, error.message)
    return results, requests


def _uprobe(attempt: Attempt, trial: Trial, functions: Functions) -> _Request:
    return _Request(id=attempt.id, kind=trial.kind, parts=trial.parts, offset=functions.offset(trial.parts[0]))


def _ask(
    shell: Shell,
    requests: Sequence[_Request],
    workload: str,
    deadline: Deadline,
    alive: Callable[[], None],
    clock: Clock,
) -> Completed | str:
    """Return what the machine answered, or why it did not."""
    where = shlex.quote(workload.rpartition("/")[0])
    # bpftool has a time-out of its own there, which a counted clock reaches while the program is read from disk.
    first = "bpftool version >/dev/null 2>&1; " if clock == "virtual" else ""
    limit = f"timeout -k 1 {allowance(SECONDS, clock):.0f}"
    command = f"{first}cd {where} && exec {limit} python3 -IS ./attempts.py {shlex.quote(workload)}"
    asked = msgspec.json.encode(requests)
    allowed = deadline.within(patience(SECONDS + 30, clock))
    try:
        return shell.run(command, allowed, stdin=asked, limit=ANSWER_LIMIT, alive=alive, name="what makes the attempts")
    except OutputError as error:
        return error.message


def read(done: Completed) -> dict[str, _Answer] | str:
    """Return the machine's answers by id, or why there are none."""
    if done.status != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return f"{done.command} ended with status {done.status}{f': {lines[-1][:300]}' if lines else ''}"
    try:
        return {answer.id: answer for answer in msgspec.json.decode(done.stdout, type=list[_Answer])}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"what the machine answered is no list of results: {error}"


def _answered(
    attempts: Sequence[Attempt], requests: Sequence[_Request], answers: Mapping[str, _Answer] | str
) -> dict[str, AttemptResult]:
    asked = {request.id for request in requests}
    results: dict[str, AttemptResult] = {}
    for attempt in attempts:
        if attempt.id not in asked:
            continue
        found = None if isinstance(answers, str) else answers.get(attempt.id)
        if found is None:
            why = answers if isinstance(answers, str) else "the machine gave no answer to it"
            results[attempt.id] = _untried(attempt, why)
        else:
            results[attempt.id] = AttemptResult(
                id=attempt.id,
                what=attempt.what,
                done=found.done and not found.untried,
                words=found.words,
                facts=found.facts,
                untried=found.untried,
            )
    return results


def _untried(attempt: Attempt, why: str) -> AttemptResult:
    return AttemptResult(id=attempt.id, what=attempt.what, done=False, untried=why)
