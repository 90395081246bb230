"""A lab's own description: ``lab.toml`` beside its code.

A lab is one folder: Go source, ``lab.toml`` and, where its figures need more than the generic ones, ``analysis.py``.
No list elsewhere names it: a lab is found by its folder, in ``go_labs/`` or wherever a person keeps it.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from go_labs import attempts, fields
from vm.errors import ConfigError, UsageError

LABS = Path(__file__).resolve().parent
"""The folder that holds the labs of this repository."""

NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
"""What a lab may be called: its name becomes that of a folder, a Go module, a file in the machine and a record."""

RESERVED = frozenset({"labtrace", "out", "tools"})
"""Names of other things in a run's folder in the machine."""

TIMED = "timed"
"""The phase with nothing attached: all figures of time come from it, and what is compared."""

FIELDS_HINT = "docs/labs.md describes every field"

Clock = Literal["kvm", "emulated", "virtual"]
"""What a second in the machine is: a real one, an emulated one, or counted instructions."""

Protocol = Literal["document", "none"]
"""Whether a program speaks the protocol of workloads (docs/labs.md)."""


class Option(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One argument of the workload, passed as ``--name=value``.

    :param kind: ``seconds`` is a number of seconds, or a duration as Go writes it (``90s``, ``20m``, ``3h``).
    :param default: value of the default run; ``full`` is the value under ``--full``.
    :param minimum: and ``maximum``: inclusive bounds of each number (``ints`` is a comma-separated list).
    """

    kind: Literal["int", "ints", "seconds", "choice"]
    default: str
    full: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: list[str] = []
    help: str


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One pass of the workload.

    :param name: ``timed`` (nothing attached), ``traced`` (probes), ``profiled`` (Go's instruments) or ``kernel``
        (the article's own kernel-side tools).
    :param sections: sections of the workload that run in it.
    :param probes: probe sets that the loader attaches (``bpf/``), empty where nothing is attached by it.
    :param tools: scripts that run beside the workload: ``bcc/NAME`` or ``bpftrace/NAME`` of ``bpf/``.
    :param timeout: seconds after which the workload counts as hung; ``seconds``: about how long it takes by default (0:
        not known), for the progress display.
    :param follows: options of kind ``seconds`` whose values are added to both.
    :param events: records that the loader keeps of it, at most; more are counted as left out.
    :param protocol: ``document``: it takes the options of a workload and prints one JSON document; ``none``: it is a
        program that knows nothing of labs, started with arguments of its own, whose output is kept as it is.
    """

    name: Literal["timed", "traced", "profiled", "kernel"]
    sections: list[str]
    probes: list[str] = []
    tools: list[str] = []
    options: dict[str, str] = {}
    timeout: float = 120.0
    protocol: Protocol = "document"
    seconds: float = 0.0
    follows: list[str] = []
    events: int = 1_000_000


class Criterion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One condition of a claim, written before anything is measured.

    :param metric: name of the metric that decides.
    :param confirm: comparison that confirms, ``">= 1"``; operators ``< <= == != >= >``.
    :param refute: comparison that refutes; where a metric has an interval, the whole of it must satisfy either.
    :param clocks: clocks on which it may be judged.
    :param emulation: why the emulator cannot turn the result round; needed when a metric in time or rate may be judged
        under ``emulated``.
    :param meaning: one sentence, what the metric shows.
    """

    metric: str
    confirm: str
    refute: str
    clocks: list[Clock] = msgspec.field(default_factory=lambda: ["kvm", "emulated", "virtual"])
    emulation: str = ""
    meaning: str


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A claim of the source article, with the criteria that decide it.

    :param text: the claim in our words.
    :param says: the article's own figures, for the comparison table, where it has any.
    :param why: what is known of the mechanism; shown beside the evidence, never instead of it.
    """

    id: str
    text: str
    says: str = ""
    why: str = ""
    criteria: list[Criterion]


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A condition under which a run counts; failed, it makes its claims undecided.

    :param claims: ids that depend on it; empty means all.
    """

    name: str
    metric: str
    require: str
    claims: list[str] = []
    meaning: str


class Attempt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that is tried on the machine, once per run and before the phases; metric ``attempt.ID`` is 1 or 0.

    :param what: ``kprobe:SYMBOL`` and others, see :mod:`go_labs.attempts`.
    :param meaning: one sentence, what it shows.
    :param control: one that must succeed: where it does not, the refusals of its kind show nothing.
    """

    id: str
    what: str
    meaning: str
    control: bool = False


class Lab(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``lab.toml``.

    :param section: of the article; empty for a lab that looks at something else.
    :param primary: the one metric that comparisons between kernels use.
    :param go_minimum: lowest Go version, ``1.21``; ``kernel_minimum`` likewise, ``5.10``.
    :param oracle: which independent source the counts are held against, in words.
    :param compiler: flags of the compiler whose words on the workload are kept in the record, ``-d=defer``: what was
        decided when it was compiled is an oracle for what happens when it runs.
    :param vet: folders below the lab's, whose packages ``go vet`` of the same Go version reads; its words are kept.
    :param cpus: of the machine; ``memory`` in MiB.
    """

    schema: Literal[1]
    name: str
    title: str
    section: str = ""
    question: str
    primary: str
    oracle: str
    go_minimum: str = "1.21"
    kernel_minimum: str = "5.10"
    cpus: int = 2
    memory: int = 1024
    seconds: float
    compiler: list[str] = []
    vet: list[str] = []
    options: dict[str, Option] = {}
    phases: list[Phase]
    attempts: list[Attempt] = []
    claims: list[Claim] = []
    gates: list[Gate] = []


class LabFolder(msgspec.Struct, frozen=True, kw_only=True):
    """A lab and where it lies.

    :param program: a program that is no lab, where one is traced (:func:`traced_program`); ``path`` is then its folder.
    """

    path: Path
    lab: Lab
    program: Path | None = None

    @property
    def analysis(self) -> Path | None:
        """The lab's own ``analysis.py``, if it has one."""
        path = self.path / "analysis.py"
        return path if self.program is None and path.is_file() else None


def load(path: Path) -> LabFolder:
    """Read the lab in folder ``path``, whatever the folder is called (see :func:`find`).

    :raises ConfigError: ``lab.toml`` is missing, is not TOML or does not fit; the message has the field's path. Or an
        attempt cannot be meant, or a criterion or gate names one that is not there.
    """
    file = path / "lab.toml"
    if not file.is_file():
        hint = "a lab is a folder with lab.toml beside its Go source; `invoke labs.new NAME` makes one"
        raise ConfigError(f"{path} has no lab.toml", hint)
    try:
        data = msgspec.toml.decode(file.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}", FIELDS_HINT) from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}", "check its permissions") from error
    strange = next(fields.unknown(data, Lab), None)
    if strange is not None:
        raise ConfigError(f"{file}: {strange.where} has no field {strange.key!r}", strange.hint)
    try:
        lab = msgspec.convert(data, Lab)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file}: {error}", FIELDS_HINT) from error
    problem = next(_problems(lab), "")
    if problem:
        raise ConfigError(f"{file}: {problem}", FIELDS_HINT)
    try:
        _check_attempts(lab)
        _check_phases(lab)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error.message}", error.hint) from error
    return LabFolder(path=path, lab=lab)


