"""One phase of a lab in a machine: its command, how it ends, what it leaves."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from bpf import trace
from go_labs.evidence import PhaseEvidence, WorkloadOutput
from go_labs.spec import Phase
from provision.ssh import Completed, Shell
from provision.transfer import pull
from vm import progress
from vm.deadline import Deadline
from vm.errors import HangError, LabError, LabFailedError, OutputError, ProbeError, SshError
from vm.machine import Clock
from vm.pace import allowance, patience

OUTPUT_MIB = 16
"""MiB that a workload may print (``labkit.MaxOutput``); of what is longer, the first 64 KiB are kept."""

FILE_MIB = 64
"""MiB that a phase may write to one file before the kernel ends the writer (RLIMIT_FSIZE): recorded events, too."""

OUTPUT_BYTES = (OUTPUT_MIB << 20) + 1
"""Bytes of the longest document with its line feed."""

PULL_SECONDS = 240
"""Seconds to bring a phase's files back: an emulated machine sends 1 to 4 MB/s."""

MAXIMUM_WORDS = 1 << 20
"""Bytes of a stderr that are looked at."""

SIGNALLED = range(129, 129 + 64)
"""Exit statuses with which a shell tells the signal that ended a command."""

PRINTED = ("workload.json", "stderr")
"""Files that hold what the workload itself printed."""

Failed = Literal["workload", "output", "probe", "tools"]
"""What a phase can fail by (``go_labs.evidence.PhaseEvidence.failed``)."""

TOOL_READY_SECONDS = 180
"""Seconds that kernel-side tools get to attach: on an idle, emulated machine four of them take 10 s, on a busy host
several times that."""

KILL_SECONDS = 5
"""Seconds between asking a workload to end and ending it."""

CLEANING_SECONDS = 15
"""Seconds to end what a workload left running and to cut what it printed."""

TIMED_OUT = (124, 137)
"""What timeout(1) returns when it ended the command, or had to kill it; 137 also where somebody else killed it."""

UPTIME_STEP = 0.02
"""Seconds by which a difference of two readings of /proc/uptime, in hundredths, may fall short."""

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
    :param program: path of the binary below it; the last part is the name its threads go by.
    :param arguments: options of the lab, as ``--name=value``; of a program that is no workload, all its arguments.
    """

    folder: str
    program: str
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the binary."""
        return self.program.rpartition("/")[2]

    @property
    def group(self) -> str:
        """Name of the control group that its processes are in."""
        return self.folder.rpartition("/")[2]


class Containment(msgspec.Struct, frozen=True, kw_only=True):
    """What ``guest/contained.sh`` says when a phase is over.

    :param began: and ``ended``: seconds that the machine had been up.
    :param left: processes that the command had left behind, and that were ended.
    :param out_of_memory: processes that the kernel ended meanwhile because memory ran out.
    :param cut: files that were larger than :data:`OUTPUT_BYTES`, of which the beginning is kept.
    """

    began: float
    ended: float
    left: int
    out_of_memory: int
    cut: list[str]

    @property
    def seconds(self) -> float:
        """How long the command ran."""
        return self.ended - self.began


