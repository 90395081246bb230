"""``compare.json``: the comparison itself, from which everything else is made."""

from __future__ import annotations

from pathlib import Path

import msgspec

from reports.comparison import COMPARISON_SCHEMA, Comparison
from reports.exports._source import Format, Source, write
from vm.errors import RecordError

NAME = "compare.json"


class _Version(msgspec.Struct):
    schema: int


def encode(comparison: Comparison) -> bytes:
    """Return ``comparison`` as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(comparison), indent=1) + b"\n"


def read(path: Path) -> Comparison:
    """Read a ``compare.json``.

    :raises RecordError: it is missing, broken or of another schema.
    """
    try:
        data = path.read_bytes()
        version = msgspec.json.decode(data, type=_Version).schema
        if version != COMPARISON_SCHEMA:
            raise RecordError(
                f"{path} has schema {version}; this program reads {COMPARISON_SCHEMA}", "compare the records again"
            )
        return msgspec.json.decode(data, type=Comparison)
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}", "`invoke compare` makes one") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} is no comparison: {error}", "compare the records again") from error


def _write(source: Source, out: Path) -> list[Path]:
    return [write(out / NAME, encode(source.comparison))]


FORMAT = Format("json", "the comparison with all that the page shows, for programs", _write)
