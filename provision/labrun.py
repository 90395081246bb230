"""One lab on one machine, all phases: from a request to a staging folder with its evidence.

The staging folder is handed on whole, also when a phase failed or the machine was lost: what was finished is never
thrown away, and the evidence says what is missing and why. ``reports`` makes the run record of it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bpf import trace
from bpf.symbols import symbols_of
from go_labs.evidence import EVIDENCE_SCHEMA, Evidence, PhaseEvidence, Place, Provenance
from go_labs.spec import LabFolder, Phase
from provision import attempts, gotraces, hostfacts, hostshare, payload
from provision.hostshare import Around
from provision.payload import Payload
from provision.phases import failure
from provision.ssh import Shell
from provision.workplace import Progress, Workplace
from vm.deadline import Deadline
from vm.errors import Interrupted, LabError
from vm.machine import Machine
from vm.version import VERSION

PLAN = "plan.json"
"""Name of the workload's probe plan in the staging folder."""

COMPILER = "compiler.txt"
"""Name of the compiler's words on the workload, likewise."""

VET = "vet.txt"
"""Name of the words of ``go vet``."""

EVIDENCE = "evidence.json"
"""Name of the file that makes a staging folder worth keeping; what it names is there when it is."""

ATTEMPTS = "attempts.json"
"""Name of what came of the lab's attempts, likewise."""

GUEST_FACTS = (
    "uname -r; cat /proc/cmdline; cat /sys/devices/system/clocksource/clocksource0/current_clocksource; "
    "head -1 /proc/stat"
)
"""What is asked of the machine's kernel, a line each: its own word counts, not what the lock says it should be."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What is to be run.

    :param options: the lab's options, resolved (``provision.options``).
    :param seed: of everything random in the workload; ``order``: position of the run in its matrix.
    :param arguments: of a program that is no lab.
    :param owned: the machine is this run's own, so that it may be reset.
    :param place: in a matrix; None for a run of its own.
    :param around: what surrounds each phase: who may use which of the host's CPUs meanwhile.
    """

    folder: LabFolder
    options: dict[str, str]
    payload: Payload
    seed: int
    order: int = 0
    arguments: tuple[str, ...] = ()
    owned: bool = True
    place: Place | None = None
    around: Around = hostshare.alone

    @property
    def words(self) -> tuple[str, ...]:
        """What the workload is started with."""
        return (*(f"--{name}={value}" for name, value in self.options.items()), *self.arguments)

    @property
    def recorded_options(self) -> dict[str, str]:
        """What is recorded of how the workload was started."""
        return self.options | ({"arguments": shlex.join(self.arguments)} if self.arguments else {})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(slots=True)
class _Journal:
    """What has been finished so far."""

    started: str = field(default_factory=_now)
    timings: dict[str, float] = field(default_factory=dict)
    phases: list[PhaseEvidence] = field(default_factory=list)
    guest: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A staging folder that holds whole evidence, and the error that ended the run early, if one did."""

    staging: Path
    error: LabError | None


def staging_folder(runs: Path) -> Path:
    """Return where a new staging folder in ``runs`` is to lie: hidden, and named for this process, so that what a dead
    one left can be told.

    It is for the caller to make, within the reach of what clears it up.
    """
    return runs / f".staging-{os.getpid()}-{secrets.token_hex(4)}"


def sweep(runs: Path) -> list[Path]:
    """Remove staging folders of processes that are dead; return them."""
    gone = []
    for folder in runs.glob(".staging-*-*"):
        pid = folder.name.split("-")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)
            gone.append(folder)
    return gone


def run_lab(request: RunRequest, machine: Machine, staging: Path, deadline: Deadline, progress: Progress) -> Outcome:
    """Run all phases of ``request`` on ``machine`` and leave evidence in ``staging``.

    Errors of the machine and the workload do not escape: they are in the outcome, beside what was finished. So is
    Ctrl-C or a signal, once a phase was finished; before that there is nothing to keep, and it escapes.
    """
    journal = _Journal()
    place = Workplace(
        machine,
        request.payload,
        request.words,
        request.seed,
        deadline,
        progress,
        request.owned,
        journal.timings,
        machine.facts().clock,
    )

    def work() -> LabError | None:
        with place:
            return _run_phases(request, place, staging, progress, journal)

    return _recorded(request, machine, staging, journal, work)


def add_timings(staging: Path, timings: Mapping[str, float]) -> None:
    """Add to the evidence in ``staging`` what was known only when the machine had ended."""
    path = staging / EVIDENCE
    found = msgspec.json.decode(path.read_bytes(), type=Evidence)
    _write_whole(path, msgspec.structs.replace(found, timings={**found.timings, **timings}))


def _write_whole(path: Path, evidence: Evidence) -> None:
    """Write evidence to a temporary name, then rename it: what is there under its own name is whole."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(evidence), indent=1))
    temporary.replace(path)


def run_in(place: Workplace, request: RunRequest, staging: Path, progress: Progress) -> Outcome:
    """Do as :func:`run_lab` in a place that is there already and has the payload of ``request``."""
    journal = _Journal()
    return _recorded(
        request, place.machine, staging, journal, lambda: _run_phases(request, place, staging, progress, journal)
    )


def _recorded(
    request: RunRequest, machine: Machine, staging: Path, journal: _Journal, work: Callable[[], LabError | None]
) -> Outcome:
    """Do ``work`` and write what came of it as evidence, whatever ended it."""
    error: LabError | None = None
    began = time.monotonic()
    try:
        error = work()
    except KeyboardInterrupt:
        if not journal.phases:
            raise
        error = Interrupted("interrupted", "the record holds the phases that were finished")
    except LabError as caught:
        if isinstance(caught, Interrupted) and not journal.phases:
            raise
        error = caught
    journal.timings["machine_seconds"] = time.monotonic() - began
    _write_evidence(request, machine, staging, journal, error)
    return Outcome(staging, error)


