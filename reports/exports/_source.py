"""What every format is made from, and how a file comes to be."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from go_labs.matrix import PLAN, Entry, MatrixPlan, read_journal, read_plan
from reports import record
from reports.comparison import Compared, Comparison, LabComparison, Value
from reports.expectations import Surprise
from vm.errors import DiskFullError, RecordError


@dataclass(frozen=True, slots=True)
class Source:
    """A comparison, and the matrix that it is of.

    :param folder: that paths of records are relative to.
    :param plan: None for a set of records that is no matrix; ``journal`` is empty then.
    :param surprises: None where no expectations were given.
    """

    comparison: Comparison
    folder: Path
    plan: MatrixPlan | None = None
    journal: tuple[Entry, ...] = ()
    surprises: tuple[Surprise, ...] | None = None

    @classmethod
    def of(cls, comparison: Comparison, folder: Path, surprises: Collection[Surprise] | None = None) -> Source:
        """Read plan and journal below ``folder``, where it is a matrix.

        :raises RecordError: they are broken.
        """
        told = None if surprises is None else tuple(surprises)
        if not (folder / PLAN).exists():
            return cls(comparison, folder, surprises=told)
        return cls(comparison, folder, read_plan(folder), tuple(read_journal(folder)), told)


@dataclass(frozen=True, slots=True)
class Format:
    """A format.

    :param name: as a person asks for it. :param holds: what is in it and who reads it, in a clause.
    :param write: writes it below a folder that exists and returns the files.
    """

    name: str
    holds: str
    write: Callable[[Source, Path], list[Path]]


def metrics(lab: LabComparison) -> list[Compared]:
    """Return all metrics of ``lab``, the primary one first."""
    return [*([lab.primary] if lab.primary else []), *lab.exploratory]


def columns(source: Source, compared: Compared) -> Iterator[tuple[str, bool, list[Value]]]:
    """Give the values of a metric by kernel line: the baseline first, the control (True) next, then the others."""
    comparison = source.comparison
    yield comparison.baseline, False, compared.values.get(comparison.baseline, [])
    # The kernel that ran twice is the baseline of the plan, and a comparison may have chosen another one afterwards.
    again = next((effect.kernel for effect in compared.effects if effect.control), comparison.baseline)
    yield again, True, compared.control
    for kernel in comparison.kernels:
        if kernel.line != comparison.baseline:
            yield kernel.line, False, compared.values.get(kernel.line, [])


def plain(part: str) -> str:
    """Return ``part`` as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._]", "_", part)[:64].lstrip(".") or "_"


@contextlib.contextmanager
def translated(target: Path) -> Iterator[None]:
    """Tell an :class:`OSError` as what a person can act upon."""
    try:
        yield
    except OSError as error:
        if record.is_full(error):
            raise DiskFullError(f"no space left for {target}", "free some space, then export again") from error
        raise RecordError(
            f"{target} cannot be written: {error.strerror or error}", "name another folder to export to"
        ) from error


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary name beside ``target``, and rename what was written there.

    :raises RecordError: it cannot be written. :raises DiskFullError: no space is left.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with translated(target):
            yield temporary
            temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write(target: Path, data: bytes) -> Path:
    """Write ``data`` as ``target`` and return it; errors as :func:`replacing`."""
    with replacing(target) as temporary:
        temporary.write_bytes(data)
    return target
