"""Fields of a document that its struct does not have, told with what was probably meant. Pure.

msgspec names the field, too, but neither what it stands near nor what the struct has instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec.inspect


@dataclass(frozen=True, slots=True)
class Unknown:
    """A field that is not known.

    :param where: path of the table it stands in, ``claims[0].criteria[1]``; "the file" at the top.
    :param known: fields that the table may have.
    """

    where: str
    key: str
    known: tuple[str, ...]

    @property
    def hint(self) -> str:
        """What was probably meant, else all that could be."""
        near = difflib.get_close_matches(self.key, self.known, n=3, cutoff=0.5)
        return f"did you mean {', '.join(near)}?" if near else f"it may have: {', '.join(self.known)}"


def unknown(data: object, struct: type[msgspec.Struct]) -> Iterator[Unknown]:
    """Give each field of ``data`` that ``struct``, or a struct within it, does not have, in the document's order.

    What has another type than its field is passed over: converting it tells that better.
    """
    yield from _unknown(data, msgspec.inspect.type_info(struct), "")


def _unknown(data: object, kind: msgspec.inspect.Type, where: str) -> Iterator[Unknown]:
    if isinstance(kind, msgspec.inspect.StructType) and isinstance(data, dict):
        known: dict[str, Any] = {field.encode_name: field.type for field in kind.fields}
        for key, value in data.items():
            if key not in known:
                yield Unknown(where or "the file", key, tuple(known))
            else:
                yield from _unknown(value, known[key], f"{where}.{key}" if where else key)
    elif isinstance(kind, msgspec.inspect.ListType) and isinstance(data, list):
        for index, value in enumerate(data):
            yield from _unknown(value, kind.item_type, f"{where}[{index}]")
    elif isinstance(kind, msgspec.inspect.DictType) and isinstance(data, dict):
        for key, value in data.items():
            yield from _unknown(value, kind.value_type, f"{where}.{key}")