def _run_phases(
    request: RunRequest,
    place: Workplace,
    staging: Path,
    progress: Progress,
    journal: _Journal,
) -> LabError | None:
    lab = request.folder.lab
    _ask_guest(place.shell, place.deadline, journal)
    if lab.attempts:
        began = time.monotonic()
        progress("attempts")
        tried = attempts.run(
            place.shell, lab, place.folder, request.payload.binary, place.deadline, place.machine.check, place.clock
        )
        (staging / ATTEMPTS).write_bytes(msgspec.json.format(msgspec.json.encode(tried), indent=1))
        journal.timings["attempts_seconds"] = time.monotonic() - began
    first: LabError | None = None
    for phase in lab.phases:
        progress(f"phase {phase.name}")
        with request.around(phase, place.machine) as watch:
            before = watch.waited
            place.deadline = place.deadline.later(before)
            ran = place.run(phase, staging)
        place.deadline = place.deadline.later(watch.waited - before)
        ran = msgspec.structs.replace(ran, host=watch.share)
        evidence = gotraces.summarised(ran, staging, request.payload.kit.gotrace)
        journal.phases.append(explained(evidence, phase, request.payload.binary, staging))
        first = first or failure(lab.name, evidence)
    began = time.monotonic()
    place.keep_kernel_log(staging)
    journal.guest["stat_after"] = place.shell.run("head -1 /proc/stat", place.deadline).text()
    journal.timings["collect_seconds"] = time.monotonic() - began
    return first


def explained(evidence: PhaseEvidence, phase: Phase, binary: Path, staging: Path) -> PhaseEvidence:
    """Add the plan, and names for the addresses of recorded stacks: later only the record is there, not the binary."""
    if not phase.probes:
        return evidence
    files = evidence.files | {"plan": PLAN}
    if "trace" in files:
        try:
            symbols = symbols_of(binary, trace.read(staging / files["trace"]))
        except LabError:
            return msgspec.structs.replace(evidence, files=files)  # reports tells what is wrong with the trace
        name = f"{phase.name}/symbols.json"
        (staging / name).write_bytes(msgspec.json.encode(symbols))
        files["symbols"] = name
    return msgspec.structs.replace(evidence, files=files)


def _ask_guest(shell: Shell, deadline: Deadline, journal: _Journal) -> None:
    output = shell.run(GUEST_FACTS, deadline).check().stdout
    names = ("release", "cmdline", "clocksource", "stat_before")
    lines = output.decode("utf-8", "replace").splitlines()
    journal.guest.update(zip(names, lines, strict=True))


def _write_evidence(
    request: RunRequest, machine: Machine, staging: Path, journal: _Journal, error: LabError | None
) -> None:
    """Write ``evidence.json`` and the files that belong to no phase."""
    if machine.console_path.exists():
        shutil.copyfile(machine.console_path, staging / "console.log")
    (staging / PLAN).write_bytes(request.payload.plan)
    if request.folder.lab.compiler:
        (staging / COMPILER).write_bytes(request.payload.compiler)
    if request.folder.lab.vet:
        (staging / VET).write_bytes(request.payload.vet)
    facts: dict[str, object] = {"guest": journal.guest, "host_load": hostfacts.load()}
    if error is not None:
        facts["error"] = {"class": type(error).__name__, "message": error.message, "exit_code": error.exit_code}
    logs = {
        "plan": PLAN,
        "console": "console.log",
        "kernel_log": "kernel.log",
        "attempts": ATTEMPTS,
        "compiler": COMPILER,
        "vet": VET,
    }
    files = {role: name for role, name in logs.items() if (staging / name).exists()}
    evidence = Evidence(
        schema=EVIDENCE_SCHEMA,
        lab=request.folder.lab.name,
        provenance=_provenance(request, machine, journal),
        phases=journal.phases,
        files=files,
        timings=journal.timings,
        facts=facts,
    )
    _write_whole(staging / EVIDENCE, evidence)


def _provenance(request: RunRequest, machine: Machine, journal: _Journal) -> Provenance:
    facts = machine.facts()
    kernel = facts.kernel
    loaded = request.payload
    return Provenance(
        started=journal.started,
        finished=_now(),
        kernel_line=kernel.line,
        kernel_release=journal.guest.get("release", kernel.release),
        kernel_version=kernel.version,
        cmdline=journal.guest.get("cmdline", facts.cmdline),
        lock_digest=facts.lock_digest,
        base_sha256=facts.base_sha256,
        bundle_sha256=facts.bundle_sha256,
        tools_sha256=facts.tools_sha256,
        provider=facts.provider,
        provider_details=facts.provider_details,
        qemu_version=facts.qemu_version,
        accelerator=facts.accelerator,
        cpu_model=facts.cpu_model,
        machine_type=facts.machine_type,
        cpus=facts.cpus,
        memory_mib=facts.memory_mib,
        clock=facts.clock,
        clocksource=journal.guest.get("clocksource", ""),
        start=facts.start,
        go_version=loaded.go_version,
        lab_sha256=payload.lab_digest(request.folder),
        binary_sha256=_sha256(loaded.files[loaded.program]),
        loader_sha256=_sha256(loaded.kit.files["labtrace"]),
        objects_sha256=_sha256(loaded.kit.files["objects.o"]),
        options=request.recorded_options,
        host=hostfacts.describe(),
        seed=request.seed,
        order=request.order,
        product_version=VERSION,
        build=loaded.build,
        place=request.place,
    )


def _sha256(source: Path | bytes) -> str:
    return hashlib.sha256(source if isinstance(source, bytes) else source.read_bytes()).hexdigest()