def workload_words(workload: Workload, phase: Phase, seed: int) -> list[str]:
    """Return the workload's command line in ``phase``."""
    if phase.protocol == "none":
        return [f"./{workload.program}", *workload.arguments]
    options = dict(word.removeprefix("--").partition("=")[::2] for word in workload.arguments) | phase.options
    return [
        f"./{workload.program}",
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


def command(workload: Workload, phase: Phase, seed: int, clock: Clock = "emulated") -> str:
    """Return the shell command that runs ``phase`` and leaves its files in ``out/PHASE`` of the workload's folder.

    The workload finds that folder in ``KMLAB_OUT``, for files beside its document (``labkit.OutFolder``). Its time-out
    counts seconds of the machine, whatever they are. The wait for tools is meant in the host's, because they read much
    from disk: on a counted ``clock`` it is so much longer.
    """
    out = f"out/{phase.name}"
    words = shlex.join(workload_words(workload, phase, seed))
    limit = f"timeout -k {KILL_SECONDS} {phase.timeout:g}"
    start = (
        f"cd {shlex.quote(workload.folder)} && mkdir -p {out} && export KMLAB_OUT={out} && "
        f"ulimit -f {FILE_MIB * 2048} && exec sh ./contained.sh run {workload.group} {out} {OUTPUT_BYTES}"
    )
    if phase.probes:
        return (
            f"{start} ./labtrace run --plan plan.json --objects objects.o --out {out} --timeout {phase.timeout:g} "
            f"--calibrate --max-output {OUTPUT_BYTES + 1} --max-events {phase.events} -- {words} 2>{out}/loader.err"
        )
    if phase.tools:
        tools = " ".join(
            f"-t {shlex.quote(tool.replace('/', '-'))} {shlex.quote(tool_command(tool, workload.name))}"
            for tool in phase.tools
        )
        ready = f"{allowance(TOOL_READY_SECONDS, clock):.0f}"
        return f"{start} sh ./with_tools.sh {out} {ready} {tools} -- {limit} {words} 2>{out}/tools.err"
    # Only the workload's streams go to files: what contained.sh says goes to the host.
    inner = f'exec "$@" >{out}/workload.json 2>{out}/stderr </dev/null'
    return f"{start} sh -c {shlex.quote(inner)} sh {limit} {words}"


def end_command(workload: Workload) -> str:
    """Return the shell command that ends all that runs of ``workload`` and removes its folder."""
    folder = shlex.quote(workload.folder)
    return f"sh {folder}/contained.sh end {workload.group}; rm -rf {folder}"


@dataclass(frozen=True, slots=True)
class Ran:
    """A phase that was run.

    :param disturbed: the workload was ended from outside, or took something with it (memory, say): what it left in the
        machine is not known, so that the next phase needs another one.
    """

    evidence: PhaseEvidence
    disturbed: bool


def run(
    shell: Shell,
    workload: Workload,
    phase: Phase,
    seed: int,
    staging: Path,
    deadline: Deadline,
    alive: Callable[[], None],
    clock: Clock = "emulated",
) -> Ran:
    """Run ``phase`` in the machine, bring its files into ``staging``, and say what it left.

    A workload that failed is not an exception here: the evidence says so, and :func:`failure` makes the error of it.

    :raises MachineError: the machine was lost meanwhile, or no longer answers.
    :raises OutputError: what it left is too much to bring back.
    """
    began = time.monotonic()
    name = f"phase {phase.name} of the lab"
    with progress.waiting(f"phase {phase.name}", phase.seconds):
        words, limit = command(workload, phase, seed, clock), deadline.within(patience(_allowed(phase), clock))
        done = shell.run(words, limit, alive=alive, name=name)
    wall = time.monotonic() - began
    contained = _containment(done)
    into = staging / phase.name
    into.mkdir()
    names = pull(
        shell, f"{workload.folder}/out/{phase.name}", into, deadline.within(patience(PULL_SECONDS, clock)), alive
    )
    if phase.protocol == "none" and "workload.json" in names:
        (into / "workload.json").rename(into / "stdout")
        names[names.index("workload.json")] = "stdout"
    files = {_role(name): f"{phase.name}/{name}" for name in names}
    end = _outcome(done.status, contained, phase, staging, files)
    evidence = PhaseEvidence(
        name=phase.name,
        exit_status=end.status,
        wall_seconds=wall,
        workload_seconds=end.seconds,
        files=files,
        error=end.error,
        failed=end.failed,
        protocol=phase.protocol,
        remarks=[f"{contained.left} processes that outlived the workload were ended"] if contained.left else [],
        refused=end.refused,
        timed_out=end.timed_out,
    )
    return Ran(evidence, end.disturbed)


def _allowed(phase: Phase) -> float:
    """Return the seconds after which a machine that has not ended ``phase`` by itself counts as hung."""
    around = TOOL_READY_SECONDS + 60 if phase.tools else 30
    return phase.timeout + KILL_SECONDS + CLEANING_SECONDS + around


def _containment(done: Completed) -> Containment:
    """Read the one line that ``contained.sh`` prints.

    :raises SshError: it did not come to that.
    """
    try:
        return msgspec.json.decode(done.stdout, type=Containment)
    except (msgspec.DecodeError, UnicodeDecodeError):
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        last = _printable(words[-1]) if words else "it said nothing"
        raise SshError(f"{done.command} could not be run (status {done.status}): {last}") from None


def lost(phase: Phase, error: LabError, staging: Path, seconds: float) -> PhaseEvidence:
    """Return the evidence of a phase after which the machine no longer answered, or sent too much: its error alone.

    :param seconds: of the host, that the phase took.
    """
    folder = staging / phase.name
    found = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    return PhaseEvidence(
        name=phase.name,
        exit_status=None,
        wall_seconds=seconds,
        workload_seconds=0.0,
        files={_role(name): f"{phase.name}/{name}" for name in found if name != "workload.json"},
        error=error.message,
        failed="output" if isinstance(error, OutputError) else "workload",
        protocol=phase.protocol,
        timed_out=isinstance(error, HangError),
    )


def failure(lab: str, phase: PhaseEvidence) -> LabFailedError | None:
    """Return the error that ``phase`` stands for, or None if it went well."""
    if not phase.error:
        return None
    what = "lab" if phase.protocol == "document" else "program"
    message = f"{what} {lab}, phase {phase.name}: {phase.error}"
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
    """How a phase ended: the workload's status, what went wrong in words, and guest seconds of the workload.

    :param disturbed: see :class:`Ran`. :param refused: and ``timed_out``: as in the evidence.
    """

    status: int | None
    error: str = ""
    failed: Failed | Literal[""] = ""
    seconds: float = 0.0
    disturbed: bool = False
    refused: bool = False
    timed_out: bool = False


def _outcome(status: int, contained: Containment, phase: Phase, staging: Path, files: Mapping[str, str]) -> _End:
    """Tell how a phase ended from the exit status of its command, what the containment says and the files it left."""
    who = "workload" if phase.protocol == "document" else "program"
    words = _last_words(staging, files)
    printed = [name for name in contained.cut if name in PRINTED]
    if printed:
        what = {"workload.json": "stdout"}.get(printed[0], printed[0])
        said = f"the {who} wrote more than {OUTPUT_MIB} MiB to {what}"
        return _End(_status(status, phase, staging, files), said, "output", disturbed=True)
    if contained.out_of_memory:
        count = contained.out_of_memory
        said = f"the machine ran out of memory, and its kernel ended {count} process{'es' if count > 1 else ''}{words}"
        return _End(_status(status, phase, staging, files), said, "workload", disturbed=True)
    if phase.probes:
        if status != 0:
            return _loader_failed(staging, files)
    elif status == TOOLS_NOT_READY and phase.tools:
        return _End(None, f"no kernel-side tool could attach{words}", "tools")
    elif status in TIMED_OUT and contained.seconds >= phase.timeout - UPTIME_STEP:
        said = f"the {who} was not over within {phase.timeout:g} s{words}"
        return _End(status, said, "workload", disturbed=True, timed_out=True)
    status = _status(status, phase, staging, files)
    if status != 0:
        how = f"ended with status {status}" if status > 0 else f"was ended by {_signal(-status)}"
        return _End(status, f"the {who} {how}{words}", "workload", disturbed=status < 0)
    if phase.protocol == "none":
        return _End(status, seconds=_program_seconds(contained, staging, files))
    try:
        output = _read_output(staging / files["workload"])
    except KeyError:
        return _End(status, "the workload left no output", "output")
    except msgspec.DecodeError as error:
        return _End(status, f"the workload's output is not the JSON that the protocol asks for: {error}", "output")
    ends = [segment.end_ns for segment in output.segments]
    starts = [segment.start_ns for segment in output.segments]
    return _End(status, seconds=(max(ends) - min(starts)) / 1e9 if ends else 0.0)


def _status(status: int, phase: Phase, staging: Path, files: Mapping[str, str]) -> int:
    """Return the workload's own exit status, negative for the signal that ended it."""
    if phase.probes:
        return _traced_status(staging, files)
    return 128 - status if status in SIGNALLED else status


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _program_seconds(contained: Containment, staging: Path, files: Mapping[str, str]) -> float:
    """Return how long a program ran that says nothing of it itself."""
    try:
        seconds = trace.read(staging / files["trace"]).target_seconds
    except (KeyError, OutputError):
        seconds = None
    return contained.seconds if seconds is None else seconds


def _loader_failed(staging: Path, files: Mapping[str, str]) -> _End:
    """Read the loader's own report, the last line of its stderr."""
    lines = (staging / files["loader.err"]).read_text("utf-8", "replace").splitlines() if "loader.err" in files else []
    for line in reversed(lines):
        try:
            report = msgspec.json.decode(line, type=dict[str, object])
        except msgspec.DecodeError:
            continue
        kind = str(report.get("error"))
        what, failed = LOADER_KINDS.get(kind, ("the tracer failed", "probe"))
        said = f"{what}: {_printable(str(report.get('message', '')))}"
        return _End(
            None,
            said,
            failed,
            disturbed=kind in ("timeout", "output_limit", "internal"),
            refused=kind in ("load_refused", "attach_failed"),
            timed_out=kind == "timeout",
        )
    return _End(None, f"the tracer ended without a report{_last_words(staging, files)}", "probe", disturbed=True)


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
    """Return ``: …``, what was said last on stderr, made safe to print; "" if nothing was.

    Go prints a reason and then all goroutines: there the reason is what counts.
    """
    for role in ("stderr", "loader.err", "tools.err"):
        if role in files:
            with (staging / files[role]).open("rb") as stream:
                text = stream.read(MAXIMUM_WORDS).decode("utf-8", "replace")
            lines = text.strip().splitlines()
            reasons = [line for line in lines if line.startswith(("panic: ", "fatal error: "))]
            if lines:
                return f": {_printable(reasons[0] if reasons else lines[-1])}"
    return ""
