"""Columns of arrow tables as plain values for :mod:`src.data.cells`: parquet files, saved data sets, the hub's rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from src.errors import UserError


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def paths_of(audio: pa.ChunkedArray) -> list[str | None]:
    """The paths in a column of audio, by row; none at all where its type has no place for them."""
    if pa.types.is_struct(audio.type) and audio.type.get_field_index("path") >= 0:
        audio = pc.struct_field(audio, "path")
    return audio.to_pylist() if is_text(audio.type) else []


def require_flat(kind: pa.DataType, where: str) -> None:
    """Raises a :class:`UserError` where a column holds lists or structs, before any of them is read."""
    if pa.types.is_nested(kind):
        problem = f"{where}: it holds {str(kind)[:80]}, which is no text"
        raise UserError("dataset", problem, "Say which column it is with dataset.columns.text=NAME (id likewise)")


def plain(column: pa.ChunkedArray, labels: Sequence[str] | None) -> list[Any]:
    """The values of a column: names in place of a class's number, and strings as UTF-8.

    Bytes are not decoded here, so that an error can name the row in which they are no text.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if is_text(column.type):
        column = column.cast(pa.large_binary())
    values: list[Any] = column.to_pylist()
    if labels is None:
        return values
    return [_label(value, labels) for value in values]


def _label(value: Any, labels: Sequence[str]) -> Any:
    """The name of a class; -1 stands for none, as in ``datasets``."""
    if value is None or value == -1:
        return None
    return labels[value] if 0 <= value < len(labels) else value


def class_labels(metadata: Mapping[bytes, bytes] | None, column: str) -> Sequence[str] | None:
    """The names of a column's classes, where ``datasets`` wrote the table and the column is a ``ClassLabel``."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        return [str(name) for name in feature["names"]] if feature["_type"] == "ClassLabel" else None
    except (LookupError, ValueError, TypeError):
        return None