def _problems(lab: Lab) -> Iterator[str]:
    """Give what types alone cannot say."""
    if not NAME.fullmatch(lab.name):
        yield f"name {lab.name!r} is no plain name: a lower-case letter, then letters, digits or _, 31 at most"
    if lab.name in RESERVED:
        yield f"name {lab.name!r} is taken by a part of every run"
    if not lab.phases:
        yield "it has no phases"
    yield from (f"phase {name} is there twice" for name in _twice(phase.name for phase in lab.phases))
    yield from (f"claim {claim} is there twice" for claim in _twice(claim.id for claim in lab.claims))
    for phase in lab.phases:
        if not phase.sections:
            yield f"phase {phase.name} has no sections"
        yield from (f"phase {phase.name} sets {name!r}, no option" for name in phase.options if name not in lab.options)


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _check_attempts(lab: Lab) -> None:
    ids: set[str] = set()
    for attempt in lab.attempts:
        attempts.check_id(attempt.id)
        attempts.parse(attempt.what)
        if attempt.id in ids:
            raise ConfigError(f"attempt {attempt.id} is there twice", "give each its own id")
        ids.add(attempt.id)
    named = [criterion.metric for claim in lab.claims for criterion in claim.criteria]
    for metric in (*named, *(gate.metric for gate in lab.gates)):
        name = metric.removeprefix(attempts.METRIC)
        if name != metric and name not in ids:
            raise ConfigError(f"{metric} is named, and there is no attempt {name}", "add it to [[attempts]]")


def _check_phases(lab: Lab) -> None:
    for phase in lab.phases:
        for name in phase.follows:
            if name not in lab.options or lab.options[name].kind != "seconds":
                raise ConfigError(
                    f"phase {phase.name} follows {name}, which is no option in seconds", "name one of [options]"
                )


def names() -> list[str]:
    """Names of the labs in this repository, sorted."""
    return sorted(p.parent.name for p in LABS.glob("*/lab.toml"))


def find(name: str) -> LabFolder:
    """Return the lab ``name``: one of this repository, or a folder (a name with a slash).

    :raises UsageError: no such lab; near names are suggested.
    :raises ConfigError: see :func:`load`; also where the folder is not called like the lab, or the lab like another.
    """
    if "/" in name or name.startswith("."):
        folder = Path(name).expanduser().resolve()
        if not folder.is_dir():
            raise UsageError(f"there is no lab folder {name}", "give the folder that holds lab.toml")
        return _named(load(folder))
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"labs here: {', '.join(names())}"
        if Path(name, "lab.toml").is_file():
            hint = f"a folder of your own is named with a slash: ./{name}"
        raise UsageError(f"there is no lab {name!r}", hint)
    return _named(load(LABS / name))


def _named(found: LabFolder) -> LabFolder:
    """Refuse a name that would stand for two things: records are found by it."""
    name, folder = found.lab.name, found.path
    if folder.name != name:
        hint = f"call both the same: name = {folder.name!r}, or rename the folder"
        raise ConfigError(f"{folder / 'lab.toml'} names the lab {name!r}, its folder is {folder.name!r}", hint)
    if name in names() and folder != LABS / name:
        hint = "give folder and lab another name: records of both could not be told apart"
        raise ConfigError(f"{folder / 'lab.toml'}: {name!r} is a lab of the repository", hint)
    return found


def traced_program(binary: Path, probes: Sequence[str], timeout: float) -> LabFolder:
    """Return what stands in for a lab where ``binary``, which is none, is traced with the probe sets ``probes``.

    It makes no claims. It runs twice, each time for ``timeout`` seconds at most: once alone, once under probes.
    """
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in binary.name)[:64]
    lab = Lab(
        schema=1,
        name=name,
        title=f"Traced program {name}",
        section="",
        question="What did the Go runtime do while this program ran?",
        primary="probe.hits",
        oracle="This program states no counts of its own, so that the trace is held against nothing.",
        seconds=2 * timeout,
        phases=[
            Phase(name="timed", sections=[], timeout=timeout, protocol="none"),
            Phase(name="traced", sections=[], probes=list(probes), timeout=timeout, protocol="none"),
        ],
    )
    return LabFolder(path=binary.parent, lab=lab, program=binary)
