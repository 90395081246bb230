"""Earlier matrices and single runs, for who looks at several of them at once: history and outlook.

What may be compared over time has the same clock and ran on the same host. A host is known by the hash of what it says
of itself, so that its facts need not be shown to be told apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from go_labs import matrix
from go_labs.matrix import MatrixPlan, Opened
from reports import compare, record, samples
from reports.comparison import Comparison
from reports.ledger import Broken
from reports.samples import Sample
from reports.text import neutral
from vm.errors import RecordError, UsageError


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix that was compared.

    :param host: of :func:`host_name`; of a matrix that ran on several, of all of them together.
    """

    folder: Path
    plan: MatrixPlan
    comparison: Comparison
    host: str


@dataclass(frozen=True, slots=True)
class Found:
    """What lies below some paths.

    :param runs: records that belong to no matrix.
    """

    matrices: list[Matrix]
    runs: list[Sample]
    broken: list[Broken]


def host_name(*hosts: Mapping[str, str]) -> str:
    """Return a short hash of what hosts say of themselves (``Provenance.host``), the same in any order."""
    facts = sorted({tuple(sorted(host.items())) for host in hosts})
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:8]


def find(paths: Iterable[Path]) -> Found:
    """Read what lies at ``paths``: a matrix, a record, or a folder of these.

    What cannot be read is left out and named. Of a matrix's own folder of records nothing is told twice.

    :raises UsageError: a path is no folder.
    """
    found = Found([], [], [])
    seen: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path} is no folder", "name matrices, or folders of matrices or runs")
        for folder in _folders(path):
            if folder.resolve() not in seen:
                seen.add(folder.resolve())
                _add(found, folder)
    return found


def _folders(path: Path) -> Iterator[Path]:
    if _is_matrix(path) or (path / record.RUN).is_file():
        yield path
        return
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            yield folder


def _is_matrix(path: Path) -> bool:
    return (path / matrix.PLAN).is_file() and not (path / record.RUN).is_file()  # A record has a plan of its probes.


def _add(found: Found, folder: Path) -> None:
    try:
        if _is_matrix(folder):
            found.matrices.append(read(folder))
        else:
            sample = samples.read(folder)
            if sample.brief.provenance.place is None:
                found.runs.append(sample)
    except RecordError as error:
        found.broken.append(Broken(name=neutral(folder.name), why=neutral(error.message)))


def read(folder: Path) -> Matrix:
    """Read and compare the matrix in ``folder``.

    :raises RecordError: it is none, or broken.
    """
    plan = matrix.read_plan(folder)
    hosts = [entry.host for entry in matrix.read_journal(folder) if isinstance(entry, Opened)]
    return Matrix(folder, plan, compare.compare(folder), host_name(*hosts))
