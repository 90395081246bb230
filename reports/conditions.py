"""Whether a run counts: what a matrix asks of every run, beside the gates of its lab.

A run that does not count is listed with the reason, wherever runs are compared. It is never dropped in silence.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from go_labs.matrix import Allowed, Judged
from reports.metrics import SPLAT
from reports.record import RUN
from reports.schema import Clock
from reports.text import neutral
from vm.errors import ConfigError, RecordError

KNOWN = Path(__file__).with_name("known_complaints.toml")
"""Complaints that kernels make in every run."""

MOST_WAITING = 0.1
"""Share of their time that a machine's CPUs may wait for one of the host's in the phase that is compared
(``host.wait_share``). Emulated on an idle host with two CPUs it is 3 to 7%, because QEMU's own main loop runs beside
them; one busy neighbour on each CPU makes it a half."""

MOST_STOLEN = 0.05
"""Share of the guest's CPU time that the hypervisor may have taken (``guest.stolen_share``)."""

CLOCK_SOURCES: Mapping[Clock, frozenset[str]] = {
    "kvm": frozenset({"kvm-clock", "tsc"}),
    "emulated": frozenset({"tsc"}),
    "virtual": frozenset({"tsc"}),
}
"""Clock sources that read the time without leaving user space. Any other makes each reading a system call, or a trip to
an emulated device (HPET), whose cost then is what is compared."""


class _Metric(msgspec.Struct, frozen=True):
    name: str
    value: float | None = None


class _Gate(msgspec.Struct, frozen=True):
    name: str
    reason: str
    passed: bool | None = None


class _Provenance(msgspec.Struct, frozen=True):
    kernel_line: str
    clock: Clock
    clocksource: str


class _Artefact(msgspec.Struct, frozen=True):
    path: str
    role: str


class _Brief(msgspec.Struct, frozen=True):
    provenance: _Provenance
    metrics: list[_Metric]
    gates: list[_Gate]
    artefacts: list[_Artefact]


@dataclass(frozen=True, slots=True)
class Failed:
    """A condition that did not hold."""

    name: str
    words: str


def judge(record: Path, allowed: Sequence[Allowed] = ()) -> Judged:
    """Say whether the run in folder ``record`` counts.

    :param allowed: complaints of kernels that are known (:func:`known`).
    :raises RecordError: it cannot be read.
    """
    try:
        brief = msgspec.json.decode((record / RUN).read_bytes(), type=_Brief)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{record} is no run record: {error}", "run the lab again") from error
    failed = list(conditions(brief))
    return Judged(
        splats=splats(_kernel_log(record, brief), brief.provenance.kernel_line, allowed),
        gates=[each.name for each in failed],
        words="; ".join(each.words for each in failed),
    )


def conditions(brief: _Brief) -> Iterable[Failed]:
    """Give the gates of the lab, and the conditions of every run, that failed. What is not known fails nothing."""
    for gate in brief.gates:
        if not gate.passed:
            yield Failed(gate.name, f"{gate.name}: {gate.reason}")
    values = {metric.name: metric.value for metric in brief.metrics}
    clock, source = brief.provenance.clock, brief.provenance.clocksource
    if source and source not in CLOCK_SOURCES[clock]:
        yield Failed("clock source", f"the guest's clock source was {neutral(source)}")
    # With counted instructions the host may be as busy as it likes: no figure moves.
    waited = values.get("host.wait_share")
    if clock != "virtual" and waited is not None and waited > MOST_WAITING:
        yield Failed("host pressure", f"the machine waited {waited:.0%} of its time for a CPU of the host")
    stolen = values.get("guest.stolen_share")
    if clock != "virtual" and stolen is not None and stolen > MOST_STOLEN:
        yield Failed("stolen time", f"{stolen:.0%} of the guest's CPU time was stolen")
    lost = values.get("losses.counts")
    if lost:
        yield Failed("lost counts", f"{lost:.0f} counts were lost while tracing")


def splats(log: Sequence[str], line: str, allowed: Sequence[Allowed]) -> list[str]:
    """Return what a kernel of ``line`` complained of and ``allowed`` does not know, twenty lines at most."""
    patterns = [re.compile(each.pattern) for each in allowed if not each.kernels or line in each.kernels]
    found = [words for words in log if SPLAT.search(words) and not any(p.search(words) for p in patterns)]
    return [neutral(words, 300) for words in found[:20]]


def _kernel_log(record: Path, brief: _Brief) -> list[str]:
    names = [artefact.path for artefact in brief.artefacts if artefact.role == "kernel_log"]
    try:
        return [line for name in names for line in (record / name).read_text("utf-8", "replace").splitlines()]
    except OSError as error:
        raise RecordError(f"{record} has lost its {error.filename}: {error.strerror}", "run the lab again") from error


class _AllowList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    allow: list[Allowed]


def known(more: Path | None = None) -> list[Allowed]:
    """Return the known complaints, and those of the file ``more``: TOML with ``[[allow]]``, each with ``pattern``
    (a regular expression), ``why``, and ``kernels`` where it is not for all of them.

    :raises ConfigError: a file cannot be read, does not fit, or a pattern is none.
    """
    return [entry for path in (KNOWN, more) if path is not None for entry in _read_allowed(path)]


def _read_allowed(path: Path) -> list[Allowed]:
    hint = 'write [[allow]] with pattern = "…", why = "…" and, where it is not for all, kernels = ["5.10"]'
    try:
        found = msgspec.convert(tomllib.loads(path.read_text("utf-8")), _AllowList)
        for each in found.allow:
            re.compile(each.pattern)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint) from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError, re.error) as error:
        raise ConfigError(f"{path} is no allow list: {error}", hint) from error
    return found.allow
