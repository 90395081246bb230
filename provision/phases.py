"""One phase of a lab in a machine: its command, how it ends, what it leaves."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from bpf import trace
from go_labs.evidence import PhaseEvidence, WorkloadOutput
from go_labs.spec import Phase
from provision.ssh import Shell
from provision.transfer import pull
from vm.deadline import Deadline
from vm.errors import LabFailedError, OutputError, ProbeError

OUTPUT_MIB = 64
"""MiB that a workload may write to a file before the kernel ends it (RLIMIT_FSIZE)."""

Failed = Literal["workload", "output", "probe", "tools"]
"""What a phase can fail by (``go_labs.evidence.PhaseEvidence.failed``)."""

TOOL_READY_SECONDS = 180
"""Seconds that kernel-side tools get to attach: on an idle, emulated machine four of them take 10 s, on a busy host
several times that."""

KILL_SECONDS = 5
"""Seconds between asking a workload to end and ending it."""

TIMED_OUT = (124, 137)
"""What timeout(1) returns when it ended the command, or had to kill it."""

TOOLS_NOT_READY = 96
"""What ``guest/with_tools.sh`` returns when no tool could attach."""

LOADER_KINDS: Mapping[str, tuple[str, Failed]] = {
    "load_refused": ("the kernel refused a BPF program", "probe"),
    "attach_failed": ("a probe could not be attached", "probe"),
    "start_failed": ("the workload could not be started", "workload"),
    "timeout": ("the workload was not over in time", "workload"),
    "output_limit": ("the workload wrote more than it may", "output"),
    "bad_plan": ("the probe plan does not fit the workload", "probe"),
    "calibration": ("the cost of a probe could not be measured", "probe"),
}
"""What each kind of ``labtrace run``'s failures (``bpf/loader/failure.go``) means, and what it is a failure of."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload that lies in a machine.

    :param folder: where everything of this run was pushed to.
    :param name: file name of the binary, and the name its threads go by.
    :param arguments: options of the lab, as ``--name=value``.
    """

    folder: str
    name: str
    arguments: tuple[str, ...]


def workload_words(workload: Workload, phase: Phase, seed: int) -> list[str]:
    """Return the workload's command line in ``phase``."""
    options = dict(word.removeprefix("--").partition("=")[::2] for word in workload.arguments) | phase.options
    return [
        f"./{workload.name}",
        f"--phase={phase.name}",
        f"--sections={','.join(phase.sections)}",
        f"--seed={seed}",
        *(f"--{name}={value}" for name, value in sorted(options.items())),
    ]


def tool_command(tool: str, comm: str) -> str:
    """Return the command of tool ``bcc/NAME`` or ``bpftrace/NAME``, watching processes named ``comm``."""
    kind, _, name = tool.partition("/")
    script = shlex.quote(f"tools/{kind}/{name}")
    target = shlex.quote(comm[:15])
    if kind == "bcc":
        return f"python3 {script}.py {target}"
    return f"python3 tools/bpftrace/_run.py {script}.bt {target}"


def command(workload: Workload, phase: Phase, seed: int) -> str:
    """Return the shell command that runs ``phase`` and leaves its files in ``out/PHASE`` of the workload's folder.

    The workload finds that folder in ``KMLAB_OUT``, for files beside its document (``labkit.OutFolder``).
    """
    out = f"out/{phase.name}"
    words = shlex.join(workload_words(workload, phase, seed))
    limit = f"timeout -k {KILL_SECONDS} {phase.timeout:g}"
    start = (
        f"cd {shlex.quote(workload.folder)} && mkdir -p {out} && export KMLAB_OUT={out} && "
        f"ulimit -f {OUTPUT_MIB * 2048} && exec"
    )
    if phase.probes:
        return (
            f"{start} ./labtrace run --plan plan.json --objects objects.o --out {out} --timeout {phase.timeout:g} "
            f"--calibrate --max-output {OUTPUT_MIB << 20} -- {words} 2>{out}/loader.err"
        )
    if phase.tools:
        tools = " ".join(
            f"-t {shlex.quote(tool.replace('/', '-'))} {shlex.quote(tool_command(tool, workload.name))}"
            for tool in phase.tools
        )
        return f"{start} sh ./with_tools.sh {out} {TOOL_READY_SECONDS} {tools} -- {limit} {words} 2>{out}/tools.err"
    return f"{start} {limit} {words} >{out}/workload.json 2>{out}/stderr </dev/null"


