"""What goes out of a comparison: a module for each format, and nothing that is computed here.

A format is a module of this package with a ``FORMAT``; no list names it. Files are written to a temporary name and
renamed, so that one that is there is whole. Modules import what they write with only when they write.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Collection, Mapping
from pathlib import Path

from reports.comparison import Comparison
from reports.expectations import Surprise
from reports.exports._source import Format, Source, translated
from vm.errors import UsageError

__all__ = ["FORMATS", "Format", "Source", "chosen", "write_all"]


def _find() -> dict[str, Format]:
    found: list[Format] = [
        importlib.import_module(f"{__name__}.{module.name}").FORMAT
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_")
    ]
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}


FORMATS: Mapping[str, Format] = _find()
"""Every format by name: the modules of this package."""


def chosen(names: Collection[str]) -> list[Format]:
    """Return the formats called so, all where none is named.

    :raises UsageError: there is no such format; near ones are suggested.
    """
    for name in names:
        if name not in FORMATS:
            near = difflib.get_close_matches(name, FORMATS, n=3, cutoff=0.5)
            raise UsageError(f"no format {name!r}", f"there are {', '.join(near or FORMATS)}")
    return [FORMATS[name] for name in dict.fromkeys(names or FORMATS)]


def write_all(
    comparison: Comparison,
    folder: Path,
    out: Path,
    formats: Collection[str] = (),
    surprises: Collection[Surprise] | None = None,
) -> list[Path]:
    """Write ``comparison`` below ``out`` in every format, or in those named, and return the files.

    :param folder: of the matrix; of a set of records, the folder that paths of records are relative to.
    :param surprises: what :func:`reports.expectations.check` found, so that JUnit says the same as its exit status;
        None where nothing was expected.
    :raises UsageError: there is no such format.
    :raises RecordError: a file cannot be written, or the matrix cannot be read.
    :raises DiskFullError: no space is left.
    """
    wanted = chosen(formats)
    source = Source.of(comparison, folder, surprises)
    with translated(out):
        out.mkdir(parents=True, exist_ok=True)
    return [path for each in wanted for path in each.write(source, out)]
