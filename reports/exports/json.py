"""``compare.json``: the comparison itself, from which everything else is made."""

from __future__ import annotations

from pathlib import Path

from reports.exports._source import Format, Source, write

NAME = "compare.json"


def _write(source: Source, out: Path) -> list[Path]:
    from reports import compare

    return [write(out / NAME, compare.encode(source.comparison))]


FORMAT = Format("json", "the comparison with all that the page shows, for programs", _write)