def run(
    shell: Shell,
    workload: Workload,
    phase: Phase,
    seed: int,
    staging: Path,
    deadline: Deadline,
    alive: Callable[[], None],
) -> PhaseEvidence:
    """Run ``phase`` in the machine, bring its files into ``staging``, and say what it left.

    A workload that failed is not an exception here: the evidence says so, and :func:`failure` makes the error of it.

    :raises MachineError: the machine was lost meanwhile.
    """
    allowed = phase.timeout + KILL_SECONDS + (TOOL_READY_SECONDS + 60 if phase.tools else 30)
    began = time.monotonic()
    name = f"phase {phase.name} of the lab"
    done = shell.run(command(workload, phase, seed), deadline.within(allowed), alive=alive, name=name)
    wall = time.monotonic() - began
    into = staging / phase.name
    into.mkdir()
    names = pull(shell, f"{workload.folder}/out/{phase.name}", into, deadline.within(60), alive)
    files = {_role(name): f"{phase.name}/{name}" for name in names}
    end = _outcome(done.status, phase, staging, files)
    return PhaseEvidence(
        name=phase.name,
        exit_status=end.status,
        wall_seconds=wall,
        workload_seconds=end.seconds,
        files=files,
        error=end.error,
        failed=end.failed,
    )


def failure(lab: str, phase: PhaseEvidence) -> LabFailedError | None:
    """Return the error that ``phase`` stands for, or None if it went well."""
    if not phase.error:
        return None
    message = f"lab {lab}, phase {phase.name}: {phase.error}"
    if phase.failed in ("probe", "tools"):
        return ProbeError(message, "the phase's folder in the record has the kernel's own words")
    kind = OutputError if phase.failed == "output" else LabFailedError
    return kind(message, "the record keeps what was finished; the phase's folder has the workload's own words")


def _role(name: str) -> str:
    """Return the role of a pulled file (``go_labs.evidence.PhaseEvidence``)."""
    roles = {"workload.json": "workload", "trace.json": "trace", "events.bin": "events"}
    if name.startswith("tool-") and name.endswith(".json"):
        return "tool:" + name.removeprefix("tool-").removesuffix(".json").replace("-", "/", 1)
    return roles.get(name, name)


@dataclass(frozen=True, slots=True)
class _End:
    """How a phase ended: the workload's status, what went wrong in words, and guest seconds of the workload."""

    status: int | None
    error: str = ""
    failed: Literal["", "workload", "output", "probe", "tools"] = ""
    seconds: float = 0.0


def _outcome(status: int, phase: Phase, staging: Path, files: Mapping[str, str]) -> _End:
    """Tell how a phase ended from the exit status of its command and the files it left."""
    if phase.probes:
        if status != 0:
            return _loader_failed(staging, files)
        status = _traced_status(staging, files)
    elif status == TOOLS_NOT_READY and phase.tools:
        return _End(None, f"no kernel-side tool could attach{_last_words(staging, files)}", "tools")
    elif status in TIMED_OUT:
        words = _last_words(staging, files)
        return _End(status, f"the workload was not over within {phase.timeout:g} s{words}", "workload")
    if status != 0:
        how = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
        return _End(status, f"the workload {how}{_last_words(staging, files)}", "workload")
    try:
        output = _read_output(staging / files["workload"])
    except KeyError:
        return _End(status, "the workload left no output", "output")
    except msgspec.DecodeError as error:
        return _End(status, f"the workload's output is not the JSON that the protocol asks for: {error}", "output")
    ends = [segment.end_ns for segment in output.segments]
    starts = [segment.start_ns for segment in output.segments]
    return _End(status, seconds=(max(ends) - min(starts)) / 1e9 if ends else 0.0)


def _loader_failed(staging: Path, files: Mapping[str, str]) -> _End:
    """Read the loader's own report, the last line of its stderr."""
    lines = (staging / files["loader.err"]).read_text("utf-8", "replace").splitlines() if "loader.err" in files else []
    for line in reversed(lines):
        try:
            report = msgspec.json.decode(line, type=dict[str, object])
        except msgspec.DecodeError:
            continue
        what, failed = LOADER_KINDS.get(str(report.get("error")), ("the tracer failed", "probe"))
        return _End(None, f"{what}: {_printable(str(report.get('message', '')))}", failed)
    return _End(None, f"the tracer ended without a report{_last_words(staging, files)}", "probe")


def _traced_status(staging: Path, files: Mapping[str, str]) -> int:
    try:
        return trace.read(staging / files["trace"]).exit_status
    except (KeyError, OutputError):
        return 255


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text[:300])


def _read_output(path: Path) -> WorkloadOutput:
    data = path.read_bytes()
    try:
        return msgspec.json.decode(data, type=WorkloadOutput)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(str(error)) from error


def _last_words(staging: Path, files: Mapping[str, str]) -> str:
    """Return ``: …``, the last line of what was said on stderr, made safe to print; "" if nothing was."""
    for role in ("stderr", "loader.err", "tools.err"):
        if role in files:
            lines = (staging / files[role]).read_text("utf-8", "replace").strip().splitlines()
            if lines:
                return f": {_printable(lines[-1])}"
    return ""
